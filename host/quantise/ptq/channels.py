"""The channels of a student that can be scaled, and those that must be scaled alike.

A channel scaled by s > 0 in the layer that computes it, and by 1 / s in the weights of the layers
that read it, leaves the network as it is, where everything between is positively homogeneous:
f(s x) = s f(x), as ReLU, leaky ReLU and pools are (Nagel et al. 2019, arXiv:1906.04721, section
4.1). A depthwise convolution reads one scale and gives another. The channels that an addition sums
share one scale; a concat only puts scales one behind the other.

A ReLU6 is not homogeneous. `host/quantise/ptq/equalise.py` says what becomes of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.layers.concat import Concat
from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.layers.eltwise import Add
from tutelage.host.quantise.layers.pad import ZeroPad
from tutelage.host.quantise.layers.pooling import Pool
from tutelage.host.quantise.layers.reshape import Reshape
from tutelage.host.quantise.layers.upsample import Upsample
from tutelage.host.quantise.student import Student

HOMOGENEOUS = ("NONE", "RELU", "LEAKYRELU")

FIXED = 0
"""The group of channels that are not scaled."""


@dataclass(frozen=True)
class ChannelGroups:
    """Channels by the scale that they share.

    Attributes
    ----------
    of : by layer, the group of each channel of its output, int64 [C]; FIXED is not scaled
    count : groups, FIXED among them
    """

    of: dict[str, Tensor]
    count: int

    def inputs(self, conv: Conv) -> Tensor:
        """Return the group that each weight of a layer reads, int64 [O, I / groups]."""
        source = self.of[conv.inputs[0]]
        outputs, depth = conv.weight.shape[:2]
        first = torch.arange(outputs) // (outputs // conv.groups) * depth
        return source[first[:, None] + torch.arange(depth)]


def channel_groups(student: Student, clipped: tuple[str, ...] = ()) -> ChannelGroups:
    """Return which channels of a student share a scale.

    The images and the network's output are FIXED, and so is what a layer reads and gives of which
    it is not known that it is homogeneous.

    Parameters
    ----------
    clipped : layers with an activation that is not homogeneous, whose channels count as free
    """
    joined = _Joined()
    shared = shared_layers(student)
    for name in student.layers:
        layer = student.layer(name)
        inputs = [joined.of[source] for source in layer.inputs]
        joined.of[name] = given = _outputs(layer, inputs, joined)
        homogeneous = layer.nonlinear in HOMOGENEOUS or name in clipped
        if name in shared:
            joined.fix(inputs[0])  # one tensor of weights in two places
        if name in shared or _has_no_factors(layer):
            homogeneous = False
        if not homogeneous or name in student.outputs:
            joined.fix(given)
    return joined.groups()


def shared_layers(student: Student) -> set[str]:
    """Return the layers whose weights, bias or norm are another layer's too."""
    parts = {
        name: [*conv.parameters(recurse=False), *([conv.norm] if conv.norm is not None else [])]
        for name, conv in student.convs()
    }
    count = Counter(id(part) for own in parts.values() for part in own)
    return {name for name, own in parts.items() if any(count[id(part)] > 1 for part in own)}


def _has_no_factors(layer: Layer) -> bool:
    """Whether a norm without factors gives a layer's channels their scale."""
    return isinstance(layer, Conv) and layer.norm is not None and layer.norm.weight is None


@torch.no_grad()
def scale_channels(student: Student, groups: ChannelGroups, scale: Tensor) -> None:
    """Scale channels in place; float arithmetic gives what it gave, but for rounding.

    The running statistics of norms stay true: their inputs do not change.

    Parameters
    ----------
    scale : by group, positive; that of FIXED is 1
    """
    for name, conv in student.convs():
        read = scale[groups.inputs(conv)].to(conv.weight)
        conv.weight.div_(read.view(*read.shape, 1, 1))
        given = scale[groups.of[name]].to(conv.weight)
        if conv.norm is None:
            conv.weight.mul_(given.view(-1, 1, 1, 1))
        elif conv.norm.weight is not None:
            conv.norm.weight.mul_(given)
        bias = conv.bias if conv.norm is None else conv.norm.bias
        if bias is not None:
            bias.mul_(given)


class _Joined:
    """A union-find over numbered channels; number FIXED is all that cannot be scaled."""

    def __init__(self) -> None:
        self.parent = [FIXED]
        self.of: dict[str, list[int]] = {}

    def fresh(self, count: int) -> list[int]:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return list(range(first, first + count))

    def find(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self.parent[high] = low  # FIXED is the lowest

    def fix(self, channels: list[int]) -> None:
        for channel in channels:
            self.join(FIXED, channel)

    def groups(self) -> ChannelGroups:
        roots = {FIXED: FIXED}
        for channel in range(len(self.parent)):
            roots.setdefault(self.find(channel), len(roots))
        of = {name: [roots[self.find(c)] for c in given] for name, given in self.of.items()}
        return ChannelGroups({name: torch.tensor(given) for name, given in of.items()}, len(roots))


def _outputs(layer: Layer, inputs: list[list[int]], joined: _Joined) -> list[int]:
    """The channels of a layer's output."""
    if isinstance(layer, Conv):
        return joined.fresh(layer.shape[0])
    if isinstance(layer, Concat):
        return [channel for given in inputs for channel in given]
    if isinstance(layer, Add) and all(len(given) == layer.shape[0] for given in inputs):
        for given in inputs[1:]:
            for one, other in zip(inputs[0], given, strict=True):
                joined.join(one, other)
        return inputs[0]
    if isinstance(layer, Pool | Reshape | Upsample | ZeroPad) and len(inputs[0]) == layer.shape[0]:
        return inputs[0]
    for given in inputs:
        joined.fix(given)
    return [FIXED] * layer.shape[0]
