"""The form of a lowered graph that multiplies int8: selection of its ops, and checks before use.

OpenVINO has kernels that sum int8 products in int32 and round the sum as float32 does. In the form
described in dpu/ops/lowering.py they compute the same as the float32 graph, several times as fast.
This depends on how the library transforms the graph, so it is verified:

- `sums_are_whole` tests once whether products of any int8 are summed without loss. Processors
  without VNNI add pairs of products in 16 bits, which saturate; on them, only layers are used whose
  pairs cannot saturate: the input is never negative (at most 127), or no weight exceeds 64.
- `differing` runs every layer separately on random and extreme inputs and compares it with the
  reference. A layer that differs stays in float32.
- The whole graph is compared with the float32 graph before its results are used
  (`tutelage.dpu.engine.upgrade`).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, Array
from tutelage.dpu.engine import onnx_file
from tutelage.dpu.engine.onnx_lowering import Lowering
from tutelage.dpu.engine.program import Program
from tutelage.dpu.engine.runtimes import OpenVinoRuntime, Runtime
from tutelage.dpu.ops.int8 import clip_limits, nonlinear
from tutelage.dpu.ops.lowering import Grid, Int8Form, parameter
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.op import Op

_PAIR_LIMIT = 64
"""Largest weight whose pairs of products with 0 to 255 (shifted signed bytes) fit 16 bits."""

_LAYERS_AT_ONCE = 25
"""Layers compiled together for their check: the fastest of 1, 5, 10, 25 and 103 (measured)."""


def plan(program: Program, steps: list[Op]) -> Int8Form:
    """Return the parts of a stage that may be computed with 8-bit integers, before the checks.

    Transposed convolutions are left out: OpenVINO 2026.4 computes some of them wrongly in int8
    (measured).
    """
    taken = [op for op in steps if _is_int8(program, op)]
    unsigned = set() if sums_are_whole() else _unsigned(program, taken)
    products = set()
    for op in taken:
        weights = parameter(program.constants, op)
        if weights is None or type_of(op).spreads:
            continue
        small = int(np.abs(weights.astype(np.int64)).max(initial=0)) <= _PAIR_LIMIT
        fits = small or all(source.get_name() in unsigned for source in sources(program, op))
        if fits or sums_are_whole():
            products.add(op.get_name())
    return Int8Form(frozenset(products), frozenset(map(_name, taken)), frozenset(unsigned))


def _is_int8(program: Program, op: Op) -> bool:
    return all(o.get_output_tensor().is_int8 for o in [op, *sources(program, op)])


def _unsigned(program: Program, steps: list[Op]) -> set[str]:
    """Return the ops that are never negative and that no concat joins with signed ones.

    OpenVINO 2026.4 gives wrong values for some concats of signed and unsigned integers (measured).
    """
    signed: set[str] = set()
    while True:
        found: set[str] = set()
        for op in steps:
            read = sources(program, op)
            stays = _passes(op) or type_of(op).family == "pool"
            positive = stays and all(_name(source) in found for source in read)
            if _name(op) not in signed and (positive or clip_limits(nonlinear(op))[0] == 0):
                found.add(_name(op))
        mixed = [op for op in steps if type_of(op).joins and _name(op) not in found]
        clash = _origins(program, mixed) & found
        if not clash:
            return found
        signed |= clash


def _origins(program: Program, ops: list[Op]) -> set[str]:
    """Return the ops whose integers some ops pass on."""
    waiting, seen = list(ops), set(map(_name, ops))
    found: list[Op] = []
    while waiting:
        for source in sources(program, waiting.pop()):
            if _name(source) not in seen:
                seen.add(_name(source))
                (waiting if _passes(source) else found).append(source)
    return set(map(_name, found))


def _passes(op: Op) -> bool:
    """Return whether an op only passes on integers of its input."""
    kind = type_of(op)
    maximum = kind.family == "pool" and op.get_attr("type") == "MAX"
    return kind.moves or kind.same_order or kind.transparent or maximum


def _name(op: Op) -> str:
    return str(op.get_name())


def checked_form(
    program: Program,
    grids: dict[str, Grid],
    stage: tuple[list[Op], list[Op], list[Op]],
    threads: int,
) -> tuple[Runtime, list[Array]] | None:
    """Return the int8 form of a stage, and inputs for comparing it with the float32 form.

    Parameters
    ----------
    stage : its steps, the ops that it reads and the ops that it writes

    Returns
    -------
    runtime and int8 or float32 inputs; None if no op has an 8-bit form that equals the reference
    """
    steps, reads, writes = stage
    form = plan(program, steps)
    wrong = differing(program, grids, form, steps, threads)
    form = Int8Form(form.products - wrong, form.results - wrong, form.unsigned - wrong)
    if not form.products:
        return None
    model = Lowering(program, grids, steps, reads, writes, form).model()
    rng = np.random.default_rng(1)
    return OpenVinoRuntime(model, threads), [trial(program, op, form, rng) for op in reads]


def sources(program: Program, op: Op) -> list[Op]:
    """Return the non-constant inputs of an op, each once."""
    found = {s.get_name(): s for ops in op.get_input_ops().values() for s in ops}
    return [source for name, source in found.items() if name not in program.constants]


def differing(
    program: Program, grids: dict[str, Grid], form: Int8Form, steps: list[Op], threads: int
) -> set[str]:
    """Return the ops of a form whose results differ from the reference, each run separately.

    Ops that only move values are left to the comparison of the whole graph.

    Parameters
    ----------
    steps : steps of the stage
    """
    layers = [op for op in steps if op.get_name() in form.results and not _passes(op)]
    rng, wrong = np.random.default_rng(0), set()
    for start in range(0, len(layers), _LAYERS_AT_ONCE):
        part = layers[start : start + _LAYERS_AT_ONCE]
        reads = list({_name(s): s for op in part for s in sources(program, op)}.values())
        model = Lowering(program, grids, part, reads, part, form, apart=True).model()
        arrays = [trial(program, op, form, rng) for op in reads]
        found = OpenVinoRuntime(model, threads).run(arrays)
        values = {**program.constants, **dict(zip(map(_name, reads), arrays, strict=True))}
        for op, array in zip(part, found, strict=True):
            if not np.array_equal(array, program.run_step(op, values)):
                wrong.add(_name(op))
    return wrong


def trial(program: Program, source: Op, form: Int8Form, rng: np.random.Generator) -> Array:
    """Return four int8 values of an op: random, extremes, all 127, and a reader's largest sum."""
    low = 0 if source.get_name() in form.unsigned else INT8_MIN
    dims = source.get_output_tensor().dims[1:]
    values = rng.integers(low, INT8_MAX + 1, (4, *dims), np.int8)
    values[1] = np.where(rng.random(dims) < 0.5, INT8_MAX, low)
    values[2] = INT8_MAX
    values[3] = low
    for reader in source.get_fanout_ops():
        weights = parameter(program.constants, reader)
        if weights is not None and weights.ndim == 4 and weights.shape[3] == dims[-1]:
            kernel = weights[rng.integers(len(weights))]
            repeats = [-(-n // k) for n, k in zip(dims, kernel.shape, strict=True)]
            signs = np.tile(kernel, repeats)[tuple(slice(n) for n in dims)] >= 0
            values[3] = np.where(signs, INT8_MAX, low)
    return values


@cache
def sums_are_whole() -> bool:
    """Return whether OpenVINO sums products of any int8 without loss on this machine.

    Tested with extreme weights and values, whose pairs of products exceed 16 bits, in convolutions
    that return their sums unchanged.
    """
    rng = np.random.default_rng(0)
    return all(_sums_are_whole(*shape, rng) for shape in ((64, 16, 1), (32, 16, 3)))


def _sums_are_whole(inputs: int, outputs: int, size: int, rng: np.random.Generator) -> bool:
    ends = np.array([INT8_MIN, INT8_MAX], np.int8)
    weights = rng.choice(ends, (outputs, inputs, size, size))
    weights[:2] = ends.reshape(2, 1, 1, 1)
    values = rng.choice(ends, (1, inputs, size, size * 4))
    values[..., : 2 * size] = np.repeat(ends, size)
    constants: dict[str, Array] = {
        "one": np.ones((), np.float32), "zero": np.zeros((), np.int8), "w": weights,
    }  # fmt: skip
    unit = ["one", "zero"]
    nodes = [
        onnx_file.node("Cast", ["x"], "f", to=onnx_file.ELEMENT_TYPES[np.float32]),
        onnx_file.node("QuantizeLinear", ["f", *unit], "q"),
        onnx_file.node("DequantizeLinear", ["q", *unit], "d"),
        onnx_file.node("DequantizeLinear", ["w", *unit], "k"),
        onnx_file.node("Conv", ["d", "k"], "y", strides=[size, size]),
    ]
    model = onnx_file.model(
        nodes, [onnx_file.tensor(array, name) for name, array in constants.items()],
        [onnx_file.value("x", np.int8, values.shape[1:])],
        [onnx_file.value("y", np.float32, (outputs, 1, 4))],
    )  # fmt: skip
    (found,) = OpenVinoRuntime(model, 1).run([values])
    windows = values.reshape(inputs, size, 4, size).astype(np.int64)
    wanted = np.einsum("oihw,ihnw->on", weights.astype(np.int64), windows)
    return np.array_equal(found[0, :, 0], wanted)
