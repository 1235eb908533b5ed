"""Output on the terminal: a live table, or a line per frame if there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from tutelage.app.outputs.output import Output
from tutelage.app.outputs.registry import OutputContext, register_output
from tutelage.app.pipeline.result import Result
from tutelage.core.text import LONGEST_NAME, counted, shown

_NEWEST = 8  # most results in the live table; fewer if the terminal is too small
_OTHER_LINES = 7  # lines for the table's frame, the figures and the bar
_RATE_SECONDS = 2.0  # period over which the table's fps is averaged


@register_output(
    lambda uri: uri == "terminal",
    {"terminal": "a table on the terminal (the default, unless --quiet)"},
    place=0,
)
def open_terminal(_uri: str, context: OutputContext) -> Output:
    """Return a live table if standard output is a terminal and Rich is installed, or else lines."""
    if sys.stdout.isatty():
        try:
            return LiveTable(context.length, context.gauges, context.top)
        except ImportError:
            pass
    return Lines(context.label_width)


class Lines(Output):
    """An aligned line per frame: name, label, confidence, then further classes."""

    on_standard_output = True

    def __init__(self, label_width: int, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout
        self._label_width = min(label_width, 24)
        self._name_width = 0
        self._lock = threading.Lock()

    def add(self, result: Result) -> None:
        name = shown(result.frame.name, LONGEST_NAME)
        self._name_width = max(self._name_width, len(name))
        line = f"{name:{self._name_width}}  {self._verdict(result)}".rstrip()
        with self._lock:
            print(line, file=self._file)

    def _verdict(self, result: Result) -> str:
        if result.error is not None:
            return f"failed: {shown(result.error)}"
        width = self._label_width
        classes = "  ".join(
            f"{shown(label, LONGEST_NAME):{width}} {confidence:7.2%}"
            for label, confidence in result.top
        )
        return f"{classes} {_truth(result)}" if result.correct is False else classes

    def look(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        self._file.flush()


def _truth(result: Result) -> str:
    """Return the true label as text to append to a wrong one; "" for a right one."""
    if result.correct is not False:
        return ""
    return f" (is {shown(result.true_label, LONGEST_NAME)})"


class LiveTable(Output):
    """The newest results, a progress bar if the length is known, and the main figures."""

    on_standard_output = True

    def __init__(
        self, length: int | None, gauges: Callable[[], dict[str, Any]], top: int = 1
    ) -> None:
        from rich.live import Live

        self._length = length
        self._top = top
        self._gauges = gauges
        self._newest: deque[Result] = deque(maxlen=_NEWEST)
        self._count = self._failed = self._labelled = self._correct = 0
        self._began = time.monotonic()
        self._counts: deque[tuple[float, int]] = deque([(self._began, 0)])
        # Only `look` refreshes it; other text is printed above the table.
        self._live = Live(auto_refresh=False)
        self._live.start()

    def add(self, result: Result) -> None:
        self._newest.append(result)
        self._count += 1
        self._failed += result.error is not None
        if result.correct is not None:
            self._labelled += 1
            self._correct += result.correct

    def look(self) -> None:
        now = time.monotonic()
        self._counts.append((now, self._count))
        while len(self._counts) > 2 and now - self._counts[0][0] > _RATE_SECONDS:
            self._counts.popleft()
        self._live.update(self._picture(now), refresh=True)

    def close(self) -> None:
        self.look()  # the last results stay on the screen
        self._live.stop()

    def _picture(self, now: float) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[Any] = [self._table(), Text(self._figures(now), style="bold")]
        if self._length:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(
                ProgressBar(total=self._length, completed=self._count, width=40),
                Text(f"{self._count} of {self._length}{self._time_left(now)}"),
            )
            parts.append(bar)
        return Group(*parts)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table("frame", "label", "confidence", "ms", expand=False)
        for column in table.columns[2:]:
            column.justify = "right"
        room = self._live.console.height - _OTHER_LINES
        for result in list(self._newest)[-max(1, room // self._top) :]:
            name = Text(shown(result.frame.name, LONGEST_NAME), overflow="ellipsis", no_wrap=True)
            total = f"{result.milliseconds.get('total', 0):.1f}"
            if not result.top:
                table.add_row(name, Text(f"failed: {shown(result.error or '')}", "red"), "", total)
                continue
            best, others = result.top[0], result.top[1 : self._top]
            style = {None: "", True: "green", False: "yellow"}[result.correct]
            labels = Text(f"{shown(best[0], LONGEST_NAME)}{_truth(result)}", style)
            for label, _ in others:
                labels.append(f"\n{shown(label, LONGEST_NAME)}", "dim")
            shares = "\n".join(f"{confidence:.1%}" for _, confidence in (best, *others))
            table.add_row(name, labels, shares, total)
        return table

    def _rate(self) -> float:
        (then, before), (now, count) = self._counts[0], self._counts[-1]
        return (count - before) / (now - then) if now > then else 0.0

    def _figures(self, now: float) -> str:
        gauges = self._gauges()
        parts = [
            f"{self._rate():.1f} fps",
            f"{now - self._began:.0f} s",
            f"{counted(self._count, 'frame')}",
        ]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if gauges.get("dropped"):
            parts.append(f"{gauges['dropped']} dropped")
        if self._labelled:
            parts.append(f"{self._correct / self._labelled:.1%} correct")
        if gauges.get("dpu_utilisation") is not None:
            parts.append(f"DPU {gauges['dpu_utilisation']:.0%}")
        if gauges.get("total_watts") is not None:
            parts.append(f"{gauges['total_watts']:.2f} W")
        return "   ".join(parts)

    def _time_left(self, now: float) -> str:
        rate = self._rate()
        if not rate or not self._length:
            return ""
        return f", {max(0, self._length - self._count) / rate:.0f} s left"
