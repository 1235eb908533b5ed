"""The arguments that `torch_quantizer`, `QatProcessor` and `Inspector` have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.commands import PROGRAM
from tutelage.core.errors import DpuError, TutelageError
from tutelage.core.files import read_bounded
from tutelage.core.messages import say
from tutelage.host.quantise.student import Student

MAX_JSON = 1 << 24
"""Most bytes of quant_info.json, or of a file of settings."""

CALIBRATION = {"diffs": "mse", "maxmin": "minmax"}
"""The methods that AMD has for the DPU -> ours (host/quantise/calibrate.py)."""

# What the DPU fixes, by the name in a file of settings (vai_q_pytorch, doc/Quant_Config.md,
# "Configuration Restrictions").
_FIXED = {
    "datatype": "int",
    "bit_width": 8,
    "symmetry": True,
    "per_channel": False,
    "signed": True,
    "scale_type": "poweroftwo",
}


class QuantizerError(TutelageError):
    """A script asks AMD's quantiser for what this one does not do; the text says what to do."""


def note(text: str) -> None:
    """Print what the user should know, and what AMD's tool would do beyond it."""
    say(PROGRAM, text)


def check_settings(bitwidth: int | None, unsupported: Mapping[str, Any]) -> None:
    """Refuse what the DPU does not have.

    Parameters
    ----------
    bitwidth : None or 8
    unsupported : arguments that must be left out, by name

    Raises
    ------
    QuantizerError
        One is given.
    """
    if bitwidth not in (None, 8):
        raise QuantizerError(f"bitwidth={bitwidth}: the DPU computes with 8 bits; leave it out")
    for name, value in unsupported.items():
        if value:
            raise QuantizerError(f"{name}={value!r} is not emulated; leave it out")


def calibration_method(path: str | None) -> str:
    """Return the method of calibration that a file of settings asks for; "mse" without one.

    Raises
    ------
    QuantizerError
        The file cannot be read, or asks for what the DPU does not have.
    """
    if not path:
        return "mse"
    settings = read_json(Path(path))
    overall = settings.get("overall_quantize_config", {})
    if not isinstance(overall, Mapping):
        raise QuantizerError(f"{path}: overall_quantize_config must be a table")
    if settings.get("layer_quantize_config") or settings.get("tensor_quantize_config"):
        raise QuantizerError(
            f"{path}: settings of single layers or tensors are not emulated; leave out "
            "layer_quantize_config and tensor_quantize_config"
        )
    for name, wanted in _FIXED.items():
        if overall.get(name, wanted) != wanted:
            raise QuantizerError(
                f"{path}: {name} is {overall[name]!r}, the DPU has {wanted!r} only; leave it out"
            )
    method = overall.get("method", "diffs")
    if method not in CALIBRATION:
        raise QuantizerError(f"{path}: method is {method!r}; it can be {', '.join(CALIBRATION)}")
    return CALIBRATION[method]


def read_json(path: Path) -> dict[str, Any]:
    """Return the table in a JSON file.

    Raises
    ------
    QuantizerError
        It cannot be read, or is something else.
    """
    try:
        content = read_bounded(path, MAX_JSON)
        table = json.loads(content) if len(content) <= MAX_JSON else None
    except OSError as error:
        raise QuantizerError(f"{path}: {error.strerror or error}") from error
    except (DpuError, ValueError, RecursionError) as error:
        raise QuantizerError(f"{path}: not JSON: {error}") from error
    if not isinstance(table, dict):
        raise QuantizerError(f"{path}: not a table of at most {MAX_JSON >> 20} MiB")
    return table


# -- the network --------------------------------------------------------------------------------


def unwrapped(module: Any) -> nn.Module:
    """Return the network itself, out of `nn.DataParallel`.

    Raises
    ------
    QuantizerError
        It is no nn.Module, or one of TorchScript.
    """
    if isinstance(module, nn.DataParallel):
        module = module.module
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise QuantizerError(
            f"the network is a {type(module).__name__}; give the nn.Module that it was made of"
        )
    return module


def usable(device: torch.device | str | None) -> torch.device:
    """Return the device, or the CPU where PyTorch has no such one, as AMD's quantiser does."""
    found = torch.device("cuda" if device is None else device)
    if found.type == "cuda" and not torch.cuda.is_available():
        return torch.device("cpu")
    return found


def as_inputs(given: Any, device: torch.device) -> tuple[Tensor, ...]:
    """Return the network's inputs as a tuple of tensors on the device.

    Raises
    ------
    QuantizerError
        They are something else than (N, C, H, W).
    """
    inputs = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not inputs or not all(isinstance(x, Tensor) and x.ndim == 4 and len(x) for x in inputs):
        shapes = [list(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in inputs]
        raise QuantizerError(
            f"input_args is {', '.join(map(str, shapes))}; the DPU takes tensors (N, C, H, W)"
        )
    return tuple(x.detach().to(device) for x in inputs)


def make_student(module: nn.Module, inputs: tuple[Tensor, ...], device: torch.device) -> Student:
    """Return the network quantised to 8 bits, not calibrated, in evaluation mode.

    Raises
    ------
    UnsupportedOp
        The network has an operation that the DPU does not have.
    """
    shapes = [tuple(x.shape[1:]) for x in inputs]
    return Student(module, shapes[0] if len(shapes) == 1 else shapes).to(device).eval()


def name_of(module: nn.Module) -> str:
    """Return the name of a network's class, by which AMD names files and the graph."""
    return type(module).__name__
