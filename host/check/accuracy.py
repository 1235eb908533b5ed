"""How much of a trained network is left after quantisation, on a few images, without training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

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
    replaced_agreement : how often the float network with its activations replaced sees the class
        of the float network; None where nothing is replaced
    replaced_accuracy : how often it sees the right one; None without labels too
    quantised_agreement : how often the quantised network sees the class of the network that was
        quantised, which is the one with replacements where there are any
    """

    images: int
    agreement: float
    float_accuracy: float | None
    quantised_accuracy: float | None
    replaced_agreement: float | None
    replaced_accuracy: float | None
    quantised_agreement: float

    @property
    def lost_by_replacing(self) -> float:
        """Points of accuracy, or of agreement without labels, that the replacements cost."""
        if self.replaced_accuracy is not None and self.float_accuracy is not None:
            return self.float_accuracy - self.replaced_accuracy
        return 0.0 if self.replaced_agreement is None else 100 - self.replaced_agreement

    @property
    def lost_by_quantising(self) -> float:
        """Points of accuracy, or of agreement without labels, that quantisation alone costs."""
        before = self.float_accuracy if self.replaced_accuracy is None else self.replaced_accuracy
        if before is None or self.quantised_accuracy is None:
            return 100 - self.quantised_agreement
        return before - self.quantised_accuracy


def compare(
    network: nn.Module, student: nn.Module, data: DataSet, is_labelled: bool,
    replaced: nn.Module | None = None,
) -> Accuracy:  # fmt: skip
    """Compare a float network and a calibrated student on images.

    Parameters
    ----------
    is_labelled : the labels of `data` are not the float network's own
    replaced : the float network with the activations that the student has instead of its own
    """
    floating, quantised = evaluate(network, data).predicted, evaluate(student, data).predicted
    other = None if replaced is None else evaluate(replaced, data).predicted

    def same(found: Tensor, wanted: Tensor) -> float:
        return round(100 * int((found == wanted).sum()) / len(data), 2)

    def right(found: Tensor | None) -> float | None:
        return same(found, data.labels) if is_labelled and found is not None else None

    return Accuracy(
        images=len(data),
        agreement=same(floating, quantised),
        float_accuracy=right(floating),
        quantised_accuracy=right(quantised),
        replaced_agreement=None if other is None else same(other, floating),
        replaced_accuracy=right(other),
        quantised_agreement=same(quantised, floating if other is None else other),
    )
