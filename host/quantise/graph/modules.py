"""Modules that passes insert into a graph, for operations without a module in torch.nn.

`ChannelSelect` and `Affine` are used between passes only; none is left at the end. The others
remain in the normalised graph, and become layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pads = tuple[int, int, int, int]
"""(left, right, top, bottom), the order of torch.nn.functional.pad."""


class PaddedConv2d(nn.Conv2d):
    """nn.Conv2d with separate zero padding for each side.

    Attributes
    ----------
    pads : pixels of zeros added (left, right, top, bottom); `padding` is 0
    """

    def __init__(self, *args: Any, pads: Pads, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # without `padding`
        self.pads = pads

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv2d
        """Map [N, C, H, W] to [N, O, H', W']."""
        return super().forward(F.pad(input, self.pads))


class ChannelSlice(nn.Module):
    """Slice of the channels of a map: x[:, start:stop]."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, stop - start, H, W]."""
        return x[:, self.start : self.stop]


class ChannelSelect(nn.Module):
    """Selection of channels of a map or vector, in a given order.

    Attributes
    ----------
    channels : for each channel of the result the selected channel; -1: zeros
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(int(channel) for channel in channels)

    def is_permutation(self) -> bool:
        """Return whether each channel from 0 on is selected exactly once."""
        return sorted(self.channels) == list(range(len(self.channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, ...] to [N, len(channels), ...]."""
        channels = torch.tensor(self.channels, device=x.device)
        picked = x[:, channels.clamp(min=0)]
        return picked * (channels >= 0).view(-1, *[1] * (x.dim() - 2)).to(x.dtype)


class Affine(nn.Module):
    """Multiplication by a factor and addition of a summand for each channel.

    Attributes
    ----------
    scale, shift : factors and summands, [C]
    trained : the trained parameters that they were computed from; the results are trained too then
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, *given: Any) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.trained = [part for part in given if isinstance(part, Tensor) and part.requires_grad]

    def forward(self, x: Tensor) -> Tensor:
        """Compute x * scale + shift of [N, C, ...]."""
        shape = (-1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)


class Layout(nn.Module):
    """Reshape, permutation and reshape of a map, vector or join, for an output of the network.

    A map is read in the order with channels last, as on the DPU, so that the usual
    (N, H * W, classes) of a map needs no permutation.

    Attributes
    ----------
    split : shape of the first reshape, without the batch
    order : the permutation of its axes
    shape : shape of the result, without the batch
    """

    def __init__(self, split: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__()
        self.split, self.order, self.shape = tuple(split), tuple(order), tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W], or any other shape, to [N, *shape]."""
        x = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        parts = x.reshape(len(x), *self.split)
        ordered = parts.permute(0, *(place + 1 for place in self.order))
        return ordered.reshape(len(x), *self.shape)


class RowMap(nn.Module):
    """Reshape of a sequence to a map of one row."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, L] to [N, C, 1, L]."""
        return x.unsqueeze(2)


class VectorMap(nn.Module):
    """Reshape of a vector, with values in the DPU's order (channels last), to a map.

    Attributes
    ----------
    size : (C, H, W)
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, H * W * C] or [N, H * W * C, 1, 1] to [N, C, H, W]."""
        channels, height, width = self.size
        return x.reshape(len(x), height, width, channels).permute(0, 3, 1, 2)


class Pick(nn.Module):
    """Selection of single values of a map in any order, which no layer supports."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, *positions.shape]."""
        return x.flatten(1)[:, self.positions.to(x.device)]


class Join(nn.Module):
    """Concatenation of values of any shape along an axis, for an output of the network."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *xs: Tensor) -> Tensor:
        """Concatenate tensors [N, ...]."""
        return torch.cat(xs, self.axis)
