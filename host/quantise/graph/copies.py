"""Copies of modules and values, which passes may change."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def plain_copy(module: nn.Module, cls: type[nn.Module] | None = None) -> Any:
    """Return a module with the same parameters that may be changed without changing the first.

    Parameters
    ----------
    cls : its class, where that is not the module's
    """
    new = object.__new__(cls or module.__class__)
    new.__dict__.update(module.__dict__)
    for name in ("_parameters", "_buffers", "_modules"):
        new.__dict__[name] = dict(module.__dict__[name])
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        new.__dict__[name] = type(module.__dict__[name])()
    return new


def frozen(value: Tensor) -> nn.Parameter:
    """Return a value that was computed from parameters as one."""
    return nn.Parameter(value.detach().clone())
