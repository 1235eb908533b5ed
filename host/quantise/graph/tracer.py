"""Symbolic tracing by torch.fx with concrete shapes.

Each operation is also computed on a tensor without data (PyTorch's device "meta"), so that
`x.shape`, `x.size(1)` and `len(x)` are numbers during tracing. So `if x.shape[2] < 7`,
`F.pad(x, same(x.shape))` and `x.view(x.size(0), -1)` work without special cases. Control flow that
depends on the values of activations cannot be traced.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from tutelage.host.networks.norm import SyncedBatchNorm2d
from tutelage.host.quantise.graph.values import VALUE, compute, without_data

_TENSOR_FACTS = frozenset(("shape", "ndim", "dtype", "requires_grad", "layout", "is_quantized"))

NOT_THE_USERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
"""Directories of PyTorch and of this package, whose frames are not the user's code."""

_ENTRY = str(Path(__file__).with_name("capture.py"))
"""The file that starts tracing; frames above it in a stack are callers of this project."""

_LIBRARIES = ("torch", "_operator", "operator", "builtins", "math")


class ShapedTracer(fx.Tracer):
    """Records a network's operations, with the symbolic value of each.

    Parameters
    ----------
    inputs : the network's inputs, [N, C, H, W] or other shapes
    """

    proxy_buffer_attributes = True

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._inputs = inputs
        self.device = inputs[0].device
        self._evaluating = False
        self._names: dict[int, str] = {}

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Return the graph of a network."""
        named = [*root.named_buffers(), *root.named_parameters()]
        self._names = {id(tensor): name for name, tensor in named}
        return super().trace(root, concrete_args)

    # -- hooks of fx.Tracer ------------------------------------------------------------------

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one operation: PyTorch's own, or one with the same forward."""
        return torch_class(m) is not None and not _has_users_hooks(m)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Pass the network its images; other arguments of its forward keep their defaults."""
        args: list[Any] = [self.root]
        for number, value in enumerate(self._inputs, start=1):
            name = "images" if number == 1 else f"images_{number}"
            proxy = super().create_proxy("placeholder", name, (), {})
            proxy.node.meta[VALUE] = without_data(value)
            args.append(proxy)
        return root_fn, args

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the proxy of a node for the traced program."""
        node.stack_trace = _users_line()
        return _ShapedProxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a module's parameter or buffer as a node of the graph."""
        name = None if self._evaluating else self._names.get(id(attr_val))
        if name is None or not isinstance(attr_val, Tensor):
            return attr_val
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Record the call of a module, or trace into it."""
        if self._evaluating:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        name: str | None = None, type_expr: Any = None, proxy_factory_fn: Any = None,
    ) -> Any:  # fmt: skip
        """Record an operation; if its result is not a tensor, only compute it."""
        if kind == "call_function" and not _is_library(target):
            return target(*args, **kwargs)  # marked by torch.fx.wrap, but traced into nevertheless
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        if kind == "output":
            return proxy
        value = self._evaluate(kind, target, args, kwargs)
        if kind != "get_attr" and not _has_tensor(value):
            self.graph.erase_node(proxy.node)
            return value
        proxy.node.meta[VALUE] = value
        return proxy

    # -- values ------------------------------------------------------------------------------

    def _evaluate(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = map_aggregate((args, kwargs), _value_of)
        self._evaluating = True
        try:
            if kind == "get_attr":
                return operator.attrgetter(target)(self.root)
            if kind == "call_module":
                target = self.root.get_submodule(target)
            return compute(kind, target, args, kwargs)
        finally:
            self._evaluating = False


def _value_of(given: Any) -> Any:
    return given.node.meta[VALUE] if isinstance(given, fx.Proxy) else given


def _has_tensor(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_tensor(part) for part in value)
    if isinstance(value, dict):
        return any(_has_tensor(part) for part in value.values())
    return isinstance(value, Tensor)


def _is_library(function: Any) -> bool:
    module = getattr(function, "__module__", None) or "builtins"
    return module.partition(".")[0] in _LIBRARIES


class _ShapedProxy(fx.Proxy):
    """A value of the traced program, whose shape is concrete."""

    tracer: ShapedTracer

    def __getattr__(self, k: str) -> Any:
        if k in ("device", "is_cuda"):  # those of the real value
            device = self.tracer.device
            return device if k == "device" else device.type == "cuda"
        if k in _TENSOR_FACTS and isinstance(value := self.node.meta.get(VALUE), Tensor):
            return getattr(value, k)
        return super().__getattr__(k)

    def __len__(self) -> int:
        return len(self.node.meta[VALUE])

    def __iter__(self) -> Iterator[Any]:
        return (operator.getitem(cast("Any", self), index) for index in range(len(self)))

    def __iadd__(self, other: Any) -> Any:
        return _in_place(self, operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return _in_place(self, operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return _in_place(self, operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return _in_place(self, operator.itruediv, other)


def _users_line() -> str | None:
    """Return the current line of the user's code, in the form of Python's tracebacks.

    torch.fx can record it too (`record_stack_traces`), but is much slower.
    """
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _ENTRY:  # further frames are callers of this project
            return None
        if not name.startswith((*NOT_THE_USERS, "<")):
            return f'File "{name}", line {frame.f_lineno}, in {frame.f_code.co_name}'
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _in_place(proxy: fx.Proxy, function: Any, other: Any) -> Any:
    return proxy.tracer.create_proxy("call_function", function, (proxy, other), {})


# -- which modules are one operation --------------------------------------------------------


def torch_class(module: nn.Module) -> type[nn.Module] | None:
    """Return PyTorch's class that computes the same as a module in evaluation mode; None: none.

    A class derived from PyTorch's without overriding `forward`, such as a convolution with another
    initialisation or a parametrised weight, counts as its parent.
    """
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict | nn.DataParallel  # type: ignore[type-arg]
    if isinstance(module, containers) or "forward" in vars(module):
        return None
    for cls in type(module).__mro__:
        if cls is SyncedBatchNorm2d:
            return nn.BatchNorm2d
        if cls is nn.Module:
            return None
        if _is_torchs(cls) and "forward" in vars(cls) | _inherited(cls):
            return cls
        computes = {"forward", "__call__", "_conv_forward"} & set(vars(cls))
        if computes and not cls.__module__.startswith("torch.nn."):
            return None
    return None


def _inherited(cls: type[nn.Module]) -> dict[str, Any]:
    """Return the attributes of a class's parents, except for nn.Module."""
    parents = [parent for parent in cls.__mro__[1:] if parent not in (nn.Module, object)]
    return {name: value for parent in parents for name, value in vars(parent).items()}


def _is_torchs(cls: type) -> bool:
    name = cls.__module__
    return name.startswith("torch.nn.") and not name.startswith("torch.nn.utils")


def _has_users_hooks(module: nn.Module) -> bool:
    """Return whether a module has hooks of the user; those of PyTorch only compute weights."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(not _is_library(type(hook)) and not _is_library(hook) for hook in hooks)
