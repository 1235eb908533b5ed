"""Sections of the accuracy by class and of the confusion matrix."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tutelage.host.report.content import Bar, Cell, Heat, Section, Table
from tutelage.host.report.training_run import TrainingRun
from tutelage.host.train.results import RESULTS, ClassResult, RunResults

MOST_CLASSES = 30
"""Largest number of classes in the table; of more, the ones with the lowest accuracy are shown."""

MOST_IN_MATRIX = 20
"""Largest number of classes with a whole matrix; of more, the top confusions are shown."""


def classes_section(run: TrainingRun, results: RunResults) -> Section:
    """Return the section of the accuracy by class."""
    classes, path = results.classes, run.folder / RESULTS
    order = sorted(classes, key=lambda one: (one.accuracy is None, one.accuracy))
    shown = order[:MOST_CLASSES]
    what = "top-1" if run.is_labelled else "agreement with the float network's classes"
    text = f"The {what} of each class on the {results.images:,} test images, lowest first."
    if len(shown) < len(classes):
        text += f" Only the {MOST_CLASSES} lowest of {len(classes):,}; `{RESULTS}` has all of them."
    rows: list[list[Cell]] = [_class_row(one) for one in shown]
    columns = ["class", "accuracy [%]", "images", "right", "most often taken for"]
    return Section("classes", "Accuracy by class", [text, Table(columns, rows, path)])


def _class_row(one: ClassResult) -> list[Cell]:
    others = [(count, name) for name, count in one.predicted.items() if name != one.name and count]
    most = max(others, key=lambda item: item[0], default=None)
    bar = Bar(one.accuracy, min(1.0, max(0.0, (one.accuracy or 0.0) / 100)))
    return [one.name, bar, one.images, one.correct, f"{most[1]} ({most[0]:,})" if most else "-"]


def confusion_section(run: TrainingRun, results: RunResults) -> Section:
    """Return the section of the confusion matrix, whole or its largest entries.

    Raises
    ------
    LookupError
        The results name a predicted class that is not among the classes.
    """
    classes, path = results.classes, run.folder / RESULTS
    if len(classes) <= MOST_IN_MATRIX:
        text = ("Rows are true classes and columns the classes found; columns have the numbers of "
                "the rows.")  # fmt: skip
        table = _matrix([one.name for one in classes], results.confusion(), path)
    else:
        text = (f"A matrix of {len(classes):,} classes would be too large. These are the most "
                "frequent confusions.")  # fmt: skip
        table = _pairs(classes, path)
    return Section("confusion", "Confusion matrix", [text, table])


def _matrix(names: Sequence[str], matrix: np.ndarray, path: Path) -> Table:
    rows: list[list[Cell]] = []
    for number, name in enumerate(names):
        counts, total = matrix[number].tolist(), max(1, int(matrix[number].sum()))
        cells = [Heat(n, min(1.0, max(0, n) / total), k == number) for k, n in enumerate(counts)]
        rows.append([f"{number + 1} {name}", *cells])
    columns = ["true class", *(str(number + 1) for number in range(len(names)))]
    return Table(columns, rows, path, "Numbers of images; green is correct, red is wrong.")


def _pairs(classes: Sequence[ClassResult], path: Path) -> Table:
    """Return the most frequent confusions, without building the matrix of thousands of classes."""
    wrong = (
        (count, one.name, other, one.images)
        for one in classes
        for other, count in one.predicted.items()
        if other != one.name and count > 0
    )
    rows: list[list[Cell]] = []
    for count, name, other, images in heapq.nlargest(MOST_IN_MATRIX, wrong, key=lambda row: row[0]):
        share = min(1.0, count / max(1, images))
        rows.append([name, other, count, Bar(round(100 * share, 2), share)])
    columns = ["true class", "taken for", "images", "share of the class [%]"]
    return Table(columns, rows, path)
