"""Instructions that a frame takes, in the application and in plain loops, by qemu-user's count.

    python -m tests.benchmarks.instructions          # JSON; x86_64, and aarch64 where it can be had

One thread, and a DPU that needs no time: the count is the same on every machine and however busy
it is. It needs qemu-user (the package that loads plugins, not qemu-user-static) and a C compiler;
for aarch64 the root of the stand-in board (`python -m tests.stand_in_board.arm64_root`). Without an
AVX-512 of qemu's, x86_64 stands for a machine that has none.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.hot_path import CONTENDERS
from tests.benchmarks.loops import SIDE, small_network, write_images
from tests.stand_in_board.arm64_root import root_path
from tests.stand_in_board.image import SITE

SIZES = ((SIDE, SIDE), (640, 480))
FRAMES = (100, 400)  # of two runs: what they differ by is that of the frames alone
_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent


class CountError(RuntimeError):
    """Nothing can be counted here; one line."""


def commands() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return by architecture what starts Python under qemu, and its environment."""
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
    CountError
        There is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise CountError("a C compiler is needed")
    plugin = folder / "count_instructions.so"
    source = _HERE / "count_instructions.c"
    subprocess.run([compiler, "-O2", "-fPIC", "-shared", source, "-o", plugin], check=True)
    return plugin


def count(plugin: Path, architecture: str, folder: Path, what: str, frames: int) -> int:
    """Return how many instructions `tests.benchmarks.hot_path` executes beside its main thread.

    Raises
    ------
    CountError
        It does not run under this qemu; one line.
    """
    (qemu, *rest), environment = commands()[architecture]
    module = ["-m", "tests.benchmarks.hot_path", str(folder), what, str(frames)]
    command = [qemu, "-plugin", str(plugin), *rest, *module]
    done = subprocess.run(command, env=environment, cwd=_ROOT, capture_output=True, text=True)
    found = re.search(r"^instructions (\d+)$", done.stderr, re.MULTILINE)
    if done.returncode or found is None:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise CountError(f"{qemu} -plugin: {lines[-1]}")
    return int(found[1])


def report(frames: tuple[int, int] = FRAMES) -> dict[str, dict[str, dict[str, float]]]:
    """Return by architecture and image size the instructions per frame, and the ratios."""
    few, many = frames
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        plugin = build_plugin(Path(name))
        for width, height in SIZES:
            folder = Path(name) / f"{width}x{height}"
            (folder / "images").mkdir(parents=True)
            small_network(folder / "small.xmodel")
            write_images(folder / "images", 4, (width, height))
            for architecture in commands():
                row: dict[str, float] = {}
                for what in CONTENDERS:
                    first, second = (
                        count(plugin, architecture, folder, what, each) for each in frames
                    )
                    row[what] = round((second - first) / (many - few))
                for loop in CONTENDERS[1:]:
                    row[f"ratio_to_{loop}"] = round(row["app"] / row[loop], 3)
                found.setdefault(architecture, {})[folder.name] = row
    return found


if __name__ == "__main__":
    print(json.dumps(report(), indent=2))
