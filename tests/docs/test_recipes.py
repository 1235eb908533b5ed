"""The recipes of the add-*.md pages, followed exactly in a copy of the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT, copy_repository
from tests.docs.markdown import Block, apply_patch, blocks

pytest.importorskip("torch", reason="one of the recipes is a network")

RECIPES = [b for page in sorted((ROOT / "docs/how-to").glob("add-*.md")) for b in blocks(page)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with all files and patches of the recipes."""
    folder = tmp_path_factory.mktemp("recipes") / "tutelage"
    copy_repository(folder)
    for block in RECIPES:
        if block.file:
            (folder / block.file).write_text("\n".join(block.lines) + "\n")
        elif block.language == "diff":
            apply_patch(block, folder)
    return folder


def test_a_file_that_is_there_is_shown_as_it_is() -> None:
    """Except for the first line, which names the file."""
    shown = {b.file: "\n".join(b.lines[1:]) + "\n" for b in RECIPES if b.file}
    there = [file for file in shown if (ROOT / file).exists()]
    assert there == ["host/quantise/layers/pad.py"]
    assert all(shown[file] == (ROOT / file).read_text() for file in there)


@pytest.mark.slow
def test_their_tests_hold(copy: Path) -> None:
    shown = {b.file for b in RECIPES if b.file and b.file.startswith("tests/")}
    named = {path for b in RECIPES for _, text in b.commands
             for path in re.findall(r"pytest (tests/\S+)", text)}  # fmt: skip
    paths = sorted(shown | named)
    # Ops: one, all, a layer; a network, board, source, output, sensor, data set format.
    assert len(paths) == 9
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths],
                          cwd=copy, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Plain" in (copy / "host/networks/catalogue.py").read_text()


def test_their_examples_are_formatted_and_linted(copy: Path) -> None:
    pytest.importorskip("ruff", reason="needs ruff, of the set `lint`")
    new = sorted(b.file for b in RECIPES if b.file and b.file.endswith(".py"))
    for command in (["ruff", "format", "--check"], ["ruff", "check"]):
        done = subprocess.run([sys.executable, "-m", *command, *new], cwd=copy,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_patch_that_fits_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\none\n")
    for line in ("three", "one"):
        with pytest.raises(ValueError, match="fits in"):
            apply_patch(Block(1, "diff", ["+++ b/a.py", "@@", f" {line}", "+new"]), tmp_path)
    apply_patch(Block(1, "diff", ["+++ b/a.py", "@@", " one", "-two", "+new"]), tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\nnew\none\n"
