"""results.json of a training run: how good its network is, by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.files import write_file
from tutelage.core.model_package import distinct_labels
from tutelage.core.results.typed_json import read_results
from tutelage.core.text import json_text, shown
from tutelage.host.train.evaluation import Evaluation

RESULTS = "results.json"
_WORST_SHOWN = 3


@dataclass(frozen=True)
class ClassResult:
    """One class of the test set.

    Attributes
    ----------
    name : distinct among the classes
    images, correct : how many test images are of this class, and are taken for it
    accuracy : in percent; None without images
    predicted : by class, how many of the images are taken for it, the most frequent first: a row of
        the confusion matrix without its zeros
    """

    name: str
    images: int
    correct: int
    accuracy: float | None
    predicted: dict[str, int]


@dataclass(frozen=True)
class RunResults:
    """What a run ended with, on the test set.

    Attributes
    ----------
    method : of the run
    epochs : that it trained
    kept_epoch : whose weights it kept, counted from 1; 0 where nothing was trained
    images : of the test set that could be read
    accuracy, top5_accuracy : in percent of them; top-5 where there are more than ten classes
    validation_accuracy : of the kept weights, in percent, where there are images for validation
    teacher_accuracy : in percent, where a teacher learnt
    classes : in their order
    """

    method: str
    epochs: int
    kept_epoch: int
    images: int
    accuracy: float
    top5_accuracy: float | None
    validation_accuracy: float | None
    teacher_accuracy: float | None
    classes: list[ClassResult]

    def table(self) -> dict[str, Any]:
        """Return the content of the file."""
        return asdict(self)

    def confusion(self) -> np.ndarray:
        """Return the confusion matrix, int64: of row i's images column j's class was found."""
        numbers = {one.name: number for number, one in enumerate(self.classes)}
        matrix = np.zeros((len(numbers), len(numbers)), np.int64)
        for row, one in enumerate(self.classes):
            for name, count in one.predicted.items():
                matrix[row, numbers[name]] = count
        return matrix

    def worst_line(self) -> str:
        """Return one line about the classes with the least accuracy; "" where all are right."""
        wrong = [one for one in self.classes if one.correct < one.images]
        wrong.sort(key=lambda one: one.accuracy or 0.0)
        return ", ".join(_described(one) for one in wrong[:_WORST_SHOWN])


def _described(one: ClassResult) -> str:
    other, count = next(item for item in one.predicted.items() if item[0] != one.name)
    return shown(
        f"{one.name} {one.accuracy:.1f} % ({count} of {one.images} taken for {other})", 200
    )


def class_results(classes: Sequence[str], found: Evaluation) -> list[ClassResult]:
    """Return what an evaluation says of each class."""
    names = distinct_labels(classes)
    pairs, counts = np.unique(
        found.labels.numpy() * len(names) + found.predicted.numpy(), return_counts=True
    )
    rows: list[dict[int, int]] = [{} for _ in names]
    for pair, count in sorted(zip(pairs.tolist(), counts.tolist(), strict=True), key=_by_count):
        rows[pair // len(names)][pair % len(names)] = count
    results = []
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        images, correct = sum(row.values()), row.get(number, 0)
        share = round(100 * correct / images, 4) if images else None
        predicted = {names[other]: count for other, count in row.items()}
        results.append(ClassResult(name, images, correct, share, predicted))
    return results


def _by_count(item: tuple[int, int]) -> tuple[int, int]:
    pair, count = item
    return -count, pair


def write_run_results(folder: Path, results: RunResults) -> None:
    """Write results.json, in one step; raises OSError."""
    write_file(folder / RESULTS, json_text(results.table()))


def read_run_results(folder: Path) -> RunResults:
    """Read a run's results.json.

    Raises
    ------
    ResultsError
        It is missing, or not one.
    """
    return read_results(RunResults, folder / RESULTS, "the results of a training run")
