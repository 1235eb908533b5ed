"""A function of a network's parameters becomes the module of nn that computes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.graph import Graph, frozen
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.operations import is_in_place, operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

Builder = Callable[..., nn.Module | None]
_BUILDERS: dict[str, Builder] = {}


def _stands_for(*names: str) -> Callable[[Builder], Builder]:
    """Register the function that makes the module; its parameters are those of torch's function."""

    def register(builder: Builder) -> Builder:
        _BUILDERS.update(dict.fromkeys(names, builder))
        return builder

    return register


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    builder = _BUILDERS.get(operation(node))
    if builder is None or not graph.shape(node) or is_in_place(node):
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        builder = _ATEN.get(operation(node), builder)
    args = [_tensor(graph, given) for given in node.args]
    kwargs = {name: _tensor(graph, given) for name, given in node.kwargs.items()}
    try:
        bound = inspect.signature(builder).bind(*args, **kwargs)
    except TypeError:  # a use that no builder knows
        return False
    given = next(iter(bound.arguments.values()), None)
    others = [value for value in list(bound.arguments.values())[1:] if isinstance(value, fx.Node)]
    module = builder(*args, **kwargs)
    if not isinstance(given, fx.Node) or others or module is None:
        return False
    if isinstance(module, nn.BatchNorm2d) and not _is_norm(graph, node):
        module = _frozen_norm(module)
    graph.replace(node, module, given, name=_name(graph, node, module))
    return True


def _tensor(graph: Graph, given: Any) -> Any:
    """The tensor of a node that is one of the network's; all else as it is."""
    constant = graph.constant(given)
    return given if constant is None else constant


def _name(graph: Graph, node: fx.Node, module: nn.Module) -> str:
    """The user's module that calls the function, where it is of the kind (a layer's subclass)."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and isinstance(stack[-1], tuple) and isinstance(stack[-1][1], type):
        path, cls = stack[-1]
        if path and issubclass(cls, (type(module), nn.modules.batchnorm._NormBase)):
            return str(path) if _is_of(cls, module) else f"{path}.{node.name}".replace(".", "_")
    return node.name


def _is_of(cls: type, module: nn.Module) -> bool:
    norms = nn.modules.batchnorm._NormBase
    return issubclass(cls, type(module)) or (issubclass(cls, norms) and isinstance(module, norms))


def _is_norm(graph: Graph, node: fx.Node) -> bool:
    """Whether a norm's function is called by a norm's module, which training updates."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    classes = [cls for _, cls in stack if isinstance(cls, type)]
    return bool(classes) and issubclass(classes[-1], nn.modules.batchnorm._NormBase)


@torch.no_grad()
def _frozen_norm(norm: nn.BatchNorm2d) -> Affine:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return Affine(scale, shift)


def _parameter(value: Any) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else frozen(value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


# -- activations ----------------------------------------------------------------------------


@_stands_for("relu")
def _relu(input: Any, inplace: bool = False) -> nn.Module:
    return nn.ReLU()


@_stands_for("relu6")
def _relu6(input: Any, inplace: bool = False) -> nn.Module:
    return nn.ReLU6()


@_stands_for("hardtanh")
def _hardtanh(
    input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> nn.Module:
    return nn.Hardtanh(min_val, max_val)


@_stands_for("clamp")
def _clamp(input: Any, min: Any = None, max: Any = None) -> nn.Module | None:
    if min == 0 and max is None:
        return nn.ReLU()
    if isinstance(min, int | float) and isinstance(max, int | float):
        return nn.Hardtanh(min, max)
    return None


@_stands_for("clamp_min")
def _clamp_min(input: Any, min: Any) -> nn.Module | None:
    return nn.ReLU() if isinstance(min, int | float) and min == 0 else None


@_stands_for("threshold")
def _threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> nn.Module:
    return nn.ReLU() if threshold == value == 0 else nn.Threshold(threshold, value)


@_stands_for("leaky_relu")
def _leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


@_stands_for("rrelu")
def _rrelu(
    input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> nn.Module | None:  # fmt: skip
    return None if training else nn.LeakyReLU((lower + upper) / 2)


@_stands_for("prelu")
def _prelu(input: Any, weight: Any) -> nn.Module | None:
    if not isinstance(weight, Tensor):
        return None
    module = nn.PReLU(weight.numel())
    module.weight = _parameter(weight)
    return module


@_stands_for("elu")
def _elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.ELU(alpha)


@_stands_for("gelu")
def _gelu(input: Any, approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


@_stands_for("softplus")
def _softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> nn.Module:
    return nn.Softplus(beta, threshold)


@_stands_for("softmax")
def _softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module:
    return nn.Softmax(dim)


@_stands_for("log_softmax")
def _log_softmax(input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module:
    return nn.LogSoftmax(dim)


def _simple(cls: type[nn.Module]) -> Builder:
    def build(input: Any, inplace: bool = False) -> nn.Module:
        return cls()

    return build


for _operation, _cls in (
    ("selu", nn.SELU), ("celu", nn.CELU), ("silu", nn.SiLU), ("mish", nn.Mish),
    ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh), ("hardswish", nn.Hardswish),
    ("hardsigmoid", nn.Hardsigmoid), ("logsigmoid", nn.LogSigmoid),
):  # fmt: skip
    _stands_for(_operation)(_simple(_cls))


# -- layers with weights --------------------------------------------------------------------


@_stands_for("conv2d")
def _conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> nn.Module | None:  # fmt: skip
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        return None
    out, channels, *kernel = weight.shape
    padding = padding if isinstance(padding, str) else _pair(padding)
    module = nn.Conv2d(
        channels * groups, out, _pair(kernel), _pair(stride), padding, _pair(dilation), groups,
        bias=False, device="meta",
    )  # fmt: skip
    return _weighted(module, weight, bias)


@_stands_for("conv_transpose2d")
def _conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> nn.Module | None:  # fmt: skip
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        return None
    channels, out, *kernel = weight.shape
    module = nn.ConvTranspose2d(
        channels, out * groups, _pair(kernel), _pair(stride), _pair(padding),
        _pair(output_padding), groups, bias=False, dilation=_pair(dilation), device="meta",
    )  # fmt: skip
    return _weighted(module, weight, bias)


@_stands_for("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> nn.Module | None:
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node) or weight.dim() != 2:
        return None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _weighted(module, weight, bias)


@_stands_for("matmul")
def _matmul(input: Any, other: Any) -> nn.Module | None:
    return _linear(input, other.t()) if isinstance(other, Tensor) and other.dim() == 2 else None


def _weighted(module: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    module.weight = _parameter(weight)
    module.bias = None if bias is None else _parameter(bias)
    return module  # type: ignore[no-any-return]


@_stands_for("batch_norm")
def _batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5,
) -> nn.Module | None:  # fmt: skip
    values = (running_mean, running_var, weight, bias)
    if training or running_mean is None or any(isinstance(value, fx.Node) for value in values):
        return None
    module = nn.BatchNorm2d(len(running_mean), eps, momentum, affine=weight is not None)
    module.running_mean, module.running_var = running_mean.detach(), running_var.detach()
    if weight is not None:
        module.weight = _parameter(weight)
        module.bias = _parameter(torch.zeros_like(weight) if bias is None else bias)
    return module


# -- windows --------------------------------------------------------------------------------


@_stands_for("max_pool2d")
def _max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> nn.Module | None:  # fmt: skip
    if return_indices:
        return None
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, ceil_mode=ceil_mode)


@_stands_for("avg_pool2d")
def _avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> nn.Module:  # fmt: skip
    return nn.AvgPool2d(
        kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override
    )


@_stands_for("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(input: Any, output_size: Any) -> nn.Module:
    return nn.AdaptiveAvgPool2d(output_size)


@_stands_for("adaptive_max_pool2d")
def _adaptive_max_pool2d(
    input: Any, output_size: Any, return_indices: bool = False
) -> nn.Module | None:
    return None if return_indices else nn.AdaptiveMaxPool2d(output_size)


@_stands_for("pad")
def _pad(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    pads = tuple(int(side) for side in pad)
    if mode == "constant":
        return nn.ConstantPad2d(pads, value or 0.0) if len(pads) == 4 else None
    modes = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
    return modes[mode](pads) if mode in modes and len(pads) == 4 else None


@_stands_for("interpolate", "upsample")
def _interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> nn.Module | None:  # fmt: skip
    if antialias:
        return None
    return nn.Upsample(size, scale_factor, mode, align_corners, recompute_scale_factor)


@_stands_for("pixel_shuffle")
def _pixel_shuffle(input: Any, upscale_factor: int) -> nn.Module:
    return nn.PixelShuffle(upscale_factor)


# -- nothing --------------------------------------------------------------------------------


@_stands_for(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
)  # fmt: skip
def _dropout(
    input: Any, p: float = 0.5, training: bool | None = None, inplace: bool = False,
    train: bool = True,
) -> nn.Module | None:  # fmt: skip
    return None if (train if training is None else training) and p else nn.Identity()


@_stands_for("clone", "detach", "to", "float", "requires_grad_")
def _same(input: Any, *_args: Any, **_kwargs: Any) -> nn.Module:
    return nn.Identity()


# -- aten's, where torch.export leaves another order of arguments ----------------------------


def _aten_batch_norm(
    input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool = True,
) -> nn.Module | None:  # fmt: skip
    return _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _aten_elu(
    input: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> nn.Module | None:
    return nn.ELU(alpha) if scale == input_scale == 1 else None


def _aten_softmax(input: Any, dim: int, dtype: Any = None) -> nn.Module:
    return nn.Softmax(dim)


def _aten_log_softmax(input: Any, dim: int, dtype: Any = None) -> nn.Module:
    return nn.LogSoftmax(dim)


def _aten_dropout(input: Any, p: float, train: bool) -> nn.Module | None:
    return _dropout(input, p, train)


def _aten_nearest(input: Any, output_size: Any, scale_factors: Any = None) -> nn.Module:
    return nn.Upsample(output_size, _factors(scale_factors), "nearest")


def _aten_bilinear(
    input: Any, output_size: Any, align_corners: bool, scale_factors: Any = None
) -> nn.Module:
    return nn.Upsample(output_size, _factors(scale_factors), "bilinear", align_corners)


def _factors(given: Any) -> Any:
    return None if given is None else tuple(given)


_stands_for("upsample_nearest2d")(_aten_nearest)
_stands_for("upsample_bilinear2d")(_aten_bilinear)

_ATEN: dict[str, Builder] = {
    "batch_norm": _aten_batch_norm, "elu": _aten_elu, "softmax": _aten_softmax,
    "log_softmax": _aten_log_softmax, "dropout": _aten_dropout,
    "feature_dropout": _aten_dropout, "alpha_dropout": _aten_dropout,
}  # fmt: skip


FUNCTIONS = GraphPass("modules for functions", _rewrite)
