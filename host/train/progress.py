"""Progress display: a Rich progress bar on a terminal, with TensorBoard, or nothing.

`Terminal` is for training; `Steps` and `stepped` are for benchmarks, where drawing must not disturb
the measurement.
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
"""Columns of the log with accuracies on validation or test images, and their names in a line."""


class Progress(Protocol):
    """Interface of a display that `tutelage.host.train.loop.train` notifies."""

    def begin(self, method: str, epochs: int, done: int) -> None:
        """Start the display of a run of `epochs`, of which `done` are finished."""

    def step(
        self, step: int, steps: int, phase: str, totals: list[float], images: int, start: float
    ) -> None:
        """Display the progress within an epoch.

        Parameters
        ----------
        step, steps : finished steps of this epoch, and all
        phase : name of the phase
        totals : sums of the losses, correct predictions and images so far, of this process
        images : images so far, of all processes
        start : when the epoch started, in seconds of time.monotonic()
        """

    def epoch(self, row: dict[str, Any]) -> None:
        """Display a finished epoch; `row` is its line of the log."""

    def end(self) -> None:
        """End the display, since the run has ended or failed; a second call has no effect."""


class Silent:
    """Progress that displays nothing."""

    def begin(self, method: str, epochs: int, done: int) -> None: ...

    def step(
        self, step: int, steps: int, phase: str, totals: list[float], images: int, start: float
    ) -> None: ...

    def epoch(self, row: dict[str, Any]) -> None: ...

    def end(self) -> None: ...


class Terminal:
    """Progress bar with phase, loss, accuracy, images/s and the time left, and a line per epoch.

    Parameters
    ----------
    console : console to print to; standard output by default
    tensorboard : directory for TensorBoard's event files; None writes none
    """

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
        if self._bar.live.is_started:
            self._bar.stop()
        if self._board is not None:
            self._board.close()


class Steps:
    """Progress bar on standard error with the current step and the time left.

    It is drawn only when a step begins, so that it does not disturb what the step measures. If
    standard error is not a terminal, nothing is written.

    Parameters
    ----------
    total : number of steps
    console : console to draw on; standard error by default
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
        """Display that a step starts and that the previous one is finished."""
        self._bar.update(self._task, completed=self._begun, description=shown(text, 60))
        self._bar.refresh()
        self._begun += 1


def stepped(name: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield the items, displaying each as a step of `Steps` named `name`."""
    with Steps(len(items)) as steps:
        for item in items:
            steps.begin(name)
            yield item


def _board(folder: Path | None) -> Any:
    """Return TensorBoard's writer; None without a folder or without the package."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
