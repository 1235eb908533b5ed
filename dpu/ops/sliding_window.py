"""Sliding windows: positions of a kernel on its input, and sums over them.

The geometry of convolutions and pools, shared by shape inference, the
reference engine and the lowering to ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array

_BLOCK_ELEMENTS = 1 << 22
"""Most accumulators computed at a time: 32 MiB of int64."""

MAX_TAPS = 1 << 16
"""Most taps of a kernel: the DPU's largest pool, 256x256."""

MAX_PADDED_ELEMENTS = 1 << 28
"""Most elements of an input with its padding."""


@dataclass(frozen=True)
class Window:
    """The positions of a kernel on an input of ``in_h x in_w`` pixels; all sizes in pixels.

    ``pad_*`` are the rows and columns around the input after `pad_mode` is
    applied, so the output size is
    ``(in + pads - dilated kernel) // stride + 1``.
    """

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_left: int
    pad_right: int
    pad_top: int
    pad_bottom: int
    out_h: int
    out_w: int

    @property
    def area(self) -> int:
        """Number of taps of the kernel."""
        return self.kernel_h * self.kernel_w

    def taps(self) -> Iterator[tuple[int, int]]:
        """Yield the taps of the kernel, (row, column)."""
        for row in range(self.kernel_h):
            for column in range(self.kernel_w):
                yield row, column

    def pad(self, x: Array, value: float = 0) -> Array:
        """Return `x` (N, H, W, C) with padding of `value` around it.

        Raises
        ------
        UnsupportedError
            The result would have more than `MAX_PADDED_ELEMENTS`.
        """
        rows, columns = (self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)
        n, h, w, c = x.shape
        if n * (h + sum(rows)) * (w + sum(columns)) * c > MAX_PADDED_ELEMENTS:
            raise UnsupportedError(f"{list(x.shape)} with padding {rows}, {columns} is too large")
        return np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=value)

    def under_tap(self, padded: Array, tap: tuple[int, int], rows: slice) -> Array:
        """Return the inputs of one tap for the output rows `rows`: (N, rows, out_w, C)."""
        top = tap[0] * self.dilation_h + rows.start * self.stride_h
        left = tap[1] * self.dilation_w
        bottom = top + (rows.stop - rows.start - 1) * self.stride_h + 1
        right = left + (self.out_w - 1) * self.stride_w + 1
        return padded[:, top : bottom : self.stride_h, left : right : self.stride_w]

    def row_blocks(self, elements_per_row: int) -> Iterator[slice]:
        """Yield ranges of output rows whose accumulators fit into a bounded buffer."""
        step = max(1, _BLOCK_ELEMENTS // max(1, elements_per_row))
        for start in range(0, self.out_h, step):
            yield slice(start, min(start + step, self.out_h))


def window_of(attrs: dict[str, Any], in_h: int, in_w: int) -> Window:
    """Return the window that an op's attributes describe.

    `attrs` are XIR's kernel, stride, dilation as [w, h], pad as [left, right,
    top, bottom], pad_mode FLOOR, CEIL, SAME or VALID, and `global`.

    Raises
    ------
    UnsupportedError
        A size is not positive, the kernel does not fit, or the mode is unknown.
    """
    if attrs.get("global"):
        kernel_w, kernel_h, pad = in_w, in_h, [0, 0, 0, 0]
    else:
        kernel_w, kernel_h = _pair(attrs, "kernel")
        pad = list(attrs.get("pad") or [0, 0, 0, 0])
    stride_w, stride_h = _pair(attrs, "stride", 1)
    dilation_w, dilation_h = _pair(attrs, "dilation", 1)
    if len(pad) != 4:
        raise UnsupportedError(f"pad {pad} is not [left, right, top, bottom]")
    mode = attrs.get("pad_mode") or "FLOOR"
    left, right, out_w = _along(in_w, kernel_w, stride_w, dilation_w, pad[0], pad[1], mode)
    top, bottom, out_h = _along(in_h, kernel_h, stride_h, dilation_h, pad[2], pad[3], mode)
    return Window(
        kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w,
        left, right, top, bottom, out_h, out_w,
    )  # fmt: skip


def transposed_window_of(attrs: dict[str, Any], in_h: int, in_w: int) -> Window:
    """Return a transposed convolution's window over its input with inserted zeros.

    ``out = (in - 1) * stride + dilated kernel - pads``; the window itself has
    stride 1 and the padding ``dilated kernel - 1 - pad``.
    """
    kernel_w, kernel_h = _pair(attrs, "kernel")
    stride_w, stride_h = _pair(attrs, "stride", 1)
    dilation_w, dilation_h = _pair(attrs, "dilation", 1)
    left, right, top, bottom = attrs.get("pad") or [0, 0, 0, 0]
    reach_h, reach_w = dilation_h * (kernel_h - 1), dilation_w * (kernel_w - 1)
    out_h = (in_h - 1) * stride_h + reach_h + 1 - top - bottom
    out_w = (in_w - 1) * stride_w + reach_w + 1 - left - right
    pads = (reach_w - left, reach_w - right, reach_h - top, reach_h - bottom)
    if min(pads) < 0 or min(out_h, out_w) < 1:
        raise UnsupportedError(f"pad {[left, right, top, bottom]} is larger than the kernel")
    return Window(kernel_h, kernel_w, 1, 1, dilation_h, dilation_w, *pads, out_h, out_w)


def insert_zeros(x: Array, stride_h: int, stride_w: int) -> Array:
    """Return `x` (N, H, W, C) with ``stride - 1`` zeros between neighbouring pixels."""
    n, h, w, c = x.shape
    out = np.zeros((n, (h - 1) * stride_h + 1, (w - 1) * stride_w + 1, c), x.dtype)
    out[:, ::stride_h, ::stride_w] = x
    return out


def convolve(padded: Array, weights: Array, window: Window, rows: slice) -> Array:
    """Return the sum of ``x * w`` over taps and input channels, for some output rows.

    Parameters
    ----------
    padded : (N, H, W, C), padding included
    weights : (O, kernel_h, kernel_w, C / groups), of the accumulator's type
    rows : output rows to compute

    Returns
    -------
    (N, rows, out_w, O), with the element type of the weights
    """
    outputs, _, _, depth = weights.shape
    groups = padded.shape[3] // depth
    per_group = outputs // groups
    shape = (padded.shape[0], rows.stop - rows.start, window.out_w, outputs)
    acc = np.zeros(shape, weights.dtype)
    for group in range(groups):
        inputs = padded[..., group * depth : (group + 1) * depth]
        out = slice(group * per_group, (group + 1) * per_group)
        for tap in window.taps():
            x = window.under_tap(inputs, tap, rows).astype(weights.dtype)
            acc[..., out] += x @ weights[out, tap[0], tap[1]].T
    return acc


def convolve_depthwise(padded: Array, weights: Array, window: Window, rows: slice) -> Array:
    """Return as `convolve`, but depthwise; weights (multiplier, kernel_h, kernel_w, C).

    Output channel ``c * multiplier + m`` is input channel c with kernel m.
    """
    multiplier, _, _, channels = weights.shape
    shape = (padded.shape[0], rows.stop - rows.start, window.out_w, channels, multiplier)
    acc = np.zeros(shape, weights.dtype)
    for row, column in window.taps():
        x = window.under_tap(padded, (row, column), rows).astype(weights.dtype)
        acc += x[..., None] * weights[:, row, column].T
    return acc.reshape(*shape[:3], channels * multiplier)


def _pair(attrs: dict[str, Any], name: str, default: int | None = None) -> tuple[int, int]:
    value = attrs.get(name)
    if not value and default is not None:
        return default, default
    if value is None or len(value) != 2 or min(value) < 1:
        raise UnsupportedError(f"{name} {value} is not a positive [width, height]")
    width, height = int(value[0]), int(value[1])
    if name == "kernel" and width * height > MAX_TAPS:
        raise UnsupportedError(f"kernel {width}x{height} is too large")
    return width, height


def _along(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, mode: str
) -> tuple[int, int, int]:
    """Return the padding before and after, and the output size, along one axis."""
    reach = dilation * (kernel - 1) + 1
    if mode == "SAME":
        out = math.ceil(size / stride)
        total = max((out - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2, out
    if mode == "VALID":
        before = after = 0
    elif mode not in ("FLOOR", "CEIL"):
        raise UnsupportedError(f"pad_mode {mode!r} is not one of FLOOR, CEIL, SAME, VALID")
    span = size + before + after - reach
    if min(before, after) < 0 or span < 0:
        raise UnsupportedError(
            f"a kernel of extent {reach} does not fit into {size} + {before} + {after}"
        )
    out = span // stride + 1
    if mode == "CEIL" and span % stride:
        after += stride - span % stride
        out += 1
    return before, after, out
