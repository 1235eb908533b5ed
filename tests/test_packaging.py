"""The distribution: the contents of a wheel, and its use without a checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from importlib import metadata, util
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import NAME_ONLY_XMODEL
from tests.docs.conftest import copy_repository
from tutelage import __version__

PACKAGES = ("app", "board", "core", "dpu", "host")

BASE = ("numpy", "psutil", "tomli")
OPENCV = ("cv2", "opencv")
HOST = ("torch", "functorch", "accelerate", "safetensors", "tensorboard", "matplotlib", "brevitas",
        "timm", "nvidia", "triton", "tutelage", "__editable__")  # fmt: skip
"""Beginnings of the names in site-packages: of what each set of dependencies brings, and of what
`pc` does not."""

LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
"""The path of a file in a Markdown link."""

TWICE = """
import atexit, os, sys

def report():
    names = {}
    for name, module in list(sys.modules.items()):
        if file := getattr(module, "__file__", None):
            names.setdefault(os.path.realpath(file), []).append(name)
    twice = [each for file, each in names.items() if len(each) > 1 and "tutelage" in file]
    print(*twice, file=open(os.environ["TWICE"], "w"))

atexit.register(report)
"""
"""A sitecustomize.py that writes which of the project's files were imported under two names."""


def _build(folder: Path, kind: str, output: Path) -> subprocess.CompletedProcess[str]:
    """Build as pip does, through the hooks of PEP 517, with the installed setuptools."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(output)!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def build_setuptools() -> None:
    """Skip if setuptools is too old for pyproject.toml."""
    if util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools, which is not installed")
    if int(metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, below a folder "tutelage" as `TWICE` requires."""
    folder = tmp_path_factory.mktemp("packaging") / "tutelage-checkout"
    copy_repository(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, build_setuptools: None) -> Path:
    done = _build(checkout, "wheel", checkout.parent)
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stderr  # setuptools about data outside of its lists
    return checkout.parent / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Environment:
    """The wheel installed by pip in a new venv."""
    folder = wheel.parent / "environment"
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip("no venv with pip can be made here")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([folder / "bin" / "python", *install, wheel], check=True, capture_output=True)
    return Environment(folder)


class Environment:
    """A venv with the installed package, used from empty directories."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        (self.site,) = folder.glob("lib/python*/site-packages")
        self.package = self.site / "tutelage"
        self.demo = self.package / "app" / "demo"
        self.home = folder / "home"
        self.home.mkdir()

    def packages(self, *beginnings: str) -> Path:
        """Return a folder with links to this Python's packages whose names have a prefix."""
        return self._links(f"only-{'-'.join(beginnings)}", beginnings, True)

    @property
    def pc(self) -> Path:
        """A folder with links to the packages of the `pc` extra."""
        return self._links("pc", HOST, False)

    def _links(self, name: str, beginnings: tuple[str, ...], taken: bool) -> Path:
        place = self.folder / name
        if not place.is_dir():
            place.mkdir()
            for entry in _site_packages().iterdir():
                if entry.name.lower().startswith(beginnings) == taken:
                    (place / entry.name).symlink_to(entry)
        return place

    def run(
        self, *command: object, path: Sequence[object] = (), cwd: Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the venv, or any other, with these folders on Python's path."""
        bin_folder = self.folder / "bin"
        names = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(self.home),
                 "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1",
                 **variables}  # fmt: skip
        return subprocess.run([*map(str, command)], cwd=cwd, env=names, capture_output=True,
                              text=True, timeout=120)  # fmt: skip

    def files(self) -> dict[Path, int]:
        """Return the installed files with their modification times."""
        return {path: path.stat().st_mtime_ns for path in self.package.rglob("*")}


def _site_packages() -> Path:
    """Return the folder in which this Python has numpy."""
    numpy = util.find_spec("numpy")
    assert numpy is not None and numpy.origin is not None
    return Path(numpy.origin).parents[1]


def test_the_version_is_the_same_everywhere(repo_root: Path) -> None:
    cited = re.search(r"(?m)^version: (\S+)$", (repo_root / "CITATION.cff").read_text())
    newest = re.search(r"(?m)^## (\S+)", (repo_root / "CHANGELOG.md").read_text())
    assert cited and newest
    assert [cited[1], newest[1]] == [__version__] * 2


# -- what is in it ----------------------------------------------------------------------------


def test_no_path_outside_the_repository_is_cited(repo_root: Path) -> None:
    # Users have neither. Tests and the gate look for example files beside the checkout.
    if shutil.which("git") is None or not (repo_root / ".git").exists():
        pytest.skip("needs git and a clone of it")
    paths = r"\.\./shared|/work/"
    found = subprocess.run(["git", "grep", "-nIE", paths, "--", ".", ":!tests", ":!.ci"],
                           cwd=repo_root, capture_output=True, text=True)  # fmt: skip
    assert found.stdout == "" and found.returncode == 1


def test_the_only_name_is_tutelage(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (top_level,) = (name for name in names if name.endswith("/top_level.txt"))
        assert archive.read(top_level).decode().split() == ["tutelage"]
    assert {name.split("/")[0] for name in names} == {
        "tutelage",
        f"tutelage-{__version__}.dist-info",
    }
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyc")]


def test_it_has_all_modules_and_data(wheel: Path, checkout: Path) -> None:
    left_out = re.compile(r".*/(\.gitignore|rebuild/.*)|overlays/README\.md")
    wanted = {
        f"tutelage/{path.relative_to(checkout)}"
        for folder in (*PACKAGES, "overlays")
        for path in (checkout / folder).rglob("*")
        if path.is_file() and not left_out.fullmatch(str(path.relative_to(checkout)))
    }
    wanted |= {f"tutelage/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.startswith("tutelage/")} == wanted


def test_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition(".dist-info/")[2]: archive.read(name).decode()
                 for name in archive.namelist() if ".dist-info/" in name}  # fmt: skip
    about = HeaderParser().parsestr(texts["METADATA"])
    assert about["Name"] == "tutelage" and about["Version"] == __version__
    assert about["License-Expression"] == "Apache-2.0" and about["License-File"] == "LICENSE"
    assert about["Requires-Python"] == ">=3.10" and about["Summary"].startswith("Quantise ")
    assert {"pc", "host"} <= set(about.get_all("Provides-Extra", []))
    assert "Apache License" in texts["licenses/LICENSE"]
    assert "tutelage = tutelage.__main__:run" in texts["entry_points.txt"]


def test_a_source_distribution_makes_the_same_wheel(wheel: Path, checkout: Path) -> None:
    folder = checkout.parent / "from-sdist"
    folder.mkdir()
    made = _build(checkout, "sdist", folder)
    assert made.returncode == 0, made.stderr
    with tarfile.open(folder / made.stdout.splitlines()[-1]) as archive:
        assert not [member.name for member in archive if member.issym()]
        archive.extractall(folder)
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    assert (source / "examples" / "classify_image.py").is_file() and not (source / "tests").exists()
    assert list((source / "examples" / "notebooks").glob("*.ipynb"))
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in LINK.findall((source / page).read_text(encoding="utf-8")):
            assert (source / target).exists(), (page, target)
    done = _build(source, "wheel", folder)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(next(folder.glob("*.whl"))) as second:
        for archive_name in ("tutelage/", "tutelage-0.2.0.dist-info/"):
            contents = [{name: each.read(name) for name in each.namelist()
                         if name.startswith(archive_name) and not name.endswith("RECORD")}
                        for each in (first, second)]  # fmt: skip
            assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_copy_without_symbolic_links(checkout: Path, environment: Environment) -> None:
    """A checkout on Windows has a text file in place of each link. It runs but cannot be built."""
    copy = checkout.parent / "tutelage-unlinked"
    unneeded = shutil.ignore_patterns("tests", "models", "results", "build")
    shutil.copytree(checkout, copy, symlinks=True, ignore=unneeded)
    for link in (copy / "tutelage").iterdir():
        if link.is_symlink():
            target = link.readlink()
            link.unlink()
            link.write_text(str(target))
    path = [copy, environment.pc]
    done = environment.run("python", "-m", "tutelage", "inspect", copy / "app/demo/model.xmodel",
                           path=path, cwd=checkout.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = _build(copy, "wheel", checkout.parent)
    assert built.returncode == 1
    assert "this copy has lost its symbolic links" in built.stderr.splitlines()[-1]


# -- what it does -----------------------------------------------------------------------------


def test_the_help_needs_no_more_than_the_base(environment: Environment, tmp_path: Path) -> None:
    done = environment.run("tutelage", "--help", path=[environment.packages(*BASE)], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout and "inspect" in done.stdout


@pytest.mark.slow
def test_every_command_works_from_an_empty_directory(
    environment: Environment, tmp_path: Path
) -> None:
    demo = environment.demo
    before = environment.files()
    for command, status, words in (
        (["classify", "--source", demo / "images/Bag", "--quiet"], 0, "30 classified, 0 failed"),
        (["inspect", demo / "model.xmodel"], 0, "array cycles"),
        (["predict", demo / "model.xmodel"], 0, "fitted to published figures"),
        (["diff", demo / "model.xmodel", demo / "model.xmodel"], 0, "equal: "),
        (["compile", demo, "-o", "mine", "--target", "emulator"], 0, "compiled for emulator"),
        (["run", "mine/model.xmodel", "--input", "in.npy", "--output", "out.npy"], 2, "in.npy"),
        (["deploy", "--dry-run", "--accept", "target", "--model", "mine", "me@board"], 0, "rsync"),
        (["overlay", "zcu104", "--from", "."], 2, "has neither dpu.bit nor"),
        (["measure", "--help"], 0, "--scenario"),
    ):  # fmt: skip
        done = environment.run("tutelage", *command, path=[environment.pc],
                               cwd=tmp_path)  # fmt: skip
        assert done.returncode == status, (command, done.stderr)
        assert words in done.stdout + done.stderr, command
        assert "Traceback" not in done.stderr, command
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}
    assert environment.files() == before


@pytest.mark.docs  # PyTorch and several processes: half a minute
def test_commands_with_pytorch_work_from_an_empty_directory(
    environment: Environment, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="needs the host extra")
    demo = environment.demo
    before = environment.files()
    short = "--limit 20 --repetitions 1 --seconds 0.1 --platform onnxruntime-int8".split()
    for command, words in (
        (["bench", demo, "--images", demo / "images", *short, "-o", "bench"], "ONNX Runtime"),
        (["report", "--model", demo / "model.xmodel"], "results/report.html"),
        (["predict", "densenet-121", "--input", "3x224x224"], "fitted to published figures"),
        (["explore", "--latency", "0.6", "-o", "found"], "growth"),
        (["export", "none", "-o", "mine"], "none"),
    ):  # fmt: skip
        done = environment.run("tutelage", *command, path=[_site_packages()], cwd=tmp_path)
        assert done.returncode == (2 if "none" in command else 0), (command, done.stderr)
        assert words in done.stdout + done.stderr and "Traceback" not in done.stderr, command
    code = "from tutelage.host.train.study import DEFAULT; assert DEFAULT.is_file()"
    found = environment.run("python", "-c", code, path=[_site_packages()], cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert environment.files() == before


def test_a_module_named_board_of_somebody_else(environment: Environment, tmp_path: Path) -> None:
    """A package `board` as in adafruit-blinka."""
    theirs = environment.site / "board.py"
    theirs.write_text("NAME = 'theirs'\n")
    try:
        code = "import board, tutelage.board.check; print(board.NAME, tutelage.board.__name__)"
        path = [environment.packages(*BASE, *OPENCV)]
        done = environment.run("python", "-c", code, path=path, cwd=tmp_path)
        assert done.stdout == "theirs tutelage.board\n", done.stderr
        command = ["classify", "--source", environment.demo / "images/Bag", "--quiet"]
        done = environment.run("tutelage", *command, cwd=tmp_path,
                               path=[environment.pc])  # fmt: skip
        assert done.returncode == 0, done.stderr
    finally:
        theirs.unlink()


def test_a_release_is_the_same_from_a_wheel_and_from_a_checkout(
    environment: Environment, checkout: Path, tmp_path: Path
) -> None:
    overlay = Path(".local/share/tutelage/overlays/zcu104")
    places = {"wheel": environment.home / overlay, "checkout": checkout / "overlays" / "zcu104"}
    code = (
        "import sys; from pathlib import Path\n"
        "from tutelage.core.locations import DEMO_MODEL\n"
        "from tutelage.host.deploy.release import Parts, gather, seal\n"
        "gather(Path(sys.argv[1]), Parts('zcu104', DEMO_MODEL)); print(seal(Path(sys.argv[1]))[0])"
    )
    releases = {}
    packages = environment.pc
    for name, place in places.items():
        (place / "files").mkdir(parents=True, exist_ok=True)
        (place / "files" / "dpu.bit").write_bytes(b"bits")
        (place / "sha256.toml").write_text("[files]\n")
        stage = tmp_path / name
        stage.mkdir()
        path = [checkout, packages] if name == "checkout" else [packages]
        done = environment.run("python", "-c", code, stage, path=path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        releases[name] = done.stdout
        shutil.rmtree(place / "files")
        (place / "sha256.toml").unlink()
    assert (tmp_path / "wheel/overlays/zcu104/files/dpu.bit").is_file()
    names = ("app/classify.py", "tutelage/__init__.py", "dpu/ops/reference.py", "core/errors.py")
    for name in names:
        assert (tmp_path / "wheel" / name).is_file()
    assert releases["wheel"] == releases["checkout"]


# -- without installation ---------------------------------------------------------------------


@pytest.fixture
def noticing(tmp_path: Path) -> Path:
    """A folder for Python's path whose sitecustomize detects modules that are imported twice."""
    folder = tmp_path / "noticing"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TWICE)
    return folder


def test_a_checkout_needs_numpy_and_opencv_only(
    environment: Environment, checkout: Path, tmp_path: Path, noticing: Path
) -> None:
    """It has a board's modules, and runs from any directory without the package installed."""
    python = Path(sys.executable).resolve()
    (tmp_path / "net.xmodel").write_bytes(NAME_ONLY_XMODEL)
    bare = [noticing, environment.packages("numpy", *OPENCV), checkout / "tests" / "fake_board"]
    script = checkout / "app" / "classify.py"
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((9, 9, 3), 50, np.uint8))
    images = ["--source", tmp_path / "grey.png", "--quiet"]
    for cwd in (tmp_path, checkout, checkout / "app", Path("/")):
        done = environment.run(python, script, "--model", tmp_path / "net.xmodel", *images,
                               path=bare, cwd=cwd, TWICE=str(tmp_path / "twice"))  # fmt: skip
        assert done.returncode == 0 and "1 classified" in done.stdout, done.stderr
        assert (tmp_path / "twice").read_text() == "\n"
    done = environment.run(python, script, *images, path=bare[:2], cwd=tmp_path,
                           TWICE=str(tmp_path / "twice"))  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "neither the board's vart/xir nor the emulation can be imported" in done.stderr


def test_no_module_is_loaded_twice(
    environment: Environment, checkout: Path, tmp_path: Path, noticing: Path
) -> None:
    model = checkout / "app/demo/model.xmodel"
    path = [noticing, checkout, environment.pc]
    commands: list[list[str | Path]] = [
        [checkout / "app/classify.py", "--source", checkout / "app/demo/images/Bag", "--quiet",
         "--realtime", "zcu104", "--power", "--output", "seen.csv"],
        ["-m", "tutelage", "inspect", model],
        ["-m", "tutelage", "predict", model],
        ["-m", "tutelage", "shim", checkout / "tests/dpu/board_script.py"],
        ["-m", "tutelage.board.check"],
    ]  # fmt: skip
    if shutil.which("rsync") and shutil.which("ssh"):
        commands.append(
            [
                "-m",
                "tutelage",
                "deploy",
                "--dry-run",
                "--accept",
                "target",
                "--model",
                model,
                "me@b",
            ]
        )
    for command in commands:
        twice = tmp_path / "twice"
        done = environment.run("python", *command, path=path, cwd=tmp_path, TWICE=str(twice))
        assert done.returncode == 0 or "shim" in command, done.stderr
        assert twice.read_text() == "\n", command


# -- for a user's type checker ----------------------------------------------------------------

SCRIPT = """
import tutelage

net = tutelage.load("models/mine")
reveal_type(net.classify("cat.png").top)
reveal_type(tutelage.predict("net.xmodel").latency_seconds)
with tutelage.Power() as power:
    reveal_type(power.joules)
for frame in tutelage.open("walk.mp4"):
    reveal_type(frame.name)
reveal_type(tutelage.train({}, "runs").accuracy)
tutelage.load(top="three")
"""


@pytest.mark.slow
def test_the_installed_types_are_known(environment: Environment, tmp_path: Path) -> None:
    if util.find_spec("mypy") is None:
        pytest.skip("needs mypy, which is not installed")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--python-executable", environment.python]
    options = ["--ignore-missing-imports", "--cache-dir", tmp_path / "cache"]
    done = environment.run(*command, *options, "script.py", cwd=tmp_path)
    revealed = re.findall(r'Revealed type is "([^"]*)"', done.stdout.replace("builtins.", ""))
    assert revealed == ["list[tuple[str, float]]", "float", "float | None", "str", "float"]
    assert re.findall(r"script\.py:(\d+): error", done.stdout) == ["12"], done.stdout
