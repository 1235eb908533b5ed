"""Floating-point precision of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.host.train.config import Config


def make_accelerator() -> Accelerator:
    """Return an Accelerator for the GPU if there is one, else for the CPU."""
    # bfloat16 needs no scaling of gradients, only `autocast`; and a process that has had one
    # Accelerator cannot create one of another precision.
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


def autocast(config: Config, accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Return the context in which teachers and float networks compute."""
    if config.training.mixed_precision == "bf16":
        return torch.autocast(accelerator.device.type, torch.bfloat16)
    return nullcontext()
