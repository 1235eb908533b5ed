"""Refinement of rounded weights by the error after a layer's activation.

The quadratic form of `rounding.py` includes errors of results below 0, or above the 6 of a ReLU6,
that the activation removes. For small layers, samples of inputs and results are kept. Then, one
after the other, each weight of each output is moved one step up or down if this reduces the squared
error after the activation. Biases are moved in the same way.
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
"""Least number of samples that are kept, over all images."""

MOST_WEIGHTS = 50_000
"""Most weights of a layer that is refined; the time is proportional to weights times samples."""

_SWEEPS = 3
"""Number of passes over all weights."""


@dataclass
class Samples:
    """Samples of the inputs and results of one layer.

    Attributes
    ----------
    rows : the K inputs of each result, [groups, K, places]
    results : float results before the activation, [groups, O / groups, places]
    kind : the activation, see tutelage.host.quantise.nonlinear
    wanted : float results after the activation, [groups, O / groups, places]
    """

    rows: Tensor
    results: InitVar[Tensor]
    kind: str
    wanted: Tensor = field(init=False)

    def __post_init__(self, results: Tensor) -> None:
        self.wanted = nonlinear.apply_nonlinear(self.kind, results)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return the squared error after the activation, with weights [groups, O / groups, K]."""
        return float(self._errors(weight @ self.rows + bias[:, :, None]).sum())

    def _errors(self, found: Tensor) -> Tensor:
        gap = nonlinear.apply_nonlinear(self.kind, found) - self.wanted
        return gap.square_().sum(2)

    def polish(
        self, weight: Tensor, bias: Tensor, quantiser: Quantiser, point: int, bias_point: int
    ) -> tuple[Tensor, Tensor]:
        """Return refined weights [groups, O / groups, K] and biases [groups, O / groups].

        Parameters
        ----------
        weight, bias : initial values, already rounded
        quantiser, point : quantiser and fix point of the weights
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
        """Accept the results of outputs whose error falls; return for which outputs, bool."""
        tried = self._errors(moved)
        better = tried < errors
        errors.copy_(torch.where(better, tried, errors))
        found.copy_(torch.where(better[:, :, None], moved, found))
        return better
