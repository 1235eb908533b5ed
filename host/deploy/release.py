"""Assembly of a release: its files and their checksums.

A release has the application, the board's side, the overlay, the model with its plugin and the
Python packages that the board lacks. Its name is the hash of the list of its files' checksums
(SHA256SUMS), so that the same files always make the same release.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path

import tutelage
from tutelage.core.deployed_model import MODEL_NAME_FILE, PLUGIN_FILE
from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.locations import CODE
from tutelage.core.model_package import COMPILED
from tutelage.host.deploy.overlay_manifest import OVERLAYS, overlay_folder

SUMS = "SHA256SUMS"

_FOLDERS = ("app", "board", "core", "dpu/ops")
"""Folders that the board needs; of dpu/ only the ops that a model leaves to the CPU."""
_SKIPPED = {"__pycache__", "rebuild", "stand_ins"}

MODEL_SCRIPT = (
    f"if [ -e model/{COMPILED} ]; then echo model; else ls model/*.xmodel | head -n 1; fi"
)
"""Shell script that prints, in a release's directory, the model's path as in `model_path`."""

PLUGIN_SCRIPT = f"if [ -e {PLUGIN_FILE} ]; then echo --plugin {PLUGIN_FILE}; fi"
"""Shell script that prints, in a release's directory, the option for its plugin, if it has one."""


class ReleaseError(TutelageError):
    """A release cannot be assembled; the text is one line."""

    status = FAILED


def model_path(model: Path) -> str:
    """Return a model's path in a release: that of its directory, or of its single file."""
    return "model" if model.is_dir() else f"model/{model.name}"


@dataclass(frozen=True)
class Parts:
    """Parts of a release other than the files of this repository.

    Attributes
    ----------
    board : name of the board's profile
    model : model directory or .xmodel
    plugin : file of the model's operators for the CPU; None for none
    packages : directory of the packages that the board lacks, from
        `tutelage.host.deploy.packages`; None for none
    python : the board's Python, for the venv; part of the release, so that another Python makes
        another release
    """

    board: str
    model: Path
    plugin: Path | None = None
    packages: Path | None = None
    python: str = ""


def gather(stage: Path, parts: Parts) -> None:
    """Copy all files of a release into an empty directory.

    Raises
    ------
    ReleaseError
        A directory has something that is neither a file nor a directory, or a symbolic link that
        leads out of the directory.
    """
    for name in _FOLDERS:
        _copy_tree(CODE / name, stage / name)
    # The overlay's manifest and its files, which are in the same folder in a checkout.
    for folder in dict.fromkeys((OVERLAYS / parts.board, overlay_folder(parts.board))):
        if folder.is_dir():
            _copy_tree(folder, stage / "overlays" / parts.board)
    for package in (CODE / "dpu", Path(tutelage.__file__).parent):
        (stage / package.name).mkdir(exist_ok=True)
        for file in package.glob("*.py"):
            _copy_file(file, stage / package.name / file.name, package)
    if parts.model.is_dir():
        _copy_tree(parts.model, stage / "model")
    else:
        (stage / "model").mkdir()
        _copy_named(parts.model, stage / "model" / parts.model.name)
    if parts.plugin is not None:
        _copy_named(parts.plugin, stage / PLUGIN_FILE)
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
        # os.walk does not follow links to directories; they are refused like files.
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = [name for name in folders if not _is_skipped(name)]
        for name in filterfalse(_is_skipped, [*files, *links]):
            _copy_file(Path(folder) / name, place / name, source)


def _fail(error: OSError) -> None:
    raise error


def _is_skipped(name: str) -> bool:
    return name in _SKIPPED or name.startswith(".")


def _copy_file(source: Path, target: Path, root: Path) -> None:
    """Copy a regular file, or a symbolic link to one below `root`."""
    try:
        real = source.resolve()
    except RuntimeError:  # Python 3.10 to 3.12, for a link to itself
        real = source
    if source.is_symlink() and not real.is_relative_to(root.resolve()):
        raise ReleaseError(f"{source}: a symbolic link to {real}, which is not in {root}: copy "
                           f"the file there")  # fmt: skip
    _copy_named(real, target, source)


def _copy_named(source: Path, target: Path, name: Path | None = None) -> None:
    """Copy a regular file; errors refer to it by `name`."""
    if not source.is_file():
        raise ReleaseError(f"{name or source}: not a regular file, nor a link to one: remove it, "
                           "since a release has only files")  # fmt: skip
    shutil.copy2(source, target)


def seal(stage: Path) -> tuple[str, int]:
    """Write the list of checksums; return the release's name, its hash, and its size in bytes.

    Raises
    ------
    ReleaseError
        A file's name cannot be a line of that list, since it is not printable UTF-8.
    """
    for folder in (stage, *(path for path in stage.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the service's user may differ from the deploying one
    lines, size = [], 0
    for path in sorted(path for path in stage.rglob("*") if path.is_file()):
        name = str(path.relative_to(stage))
        if not name.isprintable():
            raise ReleaseError(f"{name!a}: the name has control characters or is not UTF-8: "
                               "rename the file")  # fmt: skip
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        content = path.read_bytes()
        size += len(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    text = "".join(lines)
    (stage / SUMS).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16], size
