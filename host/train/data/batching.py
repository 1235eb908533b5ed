"""The order in which an epoch goes through the images."""

from __future__ import annotations

import torch
from torch import Tensor


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The epoch's random order of range(count) in full batches, int64; the rest is left out.

    PyTorch's CPU generator uses only the low 32 bits of its seed. Fibonacci hashing (Knuth, The
    Art of Computer Programming 3, 6.4) spreads the seeds over them: no two seeds less than 2**16
    apart share an order within their first 11547 epochs.
    """
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) & 0xFFFFFFFF)
    full = count // batch_size
    order = torch.randperm(count, generator=generator)[: full * batch_size]
    return list(order.view(full, batch_size))
