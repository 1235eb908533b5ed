"""From a torch.fx graph to layers: the walk, and the registry of what becomes which layer.

A file of `host/quantise/layers` says what it takes:

    @traces(nn.MaxPool2d, F.max_pool2d)
    def max_pool(walk, node):
        walk.add(node, MaxPool((walk.source(node),), shape_of(node), ...))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from tutelage.core.errors import TutelageError

if TYPE_CHECKING:
    from tutelage.host.quantise.layers.base import Layer

PLACEHOLDER, OUTPUT = object(), object()
"""What a handler of the graph's inputs and one of its output are registered for."""

_OUR_FRAMES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""Folders that are in every stack trace and are not the user's."""

_RESERVED = set(dir(nn.ModuleDict()))  # no keys of the student's ModuleDict


class UnsupportedOp(TutelageError, ValueError):
    """The network has an operation the DPU cannot take; the text names it and its place."""


class Walker:
    """One pass over an fx graph.

    Attributes
    ----------
    layers : by name, in an order they can run in
    origin : the name of the layer that has the value of an fx node
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.modules = dict(module.named_modules())
        self.layers: dict[str, Layer] = {}
        self.origin: dict[fx.Node, str] = {}

    def walk(self) -> dict[str, Layer]:
        """Return the layers of the whole graph."""
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                _HANDLERS[PLACEHOLDER](self, node)
            elif node.op == "output":
                self._check_output(node)
                _HANDLERS[OUTPUT](self, node)
            elif not _is_tensor(node) or node.op == "get_attr":
                continue  # sizes for a view; a bare parameter is refused where it is used
            else:
                self._operation(node)
        return self.layers

    def _operation(self, node: fx.Node) -> None:
        key = self._key(node)
        handler = _HANDLERS.get(key)
        name = key.__name__ if hasattr(key, "__name__") else str(key)
        if handler is None:
            raise self.error(node, name, _ADVICE.get(key, _DEFAULT_ADVICE))
        if not node.users:
            raise self.error(node, f"{name} whose result nothing reads", "leave it out, or use it")
        if key in _IN_PLACE and not self.is_only_reader(node):
            advice = "write it out of place (x + y): the value it overwrites is read elsewhere"
            raise self.error(node, f"{name} in place", advice)
        handler(self, node)

    def _key(self, node: fx.Node) -> Any:
        """What handlers are registered for: a module's class, a function, a method's name."""
        if node.op != "call_module":
            return node.target
        module = self.module_of(node)
        bases = (base for base in _DERIVED if isinstance(module, base))
        return next(bases, type(module))

    def _check_output(self, node: fx.Node) -> None:
        given = node.args[0]
        if not isinstance(given, fx.Node):
            raise self.refusal("the network returns several values: return the logits alone")
        source = self.layers[self.origin[given]]
        if not source.inputs:
            raise self.refusal("the network has no layer")
        if not any(layer.has_weights for layer in self.layers.values()):
            raise self.refusal("the network has no convolution and no linear layer")
        if source.name != next(reversed(self.layers)):
            raise self.refusal("the network computes something that its output does not need")

    # -- for handlers -----------------------------------------------------------------------

    def add(self, node: fx.Node, layer: Layer, name: str = "") -> None:
        """Add a layer as the node's value, named after its module or its function."""
        name = name or (str(node.target) if node.op == "call_module" else node.name)
        self.origin[node] = self.insert(name.replace(".", "/"), layer)

    def insert(self, base: str, layer: Layer) -> str:
        """Add a layer; a second one of its name, or one of nn.ModuleDict's names, is numbered."""
        name, number = base, 2
        while name in self.layers or name in _RESERVED:
            name, number = f"{base}_{number}", number + 1
        self.layers[name] = layer
        layer.name = name
        return name

    def alias(self, node: fx.Node) -> None:
        """Let the node's value be the one that it takes."""
        self.origin[node] = self.source(node)

    def source(self, node: fx.Node) -> str:
        """Return the layer whose value an operation takes."""
        return self.origin[self._operand(node, 0, ("input", "x", "self"))]

    def operands(self, node: fx.Node) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
        """Return the layers whose values a binary operation takes, and PyTorch's shapes of both.

        The shapes are without the batch. That of a vector is (C,): beside a map PyTorch repeats it
        along the columns, not for each channel.
        """
        nodes = self._operand(node, 0, ("input",)), self._operand(node, 1, ("other",))
        return tuple(self.origin[given] for given in nodes), [meta_shape(n)[1:] for n in nodes]

    def _operand(self, node: fx.Node, position: int, names: tuple[str, ...]) -> fx.Node:
        given = node.args[position] if len(node.args) > position else None
        if given is None:
            given = next((node.kwargs[n] for n in names if n in node.kwargs), None)
        if not isinstance(given, fx.Node) or given not in self.origin:
            raise self.error(node, "an operand that is no activation", "use module parameters")
        return given

    def value(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """Return an argument of a function."""
        if len(node.args) > position:
            return node.args[position]
        return node.kwargs.get(name, default)

    def attribute(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """Return an argument of a function, or the attribute of the same name of a module."""
        if node.op == "call_module":
            return getattr(self.module_of(node), name, default)
        return self.value(node, position, name, default)

    def module_of(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return self.modules[str(node.target)]

    def is_only_reader(self, node: fx.Node) -> bool:
        """Return whether the value this node takes is taken by no other node."""
        given = node.args[0]
        return isinstance(given, fx.Node) and len(given.users) == 1

    def error(self, node: fx.Node, what: str, advice: str) -> UnsupportedOp:
        """Return the refusal of a node, with the user's line that calls it."""
        place = f"at {node.target}" if node.op == "call_module" else f"at {node.name}"
        frames = [line for line in (node.stack_trace or "").splitlines() if "File" in line]
        theirs = [frame for frame in frames if not any(path in frame for path in _OUR_FRAMES)]
        source = f" ({theirs[-1].strip()})" if theirs else ""
        return self.refusal(f"the DPU cannot take {what} {place}{source}: {advice}")

    @staticmethod
    def refusal(text: str) -> UnsupportedOp:
        """Return the refusal of the whole network."""
        return UnsupportedOp(text)


# -- the registry ---------------------------------------------------------------------------

Handler = Callable[[Walker, fx.Node], None]
_HANDLERS: dict[Any, Handler] = {}
_DERIVED: list[type[nn.Module]] = []
_IN_PLACE: set[Any] = set()
_ADVICE: dict[Any, str] = {}
_DEFAULT_ADVICE = "use convolutions, batch norm, ReLU, pools, concats, additions and linear layers"


def traces(
    *targets: Any, derived: bool = False, in_place: bool = False
) -> Callable[[Handler], Handler]:
    """Register the handler of PyTorch modules (by class), functions, and methods (by name).

    Parameters
    ----------
    derived : also of classes derived from these, which fx then does not look into
    in_place : the operation overwrites its operand, which nothing else may read
    """

    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(targets, handler))
        _DERIVED.extend(targets if derived else ())
        _IN_PLACE.update(targets if in_place else ())
        return handler

    return register


def advise(advice: str, *targets: Any) -> None:
    """Register what to use instead of modules, functions and methods that have no handler."""
    _ADVICE.update(dict.fromkeys(targets, advice))


def is_leaf(module: nn.Module) -> bool:
    """Return whether a handler takes the module whole, although its class is not torch's."""
    return isinstance(module, tuple(_DERIVED))


# -- shapes ---------------------------------------------------------------------------------


def _is_tensor(node: fx.Node) -> bool:
    return "tensor_meta" in node.meta and hasattr(node.meta["tensor_meta"], "shape")


def meta_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's value, batch included."""
    return tuple(node.meta["tensor_meta"].shape)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return (C, H, W) of a node's value; a vector counts as a 1x1 map."""
    shape = meta_shape(node)[1:]
    return shape if len(shape) == 3 else (*shape, 1, 1)
