"""The accuracy a trained network keeps when it is quantised without training, on a few images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tutelage.host.train.data import DataSet
from tutelage.host.train.data.reading import Reader
from tutelage.host.train.evaluation import Evaluation, evaluate


@dataclass(frozen=True)
class Accuracy:
    """A float network and its quantised form, compared on the same images.

    Agreement is the share of images for which two networks predict the same class, %; accuracy is
    the share for which a network predicts the label, %.

    Attributes
    ----------
    images : number of images that could be read
    agreement : of the quantised network with the float network
    float_accuracy, quantised_accuracy : None without labels
    replaced_agreement : of the float network with replaced activations with the original one; None
        if no activation is replaced
    replaced_accuracy : of the float network with replaced activations; None also without labels
    quantised_agreement : of the quantised network with the float network it was made from, which
        is the one with replaced activations if there are any
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
        """Percentage points of accuracy (without labels, of agreement) lost by the replacements."""
        if self.replaced_accuracy is not None and self.float_accuracy is not None:
            return self.float_accuracy - self.replaced_accuracy
        return 0.0 if self.replaced_agreement is None else 100 - self.replaced_agreement

    @property
    def lost_by_quantising(self) -> float:
        """Percentage points of accuracy (without labels, of agreement) lost by quantisation."""
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
    network : the float network
    student : calibrated
    data : the images
    is_labelled : whether `data` has true labels, rather than the float network's predictions
    replaced : the float network with the activations that the student uses instead; None if no
        activation is replaced
    """
    with Reader((data,)) as reader:  # one for all, so that it names a broken image only once
        floating, quantised = (evaluate(each, data, reader=reader) for each in (network, student))
        other = None if replaced is None else evaluate(replaced, data, reader=reader)

    def same(found: Evaluation, wanted: Evaluation) -> float:
        return round(100 * int((found.predicted == wanted.predicted).sum()) / len(found), 2)

    def right(found: Evaluation | None) -> float | None:
        return round(found.accuracy, 2) if is_labelled and found is not None else None

    return Accuracy(
        images=len(floating),
        agreement=same(floating, quantised),
        float_accuracy=right(floating),
        quantised_accuracy=right(quantised),
        replaced_agreement=None if other is None else same(other, floating),
        replaced_accuracy=right(other),
        quantised_agreement=same(quantised, floating if other is None else other),
    )
