"""How good a network is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.host.train.data import DataSet

EVALUATION_BATCH = 500


@torch.no_grad()
def predictions(network: nn.Module, data: DataSet, device: torch.device | str = "cpu") -> Tensor:
    """Return the class of each image, int64 (N,), in evaluation mode; of equal logits the first."""
    training = network.training
    network.eval()
    found = [
        network(data.inputs(slice(start, start + EVALUATION_BATCH)).to(device)).argmax(1).cpu()
        for start in range(0, len(data), EVALUATION_BATCH)
    ]
    network.train(training)
    return torch.cat(found)


def accuracy(network: nn.Module, data: DataSet, device: torch.device | str = "cpu") -> float:
    """Return top-1 in percent, as `predictions`."""
    right = int((predictions(network, data, device) == data.labels).sum())
    return round(100 * right / len(data), 4)
