"""Conversion of thresholds to fix points that are legal on the DPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.fixed_point import MAX_SHIFT, integer_range
from tutelage.host.quantise.layers.base import Layer, LayerThresholds
from tutelage.host.quantise.quantisers import Quantiser

BIAS_BITS = 8
BIAS_RANGE = integer_range(BIAS_BITS, signed=True)


@dataclass
class FixPoints:
    """The fix points of a student.

    Attributes
    ----------
    activations : layer name -> fix point of its output
    weights : name of a layer with weights -> fix point of the weights
    notes : a line for each fix point that had to be moved, with the reason
    """

    activations: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def accumulator(self, layer: Layer) -> int:
        """Return the fix point of the accumulated sums of a layer with weights."""
        return self.activations[layer.inputs[0]] + self.weights[layer.name]

    def bias(self, layer: Layer, largest: float) -> int:
        """Return the fix point of a bias from its largest magnitude; its shift is 0 to 16."""
        own = accumulator = self.accumulator(layer)
        if largest > 0:
            own = BIAS_BITS - 1 - math.ceil(math.log2(largest))
        return max(accumulator - MAX_SHIFT, min(own, accumulator))


class Settlement:
    """The rules that make the fix points of a student legal.

    Parameters
    ----------
    layers : name -> layer, in execution order
    activation_of, weight_of : layer name -> quantiser
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        activation_of: Mapping[str, Quantiser],
        weight_of: Mapping[str, Quantiser],
    ) -> None:
        self.layers, self.activation_of, self.weight_of = layers, activation_of, weight_of
        self.quantisers = [*dict.fromkeys(activation_of.values()), *weight_of.values()]
        self._least = self._least_of_activations()

    def settle(self, ceilings: Sequence[int]) -> FixPoints:
        """Return fix points lowered from those of the thresholds until every shift is legal.

        Lowering one fix point may require lowering others along a path, but never raising any. The
        process ends unless the fix points of the weights along a cycle of groups add up to less
        than 0 (in a dense block the convolutions lead back to their concat); in that case the
        negative fix points of weights are raised to 0.

        Parameters
        ----------
        ceilings : ceil(log2 t) of each threshold
        """
        wanted = [q.magnitude - ceilings[q.index] for q in self.quantisers]
        raised = {i: wanted[i] for i, least in self._least.items() if wanted[i] < least}
        for index in raised:
            wanted[index] = self._least[index]
        points = list(wanted)
        lowest = [self._least.get(i, min(point, 0)) for i, point in enumerate(wanted)]
        why = self._lower(points, lowest)
        if why is None:
            weights = {q.index for q in self.weight_of.values()}
            points = [max(p, 0) if i in weights else p for i, p in enumerate(wanted)]
            why = {i: "weights above 1 in a cycle" for i in weights if points[i] != wanted[i]}
            lowest = [self._least.get(i, 0) for i in range(len(points))]
            why |= self._lower(points, lowest) or {}
        why = dict.fromkeys(raised, "the lowest at which the DPU supports the activation") | why
        notes = tuple(
            f"{self.quantisers[i].name}: "
            f"fix point {raised.get(i, wanted[i])} -> {points[i]} ({reason})"
            for i, reason in why.items()
        )
        return self._fix_points(points, notes)

    def unsettled(self, log2_t: Sequence[float]) -> FixPoints:
        """Return fractional fix points for training, of steps t / 2^m, which need not be legal.

        Parameters
        ----------
        log2_t : log2 of the threshold t of each quantiser
        """
        points: list[Any] = [q.magnitude - log2_t[q.index] for q in self.quantisers]
        return self._fix_points(points, ())

    def _fix_points(self, points: Sequence[int], notes: tuple[str, ...]) -> FixPoints:
        return FixPoints(
            {name: points[q.index] for name, q in self.activation_of.items()},
            {name: points[q.index] for name, q in self.weight_of.items()},
            notes,
        )

    def _least_of_activations(self) -> dict[int, int]:
        """Return threshold -> lowest fix point, for 8-bit groups with a layer that has a lowest.

        Raising the fix point of a ReLU6 to its lowest clips nothing, since its values still fit.
        """
        least: dict[int, int] = {}
        for name, quantiser in self.activation_of.items():
            point = self.layers[name].least_fix_point()
            if point is not None and quantiser.bits == 8:
                least[quantiser.index] = max(point, least.get(quantiser.index, point))
        return least

    def _lower(self, points: list[int], least: list[int]) -> dict[int, str] | None:
        """Lower `points` in place, and return threshold -> reason; weights stay above `least`.

        Return None if the process does not end, that is if a point falls below the lowest one that
        is possible with legal weights.
        """
        bottom = min(0, *points) - MAX_SHIFT
        around = {name: self._around(name, points, least) for name in self.layers}
        why: dict[int, str] = {}
        while (move := self._first_move(around)) is not None:
            index, points[index], why[index] = move
            if points[index] < bottom:
                return None
        return why

    def _first_move(self, around: Mapping[str, LayerThresholds]) -> tuple[int, int, str] | None:
        """Return the first threshold that must move, its fix point and the reason; None: none."""
        for name, layer in self.layers.items():
            move = layer.illegal_shift(around[name])
            if move is not None:
                return move.threshold, move.fix_point, f"{name} would {move.reason}"
        return None

    def _around(self, name: str, points: list[int], least: list[int]) -> LayerThresholds:
        return LayerThresholds(
            points, least,
            [self.activation_of[source].index for source in self.layers[name].inputs],
            self.activation_of[name].index,
            self.weight_of[name].index if name in self.weight_of else None,
        )  # fmt: skip
