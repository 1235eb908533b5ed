"""Floating-point precision of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.host.train.config import Config, ConfigError


def make_accelerator(config: Config) -> Accelerator:
    """Return an Accelerator for the GPU if there is one, else for the CPU.

    Raises
    ------
    ConfigError
        The configuration has float16, and there is no GPU.
    """
    wanted = config.training.mixed_precision
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            '[training] mixed_precision "fp16" needs a GPU, and there is none: give "bf16" or "no"'
        )
    # bfloat16 needs no scaling of gradients, only `autocast`; and a process that has had one
    # Accelerator cannot create one of another precision.
    scaled = wanted if wanted == "fp16" else "no"
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=scaled)


def autocast(config: Config, accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Return the context in which teachers and float networks compute."""
    if config.training.mixed_precision == "bf16":
        return torch.autocast(accelerator.device.type, torch.bfloat16)
    return accelerator.autocast()
