"""Rounding by what an activation leaves of a layer's result.

The quadratic form of `rounding.py` counts errors of results below 0, or above a ReLU6's 6, that the
activation takes away. Where a layer is small enough the samples themselves are kept, and one weight
of each output after the other takes the better of its two values by the squared error behind the
activation. The bias takes part with values one step up and down.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE
from tutelage.host.quantise.quantisers import Quantiser

PLACES = 4096
"""Samples that are kept, at least, of all images."""

MOST_WEIGHTS = 50_000
"""Of a layer: the work is their number times the samples'."""

_SWEEPS = 3


@dataclass
class Samples:
    """Inputs and results of one layer, by groups.

    Attributes
    ----------
    rows : inputs of a result, [groups, K, places]
    results : wanted before the activation, [groups, O / groups, places]
    kind : the activation, see tutelage.host.quantise.nonlinear
    wanted : results behind the activation
    """

    rows: Tensor
    results: InitVar[Tensor]
    kind: str
    wanted: Tensor = field(init=False)

    def __post_init__(self, results: Tensor) -> None:
        self.wanted = nonlinear.apply_nonlinear(self.kind, results)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return the squared error behind the activation of weights [groups, O / groups, K]."""
        return float(self._errors(weight @ self.rows + bias[:, :, None]).sum())

    def _errors(self, found: Tensor) -> Tensor:
        gap = nonlinear.apply_nonlinear(self.kind, found) - self.wanted
        return gap.square_().sum(2)

    def polish(
        self, weight: Tensor, bias: Tensor, quantiser: Quantiser, point: int, bias_point: int
    ) -> tuple[Tensor, Tensor]:
        """Return better weights [groups, O / groups, K] and biases [groups, O / groups].

        Parameters
        ----------
        weight, bias : where the search starts, on their grids
        quantiser, point : of the weights
        bias_point : fix point of the biases
        """
        weight, bias = weight.clone(), bias.clone()
        found = weight @ self.rows + bias[:, :, None]
        errors = self._errors(found)
        for _ in range(_SWEEPS):
            for k in range(weight.shape[2]):
                for step in (2.0**-point, -(2.0**-point)):
                    moved = quantiser.quantise(weight[:, :, k] + step, point)
                    change = (moved - weight[:, :, k])[:, :, None] * self.rows[:, None, k]
                    better = self._take(found + change, found, errors)
                    weight[:, :, k] = torch.where(better, moved, weight[:, :, k])
            for step in (2.0**-bias_point, -(2.0**-bias_point)):
                moved = quantise(bias + step, bias_point, *BIAS_RANGE)
                better = self._take(found + (moved - bias)[:, :, None], found, errors)
                bias = torch.where(better, moved, bias)
        return weight, bias

    def _take(self, moved: Tensor, found: Tensor, errors: Tensor) -> Tensor:
        """Put results that are better in place; returns which outputs'."""
        tried = self._errors(moved)
        better = tried < errors
        errors.copy_(torch.where(better, tried, errors))
        found.copy_(torch.where(better[:, :, None], moved, found))
        return better
