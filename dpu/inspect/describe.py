"""What an .xmodel holds, as plain data: `tutelage inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.core.errors import UNSORTED, DpuError, UnsupportedError, contradictions
from tutelage.core.fingerprint import (
    OWN,
    array_of,
    dpu_name,
    fingerprint_of,
    fingerprints_of,
    foreign,
)
from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.engine.program import CONSTANTS, INPUTS, graph_outputs
from tutelage.dpu.inspect.layers import Layer, fix_point_of, layers_of
from tutelage.dpu.ops import cpu_ops, fix_ops
from tutelage.dpu.predict.cycles import Bound, bounds
from tutelage.dpu.predict.operations import operations_of
from tutelage.dpu.xmodel.graph import Graph, Op, Subgraph, Tensor


def describe_graph(path: Path, graph: Graph) -> dict[str, Any]:
    """Everything that `inspect` shows of the graph that was read from `path`, ready for JSON.

    Sizes are bytes; workloads are the compiler's own figures, in operations
    (a multiplication and an addition are two). Cycles are those of one core
    and lower bounds (dpu/predict/cycles.py), MACs are per image. `notes` has what a reader should
    know of the file beside that.
    """
    notes = _notes(graph)
    order = graph.toposort()
    root = graph.get_root_subgraph()
    children = root.toposort_child_subgraph()
    kinds = {op.get_type() for op in order}
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "name": graph.get_name(),
        "notes": notes,
        "kind": "compiled" if children else "quantised",
        "inputs": [_tensor(op.get_output_tensor()) for op in order if op.get_type() in INPUTS],
        "outputs": [_tensor(op.get_output_tensor()) for op in graph_outputs(graph)],
        "parameters": sum(_elements(op) for op in order if op.get_type().startswith("const")),
        "subgraphs": [_subgraph(child) for child in children],
        "left_to_cpu": {} if children else _left_to_cpu(graph),
        "cycles_are": "lower bounds for one core by dpu/predict/cycles.py, not measured",
        "layers": _layers(graph, notes),
        "ops": [_op(op) for op in order],
        "not_built_in": sorted(kinds - {*INPUTS, *CONSTANTS} - set(fix_ops.OPS) - set(cpu_ops.OPS)),
    }


def _left_to_cpu(graph: Graph) -> dict[str, str]:
    """Ops that the compiler leaves to the CPU, with the reason (dpu/compiler/emulation.py)."""
    try:
        return on_cpu(graph)
    except DpuError as error:
        return {"cannot be compiled": str(error)}


def _notes(graph: Graph) -> list[str]:
    notes = []
    if not graph.is_sorted:
        notes.append(UNSORTED)
    other = foreign(graph)
    if other is not None:
        notes.append(f"compiled for {other}: no cycles, and it cannot be run, as only the {OWN} is "
                     "known here")  # fmt: skip
    return notes


def _layers(graph: Graph, notes: list[str]) -> list[dict[str, Any]]:
    """The layers; of another DPU's file none, with a note, where they cannot be made out.

    They have no cycles where the DPU or the size of its array is not known.
    """
    if foreign(graph) is None:
        layers = layers_of(graph)
        try:
            array = array_of(next(iter(fingerprints_of(graph)), None))
        except UnsupportedError as error:
            notes.append(f"{error}: no cycles")
            return _layer_facts(layers, [None] * len(layers))
        return _layer_facts(layers, bounds(operations_of(layers), array))
    try:
        with contradictions("the layers are not shown"):
            layers = layers_of(graph)
            return _layer_facts(layers, [None] * len(layers))
    except DpuError as error:
        notes.append(str(error))
        return []


def _layer_facts(layers: list[Layer], found_bounds: list[Bound | None]) -> list[dict[str, Any]]:
    found = [_layer(*pair) for pair in zip(layers, found_bounds, strict=True)]
    total = sum(facts["cycles"] or 0 for facts in found)
    for facts in found:
        cycles = facts["cycles"]
        facts["array_share"] = None if cycles is None else cycles / total if total else 0.0
    return found


def _layer(layer: Layer, bound: Bound | None) -> dict[str, Any]:
    weights, bias = layer.weights, layer.bias
    return {
        "name": layer.name,
        "type": layer.kind,
        "nonlinear": layer.nonlinear,
        "kernel": layer.kernel,
        "stride": layer.stride if layer.kernel else None,
        "device": layer.device,
        "dims": layer.dims,
        "inputs": [source.name for source in layer.sources],
        "fix_in": layer.input_fix_points,
        "fix_weights": None if weights is None else fix_point_of(weights),
        "fix_bias": None if bias is None else fix_point_of(bias),
        "fix_out": layer.fix_point,
        "shift": layer.shift,
        "bias_shift": layer.bias_shift,
        "macs": layer.macs,
        "parameters": layer.parameters,
        "work_on_array": bound and bound.work,
        "array_cycles": bound and bound.computing,
        "memory_cycles": bound and bound.loading,
        "cycles": bound and bound.cycles,
    }


def _elements(op: Op) -> int:
    return op.get_output_tensor().get_element_num()


def _value(holder: Any, name: str) -> Any:
    return holder.get_attr(name) if holder.has_attr(name) else None


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dims": tensor.dims,
        "dtype": tensor.dtype,
        "fix_point": _value(tensor, "fix_point"),
    }


def _op(op: Op) -> dict[str, Any]:
    tensor = op.get_output_tensor()
    return {
        "name": op.get_name(),
        "type": op.get_type(),
        "device": _value(op, "device"),
        "dims": tensor.dims,
        "dtype": tensor.dtype,
        "fix_point": _value(tensor, "fix_point"),
        "shift": _shift(op),
        "inputs": [s.get_name() for ops in op.get_input_ops().values() for s in ops],
        "workload": _value(op, "workload"),
        "workload_on_arch": _value(op, "workload_on_arch"),
    }


def _shift(op: Op) -> int | None:
    """The right shift from an int8 convolution's accumulator to its output."""
    if not op.get_type().endswith("-fix") or "weights" not in op.get_input_ops():
        return None
    try:
        acc = fix_ops.input_fix_point(op) + fix_ops.input_fix_point(op, "weights")
        return acc - fix_ops.fix_point(op)
    except DpuError:
        return None


def _subgraph(part: Subgraph) -> dict[str, Any]:
    fingerprint = fingerprint_of(part)
    sizes, contexts = _value(part, "reg_id_to_size"), _value(part, "reg_id_to_context_type_v2")
    memory = [
        {"register": name, "use": (contexts or {}).get(name), "bytes": size}
        for name, size in sorted((sizes or {}).items())
    ]
    return {
        "name": part.get_name(),
        "device": _value(part, "device"),
        "dpu_name": _value(part, "dpu_name"),
        "dpu": None if fingerprint is None else dpu_name(fingerprint),
        "fingerprint": None if fingerprint is None else f"{fingerprint:#x}",
        "ops": part.get_op_num(),
        "inputs": [_tensor(tensor) for tensor in part.ordered_input_tensors()],
        "outputs": [_tensor(tensor) for tensor in part.ordered_output_tensors()],
        "workload": _value(part, "workload"),
        "workload_on_arch": _value(part, "workload_on_arch"),
        "instruction_bytes": len(_value(part, "mc_code") or b""),
        "memory": memory,
    }
