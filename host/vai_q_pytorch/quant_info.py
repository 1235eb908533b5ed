"""quant_info.json: the result of calibration, read by the run that tests and deploys the network.

    {
      "param":  {"features/0.weight": [[8, 7]], ...},
      "input":  {"input": [[8, 6]]},
      "output": {"features/0": [[8, 5]], ...},
      "fast_finetuned": false,
      "network": "CNN",
      "version": "Tutelage 0.2.0",
      "parameters": ""
    }

Each tensor has its bit width and its fix point, as in AMD's file of this name. The keys are the
names of this project's layers. A fix point may be edited by hand; one that the DPU's shifts do not
allow is lowered until they do. The fix points of biases follow from the others.

If calibration or fine-tuning changed weights, they are in `quant_parameters.safetensors` in the
same directory, and `parameters` is its SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tutelage
from tutelage.core.files import sha256_of, write_file
from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student
from tutelage.host.train import checkpoint
from tutelage.host.vai_q_pytorch.arguments import QuantizerError, read_json

QUANT_INFO = "quant_info.json"
PARAMETERS = "quant_parameters.safetensors"

_BITS = 8
_FARTHEST = 64
"""Largest magnitude of a fix point in the file."""


def write_quant_info(
    folder: Path, student: Student, network: str, float_state: Mapping[str, Tensor], tuned: bool
) -> None:
    """Write quant_info.json, and the parameters if they differ from the float network's.

    Parameters
    ----------
    folder : created if missing
    network : name of the network's class
    float_state : the student's state before calibration and fine-tuning
    tuned : whether the weights were fine-tuned
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = student.state_dict()
    changed = any(
        not torch.equal(value, float_state[name])
        for name, value in state.items()
        if name not in student.thresholds()
    )
    sha256 = ""
    (folder / PARAMETERS).unlink(missing_ok=True)
    if changed:
        checkpoint.save(folder / PARAMETERS, {"student": state}, {})
        sha256 = sha256_of(folder / PARAMETERS)
    points = student.fix_points()
    given = {n: p for n, p in points.activations.items() if n in student.inputs}
    info = {
        "param": {f"{name}.weight": [[_BITS, p]] for name, p in points.weights.items()},
        "input": {n: [[_BITS, p]] for n, p in given.items()},
        "output": {n: [[_BITS, p]] for n, p in points.activations.items() if n not in given},
        "fast_finetuned": tuned,
        "network": network,
        "version": f"Tutelage {tutelage.__version__}",
        "parameters": sha256,
    }
    write_file(folder / QUANT_INFO, _text(info))


def _text(info: Mapping[str, Any]) -> str:
    """Return JSON with one line for each tensor, which is easy to read and to compare."""
    tables = []
    for name, value in info.items():
        text = json.dumps(value)
        if isinstance(value, dict):
            rows = [f"    {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
            text = "{\n" + ",\n".join(rows) + "\n  }"
        tables.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(tables) + "\n}\n"


@torch.no_grad()
def read_quant_info(folder: Path, student: Student) -> bool:
    """Load into a student what `write_quant_info` wrote; return whether weights were fine-tuned.

    Raises
    ------
    QuantizerError
        The file is missing or damaged, or belongs to another network.
    """
    path = folder / QUANT_INFO
    if not path.is_file():
        raise QuantizerError(
            f"{path}: no such file; run the script with quant_mode 'calib' first, and call "
            "export_quant_config()"
        )
    info = read_json(path)
    if info.get("parameters"):
        _load_parameters(folder, student, info["parameters"])
    for quantiser in dict.fromkeys(student.activation_of.values()):
        tables = {n: "input" if n in student.inputs else "output" for n in quantiser.members}
        found = {_point(path, info, table, name) for name, table in tables.items()}
        if len(found) > 1:
            names = ", ".join(quantiser.members[:4])
            raise QuantizerError(f"{path}: {names} share one fix point; give them the same")
        _set(student, quantiser, found.pop())
    for name, quantiser in student.weight_of.items():
        _set(student, quantiser, _point(path, info, "param", f"{name}.weight"))
    return bool(info.get("fast_finetuned"))


def _set(student: Student, quantiser: Quantiser, fix_point: int) -> None:
    student.log2_t[quantiser.index] = quantiser.magnitude - fix_point


def _load_parameters(folder: Path, student: Student, sha256: str) -> None:
    path = folder / PARAMETERS
    if not path.is_file() or sha256_of(path) != sha256:
        raise QuantizerError(
            f"{path}: missing, or not from the same calibration as {QUANT_INFO}; calibrate again"
        )
    try:
        checkpoint.load_weights(student, path)
    except checkpoint.CheckpointError as error:
        raise QuantizerError(str(error)) from error


def _point(path: Path, info: dict[str, Any], table: str, name: str) -> int:
    """Return the fix point of a tensor in the file."""
    entries = info.get(table)
    entry = entries.get(name) if isinstance(entries, dict) else None
    if entry is None:
        raise QuantizerError(
            f"{path}: no {table} {name!r}: the file is of another network; calibrate this one again"
        )
    try:
        ((bits, point),) = entry
        fits = bits == _BITS and type(point) is int and abs(point) <= _FARTHEST
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise QuantizerError(f"{path}: {table} {name!r} is {entry!r}, not [[8, fix point]]")
    return int(point)
