"""What a run shows: a Rich progress bar on a terminal, TensorBoard beside it, or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


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
        test = f"  test {row['accuracy']:.2f} %" if "accuracy" in row else ""
        teacher = f"  teacher {row['teacher_accuracy']:.2f} %" if "teacher_accuracy" in row else ""
        self._console.print(
            f"epoch {row['epoch']}/{self._epochs}  {row['phase']}  loss {row['loss']:.4f}  "
            f"train {row['train_accuracy']:.2f} %{test}{teacher}  "
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


def _board(folder: Path | None) -> Any:
    """TensorBoard's writer, or None where none is wanted or the package is missing."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
