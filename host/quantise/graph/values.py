"""Symbolic values: the shape and type of a node's result, without data."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from tutelage.host.quantise.graph.copies import plain_copy

VALUE = "val"
"""Key in a node's meta for its value, a tensor on the device "meta" or one of the network."""


def without_data(given: Any) -> Any:
    """Return arguments with each tensor replaced by one without data, on the device "meta"."""
    return map_aggregate(given, lambda a: a.to("meta") if isinstance(a, Tensor) else a)


@torch.no_grad()
def compute(kind: str, target: Any, args: Any, kwargs: Any) -> Any:
    """Return the symbolic result of an operation.

    Parameters
    ----------
    kind : the op of the fx node
    target : the module, the function or the name of the method
    args, kwargs : its arguments
    """
    args, kwargs = without_data((args, kwargs))
    if kind == "call_module":
        assert isinstance(target, nn.Module)
        if isinstance(target, nn.modules.batchnorm._NormBase):
            return args[0]  # the shape is the same, and PyTorch would slowly decompose the norm
        if target._forward_pre_hooks or target._forward_hooks:  # which may store tensors
            target = plain_copy(target)
            kept = {name: v for name, v in vars(target).items() if isinstance(v, Tensor)}
            target.__dict__.update({name: v.to("meta") for name, v in kept.items()})
        tensors = chain(target.named_parameters(), target.named_buffers())
        own = {name: tensor.detach().to("meta") for name, tensor in tensors}
        return torch.func.functional_call(target, own, tuple(args), kwargs)
    if kind == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    if target is F.batch_norm:
        return args[0]
    kwargs = {name: value for name, value in kwargs.items() if name != "device"}
    return target(*args, **kwargs)
