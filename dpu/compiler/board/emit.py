"""Generate instructions from a plan, in an order that computes correctly; tokens are added later.

Each strip of a stage is computed tile by tile by the runners of its layers (runners.py); copies
within the DDR have no runners (copies.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.dpu.compiler.board.code import Code
from tutelage.dpu.compiler.board.constants import Constants, constants_of, weight_blocks
from tutelage.dpu.compiler.board.copies import rearrange, repeat
from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.parameters import Parameters
from tutelage.dpu.compiler.board.runners import RUNNERS, Runner
from tutelage.dpu.compiler.board.stages import Plan, Stage, Strip
from tutelage.dpu.ops.engine_layers import BlocksLayer, RepeatLayer
from tutelage.dpu.ops.limits import BANK_DEPTH


def emit(plan: Plan, parameters: Parameters) -> Code:
    """Return the whole program, END included, without tokens.

    Parameters
    ----------
    parameters : constants so far; those that the code needs are appended

    Raises
    ------
    Refusal
        A layer exceeds the limits of instructions.
    """
    code, first = Code(plan, parameters), 0
    for stage in plan.stages:
        code.number, layer = first, stage.nodes[-1].layer
        if isinstance(layer, RepeatLayer):
            repeat(code, stage.nodes[0], stage.strips[0][0], layer)
        elif isinstance(layer, BlocksLayer):
            rearrange(code, stage.nodes[0], stage.strips[0][0], layer)
        else:
            _rows(code, stage, first)
        first += len(stage.nodes)
    code.add("END")
    return code


def _rows(code: Code, stage: Stage, first: int) -> None:
    """Append a stage whose layers are computed row by row.

    Parameters
    ----------
    first : number of its first node
    """
    kept = []
    before = code.weights.given, code.depthwise.given
    for number, (node, strip) in enumerate(zip(stage.nodes, stage.strips[0], strict=True), first):
        code.number = number
        kept.append(constants_of(code, node, strip))
    for block in weight_blocks(code, stage, kept):
        for constants in kept:
            constants.places = {} if block is not None else constants.places
        for strips in stage.strips:
            _strip(code, stage, first, strips, kept, block)
    taken = code.weights.given - before[0], code.depthwise.given - before[1]
    if len(stage.nodes) > 1 and max(taken) > BANK_DEPTH:
        raise AssertionError(f"{stage.nodes[0].name}: weights of a stage exceed their banks")


def _strip(
    code: Code, stage: Stage, first: int, strips: Sequence[Strip], kept: Sequence[Constants],
    block: range | None,
) -> None:  # fmt: skip
    """Append a strip of columns: advance the last layers, which advance those before them."""
    runners: list[Runner[Any]] = []
    loaded: dict[ChipMap, int] = {}
    for number, (node, strip) in enumerate(zip(stage.nodes, strips, strict=True)):
        source = runners[-1] if any(o.ring for o in strip.operands) else None
        kind = RUNNERS[type(node.layer)]
        runner = kind(code, first + number, node.layer, strip, kept[number], source)
        runner.block, runner.loaded = block, loaded
        runners.append(runner)
    read = {runner.source for runner in runners}
    ends = [runner for runner in runners if runner not in read]
    while left := [end for end in ends if end.done < end.strip.height]:
        min(left, key=lambda end: end.done).advance()
