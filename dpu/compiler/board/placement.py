"""Assignment of bank rows to the maps and rings of a plan, stage by stage.

A `Placement` is one attempt: it follows the decisions of `Residence` and changes none of them. If
the banks are full it raises an exception, and plan.py changes a decision and tries again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tutelage.dpu.compiler.board.extent import (
    output_groups,
    ring_slots,
    saves_of,
    tile_rows,
    whole_walk,
)
from tutelage.dpu.compiler.board.layout import Banks, ChipMap, slots_for
from tutelage.dpu.compiler.board.network import Node, Store, View
from tutelage.dpu.compiler.board.pieces import Piece
from tutelage.dpu.compiler.board.residence import Residence
from tutelage.dpu.compiler.board.stages import (
    MAX_JUMP,
    MAX_LENGTH,
    WHOLE,
    Operand,
    Result,
    Save,
    Strip,
)
from tutelage.dpu.compiler.board.walk import Feed, Walk, walk_of
from tutelage.dpu.ops.engine_layers import WindowLayer
from tutelage.dpu.ops.refusal import Refusal

_DENSE = ((0, 0),)
"""Lanes of a map whose channels are contiguous."""


class BanksFull(Exception):
    """The banks are full.

    Attributes
    ----------
    stores : stores on the chip, and the one that found no room
    """

    def __init__(self, stores: list[Store]) -> None:
        super().__init__()
        self.stores = stores


class RowsTooLong(Exception):
    """The rows of a stage need more strips of columns."""


class Placement:
    """Locations of maps and rings in the banks, from the first stage on."""

    def __init__(self, residence: Residence) -> None:
        self.residence, self.shape = residence, residence.shape
        self._banks = Banks(residence.shape, residence.room)
        self._chips: dict[Store, ChipMap] = {}

    # -- stages ------------------------------------------------------------------------------

    def chain(self, pieces: Sequence[Piece]) -> tuple[Strip, ...]:
        """Return a strip of layers that pass rows from one to the next.

        Raises
        ------
        BanksFull, RowsTooLong
            It finds no room.
        Refusal
            A kernel has more rows than an instruction can address.
        """
        strips: list[Strip] = []
        for piece in pieces:
            before = strips[-1].result if strips else None
            result = self._result(piece)
            operands = tuple(self._operands(piece, before, result))
            strips.append(self._strip(piece, operands, result))
        self._free_rings()
        return tuple(strips)

    def siblings(self, pieces: Sequence[Piece]) -> tuple[Strip, ...]:
        """Return a strip of layers that read the same rows; raises as `chain`."""
        strips: list[Strip] = []
        walks = [piece.walk for piece in pieces if piece.walk is not None]
        tile = max(tile_rows(piece.node, piece.walk, self.shape) for piece in pieces)
        for piece in pieces:
            result = self._result(piece)
            shared = (
                strips[0].operands if strips else (self._loaded(piece, 0, walks, tile, result),)
            )
            strips.append(self._strip(piece, shared, result))
        self._free_rings()
        return tuple(strips)

    def copy(self, node: Node) -> Strip:
        """Return the strip of a copy within the DDR, which needs a ring of rows of its input.

        Raises
        ------
        BanksFull, RowsTooLong
            It finds no room.
        Refusal
            A row has more pixels than an instruction can load.
        """
        view = node.inputs[0]
        if view.width > MAX_LENGTH:
            raise Refusal(f"rows of {view.width} pixels exceed {MAX_LENGTH}", node.name)
        groups = -(-view.channels // self.shape.width)
        chip = self._ring("copy", view.height, 1, 1, view.width, groups, None)
        self._free_rings()
        operand = Operand(chip, 0, groups, _DENSE, view.channels, Feed(view, view.width))
        return Strip((operand,), None, None, view.height, 0, view.width)

    def free_stores(self, place: int) -> None:
        """Free the rows of stores that no node after this one uses."""
        for store in self._chips:
            if self.residence.last_use(store) <= place:
                self._banks.free(store)

    def _free_rings(self) -> None:
        for taken in self._banks.taken:
            for owner in [owner for owner in taken if not isinstance(owner, Store)]:
                del taken[owner]

    def _strip(self, piece: Piece, operands: tuple[Operand, ...], result: Result) -> Strip:
        tile = tile_rows(piece.node, piece.walk, self.shape)
        return Strip(operands, piece.walk, result, piece.height, piece.column, piece.columns, tile)

    # -- results -----------------------------------------------------------------------------

    def _result(self, piece: Piece) -> Result:
        """Return the store on the chip, or a ring of rows to save or pass to the next layer."""
        view = piece.node.outputs[0]
        if view.store in self.residence.rings:
            return self._passed(piece, view)
        if self.residence.keeps(view):
            return self._kept(piece.node, view)
        groups = output_groups(piece.node, self.shape.width)
        away = self._read_group(piece)
        chip = self._ring(("result", piece.place), piece.height, 1, 1, piece.columns, groups, away)
        return Result(chip, 0, self._saves(piece, piece.node.outputs))

    def _passed(self, piece: Piece, view: View) -> Result:
        """Return a ring of rows that the next layer reads."""
        reader = self.residence.network.nodes[piece.place + 1]
        stride, least = 1, 1
        if isinstance(reader.layer, WindowLayer):
            walk = walk_of(reader.layer, view)
            stride = walk.stride[0]
            whole = whole_walk(piece.node) if isinstance(piece.node.layer, WindowLayer) else None
            produced = tile_rows(piece.node, whole, self.shape)
            tile = tile_rows(reader, walk, self.shape)
            least = ring_slots([walk], tile, self.shape.array.rows, produced)
        groups = output_groups(piece.node, self.shape.width)
        owner = "result", piece.place
        chip = self._ring(owner, piece.height, least, stride, piece.columns, groups, None)
        return Result(chip, 0, self._saves(piece, piece.node.outputs[1:]))

    def _kept(self, node: Node, view: View) -> Result:
        """Return a store on the chip; its first writer allocates it."""
        store, lanes = view.store, self.shape.width
        if store not in self._chips:
            stride, groups = self.residence.stride[store], self.residence.groups_kept(store)
            slots = slots_for(store.height, stride, self.shape.array.rows)
            chip = self._take(store, slots, stride, store.width, groups, None)
            if chip is None:
                raise BanksFull([*self._stores(), store])
            self._chips[store] = chip
        saved = [v for v in node.outputs[1:] if v.store is not store]
        if self.residence.is_saved(store):
            saved.insert(0, view)
        group = store.groups_before(view.first, lanes)
        return Result(self._chips[store], group, saves_of(node, saved, WHOLE, lanes), stays=True)

    def _saves(self, piece: Piece, views: list[View]) -> tuple[Save, ...]:
        return saves_of(piece.node, views, piece.phase, self.shape.width)

    def _read_group(self, piece: Piece) -> int | None:
        """Return the bank group of a map that a node reads on the chip, or None."""
        for view in piece.node.inputs:
            if self.residence.is_on_chip(view.store, piece.place):
                return self._group(self._chips[view.store])
        return None

    def _group(self, chip: ChipMap) -> int:
        return chip.bank // self.shape.array.rows

    # -- operands ----------------------------------------------------------------------------

    def _operands(self, piece: Piece, before: Result | None, result: Result) -> Iterator[Operand]:
        walks = [] if piece.walk is None else [piece.walk]
        views = piece.node.inputs[:1] if walks else piece.node.inputs
        for number, view in enumerate(views):
            if self.residence.is_on_chip(view.store, piece.place):
                yield self._resident(view)
            elif view.store in self.residence.rings:
                assert before is not None
                groups = -(-view.channels // self.shape.width)
                yield Operand(before.chip, 0, groups, _DENSE, view.channels, ring=True)
            else:
                tile = tile_rows(piece.node, piece.walk, self.shape)
                yield self._loaded(piece, number, walks, tile, result)

    def _resident(self, view: View) -> Operand:
        lanes = self.shape.width
        chip = self._chips[view.store]
        group = view.store.groups_before(view.first, lanes)
        return Operand(chip, group, view.groups(lanes), tuple(view.lanes(lanes)), view.channels)

    def _loaded(
        self, piece: Piece, number: int, walks: Sequence[Walk], tile: int, result: Result
    ) -> Operand:
        """Return a ring of rows that are loaded from the DDR, away from the result's banks.

        Parameters
        ----------
        walks : walks of all layers that read these rows; none for a sum or product
        tile : most rows that one of them computes at a time
        """
        view = piece.node.inputs[number]
        source = piece.feed or Feed(view, piece.columns, column=piece.column)
        rows, least, stride = view.height, 1, 1
        if piece.walk is not None:
            rows, stride = piece.walk.size[0], piece.walk.stride[0]
            least = ring_slots(walks, tile, self.shape.array.rows, 1)
        if max(source.columns, piece.columns) > MAX_LENGTH:
            raise RowsTooLong
        groups = -(-source.channels // self.shape.width)
        owner, away = ("operand", piece.place, number), self._group(result.chip)
        chip = self._ring(owner, rows, least, stride, source.columns, groups, away)
        return Operand(chip, 0, groups, _DENSE, source.channels, source)

    # -- banks -------------------------------------------------------------------------------

    def _ring(
        self, owner: object, rows: int, least: int, stride: int, width: int, groups: int,
        away_from: int | None,
    ) -> ChipMap:  # fmt: skip
        """Allocate a ring with one slot more than necessary, if there is room."""
        most = slots_for(rows, stride, self.shape.array.rows)
        least = min(least, most)
        if stride > 1 and width * groups > MAX_JUMP:
            raise RowsTooLong
        for slots in range(min(least + 1, most), least - 1, -1):
            chip = self._take(owner, slots, stride, width, groups, away_from)
            if chip is not None:
                return chip
        stores = self._stores()
        if not stores or least * stride * width * groups > self.residence.room:
            raise RowsTooLong
        raise BanksFull(stores)

    def _stores(self) -> list[Store]:
        """Return the stores on the chip."""
        taken = [owner for group in self._banks.taken for owner in group]
        return [owner for owner in taken if isinstance(owner, Store)]

    def _take(
        self, owner: object, slots: int, stride: int, width: int, groups: int,
        away_from: int | None,
    ) -> ChipMap | None:  # fmt: skip
        """Allocate slots of rows, or return None if no group of banks has room."""
        found = self._banks.take(owner, slots * stride * width * groups, away_from)
        if found is None:
            return None
        group, base = found
        banks = self.shape.array.rows
        return ChipMap(group * banks, base, slots, stride, width, groups, banks)
