"""A fresh copy of the repository, with the other files that the documentation assumes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.docs import markdown

ROOT = Path(__file__).resolve().parents[2]
BOARD_MODEL = "shared/models/corpus/mnist_cnn_zcu104.xmodel"
"""The reader's `board.xmodel`, made by AMD's compiler; beside the repository and not part of it."""

_FOLDERS = ("app", "board", "core", "dpu", "host", "overlays", "models")


def _navigation() -> list[Path]:
    """Return the site's pages that are files, in reading order."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    found = [ROOT / "docs" / name for name in re.findall(r"(?m): (\S+\.md)$", text)]
    return [page for page in found if page.exists()]


PAGES = [
    *_navigation(),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for f in _FOLDERS for p in (ROOT / f).rglob("*.md") if "uplot" not in p.parts),
]
"""The documentation. CHANGELOG mentions commands that may no longer exist."""


@dataclass
class Reader:
    """A reader who follows the documentation in a directory."""

    folder: Path
    environment: dict[str, str]
    done: dict[str, str] = field(default_factory=dict)  # command line -> what it printed

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command line in a shell, as a new process group."""
        return subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], cwd=self.folder,
                                env=self.environment, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True)  # fmt: skip


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The reader in a fresh copy, with .venv set up, photos, a video and models."""
    folder = tmp_path_factory.mktemp("reader") / "tutelage"
    copy_repository(folder)
    _link_venv(folder)
    for page in PAGES:
        for name, text in markdown.files(page).items():
            if "/" not in name:  # else a file of the repository, from a recipe
                (folder / name).write_text(text)
    (folder / "explore.toml").write_text(
        (folder / "qkd.toml").read_text() + (folder / "explore.toml").read_text()
    )
    _write_material(folder)
    home = folder.parent / "home"
    (home / "Downloads").mkdir(parents=True)
    environment = {**os.environ, "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}",
                   "HOME": str(home), "VIRTUAL_ENV": str(folder / ".venv"),
                   "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    environment["PYTHONPATH"] = str(folder)  # before the checkout, which .venv has installed
    yield Reader(folder, environment)


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks or would add, in their current state; skip without git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone of it")
    names = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT,
                           check=True, capture_output=True, text=True).stdout  # fmt: skip
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file() or source.is_symlink():  # tutelage/ has links to folders
            shutil.copy2(source, target, follow_symlinks=False)


def _link_venv(folder: Path) -> None:
    """Create a .venv in the copy with this Python's packages, without installing anything."""
    venv = folder / ".venv"
    venv.mkdir()
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    for name in ("bin", "lib", "lib64"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    for stamp in ("emulation.stamp", "all.stamp"):
        (venv / stamp).touch()


def _write_material(folder: Path) -> None:
    demo = folder / "app/demo"
    shutil.copytree(demo / "images", folder / "digits")
    shutil.copy(demo / "quantised.xmodel", folder / "a.xmodel")
    shutil.copy(demo / "model.xmodel", folder / "b.xmodel")
    shutil.copy(demo / "model.xmodel", folder / "net.xmodel")
    compiled = ROOT.parent / BOARD_MODEL
    if compiled.exists():
        shutil.copy(compiled, folder / "board.xmodel")
    shutil.copy(ROOT / "tests/dpu/plugins.py", folder / "ops.py")
    shutil.copy(ROOT / "tests/dpu/board_script.py", folder / "your_board_script.py")
    rng = np.random.default_rng(7)
    np.save(folder / "in.npy", rng.uniform(-1, 1, (8, 28, 28, 1)).astype(np.float32))
    video = cv2.VideoWriter(str(folder / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 64))
    for path in sorted((demo / "images/Bag").glob("*.png")):
        image = cv2.imread(str(path))
        assert image is not None
        video.write(cv2.resize(image, (64, 64)))
    video.release()
