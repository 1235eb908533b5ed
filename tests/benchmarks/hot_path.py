"""The way of frames through the application, or through a loop in its place, in one thread.

    python -m tests.benchmarks.hot_path FOLDER WHAT FRAMES

FOLDER holds small.xmodel and images/; WHAT is app, loop or loop_same_pixels. The DPU needs no time.
It prints nothing: `tests.benchmarks.instructions` counts what it executes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.loops import Course, FreeDpu

CONTENDERS = ("app", "loop", "loop_same_pixels")


def main(folder: Path, what: str, frames: int) -> None:
    """Run the frames."""
    course = Course(folder / "small.xmodel", folder / "images", 1e6, FreeDpu(0.0), frames)
    if what == "app":
        course.app(threads=1)
    else:
        course.loop(1, same_pixels=what == "loop_same_pixels")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
