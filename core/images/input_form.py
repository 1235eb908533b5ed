"""Conversion of an image to a model's input, as described by [input] of model.toml.

A pixel has 256 possible values, so mean and scale become a table of 256 float32 values per channel,
and, with the input's fix point, a table of 256 int8 values. Training, export, timing and the
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
"""Order of the channels -> their number."""

CROPS = ("none", "center")

LONGEST_SIDE = 8192
"""Longest side of a model's input, pixels: its square is the largest picture that is read."""

LARGEST_MEAN = 1e6
SCALES = (1e-9, 1e6)
"""Least and largest magnitude of a scale: products with a pixel stay in the range of float32."""

_FIX_POINTS = range(-32, 33)


class FormError(TutelageError, ValueError):
    """An invalid size, colour, crop, mean or scale of an input; the message names it."""


@dataclass(frozen=True)
class InputForm:
    """Conversion of an image to the model's input; `tutelage.core.images.fitter` applies it.

    Attributes
    ----------
    width, height : pixels, 1 to LONGEST_SIDE
    colour : "grey", "rgb" or "bgr": the order of the channels
    mean, scale : per channel in that order; one number applies to all channels; defaults 0 and 1.
        input = (pixel 0..255 - mean) * scale, in float32
    crop : "none" stretches the whole image, "center" takes the largest centred part with the
        right aspect ratio

    Raises
    ------
    FormError
        A value is out of range, or the number of means or scales is neither 1 nor `channels`.
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
        """Expand `mean` or `scale` to one number per channel, and verify it."""
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
    """Return the default order of the channels, which is OpenCV's."""
    return "grey" if channels == 1 else "bgr"


def not_one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    """Return the message of an error: the name, its value and the allowed values."""
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

    A value x of `float_table` becomes `quantise_int8` of x, in float32 as in the quantised student,
    but the fix point is not limited.

    Returns
    -------
    int8, shape (256, channels)
    """
    with np.errstate(over="ignore"):  # infinity saturates like other large values
        scaled = np.ldexp(float_table(form), fix_point)
    return saturate(round_half_up(scaled))


def best_fix_point(form: InputForm) -> int:
    """Return the fix point at which the int8 input is closest to the float input.

    Least squares over all 256 pixel values of all channels: 7 for (v - 128) / 128, where the error
    is 0, and 5 for ImageNet's mean and standard deviation.
    """
    exact = float_table(form).astype(np.float64)

    def error(fix_point: int) -> float:
        restored = dequantise(int8_table(form, fix_point), fix_point)
        return float(np.square(restored - exact).sum())

    return min(_FIX_POINTS, key=error)
