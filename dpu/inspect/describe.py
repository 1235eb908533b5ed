"""Contents of an .xmodel as plain data, for `tutelage inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.core.errors import UNSORTED, DpuError, contradictions
from tutelage.core.fingerprint import OWN, dpu_name, fingerprint_of, foreign
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.inspect.layers import Layer, fix_point_of, layers_of
from tutelage.dpu.ops.int8 import fix_point, input_fix_point
from tutelage.dpu.ops.registry import is_int8, reference, type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.dpu.xmodel.tensor import Tensor

CYCLES = ("work_on_array", "array_cycles", "memory_cycles", "cycles", "array_share")
"""Keys of cycles in the facts of a layer; None if unknown."""


def describe_graph(path: Path, graph: Graph) -> dict[str, Any]:
    """Return all facts that `inspect` shows of a graph read from `path`, for JSON.

    Sizes are bytes; workloads are the compiler's own figures, in operations
    (a multiplication and an addition are two). MACs are per image. Cycles are added by
    `tutelage.dpu.predict.cycles.add_cycles`. `notes` has further remarks about the file.
    """
    notes = _notes(graph)
    order = graph.toposort()
    root = graph.get_root_subgraph()
    children = root.toposort_child_subgraph()
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "name": graph.get_name(),
        "notes": notes,
        "kind": "compiled" if children else "quantised",
        "inputs": [_tensor(op.get_output_tensor()) for op in order if _source(op) == "input"],
        "outputs": [_tensor(op.get_output_tensor()) for op in graph_outputs(graph)],
        "parameters": sum(_elements(op) for op in order if _source(op) == "constant"),
        "subgraphs": [_subgraph(child) for child in children],
        "left_to_cpu": {} if children else _left_to_cpu(graph),
        "layers": _layers(graph, notes),
        "ops": [_op(op) for op in order],
        "not_built_in": sorted(
            {op.get_type() for op in order if not _source(op) and reference(op.get_type()) is None}
        ),
    }


def _left_to_cpu(graph: Graph) -> dict[str, str]:
    """Return the ops that the compiler leaves to the CPU, with the reasons."""
    from tutelage.dpu.compiler.emulation import on_cpu  # only for quantised files

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
        notes.append(f"compiled for {other}: it cannot be run and has no cycles, since only models "
                     f"for the {OWN} are supported")  # fmt: skip
    return notes


def _layers(graph: Graph, notes: list[str]) -> list[dict[str, Any]]:
    """Return the layers; none, with a note, if those of another DPU's file cannot be determined."""
    if foreign(graph) is None:
        return [_layer(layer) for layer in layers_of(graph)]
    try:
        with contradictions("the layers are not shown"):
            return [_layer(layer) for layer in layers_of(graph)]
    except DpuError as error:
        notes.append(str(error))
        return []


def _layer(layer: Layer) -> dict[str, Any]:
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
        **dict.fromkeys(CYCLES),
    }


def _source(op: Op) -> str:
    return type_of(op).source


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
    """Return the right shift from an int8 convolution's accumulator to its output, or None."""
    if not is_int8(op.get_type()) or "weights" not in op.get_input_ops():
        return None
    try:
        return input_fix_point(op) + input_fix_point(op, "weights") - fix_point(op)
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
