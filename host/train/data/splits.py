"""Which images of a data set are for what, where nothing but their labels says it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

TEST_EVERY = 5
"""Without a test split every fifth image of a class is the test's; where no class has so many, the
last one of each class that has two."""

_PURPOSE = 0x76616C69
"""So that other random numbers of the same seed are not these."""


def is_in_split(labels: NDArray[np.int64], split: str) -> NDArray[np.bool_]:
    """Return which images are in "train" or "test"."""
    places = places_in_class(labels)
    found: NDArray[np.bool_] = places % TEST_EVERY == TEST_EVERY - 1
    if not found.any():
        found = (places > 0) & (places == np.bincount(labels)[labels] - 1)
    return found if split == "test" else ~found


def is_held_out(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return which images are held out for validation.

    Of each class it is `share`, rounded, but one image at least where there are two, and never all.
    Which ones, the seed says.
    """
    generator = torch.Generator().manual_seed((seed ^ _PURPOSE) & 0xFFFFFFFF)
    order = torch.randperm(len(labels), generator=generator).numpy()
    counts = np.bincount(labels)
    wanted = np.clip(np.rint(share * counts), 1, counts - 1)
    held = np.empty(len(labels), bool)
    held[order] = places_in_class(labels[order]) < wanted[labels[order]]
    return held


def places_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images of its class are before each."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    places = np.empty_like(order)
    places[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places
