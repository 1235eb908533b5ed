"""A long run in a separate process, which prints its memory at the start and the end as JSON.

    python -m tests.benchmarks.soak FOLDER FRAMES

FOLDER has small.xmodel and images/. The frames go through all parts of a run: JSONL,
CSV, the live page with a viewer, power and figures, on an emulation that is not paced.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tutelage.app.classify import open_classifier
from tutelage.app.options import read_options
from tutelage.app.pipeline.result import Result
from tutelage.app.run import Run

_WARM_SHARE = 0.1  # of the frames: until then buffers, histograms and the allocator grow


def _memory() -> int:
    """Resident memory of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")


def _view(url: str) -> None:
    """Read the page's results and pictures as a browser does, until the server ends it."""
    with urllib.request.urlopen(url) as stream:
        while stream.read(1 << 16):
            pass


def main(folder: Path, frames: int) -> None:
    """Run the frames; print frames, fps, memory and its growth in MB."""
    arguments = (
        f"--source {folder / 'images'} --model {folder / 'small.xmodel'} --scenario offline "
        f"--duration 100000 --frames {frames} --quiet --web 127.0.0.1:0 --power "
        f"--output {folder / 'r.jsonl'} --output {folder / 'r.csv'}"
    )
    options = read_options(arguments.split())
    seen: list[tuple[int, int]] = []

    def say(text: str) -> None:
        if "live page" in text:
            url = text.split()[-1]
            threading.Thread(target=_view, args=(url + "results",), daemon=True).start()

    with ExitStack() as stack:
        run = Run(options, open_classifier(options), stack, say)
        consume = run._outputs.add

        def count(result: Result) -> None:
            if result.frame.index in (int(_WARM_SHARE * frames), frames - 1):
                gc.collect()
                seen.append((result.frame.index, _memory()))
            consume(result)

        run._outputs.add = count  # type: ignore[method-assign]
        run.go()
    report = run.report()
    growth = (seen[-1][1] - seen[0][1]) / 1e6
    figures = {"frames": report["frames"]["in"], "fps": report["fps"], "growth_mb": growth}
    print(json.dumps({**figures, "memory_mb": seen[-1][1] / 1e6}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
