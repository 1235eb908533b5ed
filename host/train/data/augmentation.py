"""Random changes of training images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.host.train.data.random_window import random_window
from tutelage.host.train.data.stored_images import Window
from tutelage.host.train.data.torchvision_transforms import Transform, make_transforms

BLACK, GREY = 0, 128  # pixel values of areas that augmentation fills
_LARGEST_MAGNITUDE = 30  # the largest that the paper of RandAugment tries


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, applied to pixel values in the order of the attributes.

    Drawing parameters is separate from applying them: processes that each have a slice of a global
    batch draw for the whole batch and apply their slice of the parameters, so that the images do
    not depend on the number of processes.

    Attributes
    ----------
    random_resized_crop : 0, or the smallest share of the picture's area to crop (0.08 in Szegedy
        et al., arXiv:1409.4842): a random part of the picture, with an aspect ratio of 3/4 to 4/3
        of the image's, is resized to the image. Folders and shards are then streamed, since the
        part is cropped from the whole picture in its file
    flip : mirror half of the images left to right
    shift : move each image by up to this many pixels in each direction, filling with black
    rand_augment : 0, or the magnitude, 1 to 30, of the random operations of RandAugment (Cubuk et
        al., arXiv:1909.13719; torchvision's implementation)
    rand_augment_operations : number of RandAugment's operations on each image
    colour_jitter : 0, or the largest relative change of brightness, contrast and saturation
        (torchvision's ColorJitter)
    cutout : side in pixels of a square that is set to mid-grey, 128; its centre is anywhere in the
        image, whose borders clip it (DeVries and Taylor, arXiv:1708.04552)
    random_erasing : probability that a random rectangle becomes mid-grey (Zhong et al.,
        arXiv:1708.04896; torchvision's implementation)
    mixup, cutmix : 0, or alpha of the Beta distribution of an image's share in its mixture with
        another one, see `tutelage.host.train.data.mixing`; if both are given, each batch uses one
        of them at random
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0
    random_resized_crop: float = 0.0
    rand_augment: int = 0
    rand_augment_operations: int = 2
    colour_jitter: float = 0.0
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "cutout", "colour_jitter", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("random_resized_crop", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if not 0 <= self.rand_augment <= _LARGEST_MAGNITUDE:
            raise ValueError(
                f"rand_augment is {self.rand_augment}; it is a magnitude from 1 to "
                f"{_LARGEST_MAGNITUDE}, or 0 for none"
            )
        if self.rand_augment_operations < 1:
            raise ValueError("rand_augment_operations must be 1 or more")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with other images of their batch."""
        return self.mixup > 0 or self.cutmix > 0

    def transforms(self) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
        """Return torchvision's transforms of a uint8 (C, H, W) image, before and after cutout.

        Raises
        ------
        MissingPackage
            The settings need torchvision, which is not installed.
        """
        return make_transforms(
            self.rand_augment,
            self.rand_augment_operations,
            self.colour_jitter,
            self.random_erasing,
            GREY,
        )

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw random parameters for `count` images.

        The number of draws depends only on `count` and the settings.

        Returns
        -------
        dict
            "flip" bool (count,); "shift" int64 (count, 2), rows and columns cut from the top and
            left of the image padded by `shift`; "cutout" float32 (count, 2) in [0, 1), the
            square's centre as shares of height and width; "seed" int64 (count,), of the random
            numbers of random_resized_crop and of torchvision's transforms. Settings that are off
            have no entry.
        """
        drawn = {}
        if self.flip:
            drawn["flip"] = torch.rand(count, generator=generator) < 0.5
        if self.shift:
            drawn["shift"] = torch.randint(2 * self.shift + 1, (count, 2), generator=generator)
        if self.cutout:
            drawn["cutout"] = torch.rand(count, 2, generator=generator)
        if self._has_seeds:
            drawn["seed"] = torch.randint(2**31, (count,), generator=generator)
        return drawn

    @property
    def _has_seeds(self) -> bool:
        return bool(
            self.random_resized_crop
            or self.rand_augment
            or self.colour_jitter
            or self.random_erasing
        )

    def windows(self, drawn: dict[str, Tensor], aspect: float) -> list[Window] | None:
        """Return the part to crop from each picture; None without random_resized_crop.

        Parameters
        ----------
        drawn : parameters of the images, from draw()
        aspect : width of the images, divided by their height
        """
        if not self.random_resized_crop:
            return None
        return [
            partial(random_window, seed, self.random_resized_crop, aspect)
            for seed in drawn["seed"].tolist()
        ]

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Return uint8 images (N, C, H, W), channels_last, changed by parameters of draw().

        `images` are not modified, but may be returned themselves if there is nothing to do.
        ``apply(x[a:b], {k: v[a:b]})`` equals ``apply(x, drawn)[a:b]``. The crops of windows() come
        before this, and mixing comes after it.

        Raises
        ------
        ValueError
            The parameters were drawn for other settings or for another number of images.
        MissingPackage
            As for `transforms`.
        """
        wanted = {name for name in ("flip", "shift", "cutout") if getattr(self, name)}
        wanted |= {"seed"} if self._has_seeds else set()
        if drawn.keys() != wanted or any(len(v) != len(images) for v in drawn.values()):
            raise ValueError(f"parameters are of other settings, or not of {len(images)} images")
        drawn = {name: values.to(images.device) for name, values in drawn.items()}
        images = images.contiguous(memory_format=torch.channels_last)
        if self.flip or self.shift:
            images = _move(images, self.shift, drawn.get("flip"), drawn.get("shift"))
        before, after = self.transforms()
        if before:
            images = _each(images, before, drawn["seed"])
        if self.cutout:
            # masked_fill() would change the memory format.
            images = images.clone().masked_fill_(
                _square(images, self.cutout, drawn["cutout"]), GREY
            )
        return _each(images, after, drawn["seed"] + 1) if after else images


def _each(images: Tensor, transforms: tuple[Transform, ...], seeds: Tensor) -> Tensor:
    """Transform each image separately, with PyTorch's random numbers from its seed."""
    changed = torch.empty_like(images)
    with torch.random.fork_rng(devices=[]):
        for target, image, seed in zip(changed, images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            for transform in transforms:
                image = transform(image)
            target.copy_(image)
    return changed


def _move(images: Tensor, most: int, flip: Tensor | None, shift: Tensor | None) -> Tensor:
    """Shift, then mirror each image of (N, C, H, W), in one gather of whole pixels.

    One flat index per pixel was measured faster than advanced indexing, two gathers or grid_sample.
    """
    count, channels, height, width = images.shape
    device = images.device
    # NHWC, so that the channels of a pixel are adjacent.
    padded = F.pad(images.permute(0, 2, 3, 1), [0, 0, most, most, most, most], value=BLACK)
    rows = torch.arange(height, device=device).view(1, -1)
    columns = torch.arange(width, device=device).view(1, -1)
    if flip is not None:
        columns = torch.where(flip.view(-1, 1), width - 1 - columns, columns)
    if shift is not None:
        rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
    numbers = torch.arange(count, device=device).view(-1, 1)
    starts = (numbers * (height + 2 * most) + rows) * (width + 2 * most)
    index = (starts.unsqueeze(2) + columns.unsqueeze(1)).flatten()
    # index_select is twice as fast on a vector as on a matrix of one column.
    pixels = padded.reshape(-1, channels) if channels > 1 else padded.reshape(-1)
    moved = pixels.index_select(0, index).view(count, height, width, channels)
    return moved.permute(0, 3, 1, 2)


def _square(images: Tensor, side: int, centre: Tensor) -> Tensor:
    """Return the mask (N, 1, H, W) of a square in each image, around `centre` (N, 2) in [0, 1)."""
    inside = []
    for axis, length in enumerate(images.shape[2:]):
        start = (centre[:, axis : axis + 1] * length).long() - side // 2
        positions = torch.arange(length, device=images.device)
        inside.append((positions >= start) & (positions < start + side))
    rows, columns = inside
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
