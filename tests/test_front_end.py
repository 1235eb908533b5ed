"""The front end: its commands, its requirements, and its messages about missing ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tutelage
from tutelage.__main__ import main
from tutelage.core.commands import COMMANDS, DESCRIPTION, installation
from tutelage.core.toml_file import read_toml

_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
names = sys.argv.pop(1).split(",")
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from tutelage.__main__ import main
status = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(status)
"""


def _without(root: Path, packages: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tutelage` with missing packages; the last line of its errors lists the loaded ones."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, packages, *arguments], cwd=root, capture_output=True,
        text=True,
    )  # fmt: skip


def test_help_lists_all_commands_without_any_package(repo_root: Path) -> None:
    done = _without(repo_root, "numpy,typer,torch,cv2,google,rich", "--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert f"  {name}" in done.stdout and command.summary in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not {"numpy", "argparse"} & set(done.stderr.split())


def test_help_describes_the_project_as_its_metadata(repo_root: Path) -> None:
    assert read_toml(repo_root / "pyproject.toml")["project"]["description"] == DESCRIPTION


def test_an_extra_is_installed_from_the_checkout_or_the_wheel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert installation("pc") == "pip install '.[pc]' (in the checkout)"
    monkeypatch.setattr("tutelage.core.commands.IS_CHECKOUT", False)
    assert installation("pc").startswith("pip install 'WHEEL[pc]' (WHEEL is ")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    if name == "classify":
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
    else:
        assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "xample" in out
    assert ("--json" in out) == (name not in ("shim", "report"))
    if name != "classify":
        assert COMMANDS[name].summary in " ".join(out.split()) and f"  tutelage {name}" in out


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        ([], 2, "try: tutelage classify --camera, or: tutelage classify --source photos/"),
        (["--sorce", "x"], 2, "try: tutelage classify --help"),
        (["--help"], 0, "usage: tutelage classify (--camera [N] | --source URI) [options]"),
    ],
)
def test_classify_names_itself_as_it_was_called(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["classify", *arguments])
    printed = "".join(capsys.readouterr())
    assert stop.value.code == status and words in printed and "classify.py" not in printed


@pytest.mark.parametrize(
    "missing, extra, arguments",
    [
        ("typer", "pc", ["inspect", "app/demo/model.xmodel"]),
        ("typer", "host", ["train", "run.toml", "--output", "x"]),
        ("google", "pc", ["inspect", "app/demo/model.xmodel"]),
        ("cv2", "pc", ["classify", "--source", "app/demo/images"]),
        ("torch", "host", ["predict", "densenet-121"]),
        ("torch", "host", ["explore"]),
        ("optuna", "search", ["explore", "--trials", "5"]),
    ],
)
def test_missing_parts_are_named(
    repo_root: Path, missing: str, extra: str, arguments: list[str]
) -> None:
    pytest.importorskip("typer")
    done = _without(repo_root, missing, *arguments)
    message, _ = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert message.startswith(f"tutelage: the Python package {missing!r} is not installed; ")
    assert f"; {installation(extra)} installs everything" in message


@pytest.mark.parametrize(
    "arguments",
    [["inspect", "app/demo/model.xmodel"], ["predict", "app/demo/model.xmodel"],
     ["deploy", "--help"]],
)  # fmt: skip
def test_plain_commands_load_nothing_heavy(repo_root: Path, arguments: list[str]) -> None:
    pytest.importorskip("typer")
    done = _without(repo_root, "none", *arguments)
    assert done.returncode == 0
    assert not {"torch", "rich", "onnx", "onnxruntime", "openvino", "matplotlib"} & set(
        done.stderr.splitlines()[-1].split()
    )


def test_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tutelage {tutelage.__version__}\n"


@pytest.mark.parametrize("arguments, words", [([], "which command"), (["fly"], "command: fly")])
def test_no_command(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and words in err and err.count("\n") == 1
    assert "inspect" in err and "tutelage --help" in err


def test_a_board_has_classify_alone(repo_root: Path, tmp_path: Path) -> None:
    for name in ("app", "board", "core", "dpu/ops"):
        shutil.copytree(repo_root / name, tmp_path / name)
    (tmp_path / "dpu/__init__.py").touch()
    (tmp_path / "tutelage").mkdir()
    for file in (repo_root / "tutelage").glob("*.py"):
        shutil.copy(file, tmp_path / "tutelage")
    for arguments, status, words in (
        (["classify", "--help"], 0, "--camera"),
        (["--help"], 0, "classify"),
        (["inspect", "net.xmodel"], 2, "tutelage: a board has no tutelage inspect, only classify"),
    ):
        done = subprocess.run(
            [sys.executable, "-S", "-m", "tutelage", *arguments], cwd=tmp_path, text=True,
            capture_output=True, env={"PYTHONPATH": _packages()},
        )  # fmt: skip
        assert done.returncode == status and words in done.stdout + done.stderr


def _packages() -> str:
    """The folder of installed packages, without what makes a checkout importable."""
    import numpy

    return str(Path(numpy.__file__).parents[1])
