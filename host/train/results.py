"""results.json of a training run: the accuracy of its network, by class."""

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
    """Results of one class of the test set.

    Attributes
    ----------
    name : name of the class, unique in the list
    images, correct : number of test images of this class, and how many of them are predicted right
    accuracy : in percent; None without images
    predicted : predicted class -> number of images, the most frequent first: a row of the confusion
        matrix without its zeros
    """

    name: str
    images: int
    correct: int
    accuracy: float | None
    predicted: dict[str, int]


@dataclass(frozen=True)
class RunResults:
    """Results of a run on the test set.

    Attributes
    ----------
    method : method of the run
    epochs : number of epochs
    kept_epoch : epoch whose weights were saved, counted from 1; 0 if nothing was trained
    images : number of test images that could be read
    accuracy : top-1 accuracy on these images, in percent
    top5_accuracy : top-5 accuracy, in percent; None with ten classes or fewer
    validation_accuracy : of the saved weights, in percent; None without validation images
    teacher_accuracy : of a teacher that was trained, in percent; else None
    classes : results by class, in the order of the labels
    labels : source of the labels: "data", or "float network" for images without labels, whose
        accuracy is the agreement with that network
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
    labels: str = "data"

    def table(self) -> dict[str, Any]:
        """Return the content of results.json."""
        return asdict(self)

    def confusion(self) -> np.ndarray:
        """Return the confusion matrix, int64 (classes, classes): true class by predicted class."""
        numbers = {one.name: number for number, one in enumerate(self.classes)}
        matrix = np.zeros((len(numbers), len(numbers)), np.int64)
        for row, one in enumerate(self.classes):
            for name, count in one.predicted.items():
                matrix[row, numbers[name]] = count
        return matrix

    def worst_line(self) -> str:
        """Return one line about the classes with the lowest accuracy; "" without any errors."""
        wrong = [one for one in self.classes if one.correct < one.images]
        wrong.sort(key=lambda one: one.accuracy or 0.0)
        return ", ".join(_described(one) for one in wrong[:_WORST_SHOWN])


def _described(one: ClassResult) -> str:
    other, count = next(item for item in one.predicted.items() if item[0] != one.name)
    return shown(
        f"{one.name} {one.accuracy:.1f} % ({count} of {one.images} taken for {other})", 200
    )


def class_results(classes: Sequence[str], found: Evaluation) -> list[ClassResult]:
    """Return the results of each class from an evaluation."""
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
    """Write results.json to a run's folder, atomically; raise OSError if that fails."""
    write_file(folder / RESULTS, json_text(results.table()))


def read_run_results(folder: Path) -> RunResults:
    """Read a run's results.json.

    Raises
    ------
    ResultsError
        The file is missing, or is not the results of a run.
    """
    return read_results(RunResults, folder / RESULTS, "the results of a training run")
