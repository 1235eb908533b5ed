"""Accuracy of a network on a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.host.train.data import DataSet
from tutelage.host.train.data.data_set import normalise
from tutelage.host.train.data.reading import Reader, Request

_MOST_AT_ONCE = 500
_VALUES_AT_ONCE = 1 << 23  # of a batch's images: 500 of 64x64 pixels, 55 of 224x224
_BEST = 5
_MANY_CLASSES = 10  # with more than these, top-5 accuracy is reported too


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a network for labelled images.

    Attributes
    ----------
    labels, predicted : int64 (N,), true and predicted classes of the images
    rows : int64 (N,), indices of the images in the data set; those that cannot be read are left out
    among_best : number of images whose class is among the best five; None with ten classes or fewer
    """

    labels: Tensor
    predicted: Tensor
    rows: Tensor
    among_best: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return _percent(int((self.labels == self.predicted).sum()), len(self))

    @property
    def top5_accuracy(self) -> float | None:
        """Top-5 accuracy in percent; None with ten classes or fewer."""
        return None if self.among_best is None else _percent(self.among_best, len(self))


def accuracy(network: nn.Module, data: DataSet, device: torch.device | str = "cpu") -> float:
    """Return top-1 accuracy in percent, in evaluation mode; the first of equal logits counts."""
    return evaluate(network, data, device).accuracy


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: DataSet,
    device: torch.device | str = "cpu",
    reader: Reader | None = None,
    part: int = 0,
) -> Evaluation:
    """Classify the images of a data set, in evaluation mode; the first of equal logits counts.

    Parameters
    ----------
    device : of the network
    reader, part : reader to use, and the index of `data` in it; by default this process reads

    Raises
    ------
    DataError
        No image of a batch can be read.
    """
    training = network.training
    network.eval()
    labels, predicted, rows, among_best = [], [], [], 0
    has_many = len(data.classes) > _MANY_CLASSES
    chosen = torch.arange(len(data)).split(batch_size(data))
    for batch in (reader or Reader((data,)))(Request(part, some) for some in chosen):
        images = normalise(batch.images, data.form).to(device)
        logits = network(images)
        labels.append(batch.labels)
        predicted.append(logits.argmax(1).cpu())
        rows.append(batch.rows)
        if has_many:
            best = logits.topk(_BEST, 1).indices.cpu()
            among_best += int((best == batch.labels[:, None]).any(1).sum())
    network.train(training)
    return Evaluation(
        torch.cat(labels), torch.cat(predicted), torch.cat(rows), among_best if has_many else None
    )


def batch_size(data: DataSet) -> int:
    """Return how many images to classify in a batch: fewer if they are large."""
    return max(1, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // math.prod(data.shape)))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 4)
