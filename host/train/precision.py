"""In how many bits a run computes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.host.train.config import Config, ConfigError


def make_accelerator(config: Config) -> Accelerator:
    """Return one for the GPU where there is one; raises ConfigError for float16 without."""
    wanted = config.training.mixed_precision
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ConfigError('mixed_precision "fp16" needs a GPU; there is none ("bf16" does not)')
    # bfloat16 needs no scaling of gradients, only `autocast`; and a process that has had one
    # Accelerator cannot make one of another precision.
    scaled = wanted if wanted == "fp16" else "no"
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=scaled)


def autocast(config: Config, accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Return what networks other than quantised students compute in."""
    if config.training.mixed_precision == "bf16":
        return torch.autocast(accelerator.device.type, torch.bfloat16)
    return accelerator.autocast()
