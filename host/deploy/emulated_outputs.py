"""Fixed inputs of a compiled model, and the emulation's outputs for them."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.expected_outputs import MAX_EXPECTED_BYTES, RESULT, ExpectedOutputs
from tutelage.core.files import sha256_of
from tutelage.core.fingerprint import EMULATOR_DPU_NAME, dpu_parts
from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, Array, dequantise
from tutelage.core.model_package import compiled_file
from tutelage.core.text import counted
from tutelage.dpu.engine.program import build_program, graph_outputs
from tutelage.dpu.engine.reference import as_float, compute_batches, make_engine
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.host.compile.vai_compiler import version_in

INPUTS = 8  # fewer if their arrays would be larger than MAX_EXPECTED_BYTES
_SEED = 0
_CONTRASTS = 4  # inputs of high contrast saturate values that those of low contrast do not
_CONVERSIONS = ("fix2float", "float2fix")  # their results are equal on every processor


class EmulatedOutputs:
    """The emulation's outputs of one model, computed once for all boards.

    Parameters
    ----------
    model : model directory or .xmodel
    has_plugin : whether the model has CPU ops of the user's, which are not emulated here
    """

    def __init__(self, model: Path, has_plugin: bool) -> None:
        self._path, self._has_plugin = compiled_file(model), has_plugin
        self._lock = threading.Lock()
        self._found: ExpectedOutputs | None = None

    def get(self) -> ExpectedOutputs:
        """Return inputs and outputs; the first call computes them.

        Raises
        ------
        DpuError
            The emulation cannot run the model.
        OSError
            The file cannot be read.
        """
        with self._lock:
            if self._found is None:
                self._found = emulated_outputs(self._path, self._has_plugin)
            return self._found


def emulated_outputs(path: Path, has_plugin: bool = False) -> ExpectedOutputs:
    """Run a compiled .xmodel on the emulation with fixed inputs.

    Outputs that depend on floating-point results of the CPU are left out, since their last bits
    depend on the processor, and so are outputs that depend on a plugin.

    Parameters
    ----------
    path : of the .xmodel
    has_plugin : whether the model has CPU ops of the user's

    Raises
    ------
    DpuError
        The emulation cannot run the model, or none of its outputs can be compared.
    OSError
        The file cannot be read.
    """
    graph = Graph.deserialize(path)
    with contradictions(str(path)):
        source, outputs, left_out = _compared(graph, has_plugin)
        program = build_program(graph, outputs=list(outputs.values()))
        names, inputs = fixed_inputs(
            source.get_output_tensor().dims, _count(source, outputs), _SEED
        )
        values = inputs if _is_int8(source) else dequantise(inputs, _fix_point(source))
        keep = {op.get_name() for op in outputs.values()}
        found = compute_batches(make_engine(program), {source.get_name(): values}, keep)
        arrays = {
            name: as_float(found[op.get_name()], op.get_output_tensor())
            if name == RESULT
            else found[op.get_name()]
            for name, op in outputs.items()
        }
    return ExpectedOutputs(
        sha256_of(path), _compiler(graph), names, inputs, arrays, tuple(left_out)
    )


def fixed_inputs(dims: list[int], count: int, seed: int) -> tuple[tuple[str, ...], Array]:
    """Return names and int8 values (count, ...) of inputs: random, a ramp, zeros, more random ones.

    Parameters
    ----------
    dims : shape of the model's input, batch first
    count : number of inputs
    seed : of the random values
    """
    rng = np.random.default_rng(seed)
    names, values = [], np.zeros((count, *dims[1:]), np.int8)
    ramp = np.arange(math.prod(dims[1:])) % (INT8_MAX - INT8_MIN + 1) + INT8_MIN
    for index in range(count):
        if index == 1:
            names.append("ramp")
            values[index] = ramp.reshape(dims[1:])
        elif index == 2:
            names.append("zeros")
        else:
            shift = max(0, index - 2) % _CONTRASTS
            names.append(f"random, contrast 1/{1 << shift}")
            numbers = rng.integers(INT8_MIN, INT8_MAX + 1, dims[1:], dtype=np.int8)
            values[index] = numbers >> shift
    return tuple(names), values


def _compared(graph: Graph, has_plugin: bool) -> tuple[Op, dict[str, Op], list[str]]:
    """Return the input, the ops of the compared outputs by name, and the outputs left out."""
    parts = dpu_parts(graph)
    inputs = [op for op in graph.toposort() if type_of(op).source == "input"]
    results = graph_outputs(graph)
    if not parts or len(inputs) != 1 or len(results) != 1:
        found = (len(inputs), "input"), (len(parts), "DPU subgraph"), (len(results), "output")
        ins, dpu, outs = (counted(count, noun) for count, noun in found)
        raise DpuError(f"the model has {ins}, {dpu} and {outs}")
    tensors = [tensor for part in parts for tensor in part.ordered_output_tensors()]
    candidates = {tensor.name: tensor.producer for tensor in tensors}
    candidates[RESULT] = results[0]
    reasons = _inexact(graph, has_plugin)
    outputs = {n: op for n, op in candidates.items() if op.get_name() not in reasons}
    left_out = [
        f"{name}: {reasons[op.get_name()]}"
        for name, op in candidates.items()
        if op.get_name() in reasons
    ]
    if not outputs:
        raise DpuError(f"no output can be compared: {left_out[0]}")
    return inputs[0], outputs, left_out


def _inexact(graph: Graph, has_plugin: bool) -> dict[str, str]:
    """Return the ops whose results may differ between processors, each with the reason."""
    on_dpu = {op.get_name() for part in dpu_parts(graph) for op in part.get_ops()}
    reasons: dict[str, str] = {}
    for op in graph.toposort():
        name, kind = op.get_name(), op.get_type()
        sources = [s.get_name() for ops in op.get_input_ops().values() for s in ops]
        behind = next((reasons[source] for source in sources if source in reasons), None)
        moves = type_of(op).source or type_of(op).moves or kind in _CONVERSIONS
        exact = name in on_dpu or moves
        exact = exact or (not has_plugin and _is_int8(op))
        if behind is not None:
            reasons[name] = behind
        elif not exact:
            reasons[name] = f"{kind} runs on the CPU"
    return reasons


def _count(source: Op, outputs: dict[str, Op]) -> int:
    """Return the number of inputs, limited by the size of the arrays."""
    tensors = [op.get_output_tensor() for op in (source, *outputs.values())]
    if any(tensor.dims[:1] != [1] for tensor in tensors):
        raise DpuError("the model's batch size is not 1")
    sizes = [math.prod(tensor.dims) for tensor in tensors]
    most = MAX_EXPECTED_BYTES // (sum(sizes) + 3 * sizes[-1])  # the result is float32
    if most < 1:
        raise DpuError(f"the model's arrays have more than {MAX_EXPECTED_BYTES >> 20} MiB")
    return min(INPUTS, most)


def _is_int8(op: Op) -> bool:
    return bool(op.get_output_tensor().is_int8)


def _fix_point(source: Op) -> int:
    """Return the fix point at which a float input becomes int8."""
    readers: list[Any] = list(source.get_fanout_ops())
    if [reader.get_type() for reader in readers] != ["float2fix"]:
        raise DpuError("the model's float input does not go to float2fix only")
    return int(readers[0].get_attr("fix_point"))


def _compiler(graph: Graph) -> str:
    if any(_dpu_name(part) == EMULATOR_DPU_NAME for part in dpu_parts(graph)):
        return "tutelage, for the emulator"
    return version_in(graph)


def _dpu_name(part: Any) -> str:
    return str(part.get_attr("dpu_name")) if part.has_attr("dpu_name") else ""
