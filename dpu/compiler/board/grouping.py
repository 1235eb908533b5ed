"""Which layers form a stage, and in how many strips of columns each stage is computed.

Layers form a stage if a ring passes rows from one to the next, or if they read the same rows from
the DDR. Strips compute the columns at their borders twice, and read and write whole maps only in
the DDR. So a stage is split, or its maps leave the chip, where strips would cost too much or could
not be computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tutelage.dpu.compiler.board.extent import (
    cost_of_column,
    fit_together,
    result_size,
    strip_columns,
    walk_alike,
    whole_walk,
)
from tutelage.dpu.compiler.board.network import Node
from tutelage.dpu.compiler.board.residence import Residence
from tutelage.dpu.compiler.board.stages import MAX_LENGTH
from tutelage.dpu.ops.engine_layers import ConvLayer, EltwiseLayer, WindowLayer
from tutelage.dpu.ops.refusal import Refusal

MOST_REPEATED = 0.01
"""Fraction of a stage's work that may be repeated to keep a map out of the DDR."""


@dataclass
class Grouping:
    """The stages, as far as `residence` and earlier attempts decide them.

    A stage is a list of the numbers of its nodes, which are consecutive.
    """

    residence: Residence
    _strips: Counter[int] = field(default_factory=Counter, init=False)  # by a stage's first node
    _apart: set[int] = field(default_factory=set, init=False)  # nodes that begin a stage

    def nodes(self, places: Sequence[int]) -> list[Node]:
        """Return the nodes of a stage."""
        return [self.residence.network.nodes[place] for place in places]

    def stages(self) -> Iterator[list[int]]:
        """Yield the stages in order."""
        group: list[int] = []
        for place in range(len(self.residence.network.nodes)):
            group.append(place)
            if not self._continues(group):
                yield group
                group = []

    def _continues(self, group: list[int]) -> bool:
        """Return whether the next node is part of the same stage."""
        nodes, following = self.residence.network.nodes, group[-1] + 1
        if nodes[group[-1]].outputs[0].store in self.residence.rings:
            return True
        if following == len(nodes) or following in self._apart:
            return False
        return self.are_siblings([*group, following])

    def are_siblings(self, places: Sequence[int]) -> bool:
        """Return whether several nodes read the same map from the DDR in the same way."""
        nodes = self.nodes(places)
        view = nodes[0].inputs[0]
        if len(nodes) == 1:
            return False
        alike = all(
            isinstance(node.layer, ConvLayer)
            and not node.layer.is_dilated
            and node.inputs[0] == view
            and walk_alike(node.layer, nodes[0].layer)
            and self.residence.is_loaded(view.store, place)
            and node.outputs[0].store not in self.residence.rings
            for place, node in zip(places, nodes, strict=True)
        )
        return alike and fit_together(nodes, self.residence.shape.width)

    # -- strips ------------------------------------------------------------------------------

    def strips(self, places: Sequence[int]) -> int:
        """Return the number of strips of a stage; 1 for a copy and for a dilated layer."""
        layer = self.nodes(places)[-1].layer
        is_copy = not isinstance(layer, WindowLayer | EltwiseLayer)
        if is_copy or (isinstance(layer, WindowLayer) and layer.is_dilated):
            return 1
        return self._least_strips(places)

    def _least_strips(self, places: Sequence[int]) -> int:
        return max(self._strips[places[0]], -(-self._width(places) // MAX_LENGTH))

    def _width(self, places: Sequence[int]) -> int:
        return result_size(self.nodes(places)[-1])[1]

    def add_strip(self, places: Sequence[int]) -> None:
        """Compute a stage in one strip more, or split it if strips repeat too much of its work.

        Raises
        ------
        Refusal
            It needs more strips and cannot be split.
        """
        count = self._least_strips(places) + 1
        if count <= self._width(places) and self._repeated(places, count) <= MOST_REPEATED:
            self._strips[places[0]] = count
        elif not self.split(places):
            name = self.nodes(places)[-1].name
            raise Refusal("the rows do not fit the DPU's banks", name)

    def _repeated(self, places: Sequence[int], count: int) -> float:
        """Return the fraction of a stage's work that is repeated in columns shared by strips."""
        if self.are_siblings(places):
            return 0.0
        done = whole = 0.0
        for begin, columns in strip_columns(self._width(places), count):
            first = begin
            for node in reversed(self.nodes(places)):
                cost = cost_of_column(node, self.residence.shape.width)
                done += cost * columns
                whole += cost * result_size(node)[1] * (begin == 0)
                if isinstance(node.layer, WindowLayer):
                    part, first = whole_walk(node).columns(first, columns)
                    columns = part.size[1]
        return done / whole - 1

    # -- splitting ---------------------------------------------------------------------------

    def is_in_ddr(self, places: Sequence[int]) -> bool:
        """Return whether a stage reads and writes whole maps only in the DDR."""
        read = any(
            self.residence.is_on_chip(view.store, place)
            for place, node in zip(places, self.nodes(places), strict=True)
            for view in node.inputs
        )
        return not read and not any(
            self.residence.keeps(node.outputs[0]) for node in self.nodes(places)
        )

    def move_to_ddr(self, places: Sequence[int]) -> None:
        """Split a stage, or make it read and write its maps in the DDR if it is a single layer."""
        if self.split(places):
            return
        for place, node in zip(places, self.nodes(places), strict=True):
            for view in node.inputs:
                self.residence.drop(view.store, place)
            self.residence.drop(node.outputs[0].store, None)

    def split(self, places: Sequence[int]) -> bool:
        """Split a stage before its last sibling, or at its smallest inner map, which is then saved
        and loaded again; return whether it has several layers."""
        if len(places) == 1:
            return False
        if self.are_siblings(places):
            self._apart.add(places[-1])
            return True
        inner = [node.outputs[0].store for node in self.nodes(places[:-1])]
        self.residence.drop_ring(min(inner, key=lambda store: (store.size, store.name)))
        self._strips.clear()
        return True
