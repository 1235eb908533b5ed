"""`make clean` keeps results, and `make clean-results` keeps tracked ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TRACKED, MEASURED = "results/study.csv", "results/zcu104/20260101T000000Z-abcd/run.json"


@pytest.fixture
def checkout(repo_root: Path, tmp_path: Path) -> Path:
    """A repository with the Makefile, a tracked result, a measured one, a venv and a build."""
    for tool in ("make", "git"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    shutil.copy(repo_root / "Makefile", tmp_path)
    for name in (
        TRACKED,
        MEASURED,
        ".venv/emulation.stamp",
        ".venv-board/stamp",
        "build/x",
        "a.egg-info/x",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("results/*\n!results/study.csv\n")
    for command in ("init -q", "add Makefile .gitignore results/study.csv"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    return tmp_path


def _make(checkout: Path, target: str) -> None:
    subprocess.run(["make", target], cwd=checkout, check=True, capture_output=True)


def test_clean_leaves_results_alone(checkout: Path) -> None:
    _make(checkout, "clean")
    assert (checkout / TRACKED).exists() and (checkout / MEASURED).exists()
    for name in (".venv", ".venv-board", "build", "a.egg-info"):
        assert not (checkout / name).exists()


def test_clean_results_leaves_tracked_files(checkout: Path) -> None:
    _make(checkout, "clean-results")
    assert (checkout / TRACKED).exists() and not (checkout / MEASURED).exists()
    assert (checkout / ".venv").exists()


def test_help_has_every_target(repo_root: Path) -> None:
    text = (repo_root / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"(?m)^\.PHONY: (.+)$", text)
    assert phony
    listed = ", ".join(re.findall(r"(?m)^# make ((?:[\w-]+, )*[\w-]+)", text))
    assert sorted(phony[1].split()) == sorted(listed.split(", "))
