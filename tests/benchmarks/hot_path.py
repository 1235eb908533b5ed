"""The path of frames through the application and through simple loops, in one thread.

    python -m tests.benchmarks.hot_path FEW MANY FOLDER...

Each FOLDER has small.xmodel and images/. The DPU takes no time. For each folder and contender, FEW
frames are run twice, then MANY; after each of these runs there is a system call by which
`tests.benchmarks.instructions` detects its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.benchmarks.loops import Course, FreeDpu

CONTENDERS = ("app", "loop", "loop_same_pixels")
MARK = 0x7475746C
"""The number of no process, for a system call that count_instructions.c sees."""


def main(few: int, many: int, folders: Sequence[Path]) -> None:
    """Run the frames."""
    for folder in folders:
        for what in CONTENDERS:
            for frames in (few, few, many):  # in the first run Python still specialises its code
                _run(folder, what, frames)
                with suppress(ProcessLookupError):
                    os.getpgid(MARK)


def _run(folder: Path, what: str, frames: int) -> None:
    course = Course(folder / "small.xmodel", folder / "images", 1e6, FreeDpu(0.0), frames)
    if what == "app":
        course.app(threads=1)
    else:
        course.loop(1, same_pixels=what == "loop_same_pixels")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
