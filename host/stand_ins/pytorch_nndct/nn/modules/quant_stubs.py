"""Emulation of `pytorch_nndct.nn.modules.quant_stubs`: markers of the quantised part.

The emulation quantises the whole network, so that the markers do nothing.
"""

from __future__ import annotations

from torch import Tensor, nn


class QuantStub(nn.Module):
    """Marker of the beginning of the quantised part."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the value unchanged."""
        return x


class DeQuantStub(QuantStub):
    """Marker of the end of the quantised part."""
