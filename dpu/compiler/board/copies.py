"""Generation of the instructions of copies within the DDR, through the chip."""

from __future__ import annotations

from dataclasses import replace

from tutelage.dpu.compiler.board.code import Code
from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.network import Node, View
from tutelage.dpu.compiler.board.stages import Strip
from tutelage.dpu.ops.engine_layers import BlocksLayer, RepeatLayer


def repeat(code: Code, node: Node, strip: Strip, layer: RepeatLayer) -> None:
    """Load each row once, and save it with gaps once per copy of its pixels."""
    (operand,), view = strip.operands, node.inputs[0]
    assert operand.feed is not None
    for row in range(view.height):
        code.load_rows(operand.feed, operand.chip, None, range(row, row + 1))
        for out in node.outputs:
            for place in range(layer.rows * layer.columns):
                down, across = divmod(place, layer.columns)
                at = out.first + (row * layer.rows + down) * out.row_stride
                at += across * out.pixel_stride
                step = layer.columns * out.pixel_stride
                _save_pixels(code, operand.chip, row, out, at, step, view.width, view.channels)


def _save_pixels(
    code: Code, chip: ChipMap, row: int, view: View, at: int, step: int, length: int, channels: int
) -> None:
    """Save a row of pixels to a view's store, at offset `at` and with `step` bytes between them."""
    code.add(
        "SAVE", bank_id=chip.bank_of(row), bank_addr=chip.address(row), jump_read=chip.groups,
        jump_write=step, length=length, channel=channels, reg_id=view.store.register,
        ddr_addr=view.store.offset + at,
    )  # fmt: skip


def rearrange(code: Code, node: Node, strip: Strip, layer: BlocksLayer) -> None:
    """Transfer the pixels, or channels, at the same position in all blocks of a row together."""
    view, side, to_space = node.inputs[0], layer.side, layer.to_space
    channels = view.channels // side**2 if to_space else view.channels
    pixels = view.width if to_space else view.width // side
    chip = replace(strip.operands[0].chip, groups=-(-channels // code.width), width=pixels)
    for number in range(view.height * side if to_space else view.height):
        for across in range(side):
            row, down = divmod(number, side)
            shallow = (number, across * view.pixel_stride, side)
            source, first, step = (
                (row, (down * side + across) * channels, 1) if to_space else shallow
            )
            code.add(
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
                _save_pixels(code, chip, number * side + across, out, at, step, pixels, channels)
