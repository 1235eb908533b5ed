"""The graph that passes rewrite: fx's, with the value (without data) of each node."""

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
"""Images that a network is traced with: with one, `x.squeeze()` would drop the batch."""


class Graph:
    """A captured network.

    Modules that passes change are copies under the same name; the user's are never changed.

    Attributes
    ----------
    module : the graph with the modules and tensors it refers to
    activations : what follows the network's last layers and runs on the CPU, "softmax" or
        "sigmoid", by the place of the output
    stripped : the module that computes it
    replacements : what to exchange for what, by name
    replaced : the place, the name and the new name of each that was exchanged
    notes : what the user should know, in the order found
    made : what passes made of parameters, by a key of theirs, so that shared ones stay shared
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
        """Where the network's parameters are."""
        return next((p.device for p in self._network.parameters()), torch.device("cpu"))

    # -- reading ------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes in order, so that the graph can be changed meanwhile."""
        return list(self.module.graph.nodes)

    @property
    def output(self) -> fx.Node:
        """The node that returns."""
        return cast("fx.Node", next(iter(reversed(self.module.graph.nodes))))

    def module_of(self, given: Any) -> nn.Module | None:
        """Return the module that a node calls, None for what is no such node."""
        if isinstance(given, fx.Node) and given.op == "call_module":
            return self.module.get_submodule(str(given.target))
        return None

    def constant(self, given: Any) -> Tensor | None:
        """Return the tensor of the network that a node stands for, None for what is none."""
        if isinstance(given, fx.Node) and given.op == "get_attr":
            found = operator.attrgetter(str(given.target))(self.module)
            return found if isinstance(found, Tensor) else None
        return None

    def owner(self, given: Any) -> tuple[str, nn.Module] | None:
        """Return the module of the user's that has a parameter or buffer, with its name."""
        if not isinstance(given, fx.Node) or given.op != "get_attr":
            return None
        path = str(given.target).rpartition(".")[0]
        try:
            return path, self._network.get_submodule(path)
        except AttributeError:  # a constant of the graph's
            return None

    @staticmethod
    def value(node: fx.Node) -> Any:
        """Return a node's value without data."""
        return node.meta[VALUE]

    @staticmethod
    def shape(node: fx.Node) -> tuple[int, ...]:
        """Return the shape of a node's value, batch included; () for what is no tensor."""
        value = node.meta.get(VALUE)
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    @staticmethod
    def source(node: fx.Node) -> fx.Node:
        """Return a node's first operand."""
        return node.all_input_nodes[0]

    @staticmethod
    def has_one_reader(node: fx.Node) -> bool:
        """Return whether a value is read by one node, and by that once."""
        (user, *more) = node.users or (None,)
        return user is not None and not more and _times(user, node) == 1

    # -- writing ------------------------------------------------------------------------------

    def before(
        self, node: fx.Node, what: Any, *args: Any, name: str = "", **kwargs: Any
    ) -> fx.Node:
        """Insert an operation in front of a node and return it.

        Parameters
        ----------
        what : a module, a function, or the name of a method
        name : of the module; it is numbered where there is one of that name
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
        """Insert an operation directly behind a node, named as if it were this node's."""
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
        """Put an operation in a node's place; a module keeps the name of the one that it replaces.

        Parameters
        ----------
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
        """Let another node be read in place of this one, which goes."""
        node.replace_all_uses_with(new)
        self.module.graph.erase_node(node)

    def tensor(self, node: fx.Node, value: Tensor, name: str) -> fx.Node:
        """Insert a constant in front of a node and return it."""
        target = self._free(name.replace(".", "_"))
        self.module.register_buffer(target, value)
        with self.module.graph.inserting_before(node):
            new = self.module.graph.get_attr(target)
        new.meta[VALUE] = value
        return new

    def overwrites(self, node: fx.Node) -> bool:
        """Return whether a node computes in place."""
        module = self.module_of(node)
        return is_in_place(node) if module is None else bool(getattr(module, "inplace", False))

    def drop_dead(self) -> bool:
        """Remove what no output needs; return whether there was any.

        What overwrites its operand stays: later readers of that need it.
        """
        dead = False
        for node in reversed(self.nodes):
            given = node.op in ("placeholder", "output")
            if not node.users and not given and not self.overwrites(node):
                self.module.graph.erase_node(node)
                dead = True
        return dead

    def evaluate(self, node: fx.Node) -> None:
        """Compute a node's value without data."""
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta[VALUE])
        target = self.module_of(node) or node.target
        node.meta[VALUE] = compute(node.op, target, args, kwargs)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    # -- names --------------------------------------------------------------------------------

    def name_of(self, node: fx.Node) -> str:
        """Return the name of a node's module, or of what it computes."""
        return str(node.target) if node.op == "call_module" else node.name

    def _free(self, name: str) -> str:
        """A name that no module and tensor has."""
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
    """Whether a dotted name is taken."""
    try:
        operator.attrgetter(name)(module)
    except AttributeError:
        return False
    return True


def _is_within_a_layer(module: nn.Module, name: str) -> bool:
    """Whether what a dotted name begins with is no mere container, as where a function takes the
    weight of a layer that is called too.
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
