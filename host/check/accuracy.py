"""How much of a trained network is left after quantisation, on a few images, without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tutelage.host.train.data import DataSet
from tutelage.host.train.evaluation import predictions


@dataclass(frozen=True)
class Accuracy:
    """A float network and its quantised form on the same images, in percent.

    Attributes
    ----------
    images : how many
    agreement : how often both see the same class
    float, quantised : how often each sees the right one; None without labels
    """

    images: int
    agreement: float
    float: float | None
    quantised: float | None

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def compare(network: nn.Module, student: nn.Module, data: DataSet) -> Accuracy:
    """Compare a float network and a calibrated student on images, labelled or not."""
    floating, quantised = predictions(network, data), predictions(student, data)

    def percent(right: Any) -> float:
        return round(100 * int(right.sum()) / len(data), 2)

    agreement = percent(floating == quantised)
    if not data.is_labelled:
        return Accuracy(len(data), agreement, None, None)
    right = percent(floating == data.labels), percent(quantised == data.labels)
    return Accuracy(len(data), agreement, *right)
