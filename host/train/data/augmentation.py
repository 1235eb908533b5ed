"""Random changes of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLACK, GREY = 0, 128  # pixel values that augmentation fills in


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, in pixel values.

    The parameters are drawn apart from being applied: processes that each have a slice of a
    global batch draw for the whole batch and apply their slice of the parameters, so that the
    images do not depend on how many processes there are.

    Attributes
    ----------
    flip : mirror half of the images left to right
    shift : move by up to so many pixels in each direction; what enters is black
    cutout : side in pixels of a square set to the middle grey, 128; its centre is anywhere in
        the image and the borders clip it (DeVries and Taylor, arXiv:1708.04552)
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("shift", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random parameters of `count` images, each (count, ...); empty when nothing is on.

        The number of draws depends on `count` and the settings alone.

        Returns
        -------
        dict
            "flip" bool (count,); "shift" int64 (count, 2), rows and columns cut from the top and
            left of the image padded by `shift`; "cutout" float32 (count, 2) in [0, 1), the
            square's centre as shares of height and width.
        """
        drawn = {}
        if self.flip:
            drawn["flip"] = torch.rand(count, generator=generator) < 0.5
        if self.shift:
            drawn["shift"] = torch.randint(2 * self.shift + 1, (count, 2), generator=generator)
        if self.cutout:
            drawn["cutout"] = torch.rand(count, 2, generator=generator)
        return drawn

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Return uint8 images (N, C, H, W) changed by parameters of draw(), channels_last.

        `images` are left as they are; with nothing to do they may be what is returned.
        apply(x[a:b], {k: v[a:b]}) equals apply(x, drawn)[a:b].

        Raises
        ------
        ValueError
            The parameters are of other settings, or of another number of images.
        """
        wanted = {name for name in ("flip", "shift", "cutout") if getattr(self, name)}
        if drawn.keys() != wanted or any(len(v) != len(images) for v in drawn.values()):
            raise ValueError(f"parameters drawn for other settings or not for {len(images)} images")
        drawn = {name: values.to(images.device) for name, values in drawn.items()}
        images = images.contiguous(memory_format=torch.channels_last)
        if self.flip or self.shift:
            images = _move(images, self.shift, drawn.get("flip"), drawn.get("shift"))
        if self.cutout:
            # Not masked_fill(), which changes the memory format.
            images = images.clone().masked_fill_(
                _square(images, self.cutout, drawn["cutout"]), GREY
            )
        return images


def _move(images: Tensor, most: int, flip: Tensor | None, shift: Tensor | None) -> Tensor:
    """Shift, then mirror each image of (N, C, H, W), in one gather of whole pixels.

    One flat index per pixel: measured faster than advanced indexing, two gathers or grid_sample.
    """
    count, channels, height, width = images.shape
    device = images.device
    # In NHWC, where a pixel's channels are side by side.
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
    """The mask (N, 1, H, W) of a square in each image, around `centre` (N, 2) in [0, 1)."""
    inside = []
    for axis, length in enumerate(images.shape[2:]):
        start = (centre[:, axis : axis + 1] * length).long() - side // 2
        positions = torch.arange(length, device=images.device)
        inside.append((positions >= start) & (positions < start + side))
    rows, columns = inside
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
