"""Groups of channels that can be scaled, and that must share one scale.

Scaling a channel by s > 0 in the layer that computes it, and by 1 / s in the weights of the layers
that read it, does not change the function of the network if everything between is positively
homogeneous, f(s x) = s f(x), as are ReLU, leaky ReLU and pools (Nagel et al. 2019,
arXiv:1906.04721, section 4.1). The input and the output of a depthwise convolution have different
scales. Channels that are added share one scale; a concat concatenates scales.

A ReLU6 is not homogeneous; `host/quantise/ptq/equalise.py` describes how it is handled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
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
"""Number of the group of channels that are not scaled."""


@dataclass(frozen=True)
class ChannelGroups:
    """Groups of channels that share a scale.

    Attributes
    ----------
    of : layer name -> group of each channel of its output, int64 [C]; FIXED is not scaled
    count : number of groups, including FIXED
    """

    of: dict[str, Tensor]
    count: int

    def inputs(self, conv: Conv) -> Tensor:
        """Return the group of the input channel of each weight, int64 [O, I / groups]."""
        source = self.of[conv.inputs[0]]
        outputs, depth = conv.weight.shape[:2]
        first = torch.arange(outputs) // (outputs // conv.groups) * depth
        return source[first[:, None] + torch.arange(depth)]


def channel_groups(
    student: Student, clipped: Collection[str] = (), fixed: Collection[str] = ()
) -> ChannelGroups:
    """Return the groups of channels of a student that share a scale.

    The images and the network's outputs are FIXED, and so are the inputs and outputs of layers that
    are not known to be homogeneous.

    Parameters
    ----------
    student : the student
    clipped : names of layers whose channels are free although their activation is not homogeneous
    fixed : names of other layers whose channels are FIXED
    """
    joined = _Joined()
    shared = shared_layers(student)
    for name in student.layers:
        layer = student.layer(name)
        inputs = [joined.of[source] for source in layer.inputs]
        joined.of[name] = given = _outputs(layer, inputs, joined)
        homogeneous = layer.nonlinear in HOMOGENEOUS or name in clipped
        if name in shared:
            joined.fix(inputs[0])  # its weights are used in several places
        if name in shared or _has_no_factors(layer):
            homogeneous = False
        if not homogeneous or name in student.outputs or name in fixed:
            joined.fix(given)
    return joined.groups()


def shared_layers(student: Student) -> set[str]:
    """Return the names of the layers that share weights, a bias or a norm with another layer."""
    parts = {
        name: [*conv.parameters(recurse=False), *([conv.norm] if conv.norm is not None else [])]
        for name, conv in student.convs()
    }
    count = Counter(id(part) for own in parts.values() for part in own)
    return {name for name, own in parts.items() if any(count[id(part)] > 1 for part in own)}


def _has_no_factors(layer: Layer) -> bool:
    """Return whether a layer has a norm without factors, so that its channels cannot be scaled."""
    return isinstance(layer, Conv) and layer.norm is not None and layer.norm.weight is None


@torch.no_grad()
def scale_channels(student: Student, groups: ChannelGroups, scale: Tensor) -> None:
    """Scale channels in place; except for rounding, the network computes the same function.

    The running statistics of norms remain valid, since the inputs of norms do not change.

    Parameters
    ----------
    student : whose weights, biases and norms are changed
    groups : from `channel_groups`
    scale : positive scale of each group; 1 for FIXED
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
    """A union-find structure over numbered channels; FIXED is the set that cannot be scaled."""

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
    """Return the numbers of the channels of a layer's output."""
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
