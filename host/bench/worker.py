"""Process of a platform: `python -m tutelage.host.bench.worker NAME FOLDER THREADS CPU,CPU,...`

It reads requests as JSON lines from standard input and answers each by a line on standard output:

    {"do": "prepare"}                          facts and threads, or "absent": reason
    {"do": "logits", "output": "x.npy"}        writes the logits of all images
    {"do": "try", "batch": 32, "seconds": 1}   warms up, then as offline
    {"do": "measure", "batch": 32, "seconds": 3, "warm_up": 1}   single_stream and offline

The answer to a request that fails is "error". Output of libraries goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import Absent, Platform, entry
from tutelage.host.bench.subject_files import read_form, read_images
from tutelage.host.bench.timed_windows import TimedWindows

_MOST_WARM_UP_SECONDS = 0.5  # of trials, which only compare batch sizes


class Worker:
    """Server of requests for one platform."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._platform: Platform = entry(name).make()
        self._windows: TimedWindows | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request."""
        if request["do"] == "prepare":
            return self._prepare()
        windows = self._windows
        if windows is None:
            raise RuntimeError("the platform is not prepared")
        if request["do"] == "logits":
            np.save(request["output"], windows.logits())
            return {}
        seconds, batch = float(request["seconds"]), int(request["batch"])
        if request["do"] == "try":
            windows.offline(min(seconds, _MOST_WARM_UP_SECONDS), batch)
            return windows.offline(seconds, batch)
        return _measure(windows, seconds, float(request["warm_up"]), batch)

    def _prepare(self) -> dict[str, Any]:
        try:
            self._platform.prepare(self._folder, self._threads)
        except Absent as absent:
            return {"absent": str(absent)}
        form = read_form(self._folder)
        preprocessors = [FloatPreprocessor(form, self._platform.channels_last)
                         for _ in range(self._threads)]  # fmt: skip
        pixels = read_images(self._folder).pixels
        self._windows = TimedWindows(self._platform, preprocessors, pixels)
        self._windows.offline(0.0, 1)  # some platforms compile in their first run
        return {**self._platform.facts(), "threads": self._threads,
                "concern": self._platform.concern}  # fmt: skip


def _measure(windows: TimedWindows, seconds: float, warm_up: float, batch: int) -> dict[str, Any]:
    windows.single_stream(warm_up)
    single = windows.single_stream(seconds)
    windows.offline(warm_up, batch)
    offline = windows.offline(seconds, batch)
    return {"single_stream": single, "offline": offline, "memory_mib": round(_peak_mib(), 1)}


def _peak_mib() -> float:
    """Return this process's peak memory, MiB; getrusage would include the parent's before exec."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main(arguments: list[str]) -> None:
    """Answer requests until standard input ends."""
    name, folder, threads, cpus = arguments
    os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    cv2.setNumThreads(1)
    answers = _own_output()
    worker = Worker(name, Path(folder), int(threads))
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # a framework may raise anything, which ends its row only
            text = next(iter(str(error).splitlines()), "")
            answer = {"error": f"{type(error).__name__}: {text}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _own_output() -> IO[str]:
    """Return standard output for the answers only, and redirect that of libraries to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main(sys.argv[1:])
