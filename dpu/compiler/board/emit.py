"""Instructions from a plan, in an order in which they are right; tokens come later.

For each strip of a layer, tile after tile of as many rows as an engine takes at once: what the
tile needs and is not there yet is loaded, the tile is computed, its rows are saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tutelage.dpu.compiler.board.layout import ChipMap, Ring
from tutelage.dpu.compiler.board.network import Node, View
from tutelage.dpu.compiler.board.parameters import Parameters, spread
from tutelage.dpu.compiler.board.plan import MAX_JUMP, Operand, Plan, Result, Step, Strip
from tutelage.dpu.compiler.board.walk import Feed, Walk, first_missing
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.engine_layers import (
    DEPTHWISE,
    SCALE,
    AluLayer,
    BlocksLayer,
    ConvLayer,
    EltwiseLayer,
    RepeatLayer,
)
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal

CONSTANTS, WORKSPACE, INPUTS, OUTPUTS = range(4)
"""Numbers of the DPU's registers as AMD's compiler gives them (measured on its files)."""

CONV_PAD, ALU_PAD = 15, 255
"""Highest `pad_bottom` and `pad_right` of CONV and ALU."""


@dataclass
class Emitter:
    """Writes the code of a plan.

    Attributes
    ----------
    code : so far
    layers : number of the plan's step, for each instruction
    parameters : the constants that the code loads
    """

    plan: Plan
    parameters: Parameters = field(default_factory=Parameters)
    code: list[Instruction] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape: Shape = self.plan.shape
        self.width = self.shape.width
        self.weight_ring, self.depthwise_ring, self.bias_ring = Ring(), Ring(), Ring()

    def emit(self) -> list[Instruction]:
        """Return the whole program, END included, without tokens."""
        for number, step in enumerate(self.plan.steps):
            self._number = number
            self._init: Instruction | None = None  # INITs are by layer
            self._step(step)
        self.add("END")
        return self.code

    def add(self, name: str, **values: int) -> None:
        """Append an instruction."""
        self.code.append(Instruction(self.shape.isa.by_name[name], **values))
        self.layers.append(self._number)

    def _step(self, step: Step) -> None:
        layer = step.node.layer
        if isinstance(layer, ConvLayer):
            self._convolution(step, layer)
        elif isinstance(layer, AluLayer):
            self._alu_layer(step, layer)
        elif isinstance(layer, EltwiseLayer):
            for strip in step.strips:
                self._eltwise(strip, layer)
        elif isinstance(layer, RepeatLayer):
            self._repeat(step.node, step.strips[0], layer)
        elif isinstance(layer, BlocksLayer):
            self._blocks(step.node, step.strips[0], layer)
        else:
            raise Refusal(f"{step.node.name}: a layer of another kind")

    # -- transfers ---------------------------------------------------------------------------

    def _load_rows(self, feed: Feed, chip: ChipMap, walk: Walk | None, rows: range) -> None:
        view = feed.view
        start = view.store.offset + view.first
        for row in rows:
            if walk is not None and not walk.needs(row):
                continue
            at = start + row * feed.row_step * view.row_stride
            at += (feed.column * feed.pixel_step - feed.left) * view.pixel_stride
            self.add(
                "LOAD", bank_id=chip.bank_of(row), bank_addr=chip.address(row),
                jump_write=chip.groups, jump_read=feed.pixel_step * view.pixel_stride,
                length=feed.columns, channel=feed.channels, reg_id=view.store.register,
                ddr_addr=at, **self._overlap(feed, walk),
            )  # fmt: skip

    def _overlap(self, feed: Feed, walk: Walk | None) -> dict[str, int]:
        """The fields of an augmented layer's LOAD."""
        if feed.taps == 1 or walk is None:
            return {}
        channels = feed.view.channels
        across = Walk((1, feed.taps), (1, feed.pixel_step), (0, feed.left), (1, 1), walk.output)
        pixels, columns = first_missing(across, feed.view)
        end = -feed.channels % self.width + columns * channels
        return {"pad_start": feed.left * channels, "pad_idx": max(1, pixels), "pad_end": end}

    def _save_rows(self, result: Result, strip: Strip, rows: range) -> None:
        for view in result.saves:
            for row in rows:
                self._save_row(result, strip, view, row)

    def _save_row(self, result: Result, strip: Strip, view: View, row: int) -> None:
        chip, phase = result.chip, result.phase
        at = view.store.offset + view.first
        at += (phase.row + row * phase.row_step) * view.row_stride
        at += (phase.column + strip.column * phase.column_step) * view.pixel_stride
        self.add(
            "SAVE", bank_id=chip.bank_of(row),
            bank_addr=(chip.address(row) + result.group) % BANK_DEPTH,
            jump_read=chip.groups, jump_write=phase.column_step * view.pixel_stride,
            length=strip.columns, channel=view.channels, reg_id=view.store.register, ddr_addr=at,
        )  # fmt: skip

    def _load_words(self, bank: int, address: int, offset: int, length: int, channels: int) -> None:
        """Load constants: `length` rows of so many channels, one after the other."""
        self.add(
            "LOAD", bank_id=bank, bank_addr=address % BANK_DEPTH, jump_read=channels,
            jump_write=-(-channels // self.width), length=length, channel=channels,
            reg_id=CONSTANTS, ddr_addr=offset,
        )  # fmt: skip

    def _needed(self, operand: Operand, walk: Walk, done: int, tile: range) -> int:
        """Load the rows that a tile needs and that are not there; return the new end."""
        if operand.feed is None:
            return done
        begin, end = walk.rows(tile.start, tile.stop)
        self._load_rows(operand.feed, operand.chip, walk, range(max(begin, done), end))
        return max(done, end)

    # -- convolutions ------------------------------------------------------------------------

    def _convolution(self, step: Step, layer: ConvLayer) -> None:
        operand, walk = step.strips[0].operands[0], step.strips[0].walk
        assert walk is not None
        weights = layer.weights
        outputs = len(weights)
        if operand.feed is not None and operand.feed.taps > 1:
            weights = weights.reshape(outputs, walk.kernel[0], 1, -1)
        weights = spread(weights, operand.lanes, operand.groups, self.width)
        given = self.parameters.add(weights), self.parameters.add(layer.bias)
        words = walk.kernel[0] * walk.kernel[1] * operand.groups
        if words > BANK_DEPTH:
            raise Refusal(f"{step.node.name}: a kernel of {words} bank rows")
        bias = self.bias_ring.take(-(-outputs // self.width))
        self._load_words(self.shape.bias_bank, bias, given[1], 1, outputs)
        for strip in step.strips:
            for block in self._blocks_of(strip, outputs, words):
                self._convolve(layer, strip, block, words, given[0], bias)

    def _blocks_of(self, strip: Strip, outputs: int, words: int) -> list[range]:
        """Groups of output channels whose weights are on the chip together."""
        groups = -(-outputs // self.width)
        assert strip.walk is not None
        tiles = -(-strip.walk.output[0] // self.shape.array.rows)
        most = groups if tiles == 1 else BANK_DEPTH // words
        return [range(g, min(g + most, groups)) for g in range(0, groups, most)]

    def _convolve(
        self, layer: ConvLayer, strip: Strip, block: range, words: int, given: int, bias: int
    ) -> None:
        """All rows of some groups of output channels."""
        (operand,), walk, result = strip.operands, strip.walk, strip.result
        assert walk is not None and result is not None
        part = _part(result, block, len(layer.weights), self.width)
        rows, done = self.shape.array.rows, 0
        places: dict[int, int] = {}
        for first in range(0, walk.output[0], rows):
            tile = range(first, min(first + rows, walk.output[0]))
            if first == 0:
                self._load_weights(layer, block[0], words, given, places, operand)
            done = self._needed(operand, walk, done, tile)
            self._conv_init(layer, operand, walk, result, tile)
            for group in block:
                if group not in places:
                    self._load_weights(layer, group, words, given, places, operand)
                self._conv(strip, operand, walk, result, tile, group, places[group], bias)
            self._save_rows(part, strip, range(tile.start, tile.stop))

    def _load_weights(
        self, layer: ConvLayer, group: int, words: int, given: int, places: dict[int, int],
        operand: Operand,
    ) -> None:  # fmt: skip
        """One LOAD for each output channel of a group."""
        outputs, taps = len(layer.weights), words // operand.groups
        dense = all(channel == lane for channel, lane in operand.lanes)
        channels = operand.channels if dense else operand.groups * self.width
        places[group] = self.weight_ring.take(words)
        for lane in range(min(self.width, outputs - group * self.width)):
            offset = given + (group * self.width + lane) * taps * channels
            bank = self.shape.weight_bank + lane
            self._load_words(bank, places[group], offset, taps, channels)

    def _conv_init(
        self, layer: ConvLayer, operand: Operand, walk: Walk, result: Result, tile: range
    ) -> None:
        chip, out = operand.chip, result.chip
        first = tile.start * walk.stride[0] - walk.pads[0]
        self._set_init(
            "CONVINIT", jump_read=chip.groups, jump_read_endl=_row_jump(chip),
            jump_write=out.groups, jump_write_endl=_row_jump(out), vpp=len(tile),
            shift_cut=layer.shift_cut, shift_bias=layer.shift_bias, act_type=layer.act_type,
            stride_out=out.stride, stride_offset_out=tile.start % out.stride,
            stride_offset_in=first % chip.stride, kernel_h=walk.kernel[0],
            kernel_w=walk.kernel[1], stride_h=walk.stride[0], stride_w=walk.stride[1],
        )  # fmt: skip

    def _set_init(self, name: str, **values: int) -> None:
        """Append an INIT where it differs from the one in force."""
        init = Instruction(self.shape.isa.by_name[name], **values)
        if init != self._init:
            self.add(name, **values)
            self._init = init

    def _conv(
        self, strip: Strip, operand: Operand, walk: Walk, result: Result, tile: range, group: int,
        weights: int, bias: int,
    ) -> None:  # fmt: skip
        out = result.chip
        self.add(
            "CONV", **self._window(operand, walk, tile, CONV_PAD),
            bank_id_out=out.bank_of(tile.start),
            bank_addr_out=(out.slot(tile.start) + result.group + group) % BANK_DEPTH,
            bank_addr_weights=weights, bank_addr_bias=(bias + group) % BANK_DEPTH,
            channel_group=operand.groups, length=walk.output[1],
        )  # fmt: skip

    def _window(self, operand: Operand, walk: Walk, tile: range, most: int) -> dict[str, int]:
        """The fields that say where a tile's windows are."""
        chip = operand.chip
        first = tile.start * walk.stride[0] - walk.pads[0]
        last = tile[-1] * walk.stride[0] - walk.pads[0]
        last_column = (walk.output[1] - 1) * walk.stride[1] - walk.pads[1]
        below, right = walk.size[0] - 1 - last, walk.size[1] - 1 - last_column
        if min(below, right) < 0:
            raise Refusal("a window that begins behind the map")
        span = chip.banks * chip.stride
        corner = operand.group - walk.pads[1] * chip.groups
        addresses = [(chip.slot(first + n * span) + corner) % BANK_DEPTH for n in range(4)]
        step = chip.banks * chip.stride
        assert step == span
        return {
            "bank_id_in": chip.bank_of(first), "bank_addr_in": addresses[0],
            "bank_addr_in_1": addresses[1], "bank_addr_in_2": addresses[2],
            "bank_addr_in_3": addresses[3], "pad_top": max(0, -first),
            "pad_left": max(0, walk.pads[1]), "pad_bottom": min(below, most),
            "pad_right": min(right, most),
            **({"channel_offset": self._missing(operand)} if most == CONV_PAD else {}),
        }  # fmt: skip

    def _missing(self, operand: Operand) -> int:
        """Lanes at the end of a map's last group that no channel has."""
        channel, lane = operand.lanes[-1]
        return operand.groups * self.width - lane - (operand.channels - channel)

    # -- MISC --------------------------------------------------------------------------------

    def _alu_layer(self, step: Step, layer: AluLayer) -> None:
        operand = step.strips[0].operands[0]
        weights = bias = 0
        if layer.weights is not None:
            height, width, channels = layer.weights.shape
            weights = self.depthwise_ring.take(height * width * operand.groups)
            given = self.parameters.add(layer.weights)
            bank = self.shape.depthwise_bank
            self._load_words(bank, weights, given, height * width, channels)
        if layer.scaled_by:
            weights = self.depthwise_ring.take(operand.groups)
            self._load_vector(step.node.inputs[-1], weights)
        if layer.mode == DEPTHWISE and layer.bias is not None:
            bias = self.bias_ring.take(operand.groups)
            given = self.parameters.add(layer.bias)
            self._load_words(self.shape.bias_bank, bias, given, 1, len(layer.bias))
        for strip in step.strips:
            self._alu_rows(layer, strip, weights, bias)

    def _load_vector(self, view: View, address: int) -> None:
        """Load factors that a layer has computed."""
        self.add(
            "LOAD", bank_id=self.shape.depthwise_bank, bank_addr=address, jump_read=view.channels,
            jump_write=-(-view.channels // self.width), length=1, channel=view.channels,
            reg_id=view.store.register, ddr_addr=view.store.offset + view.first,
        )  # fmt: skip

    def _alu_rows(self, layer: AluLayer, strip: Strip, weights: int, bias: int) -> None:
        operand, walk, result = strip.operands[0], strip.walk, strip.result
        assert walk is not None and result is not None
        done, rows = 0, self.shape.alu_rows
        for first in range(0, walk.output[0], rows):
            tile = range(first, min(first + rows, walk.output[0]))
            done = self._needed(operand, walk, done, tile)
            self._alu_init(layer, operand, walk, result, tile)
            out = result.chip
            self.add(
                "ALU", **self._window(operand, walk, tile, ALU_PAD), vpp=len(tile),
                bank_id_out=out.bank_of(tile.start),
                bank_addr_out=(out.slot(tile.start) + result.group) % BANK_DEPTH,
                bank_addr_weights=weights, bank_addr_bias=bias,
            )  # fmt: skip
            self._save_rows(result, strip, tile)

    def _alu_init(
        self, layer: AluLayer, operand: Operand, walk: Walk, result: Result, tile: range
    ) -> None:
        chip, out = operand.chip, result.chip
        first = tile.start * walk.stride[0] - walk.pads[0]
        self._set_init(
            "ALUINIT", exec_mode=layer.mode, kernel_h=walk.kernel[0], kernel_w=walk.kernel[1],
            stride_h=walk.stride[0], stride_w=walk.stride[1], stride_out=out.stride,
            stride_offset_out=tile.start % out.stride, stride_offset_in=first % chip.stride,
            length=walk.output[1], channel_offset=self._missing(operand),
            channel_group=operand.groups, shift_cut=layer.shift_cut,
            shift_bias=layer.shift_bias, act_type=layer.act_type,
            jump_read=chip.groups, jump_read_endl=chip.row_words, multi_factor=layer.factor,
            jump_write=out.groups, jump_write_endl=out.row_words,
            jump_read_weights=operand.groups if layer.mode in (DEPTHWISE, SCALE) else 0,
        )  # fmt: skip

    def _eltwise(self, strip: Strip, layer: EltwiseLayer) -> None:
        result = strip.result
        assert result is not None
        height = self._height(strip)
        done = 0
        for first in range(0, height, self.shape.array.rows):
            tile = range(first, min(first + self.shape.array.rows, height))
            for operand in strip.operands:
                if operand.feed is not None:
                    self._load_rows(operand.feed, operand.chip, None, tile)
            for rows in self._runs(strip, tile):
                self._elew(strip, layer, rows)
            self._save_rows(result, strip, tile)
            done = tile.stop
        assert done == height

    def _height(self, strip: Strip) -> int:
        assert strip.result is not None
        node = self.plan.steps[self._number].node
        return node.outputs[0].height

    def _runs(self, strip: Strip, tile: range) -> Iterator[range]:
        """Rows that one ELEW takes: in banks of the result one after the other."""
        assert strip.result is not None
        step = strip.result.chip.stride
        strides = [operand.chip.stride for operand in strip.operands]
        most = self.shape.alu_rows if all(step % stride == 0 for stride in strides) else 1
        for residue in range(step):
            rows = [row for row in tile if row % step == residue]
            for first in range(0, len(rows), most):
                run = rows[first : first + most]
                yield range(run[0], run[-1] + 1, step)

    def _elew(self, strip: Strip, layer: EltwiseLayer, rows: range) -> None:
        result = strip.result
        assert result is not None
        out, first = result.chip, rows[0]
        for number, operand in enumerate(strip.operands):
            chip = operand.chip
            self.add(
                "ELEWINIT", bank_id_in=chip.bank_of(first), id=number,
                bank_addr_in=(chip.address(first) + operand.group) % BANK_DEPTH,
                jump_read=chip.groups, jump_read_endl=_next_slot(chip, first),
                jump_bank=max(1, out.stride // chip.stride),
                shift_read=layer.shift_reads[number],
            )  # fmt: skip
        write = layer.shift_write
        self.add(
            "ELEW", length=strip.columns, act_type=int(layer.relu), elew_type=int(layer.product),
            bank_id_out=out.bank_of(first),
            bank_addr_out=(out.address(first) + result.group) % BANK_DEPTH,
            jump_write_endl=_next_slot(out, first), num=len(strip.operands), vpp=len(rows),
            jump_write=out.groups, shift_write=write if write >= 0 else 16 - write,
            channel_group=strip.operands[0].groups,
        )  # fmt: skip

    # -- copies within the DDR ---------------------------------------------------------------

    def _repeat(self, node: Node, strip: Strip, layer: RepeatLayer) -> None:
        """Each row is loaded once, and saved with gaps for each place that its pixels take."""
        (operand,), view = strip.operands, node.inputs[0]
        assert operand.feed is not None
        for row in range(view.height):
            self._load_rows(operand.feed, operand.chip, None, range(row, row + 1))
            for out in node.outputs:
                for down in range(layer.rows):
                    for across in range(layer.columns):
                        self._save_pixels(
                            operand.chip, row, out, row * layer.rows + down, across,
                            layer.columns, view.width, view.channels, 0,
                        )  # fmt: skip

    def _save_pixels(
        self, chip: ChipMap, row: int, view: View, to: int, column: int, step: int, length: int,
        channels: int, first: int,
    ) -> None:  # fmt: skip
        at = view.store.offset + view.first + to * view.row_stride
        self.add(
            "SAVE", bank_id=chip.bank_of(row), bank_addr=chip.address(row), jump_read=chip.groups,
            jump_write=step * view.pixel_stride, length=length, channel=channels,
            reg_id=view.store.register, ddr_addr=at + column * view.pixel_stride + first,
        )  # fmt: skip

    def _blocks(self, node: Node, strip: Strip, layer: BlocksLayer) -> None:
        """Of each block the pixels at one place, or the channels of one, are a transfer."""
        view, side = node.inputs[0], layer.side
        (operand,) = strip.operands
        small = view.channels // side**2 if layer.to_space else view.channels
        groups = -(-small // self.width)
        pixels = view.width if layer.to_space else view.width // side
        chip = replace(operand.chip, groups=groups, width=pixels)
        rows = view.height if layer.to_space else view.height // side
        number = 0
        for row in range(rows):
            for place in range(side**2):
                down, across = divmod(place, side)
                source = row if layer.to_space else row * side + down
                at = view.store.offset + view.first + source * view.row_stride
                at += place * small if layer.to_space else across * view.pixel_stride
                step = 1 if layer.to_space else side
                self.add(
                    "LOAD", bank_id=chip.bank_of(number), bank_addr=chip.address(number),
                    jump_write=groups, jump_read=step * view.pixel_stride, length=pixels,
                    channel=small, reg_id=view.store.register, ddr_addr=at,
                )  # fmt: skip
                for out in node.outputs:
                    to = row * side + down if layer.to_space else row
                    self._save_pixels(
                        chip, number, out, to, across if layer.to_space else 0,
                        side if layer.to_space else 1, pixels, small,
                        0 if layer.to_space else place * small,
                    )  # fmt: skip
                number += 1


def _row_jump(chip: ChipMap) -> int:
    """From a row of a map to the next in the same bank; nothing jumps where a bank has one."""
    return chip.row_words if chip.stride > 1 else min(chip.row_words, MAX_JUMP)


def _next_slot(chip: ChipMap, row: int) -> int:
    """Bank rows from a row's slot to the next one, where that is behind it; ELEW's jump."""
    jump = (chip.slot(row + chip.banks * chip.stride) - chip.slot(row)) % BANK_DEPTH
    return jump or BANK_DEPTH


def _part(result: Result, block: range, outputs: int, width: int) -> Result:
    """The result of some groups of output channels only."""
    if block.start == 0 and block.stop * width >= outputs:
        return result
    saves = [
        replace(
            view, first=view.first + block.start * width,
            channels=min(outputs, block.stop * width) - block.start * width,
        )
        for view in result.saves
    ]  # fmt: skip
    return replace(result, group=result.group + block.start, saves=tuple(saves))
