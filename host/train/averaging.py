"""The moving average of a network's weights, which is evaluated and kept in their place."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """The exponential moving average of a network's parameters and buffers.

    After step n (from 0) it is ``d * average + (1 - d) * network`` with
    ``d = min(decay, (1 + n) / (10 + n))``, so that a short run is not an average of its start
    (as in TensorFlow's ExponentialMovingAverage). What is not a float is the network's own.

    Parameters
    ----------
    network : whose average it is; it starts from its values
    decay : 0 to 1

    Attributes
    ----------
    network : the average, a network of its own
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network's values after a step of the run, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        own = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                own[name].lerp_(value, share)
            else:
                own[name].copy_(value)
