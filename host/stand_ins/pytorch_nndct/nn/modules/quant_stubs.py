"""Stands in for `pytorch_nndct.nn.modules.quant_stubs`: where quantisation begins and ends.

Here all of a network is quantised, so the stubs do nothing.
"""

from __future__ import annotations

from torch import Tensor, nn


class QuantStub(nn.Module):
    """The beginning of what is quantised."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the value itself."""
        return x


class DeQuantStub(QuantStub):
    """The end of what is quantised."""
