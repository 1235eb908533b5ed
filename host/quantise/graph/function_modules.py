"""Builders of torch.nn modules for torch's functions and ATen's ops, by the operation's name.

A builder takes the arguments of the function except its first operand. Parameters and buffers of
the network are passed as tensors, values computed from the images as nodes. It returns None if no
module computes the same.
"""
# ruff: noqa: A002 - the parameters are those of PyTorch's functions

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.copies import derived

Builder = Callable[..., nn.Module | None]
BUILDERS: dict[str, Builder] = {}


def builds(*names: str) -> Callable[[Builder], Builder]:
    """Register the builder for operations with these names."""

    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(names, builder))
        return builder

    return register


def _parameter(value: Any) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else derived(value, value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


# -- activations ----------------------------------------------------------------------------


@builds("relu")
def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


@builds("relu6")
def _relu6(inplace: bool = False) -> nn.Module:
    return nn.ReLU6()


@builds("hardtanh")
def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.Hardtanh(min_val, max_val)


@builds("clamp")
def _clamp(min: Any = None, max: Any = None) -> nn.Module | None:
    if min == 0 and max is None:
        return nn.ReLU()
    if isinstance(min, int | float) and isinstance(max, int | float):
        return nn.Hardtanh(min, max)
    return None


@builds("clamp_min")
def _clamp_min(min: Any) -> nn.Module | None:
    return nn.ReLU() if isinstance(min, int | float) and min == 0 else None


@builds("threshold")
def _threshold(threshold: float, value: float, inplace: bool = False) -> nn.Module:
    return nn.ReLU() if threshold == value == 0 else nn.Threshold(threshold, value)


@builds("leaky_relu")
def _leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


@builds("rrelu")
def _rrelu(
    lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
    inplace: bool = False,
) -> nn.Module | None:  # fmt: skip
    return None if training else nn.LeakyReLU((lower + upper) / 2)


@builds("prelu")
def _prelu(weight: Any) -> nn.Module | None:
    if not isinstance(weight, Tensor):
        return None
    module = nn.PReLU(weight.numel())
    module.weight = _parameter(weight)
    return module


@builds("elu")
def _elu(alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.ELU(alpha)


@builds("gelu")
def _gelu(approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


@builds("softplus")
def _softplus(beta: float = 1.0, threshold: float = 20.0) -> nn.Module:
    return nn.Softplus(beta, threshold)


@builds("softmax")
def _softmax(dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module:
    return nn.Softmax(dim)


@builds("log_softmax")
def _log_softmax(dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module:
    return nn.LogSoftmax(dim)


def _simple(cls: type[nn.Module]) -> Builder:
    def build(inplace: bool = False) -> nn.Module:
        return cls()

    return build


for _operation, _cls in (
    ("selu", nn.SELU), ("celu", nn.CELU), ("silu", nn.SiLU), ("mish", nn.Mish),
    ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh), ("hardswish", nn.Hardswish),
    ("hardsigmoid", nn.Hardsigmoid), ("logsigmoid", nn.LogSigmoid),
):  # fmt: skip
    builds(_operation)(_simple(_cls))


# -- layers with weights --------------------------------------------------------------------


@builds("conv2d")
def _conv2d(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
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


@builds("conv1d")
def _conv1d(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> nn.Module | None:  # fmt: skip
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        return None
    out, channels, kernel = weight.shape
    padding = padding if isinstance(padding, str) else _pair(padding)[0]
    module = nn.Conv1d(
        channels * groups, out, kernel, _pair(stride)[0], padding, _pair(dilation)[0], groups,
        bias=False, device="meta",
    )  # fmt: skip
    return _weighted(module, weight, bias)


@builds("conv_transpose1d")
def _conv_transpose1d(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> nn.Module | None:  # fmt: skip
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        return None
    channels, out, kernel = weight.shape
    module = nn.ConvTranspose1d(
        channels, out * groups, kernel, _pair(stride)[0], _pair(padding)[0],
        _pair(output_padding)[0], groups, bias=False, dilation=_pair(dilation)[0], device="meta",
    )  # fmt: skip
    return _weighted(module, weight, bias)


@builds("conv_transpose2d")
def _conv_transpose2d(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
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


@builds("linear")
def _linear(weight: Any, bias: Any = None) -> nn.Module | None:
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node) or weight.dim() != 2:
        return None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    return _weighted(module, weight, bias)


@builds("matmul")
def _matmul(other: Any) -> nn.Module | None:
    return _linear(other.t()) if isinstance(other, Tensor) and other.dim() == 2 else None


def _weighted(module: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    module.weight = _parameter(weight)
    module.bias = None if bias is None else _parameter(bias)
    return module


@builds("batch_norm")
def _batch_norm(
    running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
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


@builds("max_pool2d")
def _max_pool2d(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> nn.Module | None:  # fmt: skip
    if return_indices:
        return None
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, ceil_mode=ceil_mode)


@builds("avg_pool2d")
def _avg_pool2d(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> nn.Module:  # fmt: skip
    return nn.AvgPool2d(
        kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override
    )


@builds("max_pool1d")
def _max_pool1d(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> nn.Module | None:  # fmt: skip
    if return_indices:
        return None
    return nn.MaxPool1d(kernel_size, stride or None, padding, dilation, ceil_mode=ceil_mode)


@builds("avg_pool1d")
def _avg_pool1d(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> nn.Module:  # fmt: skip
    return nn.AvgPool1d(kernel_size, stride or kernel_size, padding, ceil_mode, count_include_pad)


@builds("adaptive_avg_pool1d")
def _adaptive_avg_pool1d(output_size: Any) -> nn.Module:
    return nn.AdaptiveAvgPool1d(output_size)


@builds("adaptive_max_pool1d")
def _adaptive_max_pool1d(output_size: Any, return_indices: bool = False) -> nn.Module | None:
    return None if return_indices else nn.AdaptiveMaxPool1d(output_size)


@builds("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(output_size: Any) -> nn.Module:
    return nn.AdaptiveAvgPool2d(output_size)


@builds("adaptive_max_pool2d")
def _adaptive_max_pool2d(output_size: Any, return_indices: bool = False) -> nn.Module | None:
    return None if return_indices else nn.AdaptiveMaxPool2d(output_size)


@builds("pad")
def _pad(pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    pads = tuple(int(side) for side in pad)
    pads = pads if len(pads) != 2 else (*pads, 0, 0)
    if mode == "constant":
        return nn.ConstantPad2d(pads, value or 0.0) if len(pads) == 4 else None
    modes = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}
    return modes[mode](pads) if mode in modes and len(pads) == 4 else None


@builds("interpolate", "upsample")
def _interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> nn.Module | None:  # fmt: skip
    if antialias:
        return None
    return nn.Upsample(size, scale_factor, mode, align_corners, recompute_scale_factor)


@builds("pixel_shuffle")
def _pixel_shuffle(upscale_factor: int) -> nn.Module:
    return nn.PixelShuffle(upscale_factor)


# -- identities -----------------------------------------------------------------------------


@builds(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
)  # fmt: skip
def _dropout(
    p: float = 0.5, training: bool | None = None, inplace: bool = False,
    train: bool = True,
) -> nn.Module | None:  # fmt: skip
    return None if (train if training is None else training) and p else nn.Identity()


@builds("clone", "detach", "to", "float")
def _same(*_args: Any, **_kwargs: Any) -> nn.Module:
    return nn.Identity()


# -- ATen ops whose arguments have another order --------------------------------------------


def _aten_batch_norm(
    weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool = True,
) -> nn.Module | None:  # fmt: skip
    return _batch_norm(running_mean, running_var, weight, bias, training, momentum, eps)


def _aten_elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> nn.Module | None:
    return nn.ELU(alpha) if scale == input_scale == 1 else None


def _aten_softmax(dim: int, dtype: Any = None) -> nn.Module:
    return nn.Softmax(dim)


def _aten_log_softmax(dim: int, dtype: Any = None) -> nn.Module:
    return nn.LogSoftmax(dim)


def _aten_dropout(p: float, train: bool) -> nn.Module | None:
    return _dropout(p, train)


def _aten_nearest(output_size: Any, scale_factors: Any = None) -> nn.Module:
    return nn.Upsample(output_size, _factors(scale_factors), "nearest")


def _aten_bilinear(output_size: Any, align_corners: bool, scale_factors: Any = None) -> nn.Module:
    return nn.Upsample(output_size, _factors(scale_factors), "bilinear", align_corners)


def _aten_linear(output_size: Any, align_corners: bool, scale_factors: Any = None) -> nn.Module:
    return nn.Upsample(output_size, _factors(scale_factors), "linear", align_corners)


def _factors(given: Any) -> Any:
    return None if given is None else tuple(given)


builds("upsample_nearest1d", "upsample_nearest2d")(_aten_nearest)
builds("upsample_linear1d")(_aten_linear)
builds("upsample_bilinear2d")(_aten_bilinear)

ATEN: dict[str, Builder] = {
    "batch_norm": _aten_batch_norm, "elu": _aten_elu, "softmax": _aten_softmax,
    "log_softmax": _aten_log_softmax, "dropout": _aten_dropout, "feature_dropout": _aten_dropout,
    "alpha_dropout": _aten_dropout,
}  # fmt: skip
