"""Statistics of a model's int8 values on sample inputs: saturation, unused bits, dead channels.

A quantiser's fix points are good if the values use all 8 bits and few are clipped. The fast engine
computes every tensor; only a histogram of the 256 values of each layer is kept, so memory does not
grow with the number of images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.core.fixed_point import (
    INT8_MAX,
    INT8_MIN,
    MAX_SHIFT,
    Array,
    integers_of,
    relu6_highest,
    round_half_up,
    saturate,
    scaled,
)
from tutelage.dpu.engine.program import feed
from tutelage.dpu.engine.reference import Model
from tutelage.dpu.inspect.layers import INPUT, Layer, fix_point_of, layers_of
from tutelage.dpu.inspect.samples import Samples

MAX_SATURATED = 0.01
"""Fraction of values at the ends of the range above which a layer is marked."""

MIN_DEAD_BITS = 2
"""Least number of unused bits that marks a layer: a power-of-two scale may leave one."""

CHUNK_ELEMENTS, CHUNK_IMAGES = 1 << 25, 32
"""Most values of all layers, and most images, to compute at a time."""

_PIECE = 1 << 22
"""Number of values to count at a time: `np.bincount` needs eight bytes for each."""


class Values:
    """Histogram of the int8 values of one tensor, over any number of images."""

    def __init__(self) -> None:
        self.histogram = np.zeros(256, np.int64)  # of q + 128
        self.alive: Array = np.zeros(0, bool)  # by channel: whether it was ever non-zero
        self.cut: int | None = None  # values out of range before quantisation

    def add(self, q: Array) -> None:
        """Count the values of int8 `q` (..., channels)."""
        flat = np.ascontiguousarray(q).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _PIECE):
            counts = np.bincount(flat[start : start + _PIECE], minlength=256)
            self.histogram += np.roll(counts, 128)  # from the bit pattern's order to q's
        alive = np.asarray(q.any(axis=tuple(range(q.ndim - 1)))).reshape(-1)
        self.alive = alive | self.alive if self.alive.size else alive

    def add_cut(self, values: Array, point: int) -> None:
        """Count the float32 values of an input that are out of int8's range."""
        q = round_half_up(scaled(values, point))
        beyond = np.count_nonzero((q < INT8_MIN) | (q > INT8_MAX))
        self.cut = (self.cut or 0) + int(beyond)

    def share(self, *values: int) -> float:
        """Return the fraction of all values that are one of `values`."""
        return float(sum(self.histogram[v - INT8_MIN] for v in values) / self.histogram.sum())

    def ends(self) -> tuple[int, int]:
        """Return the least and the greatest value."""
        seen = np.flatnonzero(self.histogram)
        return int(seen[0]) + INT8_MIN, int(seen[-1]) + INT8_MIN

    def dead_bits(self) -> int:
        """Return how many of the 8 bits are unused by the largest magnitude; 7 if all are zero."""
        low, high = self.ends()
        return 7 - max(high, ~low, 0).bit_length()

    def facts(self, one_sided: bool) -> dict[str, Any]:
        """Return the figures for JSON.

        Saturated values are those at the ends of the range, with `one_sided` (ReLU) only at 127.
        For an input given as float32 they are the clipped ones, since its ends may be intended.
        """
        low, high = self.ends()
        saturated = self.share(INT8_MAX) if one_sided else self.share(INT8_MIN, INT8_MAX)
        if self.cut is not None:
            saturated = self.cut / int(self.histogram.sum())
        return {
            "saturated": saturated,
            "zeros": self.share(0),
            "min": low,
            "max": high,
            "dead_bits": self.dead_bits(),
            "channels": len(self.alive),
            "dead_channels": int(np.count_nonzero(~self.alive)),
        }


def add_statistics(facts: dict[str, Any], model: Model, samples: Samples) -> None:
    """Run the samples and add statistics of the values to the facts of `describe`.

    Each layer gets `values` and `weight_values` (None if there are no int8 values) and
    `advice`, a list of sentences.

    Parameters
    ----------
    model : the file's model on an engine that keeps every tensor (``trace=True``)
    """
    layers = layers_of(model.graph)
    found = _collect(model, samples, layers)
    facts["images"] = samples.read
    facts["notes"] = [*facts["notes"], *samples.notes()]
    for layer, entry in zip(layers, facts["layers"], strict=True):
        values, weights = found.get(layer.output.get_name()), _weight_values(model, layer)
        one_sided = layer.nonlinear in ("RELU", "RELU6")
        entry["values"] = values.facts(one_sided) if values else None
        entry["weight_values"] = weights.facts(False) if weights else None
        cut = values is not None and values.cut is not None
        entry["advice"] = [*_about_values(layer, entry, cut), *_about_weights(layer, entry)]


def _collect(model: Model, samples: Samples, layers: list[Layer]) -> dict[str, Values]:
    """Return the values of every layer with a fix point, by the name of its output."""
    program = model.program
    computed = {op.get_name() for op in program.steps}
    points = {
        layer.output.get_name(): point
        for layer in layers
        if layer.output in program.inputs or layer.output.get_name() in computed
        if (point := fix_point_of(layer.output)) is not None
    }
    fed = {layer.name: layer.output.get_name() for layer in layers if layer.kind == INPUT}
    found = {name: Values() for name in points}
    for arrays in samples.batches(_images_at_a_time(model)):
        traced = model.trace(*arrays, keep=(points.keys() & computed) or None)
        for op, array in zip(program.inputs, arrays, strict=True):
            traced[op.get_name()] = feed(op, array)
            name = fed[op.get_name()]
            if array.dtype != np.int8 and name in found:
                found[name].add_cut(array, points[name])
        for name, point in points.items():
            found[name].add(_integers(traced[name], point))
    return found


def _images_at_a_time(model: Model) -> int:
    if not model.program.takes_batches:
        return 1
    elements = sum(op.get_output_tensor().get_element_num() for op in model.program.steps)
    return max(1, min(CHUNK_IMAGES, CHUNK_ELEMENTS // max(1, elements)))


def _integers(values: Array, point: int) -> Array:
    """Return the int8 q of values, which a quantised file has as q * 2**-p in float32."""
    if values.dtype == np.int8:
        return values
    return saturate(integers_of(values, point))


def _weight_values(model: Model, layer: Layer) -> Values | None:
    op = layer.weights
    point = None if op is None else fix_point_of(op)
    if op is None or point is None or op.get_name() not in model.program.constants:
        return None
    values = Values()
    values.add(_integers(model.program.constants[op.get_name()], point))
    return values


def _about_values(layer: Layer, entry: dict[str, Any], cut: bool) -> list[str]:
    """Return advice about a layer's output; none if it only moves values.

    `cut` is whether the saturated values are known to have been clipped.
    """
    values, point = entry["values"], layer.fix_point
    if values is None or point is None or layer.type.moves:
        return []
    if values["min"] == values["max"] == 0:
        return ["all values are zero"]
    given = layer.kind == INPUT and not cut  # as int8: the ends may be intended
    bounded = layer.type.bounded or _capped(layer, point)
    if values["saturated"] > MAX_SATURATED and not layer.type.bounded and not given:
        text = f"{values['saturated']:.1%} saturated: fix point {point} -> {point - 1}"
        return [text + _shared(layer) + _if_legal(layer, +1)]
    dead = values["dead_bits"]
    if dead >= MIN_DEAD_BITS and not bounded:
        text = f"{dead} of 8 bits unused: fix point {point} -> {point + 1}"
        return [text + _shared(layer) + _if_legal(layer, -1)]
    return []


def _capped(layer: Layer, point: int) -> bool:
    """Return whether a ReLU6 bounds the values, which explains unused bits."""
    return layer.nonlinear == "RELU6" and relu6_highest(point) < INT8_MAX


def _shared(layer: Layer) -> str:
    """Return a remark if a concat, which has one fix point for all its inputs, reads the layer."""
    joins = next((reader for reader in layer.readers if reader.type.joins), None)
    return f", as all inputs of {joins.name}" if joins else ""


def _if_legal(layer: Layer, change: int) -> str:
    """Return a warning if the output shift would leave the DPU's range."""
    if layer.shift is None or 0 <= layer.shift + change <= MAX_SHIFT:
        return ""
    what = "raise" if change < 0 else "lower"
    return f"; its shift would be {layer.shift + change}: {what} the weights' fix point too"


def _about_weights(layer: Layer, entry: dict[str, Any]) -> list[str]:
    values, point = entry["weight_values"], entry["fix_weights"]
    if values is None or values["dead_bits"] < MIN_DEAD_BITS:
        return []
    if values["min"] == values["max"] == 0:
        return ["all weights are zero"]
    text = f"weights leave {values['dead_bits']} of 8 bits unused: their fix point {point}"
    # Unlike samples, the weights are complete: no bit needs to be kept in reserve.
    return [f"{text} -> {point + values['dead_bits']}, unless they are intentionally narrow"]
