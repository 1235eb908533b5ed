"""Checks of a compiled .xmodel against the quantised one and the target DPU, before deployment."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import dpu_name, dpu_parts, fingerprint_of
from tutelage.core.fixed_point import (
    Array,
    integers_of,
    saturate,
)
from tutelage.core.text import counted
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.inspect.layers import Layer, dense_matrix, is_dense, is_shifted_bias, layers_of
from tutelage.dpu.inspect.samples import declared_point, input_point, random_inputs
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.host.compile.target import CompileError, Target

IMAGES = 8  # random images to run both files on
_SHOWN = 5  # most ops in one message

# Ops that store or convert values, which cost nothing outside the DPU.
_GLUE = {
    "data", "data-fix", "const", "const-fix", "fix", "fix2float", "float2fix", "upload", "download",
}  # fmt: skip


def check_compiled(
    graph: Graph, quantised: Graph, target: Target, several: bool = False
) -> list[str]:
    """Check a compiled graph; return a line for the reader about each check.

    The graph must have one DPU subgraph, be for the target's DPU, have the quantised graph's fix
    points at its inputs and outputs, the same parameters byte for byte, and compute the same
    outputs for random int8 images on the emulation. If it has DPU code, the code must compute the
    same outputs for one of these images.

    Parameters
    ----------
    several : whether it may have several DPU subgraphs, with ops on the CPU between them

    Raises
    ------
    CompileError
        A check fails; the text says what to do.
    """
    try:
        with contradictions("the compiled file"):
            part = _the_dpu_part(graph, quantised, several)
            facts = [_parts(graph), _made_for(part, target)]
        compiled, original = load_engine(graph), load_engine(quantised)
        with contradictions("the compiled file"):
            return [
                *facts,
                _same_fix_points(graph, quantised),
                _same_parameters(compiled, original),
                _same_outputs(compiled, original),
                *([_same_by_code(graph, compiled)] if _has_code(graph) else []),
            ]
    except DpuError as error:
        raise CompileError(f"the result cannot be checked: {error}") from error


def check_source(graph: Graph, quantised: Path) -> str | None:
    """Check the compiler's record of its input; return a line, or None if there is no record.

    AMD's compiler 2.5 writes the MD5 of the file that it read into `files_md5sum` (seen in
    PointPillars).

    Raises
    ------
    CompileError
        The graph was compiled from another file.
    """
    sums = graph.get_attr("files_md5sum") if graph.has_attr("files_md5sum") else {}
    if not isinstance(sums, dict) or not sums:
        return None
    if hashlib.md5(quantised.read_bytes(), usedforsecurity=False).hexdigest() not in sums.values():
        raise CompileError(
            f"the result was compiled from another file than {quantised}; compile it again"
        )
    return "the MD5 of the input that the compiler recorded is that of this file"


# -- the DPU ----------------------------------------------------------------------------------


def _attr(holder: Any, name: str) -> Any:
    return holder.get_attr(name) if holder.has_attr(name) else None


def _the_dpu_part(graph: Graph, quantised: Graph, several: bool) -> Subgraph:
    """Return the only DPU subgraph, or the first of several if these are allowed."""
    parts, fallen = dpu_parts(graph), ops_on_cpu(graph)
    if len(parts) == 1 or (parts and several):
        return parts[0]
    start = f"the result has {len(parts)} DPU subgraphs instead of one"
    if not fallen:
        raise CompileError(f"{start}, without an op between them: compile each part separately")
    shown = "; ".join(_why_on_the_cpu(fallen, quantised)[:_SHOWN])
    more = f"; and {len(fallen) - _SHOWN} more" if len(fallen) > _SHOWN else ""
    raise CompileError(f"{start}; on the CPU: {shown}{more}: replace these in the network")


def _why_on_the_cpu(fallen: list[Op], quantised: Graph) -> list[str]:
    """Return each op with the reason, from the emulator's rules of the DPU if they have one."""
    from tutelage.dpu.compiler.emulation import on_cpu

    try:
        reasons = on_cpu(quantised)
    except DpuError:
        reasons = {}
    usual = "an op, kernel, stride, pad or number of channels beyond the DPU's limits (UG1414)"
    return [
        f"{op.get_name()} ({op.get_type()}): {reasons.get(op.get_name(), usual)}" for op in fallen
    ]


def ops_on_cpu(graph: Graph) -> list[Op]:
    """Return the ops of a compiled graph that run on the CPU, except those that convert values."""
    on_dpu = {op for part in dpu_parts(graph) for op in part.get_ops()}
    return [op for op in graph.toposort() if op not in on_dpu and op.get_type() not in _GLUE]


def _parts(graph: Graph) -> str:
    others = ", ".join(f"{op.get_name()} ({op.get_type()})" for op in ops_on_cpu(graph))
    count = len(dpu_parts(graph))
    parts = "one DPU subgraph" if count == 1 else f"{count} DPU subgraphs"
    return parts + (f"; on the CPU: {others}" if others else "")


def _made_for(part: Subgraph, target: Target) -> str:
    name, number = str(_attr(part, "dpu_name") or "a DPU without name"), fingerprint_of(part)
    if number is not None:
        name = dpu_name(number)  # the name in the file may be wrong
    if target.is_emulator:
        if name != target.dpu_name:
            raise CompileError(f"the result is for {name}, not for the emulator")
        return f"for {name}"
    if number is not None and number in target.fingerprints:
        return f"for {name}, {number:#x}: {target.name}, {target.fingerprints[number]}"
    made = f"{name} with the fingerprint {number:#x}" if number is not None else name
    wanted = " or ".join(f"{key:#x} ({text})" for key, text in target.fingerprints.items())
    raise CompileError(
        f"the result is for {made}, not for the {target.name}, whose DPU has {wanted}: "
        f"give the {target.name}'s arch.json with --arch FILE"
    )


# -- the numbers ------------------------------------------------------------------------------


def _same_fix_points(graph: Graph, quantised: Graph) -> str:
    texts = []
    for what, points in (("input", _input_points), ("output", _output_points)):
        found, wanted = points(graph), points(quantised)
        if found != wanted:
            raise CompileError(
                f"the {what} fix points are {found}, those of the quantised file {wanted}: the "
                "result was made from another file; quantise and compile again"
            )
        texts.append(f"{what} {', '.join(map(str, found))}")
    return f"fix points as quantised: {'; '.join(texts)}"


def _input_points(graph: Graph) -> list[int | None]:
    """Return the fix point of each input: its own, or that of the op that quantises it."""
    heads = [op for op in graph.toposort() if op.get_type() in ("data", "data-fix")]
    return [input_point(op) for op in heads]


def _output_points(graph: Graph) -> list[int | None]:
    """Return the fix point of each output, or of the last value before it that has one."""
    points = []
    for op in graph_outputs(graph):
        while declared_point(op) is None and op.get_input_ops().get("input"):
            op = op.get_input_op("input")
        points.append(declared_point(op))
    return points


def _same_parameters(compiled: Model, original: Model) -> str:
    """Compare int8 parameters and their fix points, independently of their names.

    A dense layer may become a convolution; its matrix is compared column by column, in the order
    of the map that it reads. A bias that is much finer than the accumulator may be shifted.
    """
    found = Counter((p.point, p.values.tobytes()) for p in _parameters(compiled))
    missing, count, size, shifted = [], 0, 0, 0
    for parameter in _parameters(original):
        exact = (parameter.point, parameter.values.tobytes())
        forms = (key for key in found if found[key] and _is_shifted(parameter, *key))
        same = exact if found[exact] else next(forms, None)
        if same is None:
            missing.append(parameter.name)
        else:
            found[same] -= 1
            shifted += same != exact
        count, size = count + 1, size + parameter.values.size
    if missing:
        raise CompileError(
            f"{len(missing)} of {count} parameters differ from the quantised file's, the first "
            f"{missing[0]}: do not use the result; quantise and compile again"
        )
    text = f"{counted(count, 'parameter')} ({size:,} bytes) equal byte for byte"
    return f"{text}, except {shifted} biases shifted for the accumulator" if shifted else text


@dataclass(frozen=True)
class _Parameter:
    """An int8 constant; weights of dense layers have the form of `dense_matrix`."""

    name: str
    point: int
    values: Array
    layer: Layer | None  # whose bias it is


def _is_shifted(parameter: _Parameter, point: int, data: bytes) -> bool:
    if parameter.layer is None or point != parameter.point:
        return False
    return is_shifted_bias(parameter.layer, parameter.values, np.frombuffer(data, np.int8))


def _parameters(model: Model) -> list[_Parameter]:
    """Return the weights and biases."""
    layers = layers_of(model.graph)
    dense = {layer.weights: layer for layer in layers if is_dense(layer)}
    biased = {layer.bias: layer for layer in layers if layer.bias is not None}
    found = []
    for op in model.graph.toposort():
        values, point = model.program.constants.get(op.get_name()), declared_point(op)
        if values is None or point is None:
            continue
        if values.dtype != np.int8:  # a `fix` in a quantised file has real numbers on int8's grid
            values = saturate(integers_of(values, point))
        if op in dense:
            values = dense_matrix(dense[op], values)
        found.append(_Parameter(op.get_name(), point, values, biased.get(op)))
    return found


def _same_outputs(compiled: Model, original: Model) -> str:
    inputs = random_inputs(original.program, IMAGES)
    found, wanted = (list(m.run_all(*inputs).values()) for m in (compiled, original))
    for one, other in zip(found, wanted, strict=True):
        wrong = np.any(one.reshape(IMAGES, -1) != other.reshape(IMAGES, -1), axis=1)
        if wrong.any():
            raise CompileError(
                f"on the emulation the result's outputs differ from the quantised file's for "
                f"{wrong.sum()} of {IMAGES} random images: do not use it, and report the two files"
            )
    return f"the same outputs on the emulation for {IMAGES} random images"


def _has_code(graph: Graph) -> bool:
    return all(_attr(part, "mc_code") for part in dpu_parts(graph))


def _same_by_code(graph: Graph, compiled: Model) -> str:
    """Execute the DPU code for the first of the random images."""
    by_code = load_engine(graph, engine="instructions")
    inputs = random_inputs(compiled.program, 1)
    found, wanted = (list(m.run_all(*inputs).values()) for m in (by_code, compiled))
    if any(not np.array_equal(one, other) for one, other in zip(found, wanted, strict=True)):
        raise CompileError(
            "the result's instructions compute other outputs than its ops, so it is not written: "
            "please report this with the quantised file"
        )
    return "the same outputs from the DPU's instructions, executed for one of them"
