"""MixUp and CutMix: images and labels of a batch mixed with those of their neighbours.

Zhang et al., arXiv:1710.09412, and Yun et al., arXiv:1905.04899. The share of an image in its
mixture is one random number per batch, from a Beta distribution, and its partner is the image
before it, since the batch is already in a random order.
"""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def mix(
    images: Tensor, labels: Tensor, classes: int, seed: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Return every image but the first, mixed with the one before it, and soft labels.

    A process that has a slice of a batch also gets the image before the slice, so that
    its mixtures are those of a process that has the whole batch.

    Parameters
    ----------
    images : the network's inputs, float32 (N + 1, C, H, W)
    labels : int64 (N + 1,)
    seed : of the random numbers
    mixup, cutmix : alpha of the Beta distribution, 0 for never; one of them must not be 0. With
        both, one is chosen at random

    Returns
    -------
    images (N, C, H, W), labels float32 (N, classes) that add up to 1
    """
    numbers = np.random.default_rng(seed)
    is_cutmix = cutmix > 0 and (mixup == 0 or numbers.random() < 0.5)
    alpha = cutmix if is_cutmix else mixup
    share = float(numbers.beta(alpha, alpha))
    own, others = images[1:], images[:-1]
    if is_cutmix:
        top, bottom, left, right = _box(numbers, share, *images.shape[2:])
        share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        mixed = own.clone()
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    else:
        mixed = own * share + others * (1 - share)
    soft = F.one_hot(labels, classes).float()
    return mixed, soft[1:] * share + soft[:-1] * (1 - share)


def _box(
    numbers: np.random.Generator, share: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return the part to copy from the other image: first row, last row + 1, and columns alike.

    Its sides are sqrt(1 - share) of the image's, its centre is anywhere in the image, and the
    borders clip it.
    """
    sides = []
    for length in (height, width):
        half = math.sqrt(1 - share) * length / 2
        centre = int(numbers.integers(length))
        sides += [max(0, round(centre - half)), min(length, round(centre + half))]
    return sides[0], sides[1], sides[2], sides[3]
