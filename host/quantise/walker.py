"""Conversion of a torch.fx graph to layers, and the registry of the handlers that create them.

A file of `host/quantise/layers` registers the operations that it converts:

    @traces(nn.MaxPool2d, F.max_pool2d)
    def max_pool(walk, node):
        walk.add(node, MaxPool((walk.source(node),), shape_of(node), ...))
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from tutelage.core.errors import TutelageError

if TYPE_CHECKING:
    from tutelage.host.quantise.layers.base import Layer

log = logging.getLogger(__name__)

PLACEHOLDER, OUTPUT = object(), object()
"""Keys to register the handlers of the graph's inputs and of its output."""

_OUR_FRAMES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""Directories whose frames in a stack trace are not the user's code."""

_RESERVED = set(dir(nn.ModuleDict()))  # not allowed as keys of the student's ModuleDict


_FRAME = re.compile(r'File "(.+)", line (\d+)')
"""A frame in the stack trace that torch.fx stores for a node."""


class UnsupportedOp(TutelageError, ValueError):
    """The network contains something that the DPU does not support; the message says where.

    Attributes
    ----------
    what, at : the reason, and the module or function concerned
    file, line : the place in the user's code; "" and 0 if it is not known
    remedy : what to use instead; "" if the message has no such part
    """

    def __init__(
        self, text: str, what: str = "", at: str = "", file: str = "", line: int = 0,
        remedy: str = "",
    ) -> None:  # fmt: skip
        super().__init__(text)
        self.what, self.at = what or text, at
        self.file, self.line, self.remedy = file, line, remedy


class Walker:
    """Converts an fx graph to layers, node by node.

    Attributes
    ----------
    module : the graph, whose nodes have shapes (`tensor_meta`)
    modules : name -> module of the graph
    layers : name -> layer, in execution order
    origin : fx node -> the name of the layer with its value
    made : objects already made from a module, by a key that contains it, so that a module that is
        called twice keeps one set of parameters
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.modules = dict(module.named_modules())
        self.layers: dict[str, Layer] = {}
        self.origin: dict[fx.Node, str] = {}
        self.made: dict[Any, Any] = {}

    def walk(self) -> dict[str, Layer]:
        """Convert the whole graph, and return its layers by name, in execution order.

        Raises
        ------
        UnsupportedOp
            The graph contains an operation without a handler, or one that its handler refuses.
        """
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if _is_tensor(node):  # otherwise an argument with its default value
                    _HANDLERS[PLACEHOLDER](self, node)
            elif node.op == "output":
                self._check_outputs(node)
                _HANDLERS[OUTPUT](self, node)
            elif node.op == "get_attr" or "tensor_meta" not in node.meta:
                continue  # a bare parameter is refused where it is used
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
            raise self.error(node, f"{name} whose result is not used", "remove it, or use it")
        handler(self, node)

    def _key(self, node: fx.Node) -> Any:
        """Return the key of a node's handler: a module's class, a function, or a method's name."""
        return handled_class(self.module_of(node)) if node.op == "call_module" else node.target

    def _check_outputs(self, node: fx.Node) -> None:
        """Raise UnsupportedOp unless the outputs are values of layers and need all other layers."""
        given = node.args[0] if isinstance(node.args[0], tuple | list) else [node.args[0]]
        if not given or not all(isinstance(value, fx.Node) and value in self.origin
                                for value in given):  # fmt: skip
            raise self.refusal("the network returns values other than activations; return one "
                               "tensor, or a tuple of tensors")  # fmt: skip
        names = [self.origin[value] for value in given if isinstance(value, fx.Node)]
        if not all(self.layers[name].inputs for name in names):
            raise self.refusal("an output of the network is one of its inputs; add a layer between")
        if not any(layer.has_weights for layer in self.layers.values()):
            raise self.refusal("the network has no convolution and no linear layer")
        needed = set(names)
        for name, layer in reversed(self.layers.items()):
            if name in needed:
                needed |= set(layer.inputs)
            elif layer.inputs:
                raise self.refusal("the network computes a value that no output needs "
                                   f"({name}); remove it, or use it")  # fmt: skip
            else:
                raise self.refusal(f"no output of the network depends on its input {name!r}")

    # -- for handlers -----------------------------------------------------------------------

    def add(self, node: fx.Node, layer: Layer, name: str = "") -> None:
        """Add a layer as the node's value, by default named after its module or function."""
        name = name or (str(node.target) if node.op == "call_module" else node.name)
        self.origin[node] = self.insert(name.replace(".", "/"), layer)

    def insert(self, base: str, layer: Layer) -> str:
        """Add a layer and return its name, which gets a number if `base` is taken or reserved."""
        name, number = base, 2
        while name in self.layers or name in _RESERVED:
            name, number = f"{base}_{number}", number + 1
        self.layers[name] = layer
        layer.name = name
        return name

    def alias(self, node: fx.Node) -> None:
        """Make the node's value the same as that of its first operand."""
        self.origin[node] = self.source(node)

    def source(self, node: fx.Node) -> str:
        """Return the name of the layer whose value is the first operand of a node."""
        return self.origin[self._operand(node, 0, ("input", "x", "self"))]

    def operands(self, node: fx.Node) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
        """Return the names of the layers of a binary operation's operands, and their shapes.

        Shapes are without the batch. That of a vector is (C,), since PyTorch broadcasts it along
        the columns of a map, not for each channel. That of an expanded map is its layer's.
        """
        nodes = self._operand(node, 0, ("input",)), self._operand(node, 1, ("other",))
        names = tuple(self.origin[given] for given in nodes)
        shapes = [
            self.layers[name].shape if len(meta_shape(given)) == 4 else meta_shape(given)[1:]
            for given, name in zip(nodes, names, strict=True)
        ]
        return names, shapes

    def _operand(self, node: fx.Node, position: int, names: tuple[str, ...]) -> fx.Node:
        given = node.args[position] if len(node.args) > position else None
        if given is None:
            given = next((node.kwargs[n] for n in names if n in node.kwargs), None)
        if not isinstance(given, fx.Node) or given not in self.origin:
            raise self.error(node, "an operand that is not an activation", "use module parameters")
        return given

    def value(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """Return an argument of a function by position or name."""
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
        """Return whether no other node reads this node's first operand."""
        given = node.args[0]
        return isinstance(given, fx.Node) and len(given.users) == 1

    def error(self, node: fx.Node, what: str, advice: str) -> UnsupportedOp:
        """Return an error for a node, with the line of the user's code that calls it."""
        found = _FRAME.search(_users_line(node))
        file, line = (found[1], int(found[2])) if found else ("", 0)
        reason = f"the DPU does not support {what}"
        text = f"{reason} at {self._place(node)}: {advice}"
        return UnsupportedOp(text, reason, _name(node), file, line, advice)

    @staticmethod
    def _place(node: fx.Node) -> str:
        """Return a node's module or function, and the line of the user's code that calls it."""
        frame = _users_line(node)
        return _name(node) + (f" ({frame})" if frame else "")

    def warn(self, node: fx.Node, what: str, advice: str) -> None:
        """Log a warning about a node, with the line of the user's code that calls it."""
        log.warning("%s: %s; %s", self._place(node), what, advice)

    @staticmethod
    def refusal(text: str) -> UnsupportedOp:
        """Return an error for the whole network."""
        return UnsupportedOp(text)


def _name(node: fx.Node) -> str:
    """Return the name of a node's module or function."""
    return str(node.target) if node.op == "call_module" else node.name


def _users_line(node: fx.Node) -> str:
    """Return the frame of the user's code that computes a node; "" if it is not known."""
    frames = [line for line in (node.stack_trace or "").splitlines() if "File" in line]
    theirs = [frame for frame in frames if not any(path in frame for path in _OUR_FRAMES)]
    return theirs[-1].strip() if theirs else ""


# -- the registry ---------------------------------------------------------------------------

Handler = Callable[[Walker, fx.Node], None]
_HANDLERS: dict[Any, Handler] = {}
_ADVICE: dict[Any, str] = {}
_DEFAULT_ADVICE = "use convolutions, batch norm, ReLU, pools, concats, additions and linear layers"


def traces(*targets: Any) -> Callable[[Handler], Handler]:
    """Register the handler of PyTorch modules (by class), functions, and methods (by name).

    It also handles classes derived from a class that have the same forward (`handled_class`).
    """

    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(targets, handler))
        return handler

    return register


def handled_class(module: nn.Module) -> type[nn.Module]:
    """Return the class whose handler applies to a module: its own, or a base with its forward."""
    own = type(module)
    computes = getattr(own, "forward", None)
    bases = (base for base in own.__mro__ if base in _HANDLERS)
    return next((base for base in bases if getattr(base, "forward", None) is computes), own)


def advise(advice: str, *targets: Any) -> None:
    """Register what to use instead of modules, functions and methods that have no handler."""
    _ADVICE.update(dict.fromkeys(targets, advice))


def is_leaf(module: nn.Module) -> bool:
    """Return whether a handler converts the module as a whole, so that it is not traced into."""
    return handled_class(module) in _HANDLERS


# -- shapes ---------------------------------------------------------------------------------


def _is_tensor(node: fx.Node) -> bool:
    return "tensor_meta" in node.meta and hasattr(node.meta["tensor_meta"], "shape")


def meta_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's value, including the batch."""
    return tuple(node.meta["tensor_meta"].shape)


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return (C, H, W) of a node's value; a vector is a map of 1x1."""
    shape = meta_shape(node)[1:]
    return shape if len(shape) == 3 else (*shape, 1, 1)


InputShape = Sequence[int] | Sequence[Sequence[int]]
"""(C, H, W) of a network's only input, or of each of its inputs."""


def input_shapes(input_shape: InputShape) -> list[tuple[int, ...]]:
    """Return (C, H, W) of each input."""
    several = [tuple(shape) for shape in input_shape if not isinstance(shape, int)]
    return several or [tuple(size for size in input_shape if isinstance(size, int))]
