"""Splits of a data set that comes without one, by the labels of its images alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

TEST_EVERY = 5
"""Every fifth image of a class is for testing; if no class has five, the last image of each class
that has two."""

_PURPOSE = 0x76616C69
"""Mixed into the seed, so that other uses of the same seed get other random numbers."""


def is_in_split(labels: NDArray[np.int64], split: str) -> NDArray[np.bool_]:
    """Return whether each image is in the split "train" or "test", bool (N,)."""
    places = places_in_class(labels)
    found: NDArray[np.bool_] = places % TEST_EVERY == TEST_EVERY - 1
    if not found.any():
        found = (places > 0) & (places == np.bincount(labels)[labels] - 1)
    return found if split == "test" else ~found


def is_held_out(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return whether each image is held out for validation, bool (N,).

    Of each class it is `share` of the images, rounded, but at least one if the class has two, and
    never all. The seed chooses them.
    """
    generator = torch.Generator().manual_seed((seed ^ _PURPOSE) & 0xFFFFFFFF)
    order = torch.randperm(len(labels), generator=generator).numpy()
    counts = np.bincount(labels)
    wanted = np.clip(np.rint(share * counts), 1, counts - 1)
    held = np.empty(len(labels), bool)
    held[order] = places_in_class(labels[order]) < wanted[labels[order]]
    return held


def places_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each image how many earlier images its class has, int64 (N,)."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    places = np.empty_like(order)
    places[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places
