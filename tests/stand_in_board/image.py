"""The parts of a board's image besides Linux: Python, vart and xir, pynq.

Python's home is as on a PYNQ image: a venv with numpy, OpenCV, pynq and more. Packages are
links into directories that are mounted on the board, so nothing is copied.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FAKE_BOARD = ROOT / "tests" / "fake_board"
PYNQ_VENV = "usr/local/share/pynq-venv"
SITE, PYNQ_SITE = "opt/site", "opt/pynq-site"  # mount point of the packages
PYNQ_VARIABLE = "TUTELAGE_PYNQ_PYTHON"
"""Environment variable with the Python of a venv that has the real pynq."""

# Packages of the image's Python besides pynq; psutil is missing.
PACKAGES = {"numpy", "cv2", "opencv_python_headless", "rich", "pygments", "markdown_it", "mdurl",
            "starlette", "uvicorn", "anyio", "idna", "h11", "click",
            "typing_extensions"}  # fmt: skip
# Further packages for the emulation, with ONNX Runtime but without OpenVINO.
_EMULATION = {"google", "onnx", "onnxruntime", "flatbuffers", "ml_dtypes", "packaging",
              "tomli"}  # fmt: skip
# Parts of pynq's venv: those that make it a venv, and packages that the image lacks.
_NOT_OF_PYNQ = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "psutil", "tests",
                "__pycache__"}  # fmt: skip

# A different package name, since a release on the board brings a part of dpu/.
_EMULATION_NAME = "emulated_tutelage"
_EMULATION_HOME = "usr/lib/emulated-dpu"
_MODULES = {"vart": "runtime import vart", "xir": "runtime import xir"}
_EMULATED = '''\
"""This board is a stand-in: {name} is an emulation of AMD's, paced as a {board}, no hardware."""

import sys

sys.path.append("/{home}")
from {package}.dpu.{module}
{more}

def __getattr__(attribute):
    return getattr({name}, attribute)
'''
_VART = """
from {package}.dpu.predict import latency
vart.set_pace(latency.board_pace("{board}"))
TUTELAGE_EMULATION = {admits}
Runner = vart.Runner
"""
_LOAD = """
import stand_in_dpu_load

stand_in_dpu_load.watch(Runner)
TUTELAGE_PACE = "{pace}, with watts that a simulated board invents"
"""


@dataclass(frozen=True)
class Python:
    """The Python of an image.

    Attributes
    ----------
    program : its path on the board
    version : such as "3.11"
    site : directory of its packages on this machine
    mounted : whether `site` must be mounted on the board; otherwise it is part of its root
    pynq : directory of pynq and its dependencies on this machine; None for an empty pynq
    """

    program: str
    version: str
    site: Path
    mounted: bool
    pynq: Path | None = None


def python_of(root: Path) -> Python:
    """Return the Python of a root filesystem; for /, this process's own with its packages."""
    if root == Path("/"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        program = f"{sys.base_prefix}/bin/python{version}"
        return Python(program, version, Path(sysconfig.get_path("purelib")), True)
    (program,) = {path.name for path in (root / "usr/bin").glob("python3.*")
                  if re.fullmatch(r"python3\.\d+", path.name)}  # fmt: skip
    return Python(f"/usr/bin/{program}", program[6:], root / SITE, False)


def with_pynq(python: Python) -> Python:
    """Return the same with the real pynq, unless `why_no_pynq` gives a reason."""
    if not python.mounted or why_no_pynq():
        return python
    return replace(python, pynq=Path(_ask(os.environ[PYNQ_VARIABLE])["site"]))


def why_no_pynq() -> str | None:
    """Return why stand-ins have no real pynq; None if they have."""
    program = os.environ.get(PYNQ_VARIABLE)
    if not program:
        return f"{PYNQ_VARIABLE} names no Python with the real pynq"
    answer, own = _ask(program), f"{sys.version_info.major}.{sys.version_info.minor}"
    if answer["version"] != own:
        return f"{program} is Python {answer['version'] or 'of no kind'}, this is {own}"
    return None if (Path(answer["site"]) / "pynq").is_dir() else f"{program} has no pynq"


def _ask(program: str) -> dict[str, str]:
    code = ("import json, sys, sysconfig; print(json.dumps({'site': sysconfig.get_path('purelib'),"
            " 'version': '%d.%d' % sys.version_info[:2]}))")  # fmt: skip
    try:
        done = subprocess.run([program, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"site": "", "version": ""}
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def write_python(seed: Path, python: Python, emulation: bool) -> None:
    """Create the image's venv in `seed`."""
    venv = seed / PYNQ_VENV
    packages = venv / f"lib/python{python.version}/site-packages"
    packages.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "pyvenv.cfg").write_text(f"home = {Path(python.program).parent}\n")
    (venv / "bin/python3").symlink_to(python.program)
    wanted = PACKAGES | (_EMULATION if emulation else set())
    for path in python.site.iterdir():
        if path.name.split(".")[0] in wanted:
            (packages / path.name).symlink_to(f"/{SITE}/{path.name}")
    if python.pynq is None:
        (packages / "pynq").mkdir()
        (packages / "pynq/__init__.py").write_text('__version__ = "3.0.1"\n')
    for path in python.pynq.iterdir() if python.pynq else ():
        name = re.split(r"[.-]", path.name)[0]
        if name not in _NOT_OF_PYNQ and not (packages / path.name).is_symlink():
            (packages / path.name).symlink_to(f"/{PYNQ_SITE}/{path.name}")


def write_dpu(seed: Path, emulation: str | None, admits: bool = False) -> None:
    """Install vart and xir at the paths of AMD's images.

    Parameters
    ----------
    emulation : board whose DPU this repository's emulation imitates; None for tests/fake_board
    admits : whether the emulation declares itself; otherwise it passes for the board's own
    """
    site = seed / "usr/lib/python3/site-packages"
    site.mkdir(parents=True, exist_ok=True)
    for name in ("vart", "xir"):
        if emulation is None:
            text = (FAKE_BOARD / f"{name}.py").read_text(encoding="utf-8")
        else:
            more = _VART.format(board=emulation, package=_EMULATION_NAME, admits=admits)
            text = _EMULATED.format(name=name, board=emulation, home=_EMULATION_HOME,
                                    package=_EMULATION_NAME, module=_MODULES[name],
                                    more=more if name == "vart" else "")  # fmt: skip
        if name == "vart":
            pace = (
                f"at the pace predicted for {emulation} or slower"
                if emulation
                else "at random times"
            )
            text += _LOAD.format(pace=pace)
        (site / f"{name}.py").write_text(text, encoding="utf-8")
    shutil.copy(Path(__file__).with_name("dpu_load.py"), site / "stand_in_dpu_load.py")
    if emulation is not None:
        _write_emulation(seed / _EMULATION_HOME)


def _write_emulation(home: Path) -> None:
    package = home / _EMULATION_NAME
    for name in ("core", "dpu"):
        shutil.copytree(
            ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__", "stand_ins")
        )
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\btutelage\.", f"{_EMULATION_NAME}.", text), encoding="utf-8")
