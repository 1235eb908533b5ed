"""Values without data: what shape and type a node's result has."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import map_aggregate

VALUE = "val"
"""Key of a node's meta: its value, a tensor on PyTorch's device "meta" or one of the network's."""


def without_data(given: Any) -> Any:
    """Return arguments with tensors that have no data in the place of those that have."""
    return map_aggregate(given, lambda a: a.to("meta") if isinstance(a, Tensor) else a)


@torch.no_grad()
def compute(kind: str, target: Any, args: Any, kwargs: Any) -> Any:
    """Return the result of an operation, without data.

    Parameters
    ----------
    kind : the op of the fx node
    target : the module, the function or the method's name
    """
    args, kwargs = without_data((args, kwargs))
    if kind == "call_module":
        assert isinstance(target, nn.Module)
        if isinstance(target, nn.modules.batchnorm._NormBase):
            return args[0]  # its shape; PyTorch would decompose it, which takes long
        tensors = chain(target.named_parameters(), target.named_buffers())
        own = {name: tensor.detach().to("meta") for name, tensor in tensors}
        return torch.func.functional_call(target, own, tuple(args), kwargs)
    if kind == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    if target is F.batch_norm:
        return args[0]
    kwargs = {name: value for name, value in kwargs.items() if name != "device"}
    return target(*args, **kwargs)
