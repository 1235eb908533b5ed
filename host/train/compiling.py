"""Networks without rounding, compiled by torch.compile where that works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tutelage.core.errors import one_line

BACKEND: str | Callable[..., Any] = "inductor"

_LOG = logging.getLogger(__name__)


class Compiled:
    """A network's forward pass: compiled, or as it is where that fails.

    It can fail for want of a C++ compiler, or on what the network does; that shows before anything
    is computed, in the first call. The results are the network's but for float rounding.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._pass: Callable[..., Any] = torch.compile(network, backend=BACKEND)

    def __call__(self, images: torch.Tensor) -> Any:
        if self._pass is self._network:
            return self._network(images)
        try:
            return self._pass(images)
        except Exception as error:  # of torch._dynamo, of a backend, of a compiler
            found = self._network(images)  # raises what is the network's own fault
            _LOG.warning("not compiled, training goes on without: %s", one_line(error)[:200])
            self._pass = self._network
            return found
