"""Moving average of a network's weights, evaluated and saved in their place."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """Exponential moving average of a network's parameters and buffers.

    After step n (from 0) it becomes ``d * average + (1 - d) * network`` with
    ``d = min(decay, (1 + n) / (10 + n))``, so that the initial weights do not dominate the average
    of a short run (as in TensorFlow's ExponentialMovingAverage). Tensors that are not floats are
    copied from the network.

    Parameters
    ----------
    network : the network to average; the average starts from its values
    decay : largest weight of the previous average, 0 to 1

    Attributes
    ----------
    network : a copy of the network that has the averaged values
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Add the network's values after step `step` of the run, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        own = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                own[name].lerp_(value, share)
            else:
                own[name].copy_(value)
