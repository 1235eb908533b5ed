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
integer result exactly as long as no sum passes 2^24; layers that could pass it
are evaluated in float64.

Bits below 8 narrow the range within the DPU's int8; values behind a ReLU use
[0, 2^b - 1] then. At 8 bits the range is int8's own, [0, 127] behind a ReLU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from host.quantise.fake import FakeQuantise, quantise
from host.quantise.layers import (
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
from host.quantise.rules import EXACT_FLOAT32, MAX_SHIFT
from host.quantise.trace import is_signed, trace

log = logging.getLogger(__name__)

BIAS_BITS = 8


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
    input_fix_point : fix point of the images, never trained; 7 for (v - 128) / 128

    Raises
    ------
    UnsupportedOp : see trace()
    """

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        bits: Bits | None = None,
        input_fix_point: int = 7,
    ) -> None:
        super().__init__()
        self.bits = bits or Bits()
        self.input_shape = input_shape
        self.input_fix_point = input_fix_point
        self.layers = nn.ModuleDict(trace(network, input_shape))
        self.output = list(self.layers)[-1]
        self.norm_frozen = False
        self.observer: dict[str, list[Tensor]] | None = None  # calibration: no rounding, see there
        self._place_quantisers()
        self.log2_t = nn.Parameter(torch.zeros(len(self.quantisers)))
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
        ceilings = tuple(math.ceil(value) for value in self.log2_t.tolist())
        if self._fix_points is None or self._fix_points[0] != ceilings:
            points = self._legalise(ceilings)
            before = self._fix_points[1].notes if self._fix_points else ()
            for note in points.notes:
                if note not in before:
                    log.info("%s", note)
            self._fix_points = ceilings, points
        return self._fix_points[1]

    def _legalise(self, ceilings: tuple[int, ...]) -> FixPoints:
        """Lower fix points until every shift is legal; lowering one only ever calls for more
        of the same further down, so this ends."""
        wanted = [q.magnitude - ceilings[q.index] for q in self.quantisers]
        wanted[self.activation_of[next(iter(self.layers))].index] = self.input_fix_point
        points = list(wanted)
        why: dict[int, str] = {}
        while (move := self._illegal(points)) is not None:
            index, points[index], why[index] = move
        notes = tuple(
            f"{self.quantisers[i].name}: fix point {wanted[i]} -> {points[i]} ({reason})"
            for i, reason in why.items()
        )
        return FixPoints(
            {name: points[q.index] for name, q in self.activation_of.items()},
            {name: points[q.index] for name, q in self.weight_of.items()},
            notes,
        )

    def _illegal(self, points: list[int]) -> tuple[int, int, str] | None:
        """The first threshold that must move: (index, fix point, reason)."""
        for name, module in self.layers.items():
            layer = self.layer(name)
            out = self.activation_of[name].index
            ins = [points[self.activation_of[source].index] for source in layer.inputs]
            if isinstance(layer, Conv):
                weight = self.weight_of[name].index
                shift = ins[0] + points[weight] - points[out]
                if shift < 0:
                    return out, points[out] + shift, f"{name} would shift by {shift}"
                if shift > MAX_SHIFT:
                    lower = points[weight] - (shift - MAX_SHIFT)
                    return weight, lower, f"{name} would shift by {shift}"
            elif isinstance(layer, AvgPool) and points[out] > ins[0] + layer.shift:
                return out, ins[0] + layer.shift, f"{name} cannot gain that many bits"
            elif isinstance(module, Add) and points[out] > max(ins):
                return out, max(ins), f"{name} has inputs no finer"
        return None

    # -- forward ------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, classes] (of a map: [N, C, H, W])."""
        points = self.fix_points()
        thresholds = self.log2_t.unbind()
        deployed = not self.training or self.norm_frozen
        biases = self._deployed_biases(points) if deployed else {}
        last_use = self._last_use()
        values: dict[str, Tensor] = {}
        for position, name in enumerate(self.layers):
            layer = self.layer(name)
            args = [values[source] for source in layer.inputs]
            if isinstance(layer, Input):
                y = images
            elif isinstance(layer, Conv):
                y = self._convolve(name, layer, args[0], points, thresholds, biases)
            else:
                y = layer(*args)
            values[name] = self._round(name, layer, y, points, thresholds)
            for source in last_use.get(position, ()):
                del values[source]
        return values[self.output]

    def _convolve(
        self,
        name: str,
        layer: Conv,
        x: Tensor,
        points: FixPoints,
        thresholds: tuple[Tensor, ...],
        biases: dict[str, Tensor],
    ) -> Tensor:
        quantiser = self.weight_of[name]
        if name in biases:
            weight = layer.folded()[0]
            scale = None
        elif layer.norm is None:
            weight, scale = layer.weight, None
        else:
            with torch.no_grad():
                norm = layer.norm
                assert norm.running_var is not None
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                scale = torch.where(scale.abs() < 1e-8, torch.full_like(scale, 1e-8), scale)
            weight = layer.weight * scale.view(-1, 1, 1, 1)
        if self.observer is None:
            weight = _fake(weight, quantiser, thresholds, points.weights[name])
        if scale is not None:
            return layer.normalise(layer(x, weight, None), scale)
        bias = biases.get(name, layer.bias)
        if (
            not self.training
            and self.observer is None
            and self._bound(weight, bias) >= _limit(points, name, layer)
        ):
            assert bias is not None
            return layer(x.double(), weight.double(), bias.double())
        return layer(x, weight, bias)

    def _bound(self, weight: Tensor, bias: Tensor | None) -> float:
        """Largest sum any output of a convolution can reach with int8 inputs of fix point 0."""
        total = weight.abs().sum((1, 2, 3)) * 128
        return float(total.max()) if bias is None else float((total + bias.abs()).max())

    def _round(
        self,
        name: str,
        layer: Layer,
        y: Tensor,
        points: FixPoints,
        thresholds: tuple[Tensor, ...],
    ) -> Tensor:
        if isinstance(layer, MaxPool | Concat | Reshape):
            return y
        quantiser = self.activation_of[name]
        if self.observer is not None:
            y = apply_nonlinear(layer.nonlinear, y)
            self.observer.setdefault(quantiser.name, []).append(y.detach())
            return y
        fused = layer.nonlinear == "RELU" and not quantiser.signed
        if not fused:
            y = apply_nonlinear(layer.nonlinear, y)
        point = points.activations[name]
        return _fake(y, quantiser, thresholds, point, relu=fused).float()

    def _deployed_biases(self, points: FixPoints) -> dict[str, Tensor]:
        """All biases as deployed: folded, and rounded to 8 bits (not while observing)."""
        biases = {name: layer.folded()[1] for name, layer in self.convs()}
        if self.observer is not None:
            return biases
        with torch.no_grad():
            # One transfer for all layers, not one per layer.
            largest = torch.stack([bias.abs().max() for bias in biases.values()]).tolist()
        highest = 2 ** (BIAS_BITS - 1) - 1
        untrained = self.log2_t.new_zeros(())
        rounded: dict[str, Tensor] = {}
        for (name, bias), peak in zip(biases.items(), largest, strict=True):
            point = points.bias(name, self.layer(name).inputs[0], peak)
            rounded[name] = FakeQuantise.apply(bias, untrained, point, -highest - 1, highest, False)
        return rounded

    def _last_use(self) -> dict[int, list[str]]:
        """Layers whose value is not read after a position, so that it can go."""
        last: dict[str, int] = {}
        for position, name in enumerate(self.layers):
            for source in self.layer(name).inputs:
                last[source] = position
        freed: dict[int, list[str]] = {}
        for source, position in last.items():
            freed.setdefault(position, []).append(source)
        return freed

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
            highest = 2 ** (BIAS_BITS - 1) - 1
            deployed[name] = Deployed(
                weights=_int8(self.weight_of[name].quantise(weight, point), point),
                weights_fix_point=point,
                bias=_int8(quantise(bias, bias_point, -highest - 1, highest), bias_point),
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
    x: Tensor, q: Quantiser, thresholds: tuple[Tensor, ...], point: int, relu: bool = False
) -> Tensor:
    y: Tensor = FakeQuantise.apply(x, thresholds[q.index], point, q.lowest, q.highest, relu)
    return y


def _limit(points: FixPoints, name: str, layer: Conv) -> float:
    """The bound's limit in the units of `_bound`: 2^24 accumulator steps.

    Inputs of fix point p are at most 128 * 2^-p, so the bound on |x| <= 128 counts the
    weights 2^p too high and the bias as it is: only ever too careful for p >= 0."""
    return EXACT_FLOAT32 * 2.0 ** -(points.weights[name])


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
