"""Watts of CPU and GPU, by the board's power module in a process of its own.

host/ does not import board/: it asks `python -m tutelage.board.power`. Where there is no sensor,
figures are None with the reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.results.bench_json import CPU, GPU
from tutelage.core.results.figure import Figure
from tutelage.core.results.intervals import median_figure
from tutelage.host.bench.process import JsonProcess, ProcessError

SOURCES = {CPU: "rapl", GPU: "nvml"}
"""Where the watts of a family come from."""

SCOPES = {
    "rapl": "the processor's package and memory as far as RAPL counts them, not the whole computer",
    "nvml": "the graphics cards, not the computer around them",
}
_START_SECONDS, _ANSWER_SECONDS = 60.0, 30.0


class Meter:
    """One source of power.

    Parameters
    ----------
    family : of platforms
    folder : for its log
    arguments : further ones for `tutelage.board.power`

    Attributes
    ----------
    source : "none" where nothing is measured
    reason : one line
    idle : power at rest, W
    """

    def __init__(self, family: str, folder: Path, arguments: Sequence[str] = ()) -> None:
        wanted = SOURCES[family]
        self.source, self.reason, self.scope = "none", "", SCOPES[wanted]
        self.idle = Figure(unit="W")
        command = ["tutelage.board.power", wanted, *arguments]
        self._process: JsonProcess | None = JsonProcess(command, folder / f"{wanted}.log")
        try:
            told = self._process.read(_START_SECONDS)
        except ProcessError as error:
            told = {"source": "none", "reason": f"power source {wanted}: {error}"}
        self.source, self.reason = told["source"], told["reason"]
        if self.source == "none":
            self.close()

    def window(self, start: float, end: float, frames: int) -> dict[str, Any]:
        """watts and joules_per_frame between two monotonic times, None where not measured."""
        if self._process is None:
            return {"watts": None, "joules_per_frame": None}
        try:
            request = {"start": start, "end": end, "frames": frames}
            report = self._process.ask(request, _ANSWER_SECONDS)
        except ProcessError as error:
            self.source, self.reason = "none", f"the meter was lost: {error}"
            self.close()
            return {"watts": None, "joules_per_frame": None}
        # Where too many readings are missing, there is a mean and no energy: then neither counts.
        if report["joules"] is None:
            return {"watts": None, "joules_per_frame": None}
        return {"watts": report["watts"], "joules_per_frame": report["joules_per_frame"]}

    def take_idle(self, start: float, end: float, sections: int = 5) -> None:
        """Take the power between two monotonic times, in which nothing was run, as that at rest.

        Its interval is that of the median of as many sections.
        """
        length = (end - start) / sections
        windows = [self.window(start + i * length, start + (i + 1) * length, 0)["watts"]
                   for i in range(sections)]  # fmt: skip
        self.idle = median_figure(windows, "W")

    def close(self) -> None:
        """End its process."""
        if self._process:
            self._process.close()
            self._process = None
