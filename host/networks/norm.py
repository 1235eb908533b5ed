"""Batch norm whose statistics cover the batches of all processes.

PyTorch's SyncBatchNorm runs on GPUs only; this one runs with any process group,
so that two CPU processes train exactly as one process would.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise x [N, C, H, W] with its mean and variance [C] over all processes.

    The running statistics [C] are updated in place, with the unbiased variance, as in
    PyTorch. The batches of all processes must have the same size.
    """
    if world_size() == 1:
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    from torch.distributed.nn.functional import all_reduce  # differentiable

    count = x.numel() / x.shape[1] * world_size()
    mean = all_reduce(x.sum((0, 2, 3))) / count
    centred = x - mean.view(1, -1, 1, 1)
    var = all_reduce(centred.square().sum((0, 2, 3))) / count
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * count / (count - 1), momentum)
    scale = torch.rsqrt(var + eps) if weight is None else weight / torch.sqrt(var + eps)
    normalised = centred * scale.view(1, -1, 1, 1)
    return normalised if bias is None else normalised + bias.view(1, -1, 1, 1)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose statistics are those of the batches of all processes together."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        return batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            0.1 if self.momentum is None else self.momentum,
            self.eps,
        )


def synchronise(network: nn.Module) -> nn.Module:
    """Convert each nn.BatchNorm2d of `network`, in place, to a SyncedBatchNorm2d."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return network
