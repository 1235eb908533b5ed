"""Locations of a layer's weights and biases in the DDR and on the chip, and their LOADs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.code import Code
from tutelage.dpu.compiler.board.network import Node
from tutelage.dpu.compiler.board.parameters import spread
from tutelage.dpu.compiler.board.spans import Span, groups_of, spans_of
from tutelage.dpu.compiler.board.split import MAX_GROUPS
from tutelage.dpu.compiler.board.stages import Stage, Strip
from tutelage.dpu.ops.engine_layers import DEPTHWISE, AluLayer, ConvLayer
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal


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


def constants_of(code: Code, node: Node, strip: Strip) -> Constants:
    """Allocate a layer's constants."""
    layer = node.layer
    if isinstance(layer, ConvLayer):
        return _conv_constants(code, node, strip, layer)
    found = Constants()
    if not isinstance(layer, AluLayer):
        return found
    groups, depthwise = strip.operands[0].groups, code.shape.depthwise_bank
    if layer.weights is not None:
        height, width, channels = layer.weights.shape
        if height * width * groups > BANK_DEPTH:
            raise Refusal(f"kernel {height}x{width} exceeds the DPU's banks", node.name)
        found.places[0] = code.depthwise.take(height * width * groups)
        given = code.parameters.add(layer.weights)
        found.loads.append(code.words(depthwise, found.places[0], given, height * width, channels))
    if layer.scaled_by:
        vector = node.inputs[-1]
        found.places[0] = code.depthwise.take(groups)
        load = code.words(
            depthwise, found.places[0], vector.store.offset + vector.first, 1, vector.channels
        )
        found.loads.append({**load, "reg_id": vector.store.register})
    if layer.mode == DEPTHWISE and layer.bias is not None:
        found.bias = code.biases.take(groups)
        given = code.parameters.add(layer.bias)
        found.loads.append(code.words(code.shape.bias_bank, found.bias, given, 1, len(layer.bias)))
    return found


def _conv_constants(code: Code, node: Node, strip: Strip, layer: ConvLayer) -> Constants:
    (operand,), walk = strip.operands, strip.walk
    assert walk is not None
    outputs = len(layer.weights)
    weights = layer.weights.reshape(outputs, *walk.kernel, -1)  # wide if augmented
    augmented = weights.shape[-1] != layer.weights.shape[-1]
    spans = spans_of(layer, operand.lanes, operand.groups, code.width)
    if augmented:
        spans = [Span(0, operand.groups)] * len(spans)
    weights = spread(weights, operand.lanes, operand.groups, code.width)
    given = _group_weights(code, layer, weights, spans)
    words, read = max(g.words for g in given), max(span.count for span in spans)
    if words > BANK_DEPTH or read > MAX_GROUPS:
        size = f"{walk.kernel[0]}x{walk.kernel[1]}x{operand.channels}"
        raise Refusal(f"kernel {size} exceeds the DPU's banks", node.name)
    groups = groups_of(layer, code.width)
    biases = layer.bias
    if layer.side > 1:
        biases = np.zeros((len(groups), code.width), np.int8)
        for number, group in enumerate(groups):
            biases[number, : len(group)] = layer.bias[group.start : group.stop]
    bias = code.biases.take(len(groups))
    load = code.words(code.shape.bias_bank, bias, code.parameters.add(biases), 1, biases.size)
    return Constants(given, {}, bias, [load])


def _group_weights(
    code: Code, layer: ConvLayer, weights: Array, spans: list[Span]
) -> list[GroupWeights]:
    """Allocate the weights [outputs, height, width, lanes], whole or only those of the spans."""
    _, height, width, lanes = weights.shape
    taps, found = height * width, []
    whole = len(set(spans)) == 1 and spans[0].count * code.width >= lanes
    start = code.parameters.add(weights) if whole else 0
    for group, span in zip(groups_of(layer, code.width), spans, strict=True):
        first, end = span.first * code.width, (span.first + span.count) * code.width
        part = weights[group.start : group.stop, ..., first:end]
        offset = start + group.start * taps * lanes if whole else code.parameters.add(part)
        found.append(GroupWeights(offset, span, part.shape[-1], taps * span.count))
    return found


def weight_blocks(code: Code, stage: Stage, kept: list[Constants]) -> list[range | None]:
    """Return output channel groups whose weights fit the chip together; None for all of a stage."""
    layer = stage.nodes[-1].layer
    if len(stage.nodes) > 1 or not isinstance(layer, ConvLayer):
        return [None]
    groups = len(groups_of(layer, code.width))
    tiles = sum(-(-strips[0].height // strips[0].tile) for strips in stage.strips)
    words = max(group.words for group in kept[0].weights)
    most = groups if tiles == 1 else BANK_DEPTH // words
    if most >= groups:
        return [None]
    return [range(g, min(g + most, groups)) for g in range(0, groups, most)]
