"""A release on its own, as on a board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stand_in_board.deployable import make_model
from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT, Parts, gather, seal


def _figures(stage: Path, repo_root: Path, program: list[str]) -> None:
    """Run a program of the release with the stand-ins for vart and xir."""
    environment = {"PYTHONPATH": str(repo_root / "tests" / "fake_board"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, *program, "--model", "model", "--source", "model/images"]
    done = subprocess.run(command, cwd=stage, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_deployed_model_keeps_its_name(tmp_path: Path, repo_root: Path) -> None:
    """Run by any user, with and without a name from the host."""
    model = make_model(tmp_path / "my garments")
    for number, name in enumerate(("my garments", "renamed é")):
        model = model.rename(model.with_name(name))
        stage = tmp_path / f"release{number}"
        stage.mkdir()
        gather(stage, Parts("zcu104", model))
        seal(stage)
        _figures(stage, repo_root, ["app/classify.py", "--quiet", "--json", "figures.json"])
        assert json.loads((stage / "figures.json").read_text())["model"]["name"] == name
        windows = "--seconds 0.2 --warm-up 0.1 --idle 0.1 --cool-down 0.1 --threads 1"
        _figures(stage, repo_root, ["-m", "tutelage.app.measure", "--output", "run",
                                    *windows.split(),
                                    "--scenario", "offline", "--accept", "disturbed",
                                    "--power", "none"])  # fmt: skip
        assert json.loads((stage / "run" / "run.json").read_text())["model"]["name"] == name


def test_on_a_board_the_deployed_model_is_the_default(tmp_path: Path, repo_root: Path) -> None:
    (tmp_path / "ops.py").write_text("")
    stage = tmp_path / "release"
    stage.mkdir()
    gather(stage, Parts("zcu104", make_model(tmp_path / "my garments"), tmp_path / "ops.py"))

    def shown(*program: str) -> str:
        environment = {
            "PYTHONPATH": str(repo_root / "tests" / "fake_board"), "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, *program], cwd=stage, env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout

    summary = shown("app/classify.py", "--source", "model/images", "--frames", "1")
    assert "model      my garments, " in summary
    code = "from tutelage.core.deployed_model import *; print(plugin_of(default_model()))"
    assert shown("-c", code).strip() == str(stage / "plugin.py")
    code = "from tutelage.core.deployed_model import *; print(plugin_of(DEMO_MODEL))"
    assert shown("-c", code).strip() == "None"


@pytest.mark.parametrize("single", [False, True], ids=["directory", "file"])
def test_scripts_find_the_same_model_as_the_release_itself(tmp_path: Path, single: bool) -> None:
    """Scripts also search releases of older versions, which did not know their model."""
    (tmp_path / "ops.py").write_text("")
    model = make_model(tmp_path / "mine")
    stage = tmp_path / "release"
    stage.mkdir()
    gather(stage, Parts("zcu104", model / "model.xmodel" if single else model, tmp_path / "ops.py"))
    code = (
        "from tutelage.core.deployed_model import *; model = default_model(); "
        "print(model); print('--plugin', plugin_of(model))"
    )
    own, by_script = (
        subprocess.run(command, cwd=stage, capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-c", code],
                        ["sh", "-c", f"{MODEL_SCRIPT}; {PLUGIN_SCRIPT}"])
    )  # fmt: skip
    assert own.replace(f"{stage}/", "") == by_script


def test_the_program_enters_the_environment_of_its_release(tmp_path: Path) -> None:
    """So that `python3 app/classify.py` finds the packages that were deployed with it."""
    stage = tmp_path / "release"
    stage.mkdir()
    gather(stage, Parts("zcu104", make_model(tmp_path / "mine")))
    python = stage / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho own python: "$@"\n')
    python.chmod(0o755)
    system = Path(sys.base_prefix) / "bin" / "python3"
    done = subprocess.run(
        [system, "app/classify.py", "--camera", "a b"], cwd=stage, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "own python: app/classify.py --camera a b\n"


def test_a_file_beside_another_model_names_nothing(tmp_path: Path, repo_root: Path) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "model.txt").write_text("cat\ndog\n")
    command = ["app/classify.py", "--model", str(tmp_path / "model"), "--frames", "1"]
    environment = {"PYTHONPATH": str(repo_root / "tests" / "fake_board"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *command, "--source", str(tmp_path / "model" / "images")],
        cwd=repo_root, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "model      model, compiled for" in done.stdout
