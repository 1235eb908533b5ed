"""What a run shows: a Rich progress bar on a terminal, TensorBoard beside it, or nothing.

`Terminal` is for training; `Steps` and `stepped` are for benchmarks, which a bar must not disturb.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tutelage.core.text import shown

_Item = TypeVar("_Item")

_JUDGED = {
    "validation_accuracy": "validation", "accuracy": "test",
    "validation_teacher_accuracy": "teacher", "teacher_accuracy": "teacher",
}  # fmt: skip
"""What an epoch's row says of images that nothing is learnt from, and its name in a line."""


class Progress(Protocol):
    """Told of every stretch of a run."""

    def begin(self, method: str, epochs: int, done: int) -> None:
        """A run starts, `done` of its `epochs` being done."""

    def step(
        self, step: int, steps: int, phase: str, totals: list[float], images: int, start: float
    ) -> None:
        """Some steps of an epoch are done; `totals` are loss, right answers and images so far."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done; `row` is its line of the log."""

    def end(self) -> None:
        """The run is over."""


class Silent:
    """Shows nothing."""

    def begin(self, method: str, epochs: int, done: int) -> None: ...

    def step(
        self, step: int, steps: int, phase: str, totals: list[float], images: int, start: float
    ) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def end(self) -> None: ...


class Terminal:
    """A bar with phase, loss, accuracy, images/s and the time left; a line per epoch."""

    def __init__(self, console: Console | None = None, tensorboard: Path | None = None) -> None:
        self._console = console or Console()
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"), TimeRemainingColumn(),
            console=self._console, transient=True,
        )  # fmt: skip
        self._board = _board(tensorboard)
        self._epochs = self._done = 0
        self._task: Any = None

    def begin(self, method: str, epochs: int, done: int) -> None:
        self._epochs, self._done = epochs, done
        if epochs > done and self._console.is_terminal:
            self._bar.start()

    def step(
        self, step: int, steps: int, phase: str, totals: list[float], images: int, start: float
    ) -> None:
        loss, right, count = totals
        speed = images / max(1e-9, time.monotonic() - start)
        text = f"loss {loss / count:.4f}  acc {100 * right / count:.2f} %  {speed:,.0f} images/s"
        if self._task is None:
            # One bar for the whole run, so that the time left is the run's.
            self._task = self._bar.add_task("", total=self._epochs * steps, text="")
        place = f"epoch {self._done + 1}/{self._epochs} {phase}"
        self._bar.update(
            self._task, completed=self._done * steps + step, description=place, text=text
        )

    def epoch(self, row: dict[str, Any]) -> None:
        self._done = row["epoch"]
        judged = "".join(
            f"  {name} {row[key]:.2f} %" for key, name in _JUDGED.items() if key in row
        )
        self._console.print(
            f"epoch {row['epoch']}/{self._epochs}  {row['phase']}  loss {row['loss']:.4f}  "
            f"train {row['train_accuracy']:.2f} %{judged}  "
            f"{row['images_per_second']:,.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "epoch":
                    self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()

    def end(self) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()


class Steps:
    """A bar on standard error with the step under way and the time left; nothing elsewhere.

    It is drawn when a step begins and not in between: what is measured meanwhile has the machine
    to itself. On what is no terminal nothing is written.

    Parameters
    ----------
    total : number of steps
    console : where the bar goes
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=console, transient=True, auto_refresh=False,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)
        self._begun = 0

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, text: str) -> None:
        """Show that a step begins, and with it that the one before is done."""
        self._bar.update(self._task, completed=self._begun, description=shown(text, 60))
        self._bar.refresh()
        self._begun += 1


def stepped(name: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield the items one by one, with `Steps` meanwhile."""
    with Steps(len(items)) as steps:
        for item in items:
            steps.begin(name)
            yield item


def _board(folder: Path | None) -> Any:
    """TensorBoard's writer, or None where none is wanted or the package is missing."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
