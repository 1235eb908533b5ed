"""From thresholds to fix points that the DPU can compute with."""

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
    """The legal fix points that the thresholds lead to."""

    activations: dict[str, int] = field(default_factory=dict)  # by layer
    weights: dict[str, int] = field(default_factory=dict)  # by layer with weights
    notes: tuple[str, ...] = ()  # what had to be moved, and why

    def accumulator(self, layer: Layer) -> int:
        """Return the fix point of the sums of a layer with weights."""
        return self.activations[layer.inputs[0]] + self.weights[layer.name]

    def bias(self, layer: Layer, largest: float) -> int:
        """Return a bias's fix point from its largest magnitude: shift to the accumulator 0..16."""
        own = accumulator = self.accumulator(layer)
        if largest > 0:
            own = BIAS_BITS - 1 - math.ceil(math.log2(largest))
        return max(accumulator - MAX_SHIFT, min(own, accumulator))


class Settlement:
    """The rules by which the fix points of one student are settled.

    Parameters
    ----------
    layers : by name, in an order they can run in
    activation_of, weight_of : quantisers by layer
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
        """Return legal fix points, lowered from those wanted until every shift is legal.

        Lowering one can call for more of the same along a path, and never for raising. It ends
        when the weights' fix points along a cycle of groups (a dense block's convolutions lead
        back to its concat) do not add up to less than 0; where they do, they are raised to 0.

        Parameters
        ----------
        ceilings : ceil(log2 t) by threshold
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
        why = dict.fromkeys(raised, "the lowest at which the DPU has the activation") | why
        notes = tuple(
            f"{self.quantisers[i].name}: "
            f"fix point {raised.get(i, wanted[i])} -> {points[i]} ({reason})"
            for i, reason in why.items()
        )
        return self._fix_points(points, notes)

    def unsettled(self, log2_t: Sequence[float]) -> FixPoints:
        """Return the fix points of real steps t / 2^m, neither whole nor legal: for training."""
        points: list[Any] = [q.magnitude - log2_t[q.index] for q in self.quantisers]
        return self._fix_points(points, ())

    def _fix_points(self, points: Sequence[int], notes: tuple[str, ...]) -> FixPoints:
        return FixPoints(
            {name: points[q.index] for name, q in self.activation_of.items()},
            {name: points[q.index] for name, q in self.weight_of.items()},
            notes,
        )

    def _least_of_activations(self) -> dict[int, int]:
        """The lowest fix point by threshold, of 8-bit groups in which a layer has one.

        A ReLU6 never gives more than what its fix point on the DPU can hold.
        """
        least: dict[int, int] = {}
        for name, quantiser in self.activation_of.items():
            point = self.layers[name].least_fix_point()
            if point is not None and quantiser.bits == 8:
                least[quantiser.index] = max(point, least.get(quantiser.index, point))
        return least

    def _lower(self, points: list[int], least: list[int]) -> dict[int, str] | None:
        """Lower `points` in place, a weight's not below `least`; the reasons by threshold.

        None if there is no end to it: with legal weights nothing falls below the lowest point.
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
        """The first threshold that must move: (index, fix point, reason)."""
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
