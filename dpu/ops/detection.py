"""Ops of the CPU part of detectors: anchor boxes and normalised vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import listed_axes
from tutelage.dpu.ops.reduction import keeps_batch_of
from tutelage.dpu.ops.registry import OpType, register

MAX_BOXES = 1 << 12
"""Most boxes per pixel; SSD has six."""


class PriorBox(OpType):
    """SSD's anchor boxes of a feature map."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        return [dims[0], 2, dims[1] * dims[2] * len(_box_sizes(op)) * 4]


class L2Normalize(OpType):
    """L2 normalisation to vectors of length 1."""

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return keeps_batch_of(op, moving)


def priorbox(op: Any, inputs: Inputs) -> Array:
    """Return SSD's anchor boxes, float32 (N, 2, boxes * 4): corners, then variances.

    At each pixel, around its centre ``(column + offset, row + offset) * step``: for each of
    `min_sizes` the square of that size, one of size ``sqrt(min * max)``, and a rectangle per
    aspect ratio (with `flip` also its inverse), as xmin, ymin, xmax, ymax relative to the image,
    with `clip` clipped to [0, 1]. Only the shapes of the inputs, the feature map and the image,
    are used. Sizes are truncated to whole pixels and everything is float32, as in Caffe's layer
    and AMD's (Vitis AI Library, cpu_task).
    """
    feature, image = (array.shape for array in inputs["input"])
    height, width = feature[1:3]
    step_y, step_x = _steps(op, feature, image)
    offset = np.float32(op.get_attr("offset"))
    middle_x = (np.arange(width, dtype=np.float32) + offset) * np.float32(step_x)
    middle_y = (np.arange(height, dtype=np.float32) + offset) * np.float32(step_y)
    sizes = np.array(_box_sizes(op), np.float32).astype(np.float64) / 2
    corners = np.empty((height, width, len(sizes), 4), np.float64)
    for first, sign in ((0, -1), (2, 1)):
        corners[..., first] = (middle_x[None, :, None] + sign * sizes[:, 0]) / image[2]
        corners[..., first + 1] = (middle_y[:, None, None] + sign * sizes[:, 1]) / image[1]
    if op.get_attr("clip"):
        corners = np.clip(corners, 0, 1)
    variances = np.broadcast_to(np.array(_variance(op), np.float32), corners.shape)
    boxes = np.stack([corners.astype(np.float32).ravel(), variances.ravel()])
    return np.broadcast_to(boxes, (feature[0], *boxes.shape))


def _floats(op: Any, name: str) -> list[float]:
    return [float(value) for value in op.get_attrs().get(name) or []]


def _box_sizes(op: Any) -> list[tuple[float, float]]:
    """Return width and height of each box of a pixel, in pixels."""
    smallest, largest = _floats(op, "min_sizes"), _floats(op, "max_sizes")
    if (largest and len(largest) != len(smallest)) or min([1.0, *smallest, *largest]) <= 0:
        raise UnsupportedError(f"op {op.get_name()!r}: invalid box sizes {smallest} and {largest}")
    if len(smallest) * (2 + 2 * len(_floats(op, "aspect_ratio"))) > MAX_BOXES:
        raise UnsupportedError(f"op {op.get_name()!r}: more than {MAX_BOXES} boxes per pixel")
    roots = [np.sqrt(np.float32(ratio)) for ratio in _ratios(op)]
    boxes: list[tuple[float, float]] = []
    for index, least in enumerate(smallest):
        side = np.float32(int(least))
        boxes.append((float(side), float(side)))
        if largest:
            both = math.sqrt(int(least) * int(largest[index]))
            boxes.append((both, both))
        boxes += [(float(side * root), float(side / root)) for root in roots]
    return boxes


def _ratios(op: Any) -> list[float]:
    """Return the aspect ratios other than 1, each once."""
    found = [1.0]
    for ratio in _floats(op, "aspect_ratio"):
        if not ratio > 0:
            raise UnsupportedError(f"op {op.get_name()!r}: invalid aspect ratio {ratio}")
        if all(abs(ratio - other) >= 1e-6 for other in found):
            found += [ratio, float(1 / np.float32(ratio))] if op.get_attr("flip") else [ratio]
    return found[1:]


def _steps(op: Any, feature: tuple[int, ...], image: tuple[int, ...]) -> tuple[float, float]:
    """Return the image pixels per feature map pixel, vertically and horizontally."""
    step = _floats(op, "step")
    if not step:
        return image[1] / feature[1], image[2] / feature[2]
    return step[0], step[-1]


def _variance(op: Any) -> list[float]:
    variance = _floats(op, "variance") or [1.0]
    if len(variance) not in (1, 4):
        raise UnsupportedError(f"op {op.get_name()!r}: {len(variance)} variances; expected 1 or 4")
    return variance


def l2_normalize(op: Any, inputs: Inputs) -> Array:
    """Return ``x / sqrt(max(sum(x**2), epsilon))`` over the axes `axis`, float32 (XIR)."""
    x = inputs["input"][0].astype(np.float64)
    axes = listed_axes(op, "axis") or tuple(range(x.ndim))
    least = float(op.get_attrs().get("epsilon", 1e-12))
    squares = (x * x).sum(axes, keepdims=True)
    return np.asarray(x / np.sqrt(np.maximum(squares, least)), np.float32)


register(PriorBox("priorbox", priorbox), L2Normalize("l2_normalize", l2_normalize))
