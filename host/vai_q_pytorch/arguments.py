"""Checks of the arguments that `torch_quantizer`, `QatProcessor` and `Inspector` share."""

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
"""Maximum size of quant_info.json and of a settings file, bytes."""

CALIBRATION = {"diffs": "mse", "maxmin": "minmax"}
"""AMD's calibration methods for the DPU -> this project's (host/quantise/calibrate.py)."""

# Settings for which the DPU allows one value only (vai_q_pytorch, doc/Quant_Config.md,
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
    """A script uses AMD's quantiser in a way that is not emulated; the text names a remedy."""


def note(text: str) -> None:
    """Print a message for the user on standard error, headed by the program's name."""
    say(PROGRAM, text)


def check_settings(bitwidth: int | None, unsupported: Mapping[str, Any]) -> None:
    """Refuse arguments that ask for something the DPU cannot do.

    Parameters
    ----------
    bitwidth : None or 8
    unsupported : name -> value of arguments that are not emulated; each must be falsy

    Raises
    ------
    QuantizerError
        `bitwidth` is neither None nor 8, or an unsupported argument has a value.
    """
    if bitwidth not in (None, 8):
        raise QuantizerError(f"bitwidth={bitwidth}: the DPU computes with 8 bits only; remove it")
    for name, value in unsupported.items():
        if value:
            raise QuantizerError(f"{name}={value!r} is not emulated; remove this argument")


def calibration_method(path: str | None) -> str:
    """Return the calibration method that a settings file asks for.

    Parameters
    ----------
    path : of the settings file (`quant_config_file`); None or "": there is none

    Returns
    -------
    A value of `CALIBRATION`; "mse" without a file.

    Raises
    ------
    QuantizerError
        The file cannot be read, or has a setting that the DPU does not support.
    """
    if not path:
        return "mse"
    settings = read_json(Path(path))
    overall = settings.get("overall_quantize_config", {})
    if not isinstance(overall, Mapping):
        raise QuantizerError(f"{path}: overall_quantize_config must be a JSON object")
    if settings.get("layer_quantize_config") or settings.get("tensor_quantize_config"):
        raise QuantizerError(
            f"{path}: settings of single layers or tensors are not emulated; remove "
            "layer_quantize_config and tensor_quantize_config"
        )
    for name, wanted in _FIXED.items():
        if overall.get(name, wanted) != wanted:
            raise QuantizerError(
                f"{path}: {name} is {overall[name]!r}, but the DPU supports {wanted!r} only; "
                f"remove {name}"
            )
    method = overall.get("method", "diffs")
    if method not in CALIBRATION:
        raise QuantizerError(f"{path}: method is {method!r}; use {' or '.join(CALIBRATION)}")
    return CALIBRATION[method]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object at the top level of a JSON file.

    Raises
    ------
    QuantizerError
        The file cannot be read, is larger than `MAX_JSON`, or is not a JSON object.
    """
    try:
        content = read_bounded(path, MAX_JSON)
        table = json.loads(content) if len(content) <= MAX_JSON else None
    except OSError as error:
        raise QuantizerError(f"{path}: {error.strerror or error}") from error
    except (DpuError, ValueError, RecursionError) as error:
        raise QuantizerError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(table, dict):
        raise QuantizerError(f"{path}: not a JSON object of at most {MAX_JSON >> 20} MiB")
    return table


# -- the network --------------------------------------------------------------------------------


def unwrapped(module: Any) -> nn.Module:
    """Return the network itself, without the wrapper `nn.DataParallel`.

    Raises
    ------
    QuantizerError
        The network is not an nn.Module, or is a TorchScript module.
    """
    if isinstance(module, nn.DataParallel):
        module = module.module
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise QuantizerError(
            f"the network is a {type(module).__name__}; pass the nn.Module it was made from"
        )
    return module


def usable(device: torch.device | str | None) -> torch.device:
    """Return the device, or the CPU where PyTorch has no GPU, as AMD's quantiser does."""
    found = torch.device("cuda" if device is None else device)
    if found.type == "cuda" and not torch.cuda.is_available():
        return torch.device("cpu")
    return found


def as_inputs(given: Any, device: torch.device) -> tuple[Tensor, ...]:
    """Return the network's inputs as a tuple of tensors on the device.

    Raises
    ------
    QuantizerError
        An input is not a tensor of four dimensions (N, C, H, W), or N is 0.
    """
    inputs = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not inputs or not all(isinstance(x, Tensor) and x.ndim == 4 and len(x) for x in inputs):
        shapes = [list(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in inputs]
        raise QuantizerError(
            f"input_args is {', '.join(map(str, shapes)) or 'empty'}; the DPU takes tensors "
            "(N, C, H, W)"
        )
    return tuple(x.detach().to(device) for x in inputs)


def make_student(module: nn.Module, inputs: tuple[Tensor, ...], device: torch.device) -> Student:
    """Return the network quantised to 8 bits, in evaluation mode and not yet calibrated.

    Raises
    ------
    UnsupportedOp
        The network contains an operation that the DPU does not support.
    """
    shapes = [tuple(x.shape[1:]) for x in inputs]
    return Student(module, shapes[0] if len(shapes) == 1 else shapes).to(device).eval()


def name_of(module: nn.Module) -> str:
    """Return the name of a network's class, after which AMD names its files and the graph."""
    return type(module).__name__
