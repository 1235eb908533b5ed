"""Forbidden calls in the program's files, and its dependencies."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import imported
from tutelage.__main__ import main
from tutelage.core.toml_file import read_toml

PACKAGES = ("app", "board", "core", "dpu", "host")

# Modules that execute code from data, or that have a safe replacement. ruff's S rules, which are
# enabled, cover shells, weak temporary files and unverified TLS.
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "telnetlib",
    "xmlrpc", "commands", "popen2",
}  # fmt: skip
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "mktemp",
                   "extractall", "torch.load", "torch.save", "torch.hub.load"}  # fmt: skip
ALLOWED = {
    ("dpu/ops/reference.py", "exec"),  # --plugin: the user's own file of operators
    ("dpu/runtime/shim.py", "exec"),  # the user's own script
    ("host/train/weights_file.py", "torch.load"),  # weights_only
    ("weights_file.py", "pickle"),  # the names in a pickle, and the error of a damaged one
}


def _paths(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def _files(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in _paths(root):
        yield path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_runs_code_out_of_data(repo_root: Path) -> None:
    found = {(path.name, module) for path in _paths(repo_root)
             for module in imported(path) & FORBIDDEN_MODULES}  # fmt: skip
    for name, tree in _files(repo_root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                short = (
                    called.rsplit(".", 1)[-1]
                    if called.endswith(("mktemp", "extractall"))
                    else called
                )
                if short in FORBIDDEN_CALLS:
                    found.add((name, short))
    assert found - ALLOWED == set()


def test_arrays_are_read_without_pickle(repo_root: Path) -> None:
    """`allow_pickle` is off by default in numpy and must never be turned on."""
    for name, tree in _files(repo_root):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, name


def test_no_program_is_started_through_a_shell_here(repo_root: Path) -> None:
    for name, tree in _files(repo_root):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant) and not node.value.value, name


def test_a_pickle_is_refused_as_array_and_checkpoint(
    tmp_path: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Malicious files are refused in one line with status 2, and execute nothing."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.system, (f"touch {tmp_path}/ran",)

    (tmp_path / "in.npy").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "student.safetensors").write_bytes(pickle.dumps(Bomb()))
    model = str(repo_root / "app/demo/model.xmodel")
    commands = [["run", model, "--input", str(tmp_path / "in.npy"), "--output",
                 str(tmp_path / "out.npy")]]  # fmt: skip
    try:
        import safetensors  # noqa: F401

        commands.append(["export", str(tmp_path), "-o", str(tmp_path / "out")])
    except ImportError:
        pass
    for command in commands:
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


# Packages whose distribution and import names differ.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "google": "protobuf"}
# The board's image has them; on a PC, a message names them if they are missing.
NOT_FROM_PYPI_SETS = {"vart", "xir", "pynq", "pynvml", "tomllib"}


def _declared(root: Path) -> set[str]:
    """Names of the required and the optional packages."""
    project = read_toml(root / "pyproject.toml")["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^a-z0-9-]", text)[0] for listed in lists for text in listed}
    return names - {"tutelage"}


def test_every_dependency_is_declared_and_used(repo_root: Path) -> None:
    declared = _declared(repo_root)
    everything = set().union(*map(imported, _paths(repo_root)))
    outside = (
        everything
        - set(sys.stdlib_module_names)
        - {*PACKAGES, "tests", "tutelage", "openvino_telemetry"}
    )
    wanted = {DISTRIBUTIONS.get(name, name) for name in outside - NOT_FROM_PYPI_SETS}
    tools = {
        "pytest",
        "pytest-xdist",
        "pytest-cov",
        "hypothesis",
        "playwright",
        "axe-playwright-python",
        "ruff",
        "mypy",
        "pre-commit",
    }  # of tests and lint
    tools |= {"lightning", "transformers"}  # of examples
    tools |= {"mkdocs-material", "mkdocstrings"}  # of `make docs`
    tools |= {"ipykernel", "nbclient"}  # the notebook that a test runs
    tools |= {"torchvision", "timm", "types-protobuf"}  # what our networks are compared with
    tools |= {"tensorboard", "brevitas"}  # imported by torch.utils, and under a made-up name
    assert wanted <= declared, wanted - declared
    assert declared - wanted - tools == set(), declared - wanted - tools


def test_tested_packages_are_pinned(repo_root: Path) -> None:
    declared = _declared(repo_root) - {"torchvision", "timm"}
    pinned = set(
        re.findall(r"(?m)^([a-z][a-z0-9-]*)==", (repo_root / "constraints.txt").read_text())
    )
    assert declared == pinned
