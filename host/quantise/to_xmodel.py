"""Conversion of a student to a graph for the DPU, either quantised or compiled for the emulation.

    graph = to_quantised(student, "densenet")  # the input of vai_c_xir
    graph = to_graph(student, "densenet")      # the same, compiled for the emulator
    load_engine(graph).run(images)             # equals student.eval()(images) exactly

Weights of fewer bits are int8 weights that use fewer values. Activations of fewer bits are not
supported by the DPU, which saturates at int8 only. `to_graph` refuses such a student, unless `clip`
is True: then it adds ops that clip, 1x1 depthwise convolutions with weight 1, whose bias shifts the
limit to where int8 saturates, and back,

    min(q, h) = clip(q + (127 - h)) - (127 - h)
    max(q, l) = clip(q - (128 + l)) + (128 + l)

with three of them after each signed value, and two after each non-negative one. The result is
exact, but costs time: fewer bits for activations have no advantage on a DPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tutelage.core.errors import TutelageError
from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, RELU6_FIX_POINT
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student


class NotDeployable(TutelageError):
    """The DPU cannot compute this student unchanged; the message gives the reason and a remedy."""


def to_quantised(student: Student, name: str, clip: bool = False) -> Graph:
    """Return the student in evaluation mode as a quantised graph, like those of AMD's exporter.

    Parameters
    ----------
    student : calibrated or trained, in any mode
    name : of the graph
    clip : whether to add ops that clip, where the DPU's activations would be wider

    Raises
    ------
    NotDeployable : without `clip`, if activations have fewer than 8 bits, or a ReLU6 has a fix
        point at which the DPU does not clip at 6
    """
    if not clip:
        _check(student)
    lowering = _Lowering(student, name)
    for layer in student.layers:
        lowering.add(layer)
    for name in dict.fromkeys(student.outputs):
        lowering.model.output(lowering.ops[name])
    return lowering.model.finish()


def to_graph(student: Student, name: str, clip: bool = False) -> Graph:
    """Return the student as a graph compiled for the emulator, from `to_quantised`.

    Raises
    ------
    NotDeployable : see to_quantised
    """
    return compile_graph(to_quantised(student, name, clip))


def save(student: Student, path: str | os.PathLike[str], clip: bool = False) -> None:
    """Write the graph of `to_graph`, with the name of the file, as an .xmodel.

    Raises
    ------
    NotDeployable : see to_quantised
    """
    to_graph(student, Path(path).stem, clip).serialize(path)


def _highest(layer: Layer, quantiser: Quantiser, point: int) -> int:
    """Return the largest integer that the student allows after a layer, at most that of int8."""
    return min(quantiser.highest, nonlinear.highest(layer.nonlinear, point))


def _check(student: Student) -> None:
    narrow = [q for q in dict.fromkeys(student.activation_of.values()) if q.bits < 8]
    if narrow:
        widths = sorted({q.bits for q in narrow})
        raise NotDeployable(
            f"{len(narrow)} groups of activations (the first: {narrow[0].name}) have "
            f"{' and '.join(map(str, widths))} bits, but the DPU clips at int8 only; train with "
            "activations=8, first=8 and last=8 (weights may have fewer bits), or use clip=True "
            "(--clip), which adds two or three 1x1 depthwise convolutions to each group"
        )
    points = student.fix_points().activations
    for name, quantiser in student.activation_of.items():
        if _highest(student.layer(name), quantiser, points[name]) < INT8_MAX:
            raise NotDeployable(
                f"{name} has a ReLU6 at fix point {points[name]}, but the DPU clips at 6 for fix "
                f"point {RELU6_FIX_POINT} only; use ReLU there, or clip=True (--clip), which adds "
                "two 1x1 depthwise convolutions"
            )


class _Lowering:
    """The model under construction and the op of each layer."""

    def __init__(self, student: Student, name: str) -> None:
        self.student = student
        self.points = student.fix_points().activations
        self.deployed = student.integers()
        self.model = QuantisedModel(name)
        self.ops: dict[str, Op] = {}

    def add(self, name: str) -> None:
        layer = self.student.layer(name)
        inputs = [self.ops[source] for source in layer.inputs]
        op = layer.to_xmodel(self.model, inputs, self.points[name], self.deployed.get(name))
        if not layer.ties_fix_points:
            op = self._clipped(name, op, self.student.activation_of[name])
        self.ops[name] = op

    def _clipped(self, name: str, op: Op, quantiser: Quantiser) -> Op:
        """Return `op`, clipped to the quantiser's range, and to 6 after a ReLU6."""
        layer = self.student.layer(name)
        highest = _highest(layer, quantiser, self.points[name])
        if highest == INT8_MAX:
            return op
        up, down = INT8_MAX - highest, quantiser.lowest - INT8_MIN
        # Non-negative values need no lower clip, so the moves up and back are enough.
        signed = quantiser.signed and layer.nonlinear not in nonlinear.NON_NEGATIVE
        moves = [up, -up - down, down] if signed else [up, -up]
        for number, move in enumerate(moves, start=1):
            op = self._moved(f"{name}/clip{number}", op, move)
        return op

    def _moved(self, name: str, op: Op, move: int) -> Op:
        """Return the op that computes clip(q + move) of the integers q of `op`."""
        _, _, _, channels = op.get_output_tensor().dims
        point = int(op.get_attr("fix_point"))
        # A bias below -128 is stored as its half, with a fix point lower by one.
        coarser = int(move < INT8_MIN)
        assert move % (1 + coarser) == 0
        ones = np.ones((1, 1, 1, channels), np.int8)
        bias = np.full(channels, move >> coarser, np.int8)
        return self.model.depthwise_conv2d(name, op, ones, 0, bias, point - coarser, point)
