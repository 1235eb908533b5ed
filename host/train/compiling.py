"""Compilation of float networks by torch.compile, with a fallback where that fails."""

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
    """A network's forward pass, compiled if possible and else called directly.

    Compilation happens in the first call. It fails without a C++ compiler, or on operations that
    torch.compile does not support. The results differ from the network's by float rounding only.
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
            found = self._network(images)  # raises where the network itself is at fault
            _LOG.warning(
                "torch.compile failed, so that training continues without it: %s",
                one_line(error)[:200],
            )
            self._pass = self._network
            return found
