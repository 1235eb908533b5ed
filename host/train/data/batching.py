"""Order in which an epoch visits the images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.host.train.data.data_set import DataSet
from tutelage.host.train.data.stored_images import StoredImages

SHARDS_AT_ONCE = 16
"""Shards whose images are shuffled together, so that a disk does not seek across a large set."""


def batches(
    count: int, batch_size: int, seed: int, epoch: int, containers: NDArray[np.int64] | None = None
) -> list[Tensor]:
    """Return a random order of range(count) as full batches, int64; the remainder is left out.

    PyTorch's CPU generator uses only the low 32 bits of its seed. Fibonacci hashing (Knuth, The
    Art of Computer Programming 3, 6.4) spreads the seeds over them: no two seeds less than 2**16
    apart share an order within their first 11547 epochs.

    Parameters
    ----------
    count : number of images
    seed, epoch : of the run; each pair has its own order
    containers : number of the shard that each image is in, int64 (count,). If there are more than
        SHARDS_AT_ONCE shards, they come in a random order, and the images of this many shards at
        a time are shuffled together
    """
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) & 0xFFFFFFFF)
    full = count // batch_size
    order = torch.randperm(count, generator=generator)
    if containers is not None and containers.max(initial=0) >= SHARDS_AT_ONCE:
        ranks = torch.randperm(int(containers.max()) + 1, generator=generator) // SHARDS_AT_ONCE
        order = order[torch.argsort(ranks[containers[order]], stable=True)]
    return list(order[: full * batch_size].view(full, batch_size))


def epoch_batches(data: DataSet, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Return the rows of each batch of an epoch, see `batches`."""
    stored = data.store if isinstance(data.store, StoredImages) else None
    containers = stored.pictures.containers if stored else None
    return batches(len(data), batch_size, seed, epoch, containers)
