"""Power of CPU and GPU, measured by `python -m tutelage.board.power` in a separate process.

It is a process since host/ does not import board/. Without a sensor, figures are None with the
reason, never estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core.results.bench_json import CPU, GPU
from tutelage.core.results.figure import Figure
from tutelage.core.results.intervals import median_of_figures
from tutelage.host.bench.process import JsonProcess, ProcessError

SOURCES = {CPU: "rapl", GPU: "nvml"}
"""Source of power of each family of platforms."""

SCOPES = {
    "rapl": "processor package and memory, as far as RAPL counts them, not the whole computer",
    "nvml": "the graphics cards, not the computer around them",
}
_START_SECONDS, _ANSWER_SECONDS = 60.0, 30.0


_NOTHING = dict.fromkeys(("watts", "watts_error", "joules_per_frame", "joules_per_frame_error"))


def median_reading(windows: Sequence[Mapping[str, Any]], name: str, unit: str) -> Figure:
    """Return the median over windows of a value of `Meter.window`, with the readings' error."""
    return median_of_figures(
        [Figure(each[name], n=1, unit=unit, sensor_error=each[f"{name}_error"])
         for each in windows], unit)  # fmt: skip


class Meter:
    """Power meter of one family of platforms.

    Parameters
    ----------
    family : CPU or GPU
    folder : for its log
    arguments : further arguments of `tutelage.board.power`

    Attributes
    ----------
    source : name of the sensor's source; "none" if nothing is measured
    reason : why nothing is measured, in one line
    scope : what the sensor measures, for the reader
    idle : idle power, W
    """

    def __init__(self, family: str, folder: Path, arguments: Sequence[str] = ()) -> None:
        wanted = SOURCES[family]
        self.source, self.reason, self.scope = "none", "", SCOPES[wanted]
        self.idle = Figure(unit="W")
        command = ["tutelage.board.power", wanted, *arguments]
        self._process: JsonProcess | None = JsonProcess(command, folder / f"{wanted}.log")
        try:
            answer = self._process.read(_START_SECONDS)
        except ProcessError as error:
            answer = {"source": "none", "reason": f"power source {wanted}: {error}"}
        self.source, self.reason = answer["source"], answer["reason"]
        if self.source == "none":
            self.close()

    def window(self, start: float, end: float, frames: int) -> dict[str, Any]:
        """Return watts and joules_per_frame between two monotonic times, s; None if not measured.

        watts_error and joules_per_frame_error are bounds of the errors of the readings.

        Parameters
        ----------
        frames : number of frames in that time
        """
        if self._process is None:
            return dict(_NOTHING)
        try:
            request = {"start": start, "end": end, "frames": frames}
            report = self._process.ask(request, _ANSWER_SECONDS)
        except ProcessError as error:
            self.source, self.reason = "none", f"the meter was lost: {error}"
            self.close()
            return dict(_NOTHING)
        # With too many missing readings there is a mean but no energy: both are discarded.
        if report["joules"] is None:
            return dict(_NOTHING)
        bound = report["error_joules"]
        return {
            "watts": report["watts"],
            "watts_error": bound / (end - start),
            "joules_per_frame": report["joules_per_frame"],
            "joules_per_frame_error": bound / frames if frames else None,
        }

    def take_idle(self, start: float, end: float, sections: int = 5) -> None:
        """Set `idle` to the power between two monotonic times, s, in which nothing ran.

        The interval is that of the median over `sections` equal parts of that time.
        """
        length = (end - start) / sections
        windows = [self.window(start + i * length, start + (i + 1) * length, 0)
                   for i in range(sections)]  # fmt: skip
        self.idle = median_reading(windows, "watts", "W")

    def close(self) -> None:
        """End the process of the meter."""
        if self._process:
            self._process.close()
            self._process = None
