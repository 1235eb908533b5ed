"""How an image becomes a model's input, as [input] of model.toml describes it.

A pixel has 256 possible values, so mean and scale are a table of 256 float32 values per channel,
and with the input's fix point a table of 256 int8 values. Training, export, timing and the
application all take their numbers from these two tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.errors import TutelageError
from tutelage.core.fixed_point import dequantise, round_half_up, saturate
from tutelage.core.text import counted

COLOURS = {"grey": 1, "rgb": 3, "bgr": 3}
"""Order of the channels and their number."""

CROPS = ("none", "center")

LONGEST_SIDE = 8192
"""Pixels of a model's input in one direction: its square is the largest picture that is read."""

LARGEST_MEAN = 1e6
SCALES = (1e-9, 1e6)
"""Least and largest magnitude of a scale: no product of a pixel leaves float32."""

_FIX_POINTS = range(-32, 33)


class FormError(TutelageError, ValueError):
    """A size, mean or scale that no image can be brought to; the text names it."""


@dataclass(frozen=True)
class InputForm:
    """How an image becomes the model's input; `tutelage.core.images.fitter` makes it fit.

    Attributes
    ----------
    width, height : pixels, 1 to LONGEST_SIDE
    colour : "grey", "rgb" or "bgr": the order of the channels
    mean, scale : per channel in that order, where one number is given for all channels; without
        any 0 and 1. input = (pixel 0..255 - mean) * scale, in float32
    crop : "none" stretches the whole image, "center" takes the largest middle part of the right
        shape

    Raises
    ------
    FormError
        A value is out of range, or there is neither one mean nor one for each channel.
    """

    width: int
    height: int
    colour: str
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    crop: str = "none"

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 1 <= getattr(self, name) <= LONGEST_SIDE:
                raise FormError(f"{name} is {getattr(self, name)}; it must be 1 to {LONGEST_SIDE}")
        for name, allowed in (("colour", tuple(COLOURS)), ("crop", CROPS)):
            if getattr(self, name) not in allowed:
                raise FormError(not_one_of(name, getattr(self, name), allowed))
        self._fill("mean", 0.0, (0.0, LARGEST_MEAN))
        self._fill("scale", 1.0, SCALES)

    def _fill(self, name: str, default: float, magnitudes: tuple[float, float]) -> None:
        """Bring `mean` or `scale` to one number per channel."""
        values = tuple(map(float, getattr(self, name) or [default]))
        if not all(map(math.isfinite, values)):
            raise FormError(f"{name} must be finite")
        for value in values:
            if not magnitudes[0] <= abs(value) <= magnitudes[1]:
                least, most = (f"{magnitude:g}" for magnitude in magnitudes)
                raise FormError(f"{name} is {value:g}; its magnitude must be {least} to {most}")
        if len(values) not in (1, self.channels):
            raise FormError(
                f"{name} has {counted(len(values), 'number')} for "
                f"{counted(self.channels, 'channel')}"
            )
        object.__setattr__(self, name, values * (self.channels // len(values)))

    @property
    def channels(self) -> int:
        """Number of the input's channels."""
        return COLOURS[self.colour]


def assumed_colour(channels: int) -> str:
    """Return the order of the channels where nothing says it: OpenCV's own."""
    return "grey" if channels == 1 else "bgr"


def not_one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return the text of an error: what a name is, and what it may be."""
    return f"{name} is {value!r}; it must be one of {', '.join(allowed)}"


def float_table(form: InputForm) -> np.ndarray:
    """Return the table from pixel values to the model's float input.

    Returns
    -------
    float32, shape (256, channels): (v - mean[c]) * scale[c], each step rounded to float32, as
    PyTorch computes it from float32 tensors
    """
    values = np.arange(256, dtype=np.float32)[:, np.newaxis]
    return (values - np.array(form.mean, np.float32)) * np.array(form.scale, np.float32)


def int8_table(form: InputForm, fix_point: int) -> np.ndarray:
    """Return the table from pixel values to the model's int8 input.

    Value x of `float_table` becomes what `quantise_int8` gives, in float32 as the quantised student
    computes it; here a fix point may be of any size.

    Returns
    -------
    int8, shape (256, channels)
    """
    with np.errstate(over="ignore"):  # infinite is out of range like other large values
        scaled = np.ldexp(float_table(form), fix_point)
    return saturate(round_half_up(scaled))


def best_fix_point(form: InputForm) -> int:
    """Return the fix point at which the int8 input is nearest to the float input.

    Least squares over all 256 pixel values of all channels: 7 for (v - 128) / 128, where the error
    is 0, and 5 for ImageNet's mean and standard deviation.
    """
    exact = float_table(form).astype(np.float64)

    def error(fix_point: int) -> float:
        restored = dequantise(int8_table(form, fix_point), fix_point)
        return float(np.square(restored - exact).sum())

    return min(_FIX_POINTS, key=error)
