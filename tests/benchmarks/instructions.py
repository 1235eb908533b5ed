"""Instructions per frame in the application and in simple loops, counted by qemu-user.

    python -m tests.benchmarks instructions     # x86_64, and aarch64 if available

With one thread and a DPU that takes no time, the count is the same on every machine, independent
of its load. It needs qemu-user (the package that loads plugins, not qemu-user-static) and a C
compiler, and for aarch64 the root of the stand-in board (`python -m
tests.stand_in_board.arm64_root`). qemu has no AVX-512, so x86_64 stands for a machine without it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.extent import FULL, CannotRun, Extent
from tests.benchmarks.hot_path import CONTENDERS
from tests.benchmarks.loops import SIDE, small_network, write_images
from tests.stand_in_board.arm64_root import root_path
from tests.stand_in_board.image import SITE

SIZES = ((SIDE, SIDE), (640, 480))
FEW, MORE = 100, 4
"""Frames of one run, and how many times as many of the other: the difference is the frames' own."""

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent


def commands() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return by architecture the command that starts Python under qemu, and its environment."""
    variables = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    common = {**os.environ, **variables}
    found = {}
    if platform.machine() == "x86_64" and (qemu := shutil.which("qemu-x86_64")):
        found["x86_64"] = [qemu, sys.executable], {**common, "PYTHONPATH": str(_ROOT)}
    root = root_path()
    if root.is_dir() and (qemu := shutil.which("qemu-aarch64")):
        path = os.pathsep.join(map(str, (_ROOT, root / SITE)))
        python = str(root / "usr/bin/python3")
        environment = {**common, "PYTHONHOME": str(root / "usr"), "PYTHONPATH": path}
        found["aarch64"] = [qemu, "-L", str(root), python], environment
    return found


def build_plugin(folder: Path) -> Path:
    """Compile the plugin.

    Raises
    ------
    CannotRun
        There is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotRun("a C compiler is needed")
    plugin = folder / "count_instructions.so"
    source = _HERE / "count_instructions.c"
    subprocess.run([compiler, "-O2", "-fPIC", "-shared", source, "-o", plugin], check=True)
    return plugin


def count(plugin: Path, architecture: str, folders: list[Path], few: int) -> list[int]:
    """Return the instructions of a frame for each folder and contender.

    Raises
    ------
    CannotRun
        It does not run under this qemu; the message is one line.
    """
    (qemu, *rest), environment = commands()[architecture]
    frames = few, MORE * few
    arguments = ["-m", "tests.benchmarks.hot_path", *map(str, (*frames, *folders))]
    command = [qemu, "-plugin", str(plugin), *rest, *arguments]
    done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True)
    found = [int(each) for each in re.findall(r"(?m)^instructions (\d+)$", done.stderr)]
    if done.returncode or len(found) != 3 * len(folders) * len(CONTENDERS):
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise CannotRun(f"{qemu} -plugin: {lines[-1]}")
    runs = zip(found[::3], found[1::3], found[2::3], strict=True)
    return [round(((third - second) - (second - first)) / (frames[1] - frames[0]))
            for first, second, third in runs]  # fmt: skip


def report(extent: Extent = FULL) -> dict[str, dict[str, dict[str, float]]]:
    """Return by architecture and image size the instructions per frame, and the ratios.

    Raises
    ------
    CannotRun
        There is no qemu-user, or no C compiler.
    """
    architectures = list(commands())
    if not architectures:
        raise CannotRun("qemu-user is needed (the package of this name, which loads plugins)")
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        plugin, folders = build_plugin(Path(name)), [_folder(Path(name), size) for size in SIZES]
        few = min(FEW, extent.images)
        counts = pool.map(lambda each: count(plugin, each, folders, few), architectures)
        for architecture, counted in zip(architectures, counts, strict=True):
            rows = zip(*[iter(counted)] * len(CONTENDERS), strict=True)
            found[architecture] = {
                folder.name: _with_ratios(dict(zip(CONTENDERS, row, strict=True)))
                for folder, row in zip(folders, rows, strict=True)
            }
    return found


def _folder(parent: Path, size: tuple[int, int]) -> Path:
    folder = parent / "x".join(map(str, size))
    (folder / "images").mkdir(parents=True)
    small_network(folder / "small.xmodel")
    write_images(folder / "images", 4, size)
    return folder


def _with_ratios(row: dict[str, float]) -> dict[str, float]:
    app, *loops = CONTENDERS
    return {**row, **{f"ratio_to_{loop}": round(row[app] / row[loop], 3) for loop in loops}}
