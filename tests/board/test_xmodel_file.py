from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.board.xmodel_file import problem_of


def _field(number: int, payload: bytes) -> bytes:
    assert number < 16 and len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


@pytest.mark.parametrize(
    "content, problem",
    [
        (_field(1, b"name") + _field(5, b"op"), None),
        (b"", "is empty"),
        (_field(1, b"name")[:-1], "truncated or corrupt"),
        (_field(1, b"name") + b"\x2a", "truncated or corrupt"),
        (b"\x0a" + b"\xff" * 11, "truncated or corrupt"),
        (b"\x89PNG\r\n\x1a\n", "is not an .xmodel"),
        (b"PK\x03\x04 a zip archive", "is not an .xmodel"),
        (_field(5, b"") * 1_000_000, "more than 100000 parts"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, content: bytes, problem: str | None) -> None:
    path = tmp_path / "x.xmodel"
    path.write_bytes(content)
    found = problem_of(path)
    assert found == problem if problem is None else problem in str(found)


def test_names_missing_files_and_directories(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "none") == "no such file"
    assert "directory" in str(problem_of(tmp_path))


def test_amds_own_files_pass_and_every_truncation_is_found(
    shared_dir: Path, tmp_path: Path
) -> None:
    for model in sorted((shared_dir / "models").glob("*.xmodel")):
        assert problem_of(model) is None
    data = model.read_bytes()
    size = 1
    while size < len(data):
        cut = tmp_path / "cut.xmodel"
        cut.write_bytes(data[:size])
        assert problem_of(cut), size
        size *= 2
