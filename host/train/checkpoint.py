"""Checkpoints, each one safetensors file, replaced atomically.

Tensors are named "part/name"; everything else is JSON in the file's metadata. Nothing is pickled,
so that reading an untrusted checkpoint runs no code. Creating the network that one names can, and
needs consent (SECURITY.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.core.errors import TutelageError, one_line
from tutelage.core.files import replaced

STATE = "state"
"""Key in a file's metadata of everything in a checkpoint that is not a tensor."""


class CheckpointError(TutelageError, ValueError):
    """A checkpoint cannot be used; the text is one line that names the file."""


def save(path: Path, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    parts : the tensors by part and name
    state : everything else, as values that JSON can represent

    Raises
    ------
    OSError
        The file cannot be written.
    """
    tensors = {
        f"{part}/{name}": tensor.detach().to("cpu").contiguous().clone()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    with replaced(path, durable=True) as partial:
        try:
            save_file(tensors, partial, {STATE: json.dumps(state)})
        except SafetensorError as error:  # for example of a full disk
            raise OSError(f"{path}: cannot be written: {one_line(error)}") from error


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the parts and the state of a checkpoint, as `save` takes them.

    Raises
    ------
    CheckpointError
        The file is missing or truncated, or is not a checkpoint of `tutelage train`.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        refuse_pipe(path)
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[STATE])
            for key in file.keys():  # noqa: SIM118  (not a dict)
                part, _, name = key.partition("/")
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error
    except (KeyError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of `tutelage train`") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint: its state is not a table")
    return parts, state


def refuse_pipe(path: Path) -> None:
    """Raise CheckpointError for a pipe or a device, since reading it could block."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CheckpointError(f"{path}: not a regular file")


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error to raise for a file that safetensors fails to read."""
    if isinstance(error, OSError) and error.strerror:
        return CheckpointError(f"{path}: {error.strerror}")
    return CheckpointError(
        f"{path}: not readable as safetensors ({one_line(error)}): the file is damaged or "
        "truncated; copy it again, or save it again"
    )


def load_weights(network: nn.Module, path: Path, part: str = "student") -> dict[str, Any]:
    """Load one part of a checkpoint into `network`; return the checkpoint's state.

    Raises
    ------
    CheckpointError
        The file cannot be read, lacks the part, or has the tensors of another network.
    """
    parts, state = load(path)
    if part not in parts:
        raise CheckpointError(f"{path}: has no part {part!r}; choose from {', '.join(parts)}")
    put(network, parts[part], path)
    return state


def put(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Call `load_state_dict`; raise CheckpointError of one line where the tensors do not fit."""
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        detail = lines[0][:160] if lines else str(error)
        raise CheckpointError(f"{path}: weights of another network: {detail}") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state of each parameter as tensors named "index.key"."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, named in optimiser.state_dict()["state"].items()
        for key, value in named.items()
        if value is not None
    }


def put_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of `optimiser_tensors` into an optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
