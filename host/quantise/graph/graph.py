"""The graph that passes rewrite: a torch.fx graph with a symbolic value for each node."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from tutelage.host.quantise.graph.operations import is_in_place
from tutelage.host.quantise.graph.values import VALUE, compute

BATCH = 2
"""Batch size for tracing, 2 because with 1 `x.squeeze()` would drop the batch dimension."""


class Graph:
    """A captured network.

    Passes change only copies of modules, under the same names; the user's modules are not changed.

    Attributes
    ----------
    module : the graph with the modules and tensors it refers to
    activations : position of an output -> the function at its end that runs on the CPU, "softmax"
        or "sigmoid"
    stripped : position of an output -> the module of that function, removed from the graph
    replacements : name of an operation -> name of its replacement
    replaced : (module, name, name of its replacement) of each replacement made
    notes : messages for the user, in the order found
    made : parameters made by passes, by keys of the originals, so that shared ones stay shared
    """

    def __init__(self, module: fx.GraphModule, network: nn.Module) -> None:
        self.module = module
        self._network = network
        self.activations: dict[int, str] = {}
        self.stripped: dict[int, nn.Module] = {}
        self.replacements: dict[str, str] = {}
        self.replaced: list[tuple[str, str, str]] = []
        self.notes: list[str] = []
        self.made: dict[Any, Any] = {}
        for node in self.nodes:
            if node.op == "get_attr":
                node.meta[VALUE] = self.constant(node)

    @property
    def device(self) -> torch.device:
        """The device of the network's parameters."""
        return next((p.device for p in self._network.parameters()), torch.device("cpu"))

    # -- reading ------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[fx.Node]:
        """A list of all nodes in order, during whose iteration the graph can be changed."""
        return list(self.module.graph.nodes)

    @property
    def output(self) -> fx.Node:
        """The output node."""
        return cast("fx.Node", next(iter(reversed(self.module.graph.nodes))))

    def module_of(self, given: Any) -> nn.Module | None:
        """Return the module that a node calls; None for anything else."""
        if isinstance(given, fx.Node) and given.op == "call_module":
            return self.module.get_submodule(str(given.target))
        return None

    def constant(self, given: Any) -> Tensor | None:
        """Return the tensor of the network that a node reads; None for anything else."""
        if isinstance(given, fx.Node) and given.op == "get_attr":
            found = operator.attrgetter(str(given.target))(self.module)
            return found if isinstance(found, Tensor) else None
        return None

    def owner(self, given: Any) -> tuple[str, nn.Module] | None:
        """Return the user's module with a parameter or buffer, and its name; None: none."""
        if not isinstance(given, fx.Node) or given.op != "get_attr":
            return None
        path = str(given.target).rpartition(".")[0]
        try:
            return path, self._network.get_submodule(path)
        except AttributeError:  # a constant of the graph
            return None

    @staticmethod
    def value(node: fx.Node) -> Any:
        """Return a node's symbolic value."""
        return node.meta[VALUE]

    @staticmethod
    def shape(node: fx.Node) -> tuple[int, ...]:
        """Return the shape of a node's value, including the batch; () if it is not a tensor."""
        value = node.meta.get(VALUE)
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    @staticmethod
    def source(node: fx.Node) -> fx.Node:
        """Return a node's first operand."""
        return node.all_input_nodes[0]

    @staticmethod
    def has_one_reader(node: fx.Node) -> bool:
        """Return whether a value is read by exactly one node, and only once by it."""
        (user, *more) = node.users or (None,)
        return user is not None and not more and _times(user, node) == 1

    # -- writing ------------------------------------------------------------------------------

    def before(
        self, node: fx.Node, what: Any, *args: Any, name: str = "", **kwargs: Any
    ) -> fx.Node:
        """Insert an operation before a node, and return it.

        Parameters
        ----------
        node : the node
        what : a module, a function, or the name of a method
        args, kwargs : its arguments
        name : of the module, with a number if the name is taken; "": derived from the node's
        """
        graph = self.module.graph
        with graph.inserting_before(node):
            if isinstance(what, nn.Module):
                what.eval().to(self.device)
                target = self._free(name or f"{self.name_of(node)}_{type(what).__name__.lower()}")
                self.module.add_submodule(target, what)
                new = graph.call_module(target, args, kwargs)
            elif isinstance(what, str):
                new = graph.call_method(what, args, kwargs)
            else:
                new = graph.call_function(what, args, kwargs)
        for key in ("nn_module_stack",):
            if key in node.meta:
                new.meta[key] = node.meta[key]
        new.stack_trace = node.stack_trace
        self.evaluate(new)
        return new

    def after(self, node: fx.Node, what: Any, *args: Any, name: str = "") -> fx.Node:
        """Insert an operation directly after a node, by default with a name derived from it."""
        following = node.next
        trace, stack = following.stack_trace, following.meta.get("nn_module_stack")
        new = self.before(following, what, *args, name=name or f"{self.name_of(node)}_behind")
        new.stack_trace = node.stack_trace or trace
        if "nn_module_stack" in node.meta or stack:
            new.meta["nn_module_stack"] = node.meta.get("nn_module_stack", stack)
        return new

    def replace(
        self, node: fx.Node, what: Any, *args: Any, name: str = "", **kwargs: Any
    ) -> fx.Node:
        """Replace a node by another operation, and return it; a module gets the old one's name.

        Parameters
        ----------
        node, what, name, kwargs : see `before`
        args : by default the node's first operand
        """
        args = args or (self.source(node),)
        if isinstance(what, nn.Module):
            name = name or self.name_of(node)
        module = self.module_of(node)
        only = module is not None and len(self._callers(str(node.target))) == 1
        if only and isinstance(what, nn.Module):
            what.eval().to(self.device)
            self.module.set_submodule(str(node.target), what)
            node.args, node.kwargs = args, kwargs
            self.evaluate(node)
            return node
        new = self.before(node, what, *args, name=name, **kwargs)
        self.substitute(node, new)
        return new

    def substitute(self, node: fx.Node, new: fx.Node) -> None:
        """Make all readers of a node read another one, and erase the node."""
        node.replace_all_uses_with(new)
        self.module.graph.erase_node(node)

    def tensor(self, node: fx.Node, value: Tensor, name: str) -> fx.Node:
        """Insert a constant before a node, and return it."""
        target = self._free(name.replace(".", "_"))
        self.module.register_buffer(target, value)
        with self.module.graph.inserting_before(node):
            new = self.module.graph.get_attr(target)
        new.meta[VALUE] = value
        return new

    def overwrites(self, node: fx.Node) -> bool:
        """Return whether a node overwrites its operand."""
        module = self.module_of(node)
        return is_in_place(node) if module is None else bool(getattr(module, "inplace", False))

    def drop_dead(self) -> bool:
        """Erase nodes that no output needs; return whether there were any.

        Nodes that overwrite their operand stay, since later readers of the operand need them.
        """
        dead = False
        for node in reversed(self.nodes):
            given = node.op in ("placeholder", "output")
            if not node.users and not given and not self.overwrites(node):
                self.module.graph.erase_node(node)
                dead = True
        return dead

    def evaluate(self, node: fx.Node) -> None:
        """Compute a node's symbolic value."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta[VALUE])
        target = self.module_of(node) or node.target
        node.meta[VALUE] = compute(node.op, target, args, kwargs)

    def note(self, text: str) -> None:
        """Add a message for the user, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    # -- names --------------------------------------------------------------------------------

    def name_of(self, node: fx.Node) -> str:
        """Return the name of the module that a node calls, or of the node."""
        return str(node.target) if node.op == "call_module" else node.name

    def _free(self, name: str) -> str:
        """Return a name that no module or tensor has, derived from `name`."""
        if _is_within_a_layer(self.module, name):
            name = name.replace(".", "_")
        free, number = name, 2
        while _has(self.module, free):
            free, number = f"{name}_{number}", number + 1
        return free

    def _callers(self, target: str) -> list[fx.Node]:
        nodes: Iterable[fx.Node] = self.module.graph.nodes
        return [n for n in nodes if n.op == "call_module" and n.target == target]


def _has(module: nn.Module, name: str) -> bool:
    """Return whether a dotted name is taken."""
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True


def _is_within_a_layer(module: nn.Module, name: str) -> bool:
    """Return whether a dotted name is below a layer, rather than below containers only.

    This happens if a function reads the weight of a layer that is also called.
    """
    found: Any = module
    for part in name.split(".")[:-1]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
        if type(found) is not nn.Module:
            return True
    return False


def _times(user: fx.Node, node: fx.Node) -> int:
    count = 0

    def add(given: fx.Node) -> fx.Node:
        nonlocal count
        count += given is node
        return given

    map_arg((user.args, user.kwargs), add)
    return count
