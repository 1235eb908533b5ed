"""Modules that the passes write into a graph, for what torch.nn has no module of.

`PaddedConv2d` and `ChannelSlice` remain in the normalised graph, and the layers take them.
`ChannelSelect` and `Affine` are forms between two passes: none is left at the end.
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
        super().__init__(*args, padding=0, **kwargs)
        self.pads = pads

    def forward(self, input: Tensor) -> Tensor:
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
    """A factor and a summand for each channel, which training leaves as they are.

    Attributes
    ----------
    scale, shift : [C]
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> the same shape."""
        shape = (-1, *[1] * (x.dim() - 2))
        return x * self.scale.view(shape) + self.shift.view(shape)
