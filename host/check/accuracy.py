"""How much of a trained network is left after quantisation, on a few images, without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.host.train.data import DataSet
from tutelage.host.train.evaluation import evaluate


@dataclass(frozen=True)
class Accuracy:
    """A float network and its quantised form on the same images, in percent.

    Attributes
    ----------
    images : how many
    agreement : how often both see the same class
    float_accuracy, quantised_accuracy : how often each sees the right one; None without labels
    """

    images: int
    agreement: float
    float_accuracy: float | None
    quantised_accuracy: float | None


def compare(network: nn.Module, student: nn.Module, data: DataSet, is_labelled: bool) -> Accuracy:
    """Compare a float network and a calibrated student on images.

    Parameters
    ----------
    is_labelled : the labels of `data` are not the float network's own
    """
    floating, quantised = evaluate(network, data).predicted, evaluate(student, data).predicted

    def percent(right: Any) -> float:
        return round(100 * int(right.sum()) / len(data), 2)

    agreement = percent(floating == quantised)
    if not is_labelled:
        return Accuracy(len(data), agreement, None, None)
    right = percent(floating == data.labels), percent(quantised == data.labels)
    return Accuracy(len(data), agreement, *right)
