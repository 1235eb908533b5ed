"""How good a network is."""

from __future__ import annotations

import torch
from torch import nn

from tutelage.host.train.data import DataSet

EVALUATION_BATCH = 500


@torch.no_grad()
def accuracy(network: nn.Module, data: DataSet, device: torch.device | str = "cpu") -> float:
    """Return top-1 in percent, in evaluation mode; of equal logits the first class counts."""
    training = network.training
    network.eval()
    right = 0
    for start in range(0, len(data), EVALUATION_BATCH):
        images = data.inputs(slice(start, start + EVALUATION_BATCH)).to(device)
        labels = data.labels[start : start + EVALUATION_BATCH].to(device)
        right += int((network(images).argmax(1) == labels).sum())
    network.train(training)
    return round(100 * right / len(data), 4)
