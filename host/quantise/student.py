"""The quantised student: a graph of DPU layers with power-of-two fake quantisers.

    student = Student(network, input_shape=(1, 28, 28), bits=Bits(weights=4, activations=4))
    calibrate(student, images)                 # host/quantise/calibrate.py
    logits = student(images)                   # train it like any module
    student.eval()                             # now it computes what the DPU will

Every activation belongs to a group with one fix point: a concat ties its inputs
and its output together, pools that only pick values and reshapes tie input and
output. All thresholds, of weights and of groups, are one vector `log2_t`.

While `norm_frozen` is False a training pass normalises with batch statistics
around the convolution with folded, quantised weights; frozen, and always in
evaluation, the norms are folded and the biases quantised as they are deployed.
Fake quantised numbers are integers times powers of two, so float32 computes the
integer result exactly as long as no sum passes 2^24; in evaluation, layers that
could pass it are computed in float64. So evaluation gives the very logits that
the DPU gives (host/quantise/to_xmodel.py says for which bit widths it is a DPU).

Bits below 8 narrow the range within the DPU's int8; values behind a ReLU use
[0, 2^b - 1] then. At 8 bits the range is int8's own, [0, 127] behind a ReLU.
The DPU itself saturates at int8 only: narrower weights cost nothing there,
narrower activations need ops that clip (again host/quantise/to_xmodel.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tutelage.core.fixed_point import (
    EXACT_FLOAT32,
    GUARD_BITS,
    INT8_BOUND,
    MAX_ALIGNMENT,
    MAX_SHIFT,
    RELU6_FIX_POINT,
    accumulator_bound,
    integer_range,
    sum_is_exact,
)
from tutelage.host.quantise.fake import FakeQuantise, quantise
from tutelage.host.quantise.layers import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Input,
    Layer,
    MaxPool,
    Reshape,
    apply_nonlinear,
)
from tutelage.host.quantise.trace import is_signed, trace

log = logging.getLogger(__name__)

BIAS_BITS = 8
BIAS_RANGE = integer_range(BIAS_BITS, signed=True)

FARTHEST_EXPONENT = 32
"""Thresholds count as 2^-32 to 2^32, so that float32 holds whatever training makes of them."""

Observer = Callable[[str, Tensor], None]
"""Called with the name of a quantiser and each tensor that would be rounded by it."""


@dataclass(frozen=True)
class Bits:
    """Bit widths, 2 to 8. `first` and `last` are the first and last layer's, weights and
    activations: the images, and what enters and leaves the last layer."""

    weights: int = 8
    activations: int = 8
    first: int = 8
    last: int = 8

    def __post_init__(self) -> None:
        for name, bits in vars(self).items():
            if not 2 <= bits <= 8:
                raise ValueError(f"bits.{name} is {bits}; the DPU's int8 holds 2 to 8 bits")


@dataclass(frozen=True)
class Quantiser:
    """One threshold: its place in `log2_t` and the integers it allows."""

    name: str
    index: int
    bits: int
    signed: bool
    members: tuple[str, ...]  # the layers whose outputs (or weights) it rounds

    @property
    def magnitude(self) -> int:
        """Bits of the largest value: highest = 2^magnitude - 1."""
        return self.bits - 1 if self.signed or self.bits == 8 else self.bits

    @property
    def highest(self) -> int:
        return 2**self.magnitude - 1

    @property
    def lowest(self) -> int:
        return -(2**self.magnitude) if self.signed else 0

    def quantise(self, x: Tensor, fix_point: int) -> Tensor:
        return quantise(x, fix_point, self.lowest, self.highest)


@dataclass
class FixPoints:
    """The legal fix points that the thresholds lead to."""

    activations: dict[str, int] = field(default_factory=dict)  # by layer
    weights: dict[str, int] = field(default_factory=dict)  # by convolution
    notes: tuple[str, ...] = ()  # what had to be moved, and why

    def bias(self, layer: str, source: str, largest: float) -> int:
        """A bias's fix point from its largest magnitude: shift to the accumulator 0..16."""
        accumulator = self.activations[source] + self.weights[layer]
        own = accumulator
        if largest > 0:
            own = BIAS_BITS - 1 - math.ceil(math.log2(largest))
        return max(accumulator - MAX_SHIFT, min(own, accumulator))


class Student(nn.Module):
    """A network of DPU layers with trained quantisers.

    Parameters
    ----------
    network : any nn.Module that trace() takes, trained in float
    input_shape : (C, H, W) of one image
    bits : bit widths
    input_fix_point : fix point of 8-bit images, never trained: 7 for (v - 128) / 128,
        `tutelage.core.images.input_form.best_fix_point` for other forms. Images of b bits cover the
        same range with input_fix_point - (8 - b). None: calibrate() takes it from its images; 7
        until then

    Raises
    ------
    UnsupportedOp : see trace()
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        bits: Bits | None = None,
        input_fix_point: int | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits or Bits()
        self.input_shape = input_shape
        self.input_is_given = input_fix_point is not None
        self.layers = nn.ModuleDict(trace(network, input_shape))
        self.output = list(self.layers)[-1]
        self.norm_frozen = False
        self.observer: Observer | None = None  # while it is set, nothing is rounded
        self._place_quantisers()
        self._last_use = _last_use({name: self.layer(name) for name in self.layers})
        # A threshold of 1 everywhere until calibrate().
        self.log2_t = nn.Parameter(torch.zeros(len(self.quantisers)))
        self.set_input_fix_point(7 if input_fix_point is None else input_fix_point)
        self._fix_points: tuple[tuple[int, ...], FixPoints] | None = None

    # -- structure -------------------------------------------------------------------

    def layer(self, name: str) -> Layer:
        layer = self.layers[name]
        assert isinstance(layer, Layer)
        return layer

    def convs(self) -> Iterator[tuple[str, Conv]]:
        for name, layer in self.layers.items():
            if isinstance(layer, Conv):
                yield name, layer

    @property
    def quantisers(self) -> list[Quantiser]:
        """All of them, in the order of `log2_t`: groups of activations, then weights."""
        return [*dict.fromkeys(self.activation_of.values()), *self.weight_of.values()]

    def _place_quantisers(self) -> None:
        layers = {name: self.layer(name) for name in self.layers}
        groups = _groups(layers)
        first = _first_convs(layers)
        last = _last_convs(layers)
        self.activation_of: dict[str, Quantiser] = {}
        self.weight_of: dict[str, Quantiser] = {}
        for index, members in enumerate(groups):
            signed = any(is_signed(layers, name) for name in members)
            quantiser = Quantiser(
                members[0], index, self._activation_bits(layers, members, last), signed, members
            )
            self.activation_of.update(dict.fromkeys(members, quantiser))
        for index, (name, _) in enumerate(self.convs(), start=len(groups)):
            bits = self.bits.weights
            bits = self.bits.first if name in first else bits
            bits = self.bits.last if name in last else bits
            self.weight_of[name] = Quantiser(f"{name}/weight", index, bits, True, (name,))

    @property
    def images(self) -> Quantiser:
        """The images' quantiser, whose fix point is given or measured and not trained."""
        return self.activation_of[next(iter(self.layers))]

    @torch.no_grad()
    def set_input_fix_point(self, fix_point: int) -> None:
        """Set the fix point of 8-bit images, and with it that of images of fewer bits."""
        lost = 8 - self.images.bits
        self.log2_t[self.images.index] = self.images.magnitude - (fix_point - lost)

    def _activation_bits(
        self, layers: dict[str, Layer], members: tuple[str, ...], last: set[str]
    ) -> int:
        readers = {
            reader
            for reader, layer in layers.items()
            if reader not in members and any(name in members for name in layer.inputs)
        }
        if any(isinstance(layers[name], Input) for name in members):
            return self.bits.first
        if last & set(members) or (readers and readers <= last):
            return self.bits.last
        return self.bits.activations

    # -- fix points -------------------------------------------------------------------

    def fix_points(self) -> FixPoints:
        """The thresholds' fix points, moved where the DPU's shifts demand it."""
        far = FARTHEST_EXPONENT
        ceilings = tuple(max(-far, min(math.ceil(t), far)) for t in self.log2_t.tolist())
        if self._fix_points is None or self._fix_points[0] != ceilings:
            points = self._legalise(ceilings)
            before = self._fix_points[1].notes if self._fix_points else ()
            for note in points.notes:
                if note not in before:
                    log.info("%s", note)
            self._fix_points = ceilings, points
        return self._fix_points[1]

    def _legalise(self, ceilings: tuple[int, ...]) -> FixPoints:
        """Lower fix points until every shift is legal.

        Lowering one can call for more of the same along a path, and never for raising. It ends
        when the weights' fix points along a cycle of groups (a dense block's convolutions lead
        back to its concat) do not add up to less than 0; where they do, they are raised to 0.
        """
        quantisers = self.quantisers
        wanted = [q.magnitude - ceilings[q.index] for q in quantisers]
        raised = {q.index: wanted[q.index] for q in self._clipping_relu6() if
                  wanted[q.index] < RELU6_FIX_POINT}  # fmt: skip
        for index in raised:
            wanted[index] = RELU6_FIX_POINT
        weights = {q.index for q in self.weight_of.values()}
        points = list(wanted)
        least = [min(point, 0) for point in wanted]
        why = self._settle(points, least)
        if why is None:
            points = [max(p, 0) if i in weights else p for i, p in enumerate(wanted)]
            why = {i: "weights above 1 in a cycle" for i in weights if points[i] != wanted[i]}
            why |= self._settle(points, [0] * len(points)) or {}
        why = dict.fromkeys(raised, "where the DPU clips a ReLU6") | why
        notes = tuple(
            f"{quantisers[i].name}: fix point {raised.get(i, wanted[i])} -> {points[i]} ({reason})"
            for i, reason in why.items()
        )
        return FixPoints(
            {name: points[q.index] for name, q in self.activation_of.items()},
            {name: points[q.index] for name, q in self.weight_of.items()},
            notes,
        )

    def _clipping_relu6(self) -> list[Quantiser]:
        """The 8-bit groups with a ReLU6, which never gives more than fix point 4 can hold.

        The DPU clips it at 96, whatever the fix point: below 4 that is not 6.
        """
        groups = dict.fromkeys(self.activation_of.values())
        return [
            q for q in groups
            if q.bits == 8 and any(self.layer(n).nonlinear == "RELU6" for n in q.members)
        ]  # fmt: skip

    def _settle(self, points: list[int], least: list[int]) -> dict[int, str] | None:
        """Lower `points` in place, a weight's not below `least`; the reasons by threshold.

        None if there is no end to it: with legal weights nothing falls below the lowest point.
        """
        bottom = min(0, *points) - MAX_SHIFT
        why: dict[int, str] = {}
        while (move := self._illegal(points, least)) is not None:
            index, points[index], why[index] = move
            if points[index] < bottom:
                return None
        return why

    def _illegal(self, points: list[int], least: list[int]) -> tuple[int, int, str] | None:
        """The first threshold that must move: (index, fix point, reason)."""
        for name in self.layers:
            layer = self.layer(name)
            out = self.activation_of[name].index
            ins = [self.activation_of[source].index for source in layer.inputs]
            move = None
            if isinstance(layer, Conv):
                move = _illegal_conv(points, least, ins[0], self.weight_of[name].index, out)
            elif isinstance(layer, AvgPool):
                move = _illegal_gain(points, ins[0], out, layer.shift)
            elif isinstance(layer, Add):
                move = _illegal_add(points, ins, out)
            if move is not None:
                return (*move[:2], f"{name} would {move[2]}")
        return None

    # -- forward ------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, classes] (of a map: [N, C, H, W])."""
        points = FixPoints() if self.observer is not None else self.fix_points()
        thresholds = list(self.log2_t.unbind())
        thresholds[self.images.index] = self.log2_t.new_zeros(())  # hence no gradient
        deployed = not self.training or self.norm_frozen
        folded = self._folded(points) if deployed else {}
        values: dict[str, Tensor] = {}
        for name in self.layers:
            layer = self.layer(name)
            args = [values[source] for source in layer.inputs]
            if isinstance(layer, Input):
                y = images
            elif not isinstance(layer, Conv):
                y = layer(*args)
            elif deployed:
                y = self._convolve_deployed(name, layer, args[0], points, thresholds, folded[name])
            else:
                y = self._convolve(name, layer, args[0], points, thresholds)
            values[name] = self._round(name, layer, y, points, thresholds)
            for source in self._last_use.get(name, ()):
                del values[source]
        return values[self.output]

    def _convolve(
        self,
        name: str,
        layer: Conv,
        x: Tensor,
        points: FixPoints,
        thresholds: list[Tensor],
    ) -> Tensor:
        """With the batch's statistics: weights are rounded as folded, then unfolded again."""
        scale = layer.norm_scale().view(-1, 1, 1, 1) if layer.norm is not None else None
        weight = layer.weight if scale is None else layer.weight * scale
        if self.observer is None:
            weight = _fake(weight, self.weight_of[name], thresholds, points.weights[name])
        if scale is None:
            return layer(x, weight, layer.bias)
        return layer.normalise(layer(x, weight / scale, layer.bias))

    def _convolve_deployed(
        self,
        name: str,
        layer: Conv,
        x: Tensor,
        points: FixPoints,
        thresholds: list[Tensor],
        folded: tuple[Tensor, Tensor],
    ) -> Tensor:
        """With running statistics in weight and bias; in evaluation exact."""
        weight, bias = folded
        if self.observer is not None:
            return layer(x, weight, bias)
        weight = _fake(weight, self.weight_of[name], thresholds, points.weights[name])
        if not self.training:
            source = layer.inputs[0]
            accumulator = points.activations[source] + points.weights[name]
            image = INT8_BOUND * 2.0 ** -points.activations[source]
            bound = accumulator_bound(weight.detach(), bias.detach(), image)
            if bound * 2.0**accumulator >= EXACT_FLOAT32:
                return layer(x.double(), weight.double(), bias.double())
        return layer(x, weight, bias)

    def _round(
        self,
        name: str,
        layer: Layer,
        y: Tensor,
        points: FixPoints,
        thresholds: list[Tensor],
    ) -> Tensor:
        if isinstance(layer, MaxPool | Concat | Reshape):
            return y
        quantiser = self.activation_of[name]
        if self.observer is not None:
            y = apply_nonlinear(layer.nonlinear, y).to(self.log2_t.dtype)
            self.observer(quantiser.name, y.detach())
            return y
        fused = layer.nonlinear == "RELU" and not quantiser.signed
        if not fused:
            if layer.nonlinear == "LEAKYRELU" and not self.training:
                y = y.double()  # times 26/256 takes 8 bits more than the sum
            y = apply_nonlinear(layer.nonlinear, y)
        point = points.activations[name]
        return _fake(y, quantiser, thresholds, point, relu=fused).float()

    def _folded(self, points: FixPoints) -> dict[str, tuple[Tensor, Tensor]]:
        """All weights and biases with norms folded; the biases rounded (not while observing)."""
        folded = {name: layer.folded() for name, layer in self.convs()}
        if self.observer is not None:
            return folded
        with torch.no_grad():
            # One transfer for all layers, not one per layer.
            largest = torch.stack([bias.abs().max() for _, bias in folded.values()]).tolist()
        untrained = self.log2_t.new_zeros(())
        for (name, (weight, bias)), peak in zip(folded.items(), largest, strict=True):
            point = points.bias(name, self.layer(name).inputs[0], peak)
            folded[name] = weight, FakeQuantise.apply(bias, untrained, point, *BIAS_RANGE, False)
        return folded

    # -- what is deployed ------------------------------------------------------------------

    @torch.no_grad()
    def integers(self) -> dict[str, Deployed]:
        """The int8 weights, biases and fix points of every convolution."""
        points = self.fix_points()
        deployed: dict[str, Deployed] = {}
        for name, layer in self.convs():
            weight, bias = layer.folded()
            point = points.weights[name]
            bias_point = points.bias(name, layer.inputs[0], float(bias.abs().max()))
            deployed[name] = Deployed(
                weights=_int8(self.weight_of[name].quantise(weight, point), point),
                weights_fix_point=point,
                bias=_int8(quantise(bias, bias_point, *BIAS_RANGE), bias_point),
                bias_fix_point=bias_point,
            )
        return deployed


@dataclass(frozen=True)
class Deployed:
    """One convolution's integers: weights int8 OIHW, bias int8 [O]."""

    weights: Tensor
    weights_fix_point: int
    bias: Tensor
    bias_fix_point: int


def _int8(values: Tensor, fix_point: int) -> Tensor:
    return (values * 2.0**fix_point).to(torch.int8)


def _fake(
    x: Tensor, q: Quantiser, thresholds: list[Tensor], point: int, relu: bool = False
) -> Tensor:
    y: Tensor = FakeQuantise.apply(x, thresholds[q.index], point, q.lowest, q.highest, relu)
    return y


Move = tuple[int, int, str]  # threshold, its new fix point, what would happen without


def _illegal_conv(
    points: list[int], least: list[int], source: int, weight: int, out: int
) -> Move | None:
    shift = points[source] + points[weight] - points[out]
    if shift < 0:
        return out, points[out] + shift, f"shift by {shift}"
    if shift <= MAX_SHIFT:
        return None
    lower = max(least[weight], points[weight] - (shift - MAX_SHIFT))
    if lower < points[weight]:
        return weight, lower, f"shift by {shift}"
    return source, points[source] - (shift - MAX_SHIFT), f"shift by {shift}"


def _illegal_gain(
    points: list[int], source: int, out: int, gain: int, most: int = MAX_SHIFT
) -> Move | None:
    """An output may be `gain` bits finer than its input, and `most` bits coarser."""
    shift = points[source] - points[out]
    if shift < -gain:
        return out, points[source] + gain, f"gain {-shift} bits"
    if shift > most:
        return source, points[out] + most, f"shift by {shift}"
    return None


def _illegal_add(points: list[int], sources: list[int], out: int) -> Move | None:
    """The DPU drops bits of inputs that are much finer than the coarsest one (`sum_is_exact`).

    Where that makes another sum than AMD's quantiser has, the bits are given up before it.
    """
    finest = max(sources, key=points.__getitem__)
    coarsest = min(points[source] for source in sources)
    if not sum_is_exact([points[source] for source in sources], points[out]):
        return finest, coarsest + GUARD_BITS, "lose bits of a sum's input"
    if points[finest] - coarsest > MAX_ALIGNMENT:
        shift = points[finest] - coarsest
        return finest, coarsest + MAX_ALIGNMENT, f"shift an input by {shift}"
    return _illegal_gain(points, finest, out, 0, MAX_ALIGNMENT)


def _last_use(layers: dict[str, Layer]) -> dict[str, list[str]]:
    """By layer: the values that nothing reads after it, so that they can go."""
    last = {source: name for name, layer in layers.items() for source in layer.inputs}
    freed: dict[str, list[str]] = {}
    for source, name in last.items():
        freed.setdefault(name, []).append(source)
    return freed


def _groups(layers: dict[str, Layer]) -> list[tuple[str, ...]]:
    """Layers whose outputs share a fix point, each group in the order of the layers."""
    root = {name: name for name in layers}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for name, layer in layers.items():
        if isinstance(layer, Concat | MaxPool | Reshape):
            for source in layer.inputs:
                root[find(name)] = find(source)
    groups: dict[str, list[str]] = {}
    for name in layers:
        groups.setdefault(find(name), []).append(name)
    return [tuple(members) for members in groups.values()]


def _first_convs(layers: dict[str, Layer]) -> set[str]:
    """Convolutions that read the images, directly or through pools."""
    raw = {name for name, layer in layers.items() if isinstance(layer, Input)}
    for name, layer in layers.items():
        if not isinstance(layer, Conv | Input) and set(layer.inputs) <= raw:
            raw.add(name)
    return {n for n, layer in layers.items() if isinstance(layer, Conv) and set(layer.inputs) & raw}


def _last_convs(layers: dict[str, Layer]) -> set[str]:
    """Convolutions whose result reaches the output without another one."""
    reached = {next(reversed(layers))}
    for name in reversed(layers):
        if name in reached and not isinstance(layers[name], Conv):
            reached |= set(layers[name].inputs)
    return {name for name in reached if isinstance(layers[name], Conv)}
