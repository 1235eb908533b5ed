"""Comparison of a network with its graph after each pass that changed it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.graph.capture import capture
from tutelage.host.quantise.graph.graph import BATCH, Graph
from tutelage.host.quantise.graph.normalise import CANONICAL, FOR_DPU, REPLACING
from tutelage.host.quantise.walker import InputShape, input_shapes


def normalise_by_steps(
    network: nn.Module,
    shape: InputShape,
    replace: Mapping[str, str] | None = None,
    way: Callable[..., Graph] = capture,
) -> tuple[Graph, Counter[str]]:
    """Return the normalised graph and how often each pass changed it.

    Verifies that the graph equals the network after each change, and that the network is unchanged
    at the end, down to the identity of its tensors.
    """
    network.eval()
    before = _state(network)
    images = [torch.randn(BATCH, *size) for size in input_shapes(shape)]
    wanted = _tensors(network(*(image.clone() for image in images)))
    graph = way(network, images)
    graph.replacements = dict(replace or {})
    changes: Counter[str] = Counter()
    for stage in (*CANONICAL, *REPLACING, *FOR_DPU):
        while True:
            fired = [step.name for step in stage if _run(graph, step, images, wanted)]
            changes.update(fired)
            if not fired:
                break
    assert _same(before, _state(network)), "the user's network changed"
    return graph, changes


def _run(graph: Graph, step: Any, images: list[Tensor], wanted: list[Tensor]) -> bool:
    if not step.run(graph):
        return False
    graph.drop_dead()
    graph.module.graph.lint()
    graph.module.recompile()
    if not graph.replaced:
        found = _tensors(graph.module(*(image.clone() for image in images)))
        for place, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
            mine = graph.stripped[place](mine) if place in graph.stripped else mine
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=step.name)
    return True


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given.detach()]
    if given is None:
        return []
    parts = given.values() if isinstance(given, dict) else given
    return [tensor for part in parts for tensor in _tensors(part)]


def _state(network: nn.Module) -> list[Any]:
    found: list[Any] = []
    for name, module in network.named_modules():
        found.append((name, type(module), sorted(vars(module)), module.training))
        tensors = (*module._parameters.values(), *module._buffers.values())
        found.extend(None if t is None else (t, t.detach().clone()) for t in tensors)
    return found


def _same(before: list[Any], after: list[Any]) -> bool:
    def same(old: Any, new: Any) -> bool:
        if isinstance(old, tuple) and isinstance(old[0], Tensor):
            return old[0] is new[0] and torch.equal(old[1], new[1])
        return bool(old == new)

    return len(before) == len(after) and all(map(same, before, after))


def kinds(graph: Graph) -> list[str]:
    """Return the nodes' modules (by class) and functions (by name), in order."""
    found = []
    for node in graph.nodes:
        module = graph.module_of(node)
        if module is not None:
            found.append(type(module).__name__)
        elif node.op == "call_function":
            found.append(str(getattr(node.target, "__name__", node.target)))
        elif node.op == "call_method":
            found.append(str(node.target))
    return found
