"""How good a network is."""

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
_MANY_CLASSES = 10  # of which the best five say more than the best one


@dataclass(frozen=True)
class Evaluation:
    """What a network takes labelled images for.

    Attributes
    ----------
    labels, predicted : int64 (N,), the classes that the images have, and are taken for
    among_best : images whose class is among the best five; None where there are few classes
    """

    labels: Tensor
    predicted: Tensor
    among_best: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Top-1 in percent."""
        return _percent(int((self.labels == self.predicted).sum()), len(self))

    @property
    def top5_accuracy(self) -> float | None:
        """Top-5 in percent; None where there are few classes."""
        return None if self.among_best is None else _percent(self.among_best, len(self))


def accuracy(network: nn.Module, data: DataSet, device: torch.device | str = "cpu") -> float:
    """Return top-1 in percent, in evaluation mode; of equal logits the first class counts."""
    return evaluate(network, data, device).accuracy


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: DataSet,
    device: torch.device | str = "cpu",
    reader: Reader | None = None,
    part: int = 0,
) -> Evaluation:
    """Classify a data set's images, in evaluation mode; of equal logits the first class counts.

    Parameters
    ----------
    reader, part : reads the data set, as its number so much; else this process does
    """
    training = network.training
    network.eval()
    labels, predicted, among_best = [], [], 0
    has_many = len(data.classes) > _MANY_CLASSES
    chosen = torch.arange(len(data)).split(batch_size(data))
    for batch in (reader or Reader((data,)))(Request(part, rows) for rows in chosen):
        images = normalise(batch.images, data.form).to(device)
        logits = network(images)
        labels.append(batch.labels)
        predicted.append(logits.argmax(1).cpu())
        if has_many:
            best = logits.topk(_BEST, 1).indices.cpu()
            among_best += int((best == batch.labels[:, None]).any(1).sum())
    network.train(training)
    return Evaluation(torch.cat(labels), torch.cat(predicted), among_best if has_many else None)


def batch_size(data: DataSet) -> int:
    """Return how many images are classified at once: fewer where they are large."""
    return max(1, min(_MOST_AT_ONCE, _VALUES_AT_ONCE // math.prod(data.shape)))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 4)
