"""Torchvision's transforms of single images, if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor

from tutelage.core.commands import MissingPackage
from tutelage.host.networks.torchvision_import import import_torchvision

Transform = Callable[[Tensor], Tensor]
"""From a uint8 (C, H, W) image to one of the same size, with PyTorch's global random numbers."""


@cache
def make_transforms(
    magnitude: int, operations: int, jitter: float, erasing: float, fill: int
) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """Return the transforms that change colours and geometry, and those that erase.

    Parameters
    ----------
    magnitude, operations : of RandAugment; magnitude 0 turns it off
    jitter : largest relative change of brightness, contrast and saturation
    erasing : probability of an erased rectangle
    fill : pixel value of uncovered areas and of rectangles

    Raises
    ------
    MissingPackage
        A transform is needed, and torchvision is not installed or does not fit this PyTorch.
    """
    if not (magnitude or jitter or erasing):
        return (), ()
    try:
        import_torchvision()
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingPackage(
            "[augmentation] rand_augment, colour_jitter and random_erasing need torchvision "
            f"({error}): pip install torchvision, or set them to 0"
        ) from error
    shapes, erasers = [], []
    if magnitude:
        shapes.append(v2.RandAugment(operations, magnitude, fill=fill))
    if jitter:
        shapes.append(v2.ColorJitter(jitter, jitter, jitter))
    if erasing:
        erasers.append(v2.RandomErasing(erasing, value=fill))
    return tuple(shapes), tuple(erasers)
