"""Generate instructions from a plan, in an order that computes correctly; tokens are added later.

Each strip of a stage is computed in tiles of as many rows as an engine processes at once: rows that
the tile needs and that are missing are loaded, or computed by the previous layer; then the tile is
computed and its rows are saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.layout import ChipMap, Ring
from tutelage.dpu.compiler.board.network import Node, View
from tutelage.dpu.compiler.board.parameters import Parameters, spread
from tutelage.dpu.compiler.board.spans import Span, groups_of, spans_of
from tutelage.dpu.compiler.board.split import MAX_GROUPS
from tutelage.dpu.compiler.board.stages import MAX_JUMP, Operand, Plan, Result, Stage, Strip
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
    EngineLayer,
    RepeatLayer,
)
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal

CONSTANTS, WORKSPACE, INPUTS, OUTPUTS = range(4)
"""Numbers of the DPU's registers, as assigned by AMD's compiler (measured on its files)."""

CONV_PAD, ALU_PAD = 15, 255
"""Largest `pad_bottom` and `pad_right` of CONV and of ALU."""


@dataclass(frozen=True)
class GroupWeights:
    """The weights of a group of output channels.

    Attributes
    ----------
    offset : offset of the first one in the register of constants
    span : channel groups of the map that they apply to
    channels : bytes per tap
    words : number of bank rows
    """

    offset: int
    span: Span
    channels: int
    words: int


@dataclass
class Constants:
    """Locations of a layer's constants in the DDR and on the chip.

    Attributes
    ----------
    weights : weights of each output channel group of a convolution
    places : bank row of each group's weights on the chip; of depthwise weights under key 0
    bias : bank row of the first biases
    loads : LOADs of constants shared by all tiles, before the first tile
    """

    weights: list[GroupWeights] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    bias: int = 0
    loads: list[dict[str, int]] = field(default_factory=list)


@dataclass
class Emitter:
    """Generator of the code of a plan.

    Attributes
    ----------
    code : instructions so far
    nodes : for each instruction, the number of its node
    parameters : constants that the code loads
    """

    plan: Plan
    parameters: Parameters = field(default_factory=Parameters)
    code: list[Instruction] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shape: Shape = self.plan.shape
        self.width = self.shape.width
        self.number = 0
        self.weight_ring, self.depthwise_ring, self.bias_ring = Ring(), Ring(), Ring()
        self._inits: dict[str, Instruction] = {}

    def emit(self) -> list[Instruction]:
        """Return the whole program, END included, without tokens.

        Raises
        ------
        Refusal
            A layer exceeds the limits of instructions.
        """
        first = 0
        for stage in self.plan.stages:
            self._stage(stage, first)
            first += len(stage.nodes)
        self.add("END")
        return self.code

    def add(self, name: str, **values: int) -> None:
        """Append an instruction.

        Raises
        ------
        Refusal
            A value does not fit its field.
        """
        form = self.shape.isa.by_name[name]
        for field_name, value in values.items():
            limits = form.by_name[field_name]
            if not limits.lowest <= value <= limits.highest:
                node = self.plan.network.nodes[self.number].name
                span = f"{limits.lowest} to {limits.highest}"
                raise Refusal(f"{name} has {field_name}={value}; it must be {span}", node)
        self.code.append(Instruction(form, **values))
        self.nodes.append(self.number)

    def set_init(self, name: str, **values: int) -> None:
        """Append an INIT if it differs from the current one."""
        init = Instruction(self.shape.isa.by_name[name], **values)
        if init != self._inits.get(name):
            self.add(name, **values)
            self._inits[name] = init

    def _stage(self, stage: Stage, first: int) -> None:
        layer = stage.nodes[-1].layer
        self.number = first
        if isinstance(layer, RepeatLayer):
            _repeat(self, stage.nodes[0], stage.strips[0][0], layer)
        elif isinstance(layer, BlocksLayer):
            _blocks(self, stage.nodes[0], stage.strips[0][0], layer)
        else:
            self._rows(stage, first)

    def _rows(self, stage: Stage, first: int) -> None:
        """Emit a stage whose layers are computed row by row."""
        kept = []
        before = self.weight_ring.given, self.depthwise_ring.given
        for number, (node, strip) in enumerate(zip(stage.nodes, stage.strips[0], strict=True)):
            self.number = first + number
            kept.append(_constants(self, node, strip))
        for block in _blocks_of(self, stage, kept):
            for constants in kept:
                constants.places = {} if block is not None else constants.places
            for strips in stage.strips:
                runners: list[Runner[Any]] = []
                loaded: dict[ChipMap, int] = {}
                for number, (node, strip) in enumerate(zip(stage.nodes, strips, strict=True)):
                    source = runners[-1] if any(o.ring for o in strip.operands) else None
                    kind = _RUNNERS[type(node.layer)]
                    runner = kind(self, first + number, node.layer, strip, kept[number], source)
                    runner.block, runner.loaded = block, loaded
                    runners.append(runner)
                read = {runner.source for runner in runners}
                ends = [runner for runner in runners if runner not in read]
                while left := [end for end in ends if end.done < end.strip.height]:
                    min(left, key=lambda end: end.done).advance()
        taken = self.weight_ring.given - before[0], self.depthwise_ring.given - before[1]
        if len(stage.nodes) > 1 and max(taken) > BANK_DEPTH:
            raise AssertionError(f"{stage.nodes[0].name}: weights of a stage exceed their banks")

    # -- transfers ---------------------------------------------------------------------------

    def load_rows(self, feed: Feed, chip: ChipMap, walk: Walk | None, rows: range) -> None:
        """Load rows of a map, except those that no window needs."""
        view = feed.view
        start = view.store.offset + view.first
        for row in rows:
            if walk is not None and not walk.needs(row):
                continue
            at = start + (feed.row + row * feed.row_step) * view.row_stride
            at += (feed.column - feed.left) * view.pixel_stride
            self.add(
                "LOAD", bank_id=chip.bank_of(row), bank_addr=chip.address(row),
                jump_write=chip.groups, jump_read=feed.pixel_step * view.pixel_stride,
                length=feed.columns, channel=feed.channels, reg_id=view.store.register,
                ddr_addr=at, **self._overlap(feed, walk),
            )  # fmt: skip

    def _overlap(self, feed: Feed, walk: Walk | None) -> dict[str, int]:
        """Return the additional fields of an augmented layer's LOAD."""
        if feed.taps == 1 or walk is None:
            return {}
        channels, left = feed.view.channels, feed.left - feed.column
        output = walk.output[0], feed.columns
        across = Walk((1, feed.taps), (1, feed.pixel_step), (0, left), (1, 1), output)
        pixels, columns = first_missing(across, feed.view)
        end = -feed.channels % self.width + columns * channels
        start = max(0, left) * channels
        return {"pad_start": start, "pad_idx": max(1, pixels), "pad_end": end}

    def save_rows(self, result: Result, strip: Strip, rows: range) -> None:
        """Save rows of a result to all of its locations."""
        chip = result.chip
        for save in result.saves:
            view, phase = save.view, save.phase
            for row in rows:
                at = view.store.offset + view.first + save.first
                at += (phase.row + row * phase.row_step) * view.row_stride
                at += (phase.column + strip.column * phase.column_step) * view.pixel_stride
                self.add(
                    "SAVE", bank_id=chip.bank_of(row),
                    bank_addr=(chip.address(row) + result.group + save.group) % BANK_DEPTH,
                    jump_read=chip.groups, jump_write=phase.column_step * view.pixel_stride,
                    length=strip.columns, channel=save.channels, reg_id=view.store.register,
                    ddr_addr=at,
                )  # fmt: skip

    def words(
        self, bank: int, address: int, offset: int, length: int, channels: int
    ) -> dict[str, int]:
        """Return a LOAD of constants: `length` contiguous pixels of `channels` channels."""
        return {
            "bank_id": bank, "bank_addr": address % BANK_DEPTH, "jump_read": channels,
            "jump_write": -(-channels // self.width), "length": length, "channel": channels,
            "reg_id": CONSTANTS, "ddr_addr": offset,
        }  # fmt: skip


# -- constants ---------------------------------------------------------------------------------


def _constants(to: Emitter, node: Node, strip: Strip) -> Constants:
    """Allocate a layer's constants."""
    layer = node.layer
    if isinstance(layer, ConvLayer):
        return _conv_constants(to, node, strip, layer)
    found = Constants()
    if not isinstance(layer, AluLayer):
        return found
    groups, depthwise = strip.operands[0].groups, to.shape.depthwise_bank
    if layer.weights is not None:
        height, width, channels = layer.weights.shape
        if height * width * groups > BANK_DEPTH:
            raise Refusal(f"kernel {height}x{width} exceeds the DPU's banks", node.name)
        found.places[0] = to.depthwise_ring.take(height * width * groups)
        given = to.parameters.add(layer.weights)
        found.loads.append(to.words(depthwise, found.places[0], given, height * width, channels))
    if layer.scaled_by:
        vector = node.inputs[-1]
        found.places[0] = to.depthwise_ring.take(groups)
        load = to.words(
            depthwise, found.places[0], vector.store.offset + vector.first, 1, vector.channels
        )
        found.loads.append({**load, "reg_id": vector.store.register})
    if layer.mode == DEPTHWISE and layer.bias is not None:
        found.bias = to.bias_ring.take(groups)
        given = to.parameters.add(layer.bias)
        found.loads.append(to.words(to.shape.bias_bank, found.bias, given, 1, len(layer.bias)))
    return found


def _conv_constants(to: Emitter, node: Node, strip: Strip, layer: ConvLayer) -> Constants:
    (operand,), walk = strip.operands, strip.walk
    assert walk is not None
    outputs = len(layer.weights)
    weights = layer.weights.reshape(outputs, *walk.kernel, -1)  # wide if augmented
    augmented = weights.shape[-1] != layer.weights.shape[-1]
    spans = spans_of(layer, operand.lanes, operand.groups, to.width)
    if augmented:
        spans = [Span(0, operand.groups)] * len(spans)
    weights = spread(weights, operand.lanes, operand.groups, to.width)
    given = _group_weights(to, layer, weights, spans)
    words, read = max(g.words for g in given), max(span.count for span in spans)
    if words > BANK_DEPTH or read > MAX_GROUPS:
        size = f"{walk.kernel[0]}x{walk.kernel[1]}x{operand.channels}"
        raise Refusal(f"kernel {size} exceeds the DPU's banks", node.name)
    groups = groups_of(layer, to.width)
    biases = layer.bias
    if layer.side > 1:
        biases = np.zeros((len(groups), to.width), np.int8)
        for number, group in enumerate(groups):
            biases[number, : len(group)] = layer.bias[group.start : group.stop]
    bias = to.bias_ring.take(len(groups))
    load = to.words(to.shape.bias_bank, bias, to.parameters.add(biases), 1, biases.size)
    return Constants(given, {}, bias, [load])


def _group_weights(
    to: Emitter, layer: ConvLayer, weights: Array, spans: list[Span]
) -> list[GroupWeights]:
    """Allocate the weights [outputs, height, width, lanes], whole or only those of the spans."""
    _, height, width, lanes = weights.shape
    taps, found = height * width, []
    whole = len(set(spans)) == 1 and spans[0].count * to.width >= lanes
    start = to.parameters.add(weights) if whole else 0
    for group, span in zip(groups_of(layer, to.width), spans, strict=True):
        first, end = span.first * to.width, (span.first + span.count) * to.width
        part = weights[group.start : group.stop, ..., first:end]
        offset = start + group.start * taps * lanes if whole else to.parameters.add(part)
        found.append(GroupWeights(offset, span, part.shape[-1], taps * span.count))
    return found


def _blocks_of(to: Emitter, stage: Stage, kept: list[Constants]) -> list[range | None]:
    """Return output channel groups whose weights fit the chip together; None for all of a stage."""
    layer = stage.nodes[-1].layer
    if len(stage.nodes) > 1 or not isinstance(layer, ConvLayer):
        return [None]
    groups = len(groups_of(layer, to.width))
    tiles = sum(-(-strips[0].height // strips[0].tile) for strips in stage.strips)
    words = max(group.words for group in kept[0].weights)
    most = groups if tiles == 1 else BANK_DEPTH // words
    if most >= groups:
        return [None]
    return [range(g, min(g + most, groups)) for g in range(0, groups, most)]


# -- rows --------------------------------------------------------------------------------------


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
        self, to: Emitter, number: int, layer: AnyLayer, strip: Strip, constants: Constants,
        source: Runner[Any] | None,
    ) -> None:  # fmt: skip
        self.to, self.number, self.strip, self.constants = to, number, strip, constants
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
        self.to.number = self.number
        self.compute(tile)
        self.done = tile.stop

    def prepare(self) -> None:
        """Load the constants, before the first tile."""
        self.to.number = self.number
        while self.constants.loads:
            self.to.add("LOAD", **self.constants.loads.pop(0))

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
            self.to.number = self.number
            done = self.loaded.get(operand.chip, 0)
            rows = range(max(begin, done), end)
            self.to.load_rows(operand.feed, operand.chip, self.strip.walk, rows)
            self.loaded[operand.chip] = max(end, done)


class WindowRunner(Runner[AnyLayer]):
    """Runner of a layer with a kernel."""

    def __init__(
        self, to: Emitter, number: int, layer: AnyLayer, strip: Strip, constants: Constants,
        source: Runner[Any] | None,
    ) -> None:  # fmt: skip
        super().__init__(to, number, layer, strip, constants, source)
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
        return operand.groups * self.to.width - lane - (operand.channels - channel)


class ConvRunner(WindowRunner[ConvLayer]):
    """Runner of a convolution."""

    @property
    def outputs(self) -> range:
        """The output channel groups to compute."""
        if self.block is not None:
            return self.block
        return range(len(groups_of(self.layer, self.to.width)))

    def prepare(self) -> None:
        """Load the constants and the first weights, before the first tile."""
        super().prepare()
        self._load_weights(self.outputs[0])

    def compute(self, tile: range) -> None:
        layer, to, out = self.layer, self.to, self.result.chip
        to.set_init(
            "CONVINIT", **self.offsets(tile), vpp=len(tile), shift_cut=layer.shift_cut,
            shift_bias=layer.shift_bias, act_type=layer.act_type,
        )  # fmt: skip
        for group in self.outputs:
            self._load_weights(group)
            span = self.constants.weights[group].span
            at_end = span.first + span.count == self.operand.groups
            to.add(
                "CONV", **self.window(tile, CONV_PAD, span.first),
                channel_offset=self.missing if at_end else 0,
                bank_addr_out=(out.slot(tile.start) + self.result.group + group) % BANK_DEPTH,
                bank_addr_weights=self.constants.places[group],
                bank_addr_bias=(self.constants.bias + group) % BANK_DEPTH,
                channel_group=span.count, length=self.walk.output[1],
            )  # fmt: skip
        to.save_rows(self._part(), self.strip, tile)

    def _load_weights(self, group: int) -> None:
        """Emit one LOAD per output channel of a group, unless its weights are loaded."""
        to, constants = self.to, self.constants
        if group in constants.places:
            return
        given = constants.weights[group]
        place = constants.places[group] = to.weight_ring.take(given.words)
        taps = self.walk.kernel[0] * self.walk.kernel[1]
        for lane in range(len(groups_of(self.layer, to.width)[group])):
            offset = given.offset + lane * taps * given.channels
            bank = to.shape.weight_bank + lane
            to.add("LOAD", **to.words(bank, place, offset, taps, given.channels))

    def _part(self) -> Result:
        """Return the result restricted to the block's groups."""
        if self.block is None:
            return self.result
        width, first = self.to.width, self.block.start
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
        layer, to, out = self.layer, self.to, self.result.chip
        weighted = layer.mode in (DEPTHWISE, SCALE)
        to.set_init(
            "ALUINIT", **self.offsets(tile), exec_mode=layer.mode, length=self.walk.output[1],
            channel_offset=self.missing, channel_group=self.operand.groups,
            shift_cut=layer.shift_cut, shift_bias=layer.shift_bias, act_type=layer.act_type,
            multi_factor=layer.factor, jump_read_weights=self.operand.groups if weighted else 0,
        )  # fmt: skip
        to.add(
            "ALU", **self.window(tile, ALU_PAD), vpp=len(tile),
            bank_addr_out=(out.slot(tile.start) + self.result.group) % BANK_DEPTH,
            bank_addr_weights=self.constants.places.get(0, 0), bank_addr_bias=self.constants.bias,
        )  # fmt: skip
        to.save_rows(self.result, self.strip, tile)


class EltwiseRunner(Runner[EltwiseLayer]):
    """Runner of a sum or product."""

    def compute(self, tile: range) -> None:
        for rows in self._runs(tile):
            self._elew(rows)
        self.to.save_rows(self.result, self.strip, tile)

    def _runs(self, tile: range) -> Iterator[range]:
        """Yield the rows of each ELEW, which are in consecutive banks of the result."""
        step = self.result.chip.stride
        strides = [operand.chip.stride for operand in self.strip.operands]
        most = self.to.shape.alu_rows if all(step % stride == 0 for stride in strides) else 1
        for residue in range(step):
            rows = [row for row in tile if row % step == residue]
            for first in range(0, len(rows), most):
                run = rows[first : first + most]
                yield range(run[0], run[-1] + 1, step)

    def _elew(self, rows: range) -> None:
        out, first, layer = self.result.chip, rows[0], self.layer
        for number, operand in enumerate(self.strip.operands):
            chip = operand.chip
            self.to.add(
                "ELEWINIT", bank_id_in=chip.bank_of(first), id=number,
                bank_addr_in=(chip.address(first) + operand.group) % BANK_DEPTH,
                jump_read=chip.groups, jump_read_endl=_next_slot(chip, first),
                jump_bank=max(1, out.stride // chip.stride),
                shift_read=layer.shift_reads[number],
            )  # fmt: skip
        write = layer.shift_write
        self.to.add(
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

_RUNNERS: dict[type[EngineLayer], type[Runner[Any]]] = {
    ConvLayer: ConvRunner,
    AluLayer: AluRunner,
    EltwiseLayer: EltwiseRunner,
}


def _row_jump(chip: ChipMap) -> int:
    """Return the distance between rows of a map in a bank; irrelevant if a bank has one row."""
    return chip.row_words if chip.stride > 1 else min(chip.row_words, MAX_JUMP)


def _next_slot(chip: ChipMap, row: int) -> int:
    """Return the bank rows from a row's slot to the next one; 2048 if it is the same."""
    jump = (chip.slot(row + chip.banks * chip.stride) - chip.slot(row)) % BANK_DEPTH
    return jump or BANK_DEPTH


# -- copies within the DDR ---------------------------------------------------------------------


def _repeat(to: Emitter, node: Node, strip: Strip, layer: RepeatLayer) -> None:
    """Load each row once, and save it with gaps once per copy of its pixels."""
    (operand,), view = strip.operands, node.inputs[0]
    assert operand.feed is not None
    for row in range(view.height):
        to.load_rows(operand.feed, operand.chip, None, range(row, row + 1))
        for out in node.outputs:
            for place in range(layer.rows * layer.columns):
                down, across = divmod(place, layer.columns)
                at = out.first + (row * layer.rows + down) * out.row_stride
                at += across * out.pixel_stride
                step = layer.columns * out.pixel_stride
                _save_pixels(to, operand.chip, row, out, at, step, view.width, view.channels)


def _save_pixels(
    to: Emitter, chip: ChipMap, row: int, view: View, at: int, step: int, length: int, channels: int
) -> None:
    """Save a row of pixels to a view's store, at offset `at` and with `step` bytes between them."""
    to.add(
        "SAVE", bank_id=chip.bank_of(row), bank_addr=chip.address(row), jump_read=chip.groups,
        jump_write=step, length=length, channel=channels, reg_id=view.store.register,
        ddr_addr=view.store.offset + at,
    )  # fmt: skip


def _blocks(to: Emitter, node: Node, strip: Strip, layer: BlocksLayer) -> None:
    """Transfer the pixels, or channels, at the same position in all blocks of a row together."""
    view, side, to_space = node.inputs[0], layer.side, layer.to_space
    channels = view.channels // side**2 if to_space else view.channels
    pixels = view.width if to_space else view.width // side
    chip = replace(strip.operands[0].chip, groups=-(-channels // to.width), width=pixels)
    for number in range(view.height * side if to_space else view.height):
        for across in range(side):
            row, down = divmod(number, side)
            shallow = (number, across * view.pixel_stride, side)
            source, first, step = (
                (row, (down * side + across) * channels, 1) if to_space else shallow
            )
            to.add(
                "LOAD", bank_id=chip.bank_of(number * side + across),
                bank_addr=chip.address(number * side + across), jump_write=chip.groups,
                jump_read=step * view.pixel_stride, length=pixels, channel=channels,
                reg_id=view.store.register,
                ddr_addr=view.store.offset + view.first + source * view.row_stride + first,
            )  # fmt: skip
            for out in node.outputs:
                at = out.first + (number if to_space else row) * out.row_stride
                at += across * out.pixel_stride if to_space else (down * side + across) * channels
                step = (side if to_space else 1) * out.pixel_stride
                _save_pixels(to, chip, number * side + across, out, at, step, pixels, channels)
