"""Generation of the instructions of a layer that is computed row by row, tile by tile.

A tile has as many rows as an engine processes at once. Rows that it needs and that are missing are
loaded, or computed by the previous layer's runner; then the tile is computed and its rows are
saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

from tutelage.dpu.compiler.board.code import Code
from tutelage.dpu.compiler.board.constants import Constants
from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.spans import groups_of
from tutelage.dpu.compiler.board.stages import MAX_JUMP, Operand, Result, Strip
from tutelage.dpu.compiler.board.walk import Walk
from tutelage.dpu.ops.engine_layers import (
    DEPTHWISE,
    SCALE,
    AluLayer,
    ConvLayer,
    EltwiseLayer,
    EngineLayer,
)
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal

CONV_PAD, ALU_PAD = 15, 255
"""Largest `pad_bottom` and `pad_right` of CONV and of ALU."""

AnyLayer = TypeVar("AnyLayer", bound=EngineLayer)


class Runner(Generic[AnyLayer]):
    """Generator of the code for a layer's strip, some rows at a time.

    Attributes
    ----------
    done : number of rows computed
    loaded : the first row not yet loaded of each ring; shared by its readers
    block : output channel groups, for a convolution whose weights do not fit together
    """

    def __init__(
        self, code: Code, number: int, layer: AnyLayer, strip: Strip, constants: Constants,
        source: Runner[Any] | None,
    ) -> None:  # fmt: skip
        self.code, self.number, self.strip, self.constants = code, number, strip, constants
        self.layer = layer
        self.source, self.done = source, 0
        self.loaded: dict[ChipMap, int] = {}
        self.block: range | None = None
        assert strip.result is not None
        self.result: Result = strip.result

    def advance(self) -> None:
        """Compute a tile, after its inputs."""
        tile = range(self.done, min(self.done + self.strip.tile, self.strip.height))
        self.prepare()
        for operand in self.strip.operands:
            self._bring(operand, *self.needed(tile))
        self.code.number = self.number
        self.compute(tile)
        self.done = tile.stop

    def prepare(self) -> None:
        """Load the constants, before the first tile."""
        self.code.number = self.number
        while self.constants.loads:
            self.code.add("LOAD", **self.constants.loads.pop(0))

    def needed(self, tile: range) -> tuple[int, int]:
        """Return the rows of the operands that a tile needs, as (begin, end)."""
        return tile.start, tile.stop

    def compute(self, tile: range) -> None:
        """Append the instructions of a tile."""
        raise NotImplementedError

    def _bring(self, operand: Operand, begin: int, end: int) -> None:
        """Ensure that rows of an operand are on the chip."""
        if operand.ring:
            assert self.source is not None
            while self.source.done < end:
                self.source.advance()
        elif operand.feed is not None:
            self.code.number = self.number
            done = self.loaded.get(operand.chip, 0)
            rows = range(max(begin, done), end)
            self.code.load_rows(operand.feed, operand.chip, self.strip.walk, rows)
            self.loaded[operand.chip] = max(end, done)


class WindowRunner(Runner[AnyLayer]):
    """Runner of a layer with a kernel."""

    def __init__(
        self, code: Code, number: int, layer: AnyLayer, strip: Strip, constants: Constants,
        source: Runner[Any] | None,
    ) -> None:  # fmt: skip
        super().__init__(code, number, layer, strip, constants, source)
        self.operand = strip.operands[0]
        assert strip.walk is not None
        self.walk: Walk = strip.walk

    def needed(self, tile: range) -> tuple[int, int]:
        return self.walk.rows(tile.start, tile.stop)

    def offsets(self, tile: range) -> dict[str, int]:
        """Return the fields of an INIT with the start of a tile and the distances of rows."""
        chip, out, walk = self.operand.chip, self.result.chip, self.walk
        first = tile.start * walk.stride[0] - walk.pads[0]
        return {
            "jump_read": chip.groups, "jump_write": out.groups,
            "jump_read_endl": _row_jump(chip), "jump_write_endl": _row_jump(out),
            "stride_out": out.stride, "stride_offset_out": tile.start % out.stride,
            "stride_offset_in": first % chip.stride, "kernel_h": walk.kernel[0],
            "kernel_w": walk.kernel[1], "stride_h": walk.stride[0], "stride_w": walk.stride[1],
        }  # fmt: skip

    def window(self, tile: range, most: int, group: int = 0) -> dict[str, int]:
        """Return the fields with the location of a tile's windows.

        Parameters
        ----------
        most : largest `pad_bottom` and `pad_right`
        group : first channel group of the operand to read
        """
        operand, walk, out = self.operand, self.walk, self.result.chip
        chip = operand.chip
        first = tile.start * walk.stride[0] - walk.pads[0]
        last = tile[-1] * walk.stride[0] - walk.pads[0]
        last_column = (walk.output[1] - 1) * walk.stride[1] - walk.pads[1]
        below, right = walk.size[0] - 1 - last, walk.size[1] - 1 - last_column
        if min(below, right) < 0:
            raise Refusal("a window begins beyond the map", self.layer.op)
        corner = operand.group + group - walk.pads[1] * chip.groups
        span = chip.banks * chip.stride
        address = [(chip.slot(first + n * span) + corner) % BANK_DEPTH for n in range(4)]
        return {
            "bank_id_in": chip.bank_of(first), "bank_addr_in": address[0],
            "bank_addr_in_1": address[1], "bank_addr_in_2": address[2],
            "bank_addr_in_3": address[3], "pad_top": max(0, -first),
            "pad_left": max(0, walk.pads[1]), "pad_bottom": min(below, most),
            "pad_right": min(right, most), "bank_id_out": out.bank_of(tile.start),
        }  # fmt: skip

    @property
    def missing(self) -> int:
        """Number of unused lanes at the end of a map's last group."""
        operand = self.operand
        channel, lane = operand.lanes[-1]
        return operand.groups * self.code.width - lane - (operand.channels - channel)


class ConvRunner(WindowRunner[ConvLayer]):
    """Runner of a convolution."""

    @property
    def outputs(self) -> range:
        """The output channel groups to compute."""
        if self.block is not None:
            return self.block
        return range(len(groups_of(self.layer, self.code.width)))

    def prepare(self) -> None:
        """Load the constants and the first weights, before the first tile."""
        super().prepare()
        self._load_weights(self.outputs[0])

    def compute(self, tile: range) -> None:
        layer, code, out = self.layer, self.code, self.result.chip
        code.set_init(
            "CONVINIT", **self.offsets(tile), vpp=len(tile), shift_cut=layer.shift_cut,
            shift_bias=layer.shift_bias, act_type=layer.act_type,
        )  # fmt: skip
        for group in self.outputs:
            self._load_weights(group)
            span = self.constants.weights[group].span
            at_end = span.first + span.count == self.operand.groups
            code.add(
                "CONV", **self.window(tile, CONV_PAD, span.first),
                channel_offset=self.missing if at_end else 0,
                bank_addr_out=(out.slot(tile.start) + self.result.group + group) % BANK_DEPTH,
                bank_addr_weights=self.constants.places[group],
                bank_addr_bias=(self.constants.bias + group) % BANK_DEPTH,
                channel_group=span.count, length=self.walk.output[1],
            )  # fmt: skip
        code.save_rows(self._part(), self.strip, tile)

    def _load_weights(self, group: int) -> None:
        """Emit one LOAD per output channel of a group, unless its weights are loaded."""
        code, constants = self.code, self.constants
        if group in constants.places:
            return
        given = constants.weights[group]
        place = constants.places[group] = code.weights.take(given.words)
        taps = self.walk.kernel[0] * self.walk.kernel[1]
        for lane in range(len(groups_of(self.layer, code.width)[group])):
            offset = given.offset + lane * taps * given.channels
            bank = code.shape.weight_bank + lane
            code.add("LOAD", **code.words(bank, place, offset, taps, given.channels))

    def _part(self) -> Result:
        """Return the result restricted to the block's groups."""
        if self.block is None:
            return self.result
        width, first = self.code.width, self.block.start
        count = min(len(self.layer.weights), self.block.stop * width) - first * width
        if self.layer.side > 1:
            saves = tuple(save for save in self.result.saves if save.group in self.block)
            return replace(self.result, saves=saves)
        saves = tuple(
            replace(save, group=first, first=first * width, channels=count)
            for save in self.result.saves
        )
        return replace(self.result, saves=saves)


class AluRunner(WindowRunner[AluLayer]):
    """Runner of a pool, a depthwise convolution or a unary function."""

    def compute(self, tile: range) -> None:
        layer, code, out = self.layer, self.code, self.result.chip
        weighted = layer.mode in (DEPTHWISE, SCALE)
        code.set_init(
            "ALUINIT", **self.offsets(tile), exec_mode=layer.mode, length=self.walk.output[1],
            channel_offset=self.missing, channel_group=self.operand.groups,
            shift_cut=layer.shift_cut, shift_bias=layer.shift_bias, act_type=layer.act_type,
            multi_factor=layer.factor, jump_read_weights=self.operand.groups if weighted else 0,
        )  # fmt: skip
        code.add(
            "ALU", **self.window(tile, ALU_PAD), vpp=len(tile),
            bank_addr_out=(out.slot(tile.start) + self.result.group) % BANK_DEPTH,
            bank_addr_weights=self.constants.places.get(0, 0), bank_addr_bias=self.constants.bias,
        )  # fmt: skip
        code.save_rows(self.result, self.strip, tile)


class EltwiseRunner(Runner[EltwiseLayer]):
    """Runner of a sum or product."""

    def compute(self, tile: range) -> None:
        for rows in self._runs(tile):
            self._elew(rows)
        self.code.save_rows(self.result, self.strip, tile)

    def _runs(self, tile: range) -> Iterator[range]:
        """Yield the rows of each ELEW, which are in consecutive banks of the result."""
        step = self.result.chip.stride
        strides = [operand.chip.stride for operand in self.strip.operands]
        most = self.code.shape.alu_rows if all(step % stride == 0 for stride in strides) else 1
        for residue in range(step):
            rows = [row for row in tile if row % step == residue]
            for first in range(0, len(rows), most):
                run = rows[first : first + most]
                yield range(run[0], run[-1] + 1, step)

    def _elew(self, rows: range) -> None:
        out, first, layer = self.result.chip, rows[0], self.layer
        for number, operand in enumerate(self.strip.operands):
            chip = operand.chip
            self.code.add(
                "ELEWINIT", bank_id_in=chip.bank_of(first), id=number,
                bank_addr_in=(chip.address(first) + operand.group) % BANK_DEPTH,
                jump_read=chip.groups, jump_read_endl=_next_slot(chip, first),
                jump_bank=max(1, out.stride // chip.stride),
                shift_read=layer.shift_reads[number],
            )  # fmt: skip
        write = layer.shift_write
        self.code.add(
            "ELEW", length=self.strip.columns, act_type=int(layer.relu),
            elew_type=int(layer.product), bank_id_out=out.bank_of(first),
            bank_addr_out=(out.address(first) + self.result.group) % BANK_DEPTH,
            jump_write_endl=_next_slot(out, first), num=len(self.strip.operands),
            vpp=len(rows), jump_write=out.groups,
            shift_write=write if write >= 0 else SHIFT_SIGN - write,
            channel_group=self.strip.operands[0].groups,
        )  # fmt: skip


SHIFT_SIGN = 16
"""`shift_write` of ELEW: values from this one up shift right."""

RUNNERS: dict[type[EngineLayer], type[Runner[Any]]] = {
    ConvLayer: ConvRunner,
    AluLayer: AluRunner,
    EltwiseLayer: EltwiseRunner,
}
"""The runner of each type of layer; copies have none."""


def _row_jump(chip: ChipMap) -> int:
    """Return the distance between rows of a map in a bank; irrelevant if a bank has one row."""
    return chip.row_words if chip.stride > 1 else min(chip.row_words, MAX_JUMP)


def _next_slot(chip: ChipMap, row: int) -> int:
    """Return the bank rows from a row's slot to the next one; 2048 if it is the same."""
    jump = (chip.slot(row + chip.banks * chip.stride) - chip.slot(row)) % BANK_DEPTH
    return jump or BANK_DEPTH
