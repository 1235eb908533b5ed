"""What a release consists of: its files, their checksums, the packages that a board lacks.

A release is the application, the board's side, the overlay, the model with its plugin and the
Python packages that the board lacks. Its name is the hash of the list of its files' checksums
(SHA256SUMS), so that the same files always make the same release.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path
from typing import Any

import tutelage
from tutelage.core.locations import CODE
from tutelage.core.model_name import MODEL_NAME_FILE
from tutelage.core.model_package import COMPILED
from tutelage.host.ssh.remote import telling_line

SUMS = "SHA256SUMS"

_FOLDERS = ("app", "board", "core", "dpu/ops")
"""What runs on the board: of dpu/ only the ops that a model leaves to the CPU."""
_SKIPPED = {"__pycache__", "rebuild", "stand_ins"}

# A package that the board may lack -> what is carried then (the ranges of setup.py). Dependencies'
# markers are pip's for this Python, hence those of Python 3.10 are asked for by name.
CARRIED = {
    "psutil": "psutil>=5.9",
    "starlette": "starlette>=0.40",
    "uvicorn": "uvicorn>=0.30",
    "rich": "rich>=13.0",
}
_FOR_OLD = ("tomli>=2.0", "exceptiongroup", "typing_extensions")  # below Python 3.11


PLUGIN = "plugin.py"
"""A release's file of operators for the CPU, where the model has one."""

MODEL_SCRIPT = (
    f"if [ -e model/{COMPILED} ]; then echo model; else ls model/*.xmodel | head -n 1; fi"
)
"""Shell script that tells, in a release's directory, its model's place as `model_path` does."""

PLUGIN_SCRIPT = f"if [ -e {PLUGIN} ]; then echo --plugin {PLUGIN}; fi"
"""Shell script that prints, in a release's directory, the options for its plugin, if it has one."""


class ReleaseError(RuntimeError):
    """A release cannot be put together; the text is one line."""


def model_path(model: Path) -> str:
    """A model's place in a release: that of its directory, or of its bare file."""
    return "model" if model.is_dir() else f"model/{model.name}"


@dataclass(frozen=True)
class Parts:
    """What a release is made of, besides this repository's own files.

    Attributes
    ----------
    board : name of the board's profile
    model : model directory or .xmodel
    plugin : file of the model's operators for the CPU; None for none
    packages : what the board lacks, from `Packages`; None for nothing
    python : the Python of its venv; that is part of a release, and another one makes another
    """

    board: str
    model: Path
    plugin: Path | None = None
    packages: Path | None = None
    python: str = ""


def gather(stage: Path, parts: Parts) -> None:
    """Put all files of a release into an empty directory.

    Raises
    ------
    ReleaseError
        Something in a directory is neither a file nor a directory, or a symbolic link that does not
        name a file in that directory: a release takes nothing from elsewhere.
    """
    for name in (*_FOLDERS, f"overlays/{parts.board}"):
        if (CODE / name).is_dir():
            _copy_tree(CODE / name, stage / name)
    for package in (CODE / "dpu", Path(tutelage.__file__).parent):
        (stage / package.name).mkdir(exist_ok=True)
        _copy_file(package / "__init__.py", stage / package.name / "__init__.py", package)
    if parts.model.is_dir():
        _copy_tree(parts.model, stage / "model")
    else:
        (stage / "model").mkdir()
        _copy_named(parts.model, stage / "model" / parts.model.name)
    if parts.plugin is not None:
        _copy_named(parts.plugin, stage / PLUGIN)
    if parts.packages is not None:
        _copy_tree(parts.packages, stage / "packages")
    name = os.fsencode(parts.model.resolve().name).decode("utf-8", "replace")
    (stage / MODEL_NAME_FILE).write_text(f"{name}\n", encoding="utf-8")
    (stage / "python.txt").write_text(f"{parts.python}\n", encoding="utf-8")


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a directory's files, at any depth."""
    for folder, folders, files in os.walk(source, onerror=_fail):
        place = target / Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        # os.walk enters no link to a directory; as a file it is refused.
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = [name for name in folders if not _is_skipped(name)]
        for name in filterfalse(_is_skipped, [*files, *links]):
            _copy_file(Path(folder) / name, place / name, source)


def _fail(error: OSError) -> None:
    raise error


def _is_skipped(name: str) -> bool:
    return name in _SKIPPED or name.startswith(".")


def _copy_file(source: Path, target: Path, root: Path) -> None:
    """Copy a regular file; a symbolic link only where it names one below `root`."""
    try:
        real = source.resolve()
    except RuntimeError:  # Python 3.10 to 3.12, where a link leads to itself
        real = source
    if source.is_symlink() and not real.is_relative_to(root.resolve()):
        raise ReleaseError(f"{source}: is a symbolic link to {real}, which is not in {root}; a "
                           f"release takes no file from elsewhere: copy it there")  # fmt: skip
    _copy_named(real, target, source)


def _copy_named(source: Path, target: Path, name: Path | None = None) -> None:
    """Copy a file that the user named; `name` is what errors call it."""
    if not source.is_file():
        raise ReleaseError(f"{name or source}: is not a file, nor a link to one; a release has "
                           "files only")  # fmt: skip
    shutil.copy2(source, target)


def seal(stage: Path) -> tuple[str, int]:
    """Write the list of checksums; returns the release's name, the hash of it, and its bytes.

    Raises
    ------
    ReleaseError
        A name cannot be in that list, which has a line of UTF-8 for each.
    """
    for folder in (stage, *(path for path in stage.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # a service's user may be another than the deploying one
    lines, size = [], 0
    for path in sorted(path for path in stage.rglob("*") if path.is_file()):
        name = str(path.relative_to(stage))
        if not name.isprintable():
            raise ReleaseError(f"{name!a}: has control characters, or is not in UTF-8; a release "
                               "takes no such name: rename it")  # fmt: skip
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        content = path.read_bytes()
        size += len(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    text = "".join(lines)
    (stage / SUMS).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16], size


class Packages:
    """Python packages that boards lack, unpacked for their Python and machine, in a cache.

    Parameters
    ----------
    wheels : directory of wheels; None for the package index
    """

    def __init__(self, wheels: Path | None) -> None:
        self._wheels = wheels
        self._lock = threading.Lock()
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._cache = base / "tutelage" / "packages"

    def for_board(self, facts: dict[str, Any]) -> Path | None:
        """Directory of what the board of these facts lacks, None where it lacks nothing.

        Raises
        ------
        ReleaseError
            A package cannot be had for that board.
        """
        wanted = [text for name, text in CARRIED.items() if facts["modules"][name] is None]
        version = ".".join(facts["python"].split(".")[:2])
        if tuple(map(int, version.split("."))) < (3, 11) and facts["modules"]["tomli"] is None:
            wanted += _FOR_OLD
        if not wanted:
            return None
        key = json.dumps([wanted, version, facts["machine"], facts["glibc"], self._listing()])
        folder = self._cache / hashlib.sha256(key.encode()).hexdigest()[:16]
        with self._lock:
            if not folder.is_dir():
                self._install(folder, wanted, facts)
        return folder

    def _listing(self) -> list[str]:
        return sorted(path.name for path in self._wheels.glob("*.whl")) if self._wheels else []

    def _install(self, folder: Path, wanted: list[str], facts: dict[str, Any]) -> None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        except OSError as error:
            raise ReleaseError(f"packages for the board: {folder.parent}: {error.strerror}; set "
                               "XDG_CACHE_HOME to a directory for them") from error  # fmt: skip
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile",
                   "--disable-pip-version-check", "--target", str(partial / "all"),
                   "--only-binary=:all:", "--implementation", "cp",
                   "--python-version", ".".join(facts["python"].split(".")[:2])]  # fmt: skip
        for platform in _platforms(facts["machine"], facts["glibc"]):
            command += ["--platform", platform]
        if self._wheels is not None:
            command += ["--no-index", "--find-links", str(self._wheels)]
        try:
            done = subprocess.run([*command, *wanted], capture_output=True, text=True)
            if done.returncode:
                raise ReleaseError(f"packages for the board: {telling_line(done.stderr)}; give "
                                   "their wheels with --wheels DIR")  # fmt: skip
            shutil.rmtree(partial / "all" / "bin", ignore_errors=True)  # scripts for this machine
            try:
                (partial / "all").rename(folder)
            except OSError:
                # Where another process was faster, its packages are the same.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _platforms(machine: str, glibc: str) -> list[str]:
    """Platform tags of wheels that run on a machine with this glibc (PEP 600), the newest first."""
    numbers = re.fullmatch(r"2\.(\d+)", glibc)
    newest = int(numbers[1]) if numbers else 17
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)]
    return [*tags, f"manylinux2014_{machine}"]
