"""Files of expected outputs: written files are read back, and all others are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.core import expected_outputs
from tutelage.core.expected_outputs import (
    RESULT,
    ExpectedError,
    ExpectedOutputs,
    read_expected,
    write_expected,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inputs = np.arange(2 * 3 * 4, dtype=np.int8).reshape(2, 3, 4)
    outputs: dict[str, Any] = {"logits": np.array([[-128], [127]], np.int8),
               RESULT: np.array([[-0.5], [0.25]], np.float32)}  # fmt: skip
    path = tmp_path / "expected"
    write_expected(path, ExpectedOutputs("ab", "xcompiler", ("ramp", "zeros"), inputs, outputs))
    return path


def test_expected_outputs_are_read_back(folder: Path) -> None:
    found = read_expected(folder)
    assert (found.model_sha256, found.compiler, found.names) == (
        "ab",
        "xcompiler",
        ("ramp", "zeros"),
    )
    assert found.inputs.tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    assert list(found.outputs) == ["logits", RESULT]
    assert found.outputs["logits"].dtype == np.int8 and found.outputs[RESULT].dtype == np.float32
    assert found.outputs[RESULT].tolist() == [[-0.5], [0.25]]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("names"),
        lambda table: table["names"].append("more"),
        lambda table: table.update(inputs=table["outputs"][1][1], outputs=[]),
        lambda table: table["inputs"].update(type="object"),
        lambda table: table["inputs"].update(dims=[2, -3, -4]),
        lambda table: table["inputs"].update(dims=[]),
        lambda table: table["inputs"].update(dims=[1 << 40]),
        lambda table: table["inputs"].update(sha256=""),
        lambda table: table.update(outputs=7),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    table = json.loads((folder / "outputs.json").read_text())
    change(table)
    (folder / "outputs.json").write_text(json.dumps(table))
    with pytest.raises(ExpectedError, match=str(folder)):
        read_expected(folder)


def test_damaged_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (folder / "1.bin").read_bytes()
    for damaged in (data[:-1], data + b"\0", bytes([data[0] ^ 1]) + data[1:]):
        (folder / "1.bin").write_bytes(damaged)
        with pytest.raises(ExpectedError, match=r"1\.bin: damaged"):
            read_expected(folder)
    (folder / "1.bin").unlink()
    with pytest.raises(ExpectedError, match=r"1\.bin: No such file"):
        read_expected(folder)
    monkeypatch.setattr(expected_outputs, "MAX_EXPECTED_BYTES", 10)
    with pytest.raises(ExpectedError, match="not a description"):
        read_expected(folder)
    for text in ("[" * 100_000, "{", "[]"):
        (folder / "outputs.json").write_text(text)
        with pytest.raises(ExpectedError, match="not a description"):
            read_expected(folder)
    with pytest.raises(ExpectedError, match="No such file"):
        read_expected(folder / "none")
