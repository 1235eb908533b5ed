"""Replace activations written as arithmetic, such as x * sigmoid(x), by modules."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_GATED = {nn.Sigmoid: nn.SiLU, nn.Hardsigmoid: nn.Hardswish}


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if isinstance(module, Affine):
        return _hard_sigmoid(graph, node, module)
    if operation(node) != "mul" or len(node.args) != 2:
        return False
    for value, gate in (node.args, node.args[::-1]):
        activation = _gate(graph, gate)
        if activation is not None and graph.source(gate) is value:  # type: ignore[arg-type]
            graph.replace(node, activation, value, name=node.name)
            return True
    return False


def _gate(graph: Graph, gate: Any) -> nn.Module | None:
    """Return the module for x * gate(x); None if there is none."""
    cls = _GATED.get(type(graph.module_of(gate)))
    return None if cls is None else cls()


def _hard_sigmoid(graph: Graph, node: fx.Node, sixth: Affine) -> bool:
    """Replace clip(x + 3, 0, 6) / 6 by a hard sigmoid."""
    clip = graph.source(node)
    if not is_relu6(graph.module_of(clip)) or not _is_all(sixth, 1 / 6, 0):
        return False
    moved = graph.source(clip)
    three = graph.module_of(moved)
    if not isinstance(three, Affine) or not _is_all(three, 1, 3):
        return False
    graph.replace(node, nn.Hardsigmoid(), graph.source(moved), name=node.name)
    return True


def _is_all(affine: Affine, scale: float, shift: float) -> bool:
    equal = (affine.scale - scale).abs().max() < 1e-6, (affine.shift - shift).abs().max() < 1e-6
    return all(equal)


def is_relu6(module: nn.Module | None) -> bool:
    """Return whether a module clips to 0 and 6."""
    return isinstance(module, nn.Hardtanh) and (module.min_val, module.max_val) == (0, 6)


WRITTEN_ACTIVATIONS = GraphPass("written activations", _rewrite)


def _scaled_product(graph: Graph, node: fx.Node) -> bool:
    """Move the factor 1/6 of x * relu6(x + 3) / 6 to the gate."""
    sixth = graph.module_of(node)
    if not isinstance(sixth, Affine) or not _is_all(sixth, 1 / 6, 0):
        return False
    product = graph.source(node)
    if operation(product) != "mul" or not graph.has_one_reader(product):
        return False
    for gate in product.args:
        if isinstance(gate, fx.Node) and is_relu6(graph.module_of(gate)):
            scaled = graph.before(product, sixth, gate)
            product.replace_input_with(gate, scaled)
            graph.substitute(node, product)
            return True
    return False


SCALED_PRODUCT = GraphPass("scaled product", _scaled_product)
