"""Any nn.Module -> the DPU's layers, by torch.fx.

Batch norms join the convolution before them (one with none before it becomes a
1x1 depthwise convolution), ReLUs join the convolution or addition before them,
linear layers become convolutions over the whole map, dropout disappears. What
the DPU cannot take is an UnsupportedOp that says where it stands and what to do.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from tutelage.core.fixed_point import LEAKY_SLOPE, is_leaky_slope
from tutelage.dpu.ops.registry import op_type
from tutelage.host.quantise.layers import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Input,
    Layer,
    MaxPool,
    Pair,
    Reshape,
)

log = logging.getLogger(__name__)

_OUR_FRAMES = (str(Path(torch.__file__).parent), __file__)
"""Files that stand in every stack trace and are not the user's."""


class UnsupportedOp(ValueError):
    """The network has an operation the DPU cannot take; the text names it and its place."""


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Layer]:
    """The layers of `network` for images [N, *input_shape], in an order they can run in.

    Weights and norms are copies; the network stays as it is.

    Raises
    ------
    UnsupportedOp : an operation the DPU cannot take, or control flow that fx cannot follow
    """
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        module = _module(network, input_shape)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise UnsupportedOp(
            f"{type(network).__name__} cannot be traced ({_line(error)}); "
            "its forward must not branch on values, only on constants"
        ) from error
    finally:
        for part, mode in training.items():
            part.training = mode
    return _Walker(module).walk()


def _module(network: nn.Module, input_shape: tuple[int, int, int]) -> fx.GraphModule:
    """The fx graph with shapes, checked on one image against the network itself."""
    tracer = _Tracer()
    tracer.record_stack_traces = True
    module = fx.GraphModule(network, tracer.trace(network))
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *input_shape, generator=generator).to(parameter)
    with torch.no_grad():
        traced = ShapeProp(module).propagate(image.clone())
        computed = network(image)
    # fx takes `x += y` for `x = x + y`, which is another value where x has a second name.
    if isinstance(computed, Tensor) and not torch.allclose(
        traced, computed, 1e-3, 1e-4, equal_nan=True
    ):
        raise UnsupportedOp(
            f"the trace of {type(network).__name__} computes something else than the network: "
            "it overwrites (+=) a value that is read again, or draws random numbers"
        )
    return module


def _line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Tracer(fx.Tracer):
    """fx looks into all modules that are not torch's own; a norm derived from torch's is one."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


class _Walker:
    """One pass over the fx graph; `origin` maps each fx node to the layer with its value."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.modules = dict(module.named_modules())
        self.layers: dict[str, Layer] = {}
        self.origin: dict[fx.Node, str] = {}

    def walk(self) -> dict[str, Layer]:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if self.layers:
                    raise self._error(node, "a second input", "give the network one image input")
                self._add(node, Input((), _shape(node)), "input")
            elif node.op == "output":
                self._output(node)
            elif not _is_tensor(node) or node.op == "get_attr":
                continue  # sizes for a view; a bare parameter is refused where it is used
            else:
                self._operation(node)
        return self.layers

    # -- dispatch ---------------------------------------------------------------

    def _operation(self, node: fx.Node) -> None:
        key: Any
        if node.op == "call_module":
            key = type(self.modules[str(node.target)])
            key = nn.BatchNorm2d if issubclass(key, nn.BatchNorm2d) else key
        else:
            key = node.target
        handler = _HANDLERS.get(key)
        name = key.__name__ if hasattr(key, "__name__") else str(key)
        if handler is None:
            raise self._error(node, name, _ADVICE.get(name.lower().strip("_"), _ADVICE[""]))
        if not node.users:
            raise self._error(node, f"{name} whose result nothing reads", "leave it out, or use it")
        if key in _IN_PLACE and not self._only_consumer(node):
            advice = "write it out of place (x + y): the value it overwrites is read elsewhere"
            raise self._error(node, f"{name} in place", advice)
        handler(self, node)

    def _error(self, node: fx.Node, what: str, advice: str) -> UnsupportedOp:
        place = f"at {node.target}" if node.op == "call_module" else f"at {node.name}"
        frames = [line for line in (node.stack_trace or "").splitlines() if "File" in line]
        theirs = [frame for frame in frames if not any(path in frame for path in _OUR_FRAMES)]
        source = f" ({theirs[-1].strip()})" if theirs else ""
        return UnsupportedOp(f"the DPU cannot take {what} {place}{source}: {advice}")

    # -- building blocks ----------------------------------------------------------

    def _add(self, node: fx.Node, layer: Layer, name: str = "") -> None:
        name = name or (str(node.target) if node.op == "call_module" else node.name)
        self.origin[node] = self._insert(name.replace(".", "/"), layer)

    def _insert(self, base: str, layer: Layer) -> str:
        """Add a layer; a second one of its name, or one of nn.ModuleDict's names, is numbered."""
        name, number = base, 2
        while name in self.layers or name in _RESERVED:
            name, number = f"{base}_{number}", number + 1
        self.layers[name] = layer
        return name

    def _source(self, node: fx.Node, argument: int = 0) -> str:
        names = ("input", "x", "self")
        given = node.args[argument] if len(node.args) > argument else None
        if given is None:
            given = next((node.kwargs[n] for n in names if n in node.kwargs), None)
        if not isinstance(given, fx.Node) or given not in self.origin:
            raise self._error(node, "an operand that is no activation", "use module parameters")
        return self.origin[given]

    def _value(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        if len(node.args) > position:
            return node.args[position]
        return node.kwargs.get(name, default)

    def _attribute(self, node: fx.Node, position: int, name: str, default: Any = None) -> Any:
        """An argument of a function, or the attribute of the same name of a module."""
        if node.op == "call_module":
            return getattr(self.modules[str(node.target)], name, default)
        return self._value(node, position, name, default)

    def _only_consumer(self, node: fx.Node) -> bool:
        """Whether the value this node takes is taken by no other node."""
        given = node.args[0]
        return isinstance(given, fx.Node) and len(given.users) == 1

    def _alias(self, node: fx.Node) -> None:
        self.origin[node] = self._source(node)

    # -- operations -----------------------------------------------------------------

    def conv(self, node: fx.Node) -> None:
        conv = self.modules[str(node.target)]
        assert isinstance(conv, nn.Conv2d)
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        if conv.groups != 1 and not depthwise:
            what = f"Conv2d with groups={conv.groups} on {conv.in_channels} channels"
            raise self._error(node, what, "use groups=1 or one group per channel")
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            what = f"padding {conv.padding!r}, mode {conv.padding_mode!r}"
            raise self._error(node, what, "pad with zeros and a number of pixels")
        self._add(node, Conv(conv, (self._source(node),), _shape(node)))

    def linear(self, node: fx.Node) -> None:
        linear = self.modules[str(node.target)]
        assert isinstance(linear, nn.Linear)
        source = self._source(node)
        channels, height, width = self.layers[source].shape
        if channels * height * width != linear.in_features:
            raise self._error(node, "Linear on a map", "flatten the map before it")
        has_bias = linear.bias is not None
        conv = nn.Conv2d(channels, linear.out_features, (height, width), bias=has_bias)
        with torch.no_grad():
            conv.weight.copy_(linear.weight.view_as(conv.weight))
            if conv.bias is not None:
                conv.bias.copy_(linear.bias)
        self._add(node, Conv(conv, (source,), (linear.out_features, 1, 1)))

    def batch_norm(self, node: fx.Node) -> None:
        norm = self.modules[str(node.target)]
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.running_mean is None or norm.weight is None:
            what = "BatchNorm2d without statistics or weights"
            raise self._error(node, what, "keep track_running_stats and affine on")
        before = self.layers[self._source(node)]
        foldable = isinstance(before, Conv) and before.norm is None and before.nonlinear == "NONE"
        if foldable and self._only_consumer(node):
            self._alias(node)
        else:
            log.warning(
                "%s: no convolution before this batch norm to fold it into; it becomes a 1x1 "
                "depthwise convolution, which costs time (conv-BN-ReLU order avoids it)",
                node.target,
            )
            identity = nn.Conv2d(
                norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False
            )
            nn.init.ones_(identity.weight)
            before = Conv(identity, (self._source(node),), _shape(node))
            self._add(node, before)
        assert isinstance(before, Conv)
        before.norm = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
        before.norm.load_state_dict(norm.state_dict())

    def relu(self, node: fx.Node) -> None:
        self._nonlinear(node, "RELU")

    def relu6(self, node: fx.Node) -> None:
        self._nonlinear(node, "RELU6")

    def hardtanh(self, node: fx.Node) -> None:
        limits = self._attribute(node, 1, "min_val", -1), self._attribute(node, 2, "max_val", 1)
        if limits != (0, 6):
            raise self._error(node, f"a clip to {limits}", "clip to (0, 6): ReLU6")
        self._nonlinear(node, "RELU6")

    def leaky_relu(self, node: fx.Node) -> None:
        slope = self._attribute(node, 1, "negative_slope", 0.01)
        if not is_leaky_slope(slope):
            raise self._error(node, f"LeakyReLU with slope {slope}", f"use {LEAKY_SLOPE} (26/256)")
        self._nonlinear(node, "LEAKYRELU")

    def _nonlinear(self, node: fx.Node, kind: str) -> None:
        before = self.layers[self._source(node)]
        if kind == "RELU" and not is_signed(self.layers, self._source(node)):
            self._alias(node)  # nothing negative left
            return
        fits = isinstance(before, Conv | Add) and before.nonlinear == "NONE"
        if not fits or not self._only_consumer(node):
            advice = "put it directly behind a convolution or an addition that nothing else reads"
            raise self._error(node, f"{kind} behind {type(before).__name__}", advice)
        if kind in op_type(_op_type(before)).fuses:
            before.nonlinear = kind
            self._alias(node)
        else:
            self._identity(node, kind)

    def _identity(self, node: fx.Node, kind: str) -> None:
        """Add a 1x1 identity convolution, at whose end the DPU has the activation."""
        source = self._source(node)
        channels = self.layers[source].shape[0]
        groups = channels if kind in op_type("depthwise-conv2d").fuses else 1
        log.warning(
            "%s: the DPU has no %s at the end of this %s; it is given to a 1x1 convolution behind "
            "it, which costs time",
            node.name, kind, _op_type(self.layers[source]),
        )  # fmt: skip
        conv = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        nn.init.dirac_(conv.weight, groups)
        layer = Conv(conv, (source,), _shape(node))
        layer.nonlinear = kind
        self._add(node, layer)

    def max_pool(self, node: fx.Node) -> None:
        if _pair(self._attribute(node, 4, "dilation", 1)) != (1, 1):
            raise self._error(node, "a dilated MaxPool2d", "use dilation=1")
        kernel, stride, padding = self._window(node)
        source = self._source(node)
        ceil = _windows(self.layers[source].shape, kernel, stride, padding) != _shape(node)[1:]
        self._add(node, MaxPool((source,), _shape(node), kernel, stride, padding, ceil))

    def avg_pool(self, node: fx.Node) -> None:
        kernel, stride, padding = self._window(node)
        if padding != (0, 0) and not self._attribute(node, 5, "count_include_pad", True):
            what = "AvgPool2d with padding and count_include_pad=False"
            raise self._error(node, what, "use count_include_pad=True: the DPU's divisor is fixed")
        if self._attribute(node, 6, "divisor_override"):
            raise self._error(node, "AvgPool2d with divisor_override", "leave the divisor alone")
        if (
            _windows(self.layers[self._source(node)].shape, kernel, stride, padding)
            != (_shape(node)[1:])
        ):
            what = "AvgPool2d with ceil_mode and a window that passes the border"
            raise self._error(node, what, "use ceil_mode=False: the DPU's divisor is fixed")
        self._add(node, AvgPool((self._source(node),), _shape(node), kernel, stride, padding))

    def _window(self, node: fx.Node) -> tuple[Pair, Pair, Pair]:
        kernel = _pair(self._attribute(node, 1, "kernel_size"))
        stride = _pair(self._attribute(node, 2, "stride") or kernel)
        padding = _pair(self._attribute(node, 3, "padding", 0))
        shape = self.layers[self._source(node)].shape
        sizes = [_windows(shape, kernel, stride, padding, ceil) for ceil in (False, True)]
        if _shape(node)[1:] not in sizes:
            # PyTorch drops a window that would begin behind the map, XIR along no axis or both.
            what = "a pool with ceil_mode whose last window begins in the padding"
            raise self._error(node, what, "use ceil_mode=False")
        return kernel, stride, padding

    def adaptive_avg_pool(self, node: fx.Node) -> None:
        if _shape(node)[1:] != (1, 1):
            what = f"AdaptiveAvgPool2d to {_shape(node)[1:]}"
            raise self._error(node, what, "pool to 1x1, or use AvgPool2d")
        self._global_pool(node)

    def mean(self, node: fx.Node) -> None:
        axes = self._value(node, 1, "dim")
        if not isinstance(axes, list | tuple) or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise self._error(node, f"mean over {axes}", "only the mean over the whole map works")
        self._global_pool(node)

    def _global_pool(self, node: fx.Node) -> None:
        source = self._source(node)
        channels, height, width = self.layers[source].shape
        pool = AvgPool((source,), (channels, 1, 1), (height, width), (height, width))
        self._add(node, pool)

    def concat(self, node: fx.Node) -> None:
        parts = node.args[0] if node.args else node.kwargs["tensors"]
        if self._value(node, 1, "dim", 0) % 4 != 1:
            raise self._error(node, "a concat along another axis", "concatenate channels (dim=1)")
        assert isinstance(parts, list | tuple)
        names = tuple(self.origin[part] for part in parts if isinstance(part, fx.Node))
        self._add(node, Concat(names, _shape(node)))

    def add(self, node: fx.Node) -> None:
        if self._value(node, 2, "alpha", 1) != 1:
            raise self._error(node, "an addition with alpha", "scale before the convolution")
        names = self._source(node, 0), self._source(node, 1)
        shapes = [self.layers[name].shape for name in names]
        if shapes[0] != shapes[1]:
            raise self._error(node, f"an addition of {shapes[0]} and {shapes[1]}", "equal shapes")
        self._add(node, Add(names, _shape(node)))

    def flatten(self, node: fx.Node) -> None:
        """Only a name: linear layers take the map itself, in its own order."""
        source = self._source(node)
        elements = _elements(self.layers[source].shape)
        if tuple(_meta_shape(node)[1:]) != (elements,):
            advice = "only flattening to [N, features] before a linear layer works"
            raise self._error(node, f"a reshape to {tuple(_meta_shape(node))}", advice)
        self.origin[node] = source

    def identity(self, node: fx.Node) -> None:
        self._alias(node)

    def _output(self, node: fx.Node) -> None:
        given = node.args[0]
        if not isinstance(given, fx.Node):
            raise UnsupportedOp("the network returns several values: return the logits alone")
        source = self.layers[self.origin[given]]
        if isinstance(source, Input):
            raise UnsupportedOp("the network has no layer")
        if not any(isinstance(layer, Conv) for layer in self.layers.values()):
            raise UnsupportedOp("the network has no convolution and no linear layer")
        if self.origin[given] != next(reversed(self.layers)):
            raise UnsupportedOp("the network computes something that its output does not need")
        if len(_meta_shape(given)) == 2:
            if source.shape[1:] != (1, 1):
                raise UnsupportedOp("the output is a flattened map: end with a linear layer")
            self._insert("logits", Reshape((self.origin[given],), source.shape[:1]))


Handler = Callable[[_Walker, fx.Node], None]
_HANDLERS: dict[Any, Handler] = {
    nn.Conv2d: _Walker.conv,
    nn.Linear: _Walker.linear,
    nn.BatchNorm2d: _Walker.batch_norm,
    nn.MaxPool2d: _Walker.max_pool,
    nn.AvgPool2d: _Walker.avg_pool,
    nn.AdaptiveAvgPool2d: _Walker.adaptive_avg_pool,
    nn.ReLU: _Walker.relu,
    nn.ReLU6: _Walker.relu6,
    nn.Hardtanh: _Walker.hardtanh,
    nn.LeakyReLU: _Walker.leaky_relu,
    nn.Flatten: _Walker.flatten,
    nn.Dropout: _Walker.identity,
    nn.Dropout2d: _Walker.identity,
    nn.Identity: _Walker.identity,
    F.relu: _Walker.relu,
    F.relu6: _Walker.relu6,
    F.hardtanh: _Walker.hardtanh,
    F.leaky_relu: _Walker.leaky_relu,
    F.max_pool2d: _Walker.max_pool,
    F.avg_pool2d: _Walker.avg_pool,
    F.adaptive_avg_pool2d: _Walker.adaptive_avg_pool,
    F.dropout: _Walker.identity,
    torch.relu: _Walker.relu,
    torch.cat: _Walker.concat,
    torch.concat: _Walker.concat,
    torch.add: _Walker.add,
    operator.add: _Walker.add,
    torch.flatten: _Walker.flatten,
    torch.reshape: _Walker.flatten,
    torch.mean: _Walker.mean,
    "relu": _Walker.relu,
    "relu_": _Walker.relu,
    "add": _Walker.add,
    "add_": _Walker.add,
    "flatten": _Walker.flatten,
    "view": _Walker.flatten,
    "reshape": _Walker.flatten,
    "mean": _Walker.mean,
    "contiguous": _Walker.identity,
}
_IN_PLACE = {"add_"}
_RESERVED = set(dir(nn.ModuleDict()))  # no keys of the student's ModuleDict
_ADVICE = {  # by lower-case name of a module, function or method
    "": "use convolutions, batch norm, ReLU, pools, concats, additions and linear layers",
    "silu": "use ReLU, ReLU6 or LeakyReLU(26/256)",
    "gelu": "use ReLU, ReLU6 or LeakyReLU(26/256)",
    "sigmoid": "use ReLU; a sigmoid or softmax at the end belongs on the CPU",
    "softmax": "return logits; the softmax runs on the CPU",
    "layernorm": "use BatchNorm2d behind a convolution",
    "groupnorm": "use BatchNorm2d behind a convolution",
    "mul": "fold a constant factor into the convolution before it",
    "imul": "fold a constant factor into the convolution before it",
    "getitem": "compute the parts separately, by convolutions of their own",
}


def is_signed(layers: dict[str, Layer], name: str) -> bool:
    """Whether the value of a layer can be negative."""
    layer = layers[name]
    if isinstance(layer, Conv | Add) or layer.nonlinear != "NONE":
        if layer.nonlinear in ("RELU", "RELU6"):
            return False
        return not isinstance(layer, Add) or any(is_signed(layers, i) for i in layer.inputs)
    return isinstance(layer, Input) or any(is_signed(layers, i) for i in layer.inputs)


def _is_tensor(node: fx.Node) -> bool:
    return "tensor_meta" in node.meta and hasattr(node.meta["tensor_meta"], "shape")


def _meta_shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """(C, H, W) of a node's value; a vector counts as a 1x1 map."""
    shape = _meta_shape(node)[1:]
    return shape if len(shape) == 3 else (*shape, 1, 1)


def _elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, ceil: bool = False
) -> tuple[int, ...]:
    """Rows and columns of a pool's output."""
    return tuple(
        (size + 2 * pad - k + (step - 1 if ceil else 0)) // step + 1
        for size, pad, k, step in zip(shape[1:], padding, kernel, stride, strict=True)
    )


def _op_type(layer: Layer) -> str:
    """The op type that a layer with an activation becomes."""
    if isinstance(layer, Conv):
        return "depthwise-conv2d" if layer.depthwise else "conv2d"
    return "add"


def _pair(value: Any) -> Pair:
    if isinstance(value, list | tuple):
        return (value[0], value[-1])
    return value, value
