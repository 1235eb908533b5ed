"""Files with fixed inputs of a compiled model and the emulation's outputs for them.

A directory contains `outputs.json`, which describes the arrays, and one file of raw little-endian
bytes for each array: `0.bin` has the inputs, `1.bin` and up the outputs. The workstation writes it;
the board compares its own outputs with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.files import read_bounded
from tutelage.core.fixed_point import Array

EXPECTED = ".expected"
"""Name of the directory in a release; the release's checksums exclude it."""

RESULT = "the model's result"
"""Name of the last output: what `tutelage.board.jobs.ModelRunner.collect` returns."""

MAX_EXPECTED_BYTES = 16 << 20
"""Largest size of all arrays together."""

_DESCRIPTION = "outputs.json"
_MAX_DESCRIPTION_BYTES = 1 << 20
_TYPES: dict[str, np.dtype[Any]] = {"int8": np.dtype("int8"), "float32": np.dtype("<f4")}


class ExpectedError(DpuError):
    """Expected outputs cannot be read; the message is one line that names the file."""


@dataclass(frozen=True)
class ExpectedOutputs:
    """N inputs of one model and its outputs for each.

    Attributes
    ----------
    model_sha256 : SHA-256 of the .xmodel, hexadecimal
    compiler : name of the compiler, "" if unknown
    names : names of the inputs, for messages
    inputs : int8 (N, height, width, channels)
    outputs : int8 (N, ...) for each tensor that leaves the DPU, by its name in the file, then
        float32 (N, ...) for `RESULT`, in the order of computation
    left_out : outputs that are not compared, with the reason
    """

    model_sha256: str
    compiler: str
    names: tuple[str, ...]
    inputs: Array
    outputs: dict[str, Array]
    left_out: tuple[str, ...] = ()


def write_expected(folder: Path, expected: ExpectedOutputs) -> None:
    """Write the expected outputs to a new directory.

    Raises
    ------
    OSError
        The directory exists or cannot be written.
    """
    folder.mkdir()
    arrays = [expected.inputs, *expected.outputs.values()]
    tables = [_write_array(folder / f"{n}.bin", array) for n, array in enumerate(arrays)]
    description = {
        "model_sha256": expected.model_sha256,
        "compiler": expected.compiler,
        "names": expected.names,
        "left_out": expected.left_out,
        "inputs": tables[0],
        "outputs": list(zip(expected.outputs, tables[1:], strict=True)),
    }
    text = json.dumps(description, indent=1)
    (folder / _DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")


def read_expected(folder: Path) -> ExpectedOutputs:
    """Read a directory of expected outputs and verify every file's size and SHA-256.

    Raises
    ------
    ExpectedError
        A file is missing, is too large or does not match the description.
    """
    path = folder / _DESCRIPTION
    try:
        data = read_bounded(path, _MAX_DESCRIPTION_BYTES)
        if len(data) > _MAX_DESCRIPTION_BYTES:
            limit = f"{_MAX_DESCRIPTION_BYTES >> 10} KiB"
            raise ExpectedError(f"{path}: larger than the limit of {limit}")
        table = json.loads(data)
        outputs = {str(name): described for name, described in table["outputs"]}
        arrays = _read_arrays(folder, [table["inputs"], *outputs.values()])
        expected = ExpectedOutputs(
            str(table["model_sha256"]), str(table["compiler"]), tuple(map(str, table["names"])),
            arrays[0], dict(zip(outputs, arrays[1:], strict=True)),
            tuple(map(str, table["left_out"])),
        )  # fmt: skip
    except OSError as error:
        raise ExpectedError(f"{error.filename or path}: {error.strerror or error}") from error
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise ExpectedError(f"{path}: not a description of expected outputs") from error
    if expected.inputs.dtype != np.int8 or len({len(expected.names), *map(len, arrays)}) != 1:
        raise ExpectedError(f"{path}: the numbers of inputs and outputs contradict each other")
    return expected


def _write_array(path: Path, array: Array) -> dict[str, Any]:
    (kind,) = (name for name, dtype in _TYPES.items() if dtype == array.dtype)
    data = array.tobytes()
    path.write_bytes(data)
    return {"type": kind, "dims": array.shape, "sha256": hashlib.sha256(data).hexdigest()}


def _read_arrays(folder: Path, tables: list[dict[str, Any]]) -> list[Array]:
    shapes = [tuple(int(size) for size in table["dims"]) for table in tables]
    types = [_TYPES[table["type"]] for table in tables]
    sizes = [math.prod(s) * t.itemsize for s, t in zip(shapes, types, strict=True)]
    if min(size for shape in shapes for size in shape) < 1 or sum(sizes) > MAX_EXPECTED_BYTES:
        raise ValueError(f"arrays of {shapes}")
    arrays = []
    for n, (table, size) in enumerate(zip(tables, sizes, strict=True)):
        path = folder / f"{n}.bin"
        data = read_bounded(path, size)
        if len(data) != size or hashlib.sha256(data).hexdigest() != table["sha256"]:
            raise ExpectedError(f"{path}: damaged: its size or SHA-256 differs from {_DESCRIPTION}")
        arrays.append(np.frombuffer(data, types[n]).reshape(shapes[n]))
    return arrays
