"""How an image becomes a model's input, as [input] of model.toml says it."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = {"grey": 1, "rgb": 3, "bgr": 3}
"""Order of the channels and their number."""

CROPS = ("none", "center")


@dataclass(frozen=True)
class InputForm:
    """How an image becomes the model's input; `dpu.image_fitter` makes it fit.

    Attributes
    ----------
    width, height : pixels
    colour : "grey", "rgb" or "bgr": the order of the channels
    mean, scale : per channel in that order; input = (pixel 0..255 - mean) * scale
    crop : "none" stretches the whole image, "center" takes the largest middle part of the right
        shape
    """

    width: int
    height: int
    colour: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    crop: str = "none"
