"""Section of a training run: its settings and its curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tutelage.core.digits import digits
from tutelage.core.text import counted
from tutelage.host.report.content import (
    SMALL,
    Cell,
    Part,
    Plot,
    Section,
    Table,
    as_svg,
    label,
    new_figure,
)
from tutelage.host.report.training_run import Epoch, TrainingRun
from tutelage.host.train.results import RESULTS
from tutelage.host.train.run_files import LOG

_ACCURACIES = {
    "train_accuracy": ("training images", "#7f9fc6"),
    "validation_accuracy": ("validation images", "#c4713b"),
    "accuracy": ("test images", "#c4713b"),
    "validation_teacher_accuracy": ("teacher", "#3d8f63"),
    "teacher_accuracy": ("teacher", "#3d8f63"),
}
"""Columns of a log, with their names in the legend."""

_LOSS_COLOUR = "#7f9fc6"
_MOST_MARKED = 30  # longest curve whose points are marked, epochs


def training_section(run: TrainingRun) -> Section:
    """Return the section of a training run."""
    parts: list[Part] = [_what(run)]
    if run.log:
        parts += _curves(run.log, run.folder / LOG)
    elif run.config and not run.config.training.epochs:
        parts.append("There are no curves, since nothing was trained: the given weights were "
                     "quantised.")  # fmt: skip
    else:
        parts.append(f"There are no curves: the run has no {LOG}.")
    rows: list[list[Cell]] = [[name, value] for name, value in _settings(run) if value]
    source = run.folder / RESULTS if run.results else None
    if rows:
        parts.append(Table(["setting", "value"], rows, source))
    return Section("training", "Training", parts)


def _what(run: TrainingRun) -> str:
    text = f"The training run in {run.folder}."
    speeds = [row["images_per_second"] for row in run.log if row.get("images_per_second")]
    numbers = sorted(speed for speed in speeds if isinstance(speed, float))
    if numbers:
        middle = digits(numbers[len(numbers) // 2], 3)
        text += f" {counted(len(run.log), 'epoch')} at {middle} images/s (median)."
    return text


def _settings(run: TrainingRun) -> Iterable[tuple[str, Cell]]:
    config, results = run.config, run.results
    if results:
        yield "method", results.method
    elif config:
        yield "method", config.method
    if config:
        yield "network", config.student.network
        if config.quantises:
            yield "weights and activations", config.quantisation.bits().label
            yield "start", config.student.weights or config.quantisation.start
        if config.needs_teacher:
            yield "teacher", config.teacher.network
        yield "images", f"{config.data.kind} {config.data.path}".strip()
    epochs = results.epochs if results else len(run.log)
    kept = results.kept_epoch if results else 0
    yield "epochs", f"{epochs}, weights of epoch {kept}" if kept else str(epochs)
    if config:
        yield "seed", str(config.seed)
    if results:
        yield "test images", f"{results.images:,}"
        for name, value in (("validation", results.validation_accuracy),
                            ("teacher", results.teacher_accuracy)):  # fmt: skip
            if value is not None:
                yield f"accuracy, {name}", f"{value:.2f} %"


def _curves(log: Sequence[Epoch], path: Path) -> list[Plot]:
    marks = _phases(log)
    caption = ". Dotted: " + ", ".join(f"{name} from epoch {first}" for name, first in marks[1:])
    caption = f"{caption if len(marks) > 1 else ''}."
    loss = _draw(log, {"loss": ("loss", _LOSS_COLOUR)}, "loss of the training images", marks)
    accuracy = _draw(log, _ACCURACIES, "accuracy [%]", marks)
    return [
        Plot("loss", loss, f"Loss by epoch{caption}", path, is_small=True),
        Plot("accuracy", accuracy, f"Accuracy by epoch{caption}", path, is_small=True),
    ]


def _phases(log: Sequence[Epoch]) -> list[tuple[str, int]]:
    """Return the phases in order, each with its first epoch."""
    found: list[tuple[str, int]] = []
    for row in log:
        name, epoch = str(row.get("phase") or ""), row["epoch"]
        assert isinstance(epoch, float)
        if not found or found[-1][0] != name:
            found.append((name, int(epoch)))
    return found


def _draw(
    log: Sequence[Epoch], columns: dict[str, tuple[str, str]], unit: str,
    marks: Sequence[tuple[str, int]],
) -> str:  # fmt: skip
    figure, axes = new_figure(*SMALL)
    drawn = 0
    for column, (name, colour) in columns.items():
        points = [(row["epoch"], row[column]) for row in log if row.get(column) is not None]
        if points:
            marker = "o" if len(points) <= _MOST_MARKED else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label(name), marker=marker,
                      markersize=3.5, linewidth=1.4)  # fmt: skip
            drawn += 1
    for _, first in marks[1:]:
        axes.axvline(first - 0.5, linestyle=":", linewidth=1, color="grey")
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if drawn > 1:
        figure.legend(fontsize=8, loc="outside upper center", ncols=drawn)
    return as_svg(figure)
