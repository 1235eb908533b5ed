"""Emulation of `pytorch_nndct.nn.modules.functional`: functions of PyTorch as modules.

AMD's quantiser can train only modules. This one also traces functions; the modules are for scripts
that use them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.errors import not_emulated


class Add(nn.Module):
    """``torch.add``."""

    def forward(self, input: Tensor, other: Tensor, alpha: float = 1) -> Tensor:
        """Return ``input + alpha * other``."""
        return torch.add(input, other, alpha=alpha)


class AddScalar(nn.Module):
    """``torch.add`` with a number."""

    def forward(self, x: Tensor, y: float) -> Tensor:
        """Return ``x + y``."""
        return torch.add(x, y)


class Cat(nn.Module):
    """``torch.cat``."""

    def forward(self, x: list[Tensor], dim: int = 0) -> Tensor:
        """Return the tensors concatenated along an axis."""
        return torch.cat(x, dim=dim)


class Clamp(nn.Module):
    """``torch.clamp``."""

    def forward(self, input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
        """Return the values limited to `min` and `max`."""
        return torch.clamp(input, min=min, max=max)


class Interpolate(nn.Module):
    """``F.interpolate``."""

    def forward(
        self,
        input: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> Tensor:
        """Return the map resized."""
        return F.interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor)


class Matmul(nn.Module):
    """``torch.matmul``."""

    def forward(self, input: Tensor, other: Tensor) -> Tensor:
        """Return the matrix product."""
        return torch.matmul(input, other)


class Max(nn.Module):
    """``torch.max`` along an axis."""

    def forward(self, input: Tensor, dim: int, keepdim: bool = False) -> Any:
        """Return the largest values and their indices."""
        return torch.max(input, dim, keepdim)


class Mean(nn.Module):
    """``torch.mean``."""

    def forward(self, x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
        """Return the mean along axes."""
        return torch.mean(x, dim, keepdim)


class Mul(nn.Module):
    """``torch.mul``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``x * y``."""
        return torch.mul(x, y)


class Pad(nn.Module):
    """``F.pad``."""

    def forward(self, input: Tensor, pad: Any, mode: str = "constant", value: float = 0) -> Tensor:
        """Return the map padded."""
        return F.pad(input, pad, mode, value)


class Sum(nn.Module):
    """``torch.sum``."""

    def forward(self, input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
        """Return the sum along axes."""
        return torch.sum(input, dim, keepdim)


class Upsample(Interpolate):
    """``F.upsample``, today an alias of ``F.interpolate``."""


def __getattr__(name: str) -> Any:
    raise not_emulated("pytorch_nndct.nn.modules.functional", name)
