"""Modules that the passes write into a graph, for what torch.nn has no module of.

`ChannelSelect` and `Affine` are forms between two passes: none is left at the end. The others
remain in the normalised graph, and the layers take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pads = tuple[int, int, int, int]
"""(left, right, top, bottom), as torch.nn.functional.pad takes them."""


class PaddedConv2d(nn.Conv2d):
    """nn.Conv2d whose zero padding is given for each side.

    Attributes
    ----------
    pads : pixels of zeros added (left, right, top, bottom); `padding` is 0
    """

    def __init__(self, *args: Any, pads: Pads, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # without `padding`
        self.pads = pads

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as nn.Conv2d has it
        """Images [N, C, H, W] -> [N, O, H', W']."""
        return super().forward(F.pad(input, self.pads))


class ChannelSlice(nn.Module):
    """The channels `start` to `stop` - 1 of a map: x[:, start:stop]."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, stop - start, H, W]."""
        return x[:, self.start : self.stop]


class ChannelSelect(nn.Module):
    """Channels of a map or vector in a given order.

    Attributes
    ----------
    channels : for each channel of the result the channel it is, -1 for zeros
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(int(channel) for channel in channels)

    def is_permutation(self) -> bool:
        """Return whether each channel from 0 on is there once."""
        return sorted(self.channels) == list(range(len(self.channels)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> [N, len(channels), ...]."""
        channels = torch.tensor(self.channels, device=x.device)
        picked = x[:, channels.clamp(min=0)]
        return picked * (channels >= 0).view(-1, *[1] * (x.dim() - 2)).to(x.dtype)


class Affine(nn.Module):
    """A factor and a summand for each channel.

    Attributes
    ----------
    scale, shift : [C]
    trained : what they were computed from, if training changes that; it changes what they become
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, *given: Any) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.trained = [part for part in given if isinstance(part, Tensor) and part.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> the same shape."""
        shape = (-1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


class Layout(nn.Module):
    """The values of one map, vector or join in another shape and order, as an output has them.

    A map is taken channels last, as the DPU has it: the usual (N, H * W, classes) of a map is the
    same values in the same order.

    Attributes
    ----------
    split : the axes of one image as they are told apart, in the order in which they are read
    order : which of them comes where
    shape : of one image of the result
    """

    def __init__(self, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__()
        self.split, self.order, self.shape = tuple(split), tuple(order), tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W], or any other shape -> [N, *shape]."""
        x = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        parts = x.reshape(len(x), *self.split)
        ordered = parts.permute(0, *(place + 1 for place in self.order))
        return ordered.reshape(len(x), *self.shape)


class RowMap(nn.Module):
    """A sequence as a map of one row."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, 1, L]."""
        return x.unsqueeze(2)


class VectorMap(nn.Module):
    """A vector as a map whose values it has in the DPU's order, channels last.

    Attributes
    ----------
    size : (C, H, W)
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H * W * C], or [N, H * W * C, 1, 1] -> [N, C, H, W]."""
        channels, height, width = self.size
        return x.reshape(len(x), height, width, channels).permute(0, 3, 1, 2)


class Pick(nn.Module):
    """Single values of a map, in an order that is none of its axes; no layer takes it."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, ...], the shape of the positions in an image."""
        return x.flatten(1)[:, self.positions.to(x.device)]


class Join(nn.Module):
    """Values of any shape one after the other along an axis, as an output has them."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *xs: Tensor) -> Tensor:
        """[N, ...] each -> [N, ...]."""
        return torch.cat(xs, self.axis)
