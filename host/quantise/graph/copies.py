"""Copies of modules and values that passes may change."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def plain_copy(module: nn.Module, cls: type[nn.Module] | None = None) -> Any:
    """Return a copy of a module that shares its parameters and tensors, without its hooks.

    Parameters
    ----------
    cls : class of the copy; None: that of the module
    """
    new = object.__new__(cls or module.__class__)
    new.__dict__.update(module.__dict__)
    for name in ("_parameters", "_buffers", "_modules"):
        new.__dict__[name] = dict(module.__dict__[name])
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        new.__dict__[name] = type(module.__dict__[name])()
    return new


def frozen(value: Tensor) -> nn.Parameter:
    """Return a copy of a constant as a parameter that is not trained."""
    return nn.Parameter(value.detach().clone(), requires_grad=False)


def derived(value: Tensor, *given: Tensor | None) -> nn.Parameter:
    """Return a copy of a value as a parameter, trained if one of the `given` parameters is."""
    trained = any(part is not None and part.requires_grad for part in given)
    return nn.Parameter(value.detach().clone(), requires_grad=trained)


def layer_of_pixels(
    weight: Tensor, bias: Tensor | None, groups: int, is_map: bool, trained: bool = False
) -> nn.Module:
    """Return a layer that multiplies the channels of each pixel by a matrix.

    Parameters
    ----------
    weight : [O, I / groups]
    bias : [O]; None: no bias
    groups : of the convolution; 1 for vectors
    is_map : True: a 1x1 convolution for maps; False: a linear layer for vectors
    trained : whether the parameters are trained
    """
    outputs, inputs = weight.shape
    layer: Any
    if is_map:
        layer = nn.Conv2d(inputs * groups, outputs, 1, groups=groups, bias=bias is not None)
        weight = weight[:, :, None, None]
    else:
        layer = nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight = frozen(weight)
    if bias is not None:
        layer.bias = frozen(bias)
    layer.requires_grad_(trained)
    return layer
