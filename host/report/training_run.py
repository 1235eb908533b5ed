"""Read a training run: results, log and configuration, each of which may be missing."""

from __future__ import annotations

import csv
import io
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.files import read_bounded
from tutelage.core.results.typed_json import MAX_JSON_BYTES, ResultsError
from tutelage.host.train import checkpoint
from tutelage.host.train.checkpoint import CheckpointError
from tutelage.host.train.config import Config, ConfigError, make_config
from tutelage.host.train.results import RESULTS, RunResults, read_run_results
from tutelage.host.train.run_files import LOG, STUDENT

Epoch = dict[str, float | str | None]


@dataclass(frozen=True)
class TrainingRun:
    """The files of a run of `tutelage train`.

    Attributes
    ----------
    folder : directory of the run
    results : results; None for unfinished runs and those of older versions
    log : one row per epoch: "phase" as text, all else as numbers; None for an empty cell
    config : configuration; None if no student was written yet
    accuracy : accuracy of the student on the test set, percent; None if unknown
    """

    folder: Path
    results: RunResults | None
    log: list[Epoch]
    config: Config | None
    accuracy: float | None

    @property
    def is_labelled(self) -> bool:
        """Whether the images have labels, not only the float network's classes."""
        return self.config is None or self.config.data.is_labelled

    @property
    def float_accuracy(self) -> float | None:
        """Accuracy of the float run before this one on the same data, percent; None if unknown."""
        if self.config is None or not self.config.quantises or not self.is_labelled:
            return None
        state: dict[str, Any] = {}
        with suppress(CheckpointError, OSError):
            _, state = checkpoint.load(Path(self.config.student.weights).expanduser())
        data = self.config.data
        try:
            before = make_config(state["config"])
        except (LookupError, ConfigError, TypeError):
            return None
        is_same = (before.data.kind, before.data.path) == (data.kind, data.path)
        return _number(state.get("accuracy")) if is_same and not before.quantises else None


def read_training(folder: Path) -> TrainingRun:
    """Read the files in the directory of a training run.

    Raises
    ------
    ResultsError, CheckpointError, ConfigError
        A file cannot be used, or none of them exists.
    """
    results = read_run_results(folder) if (folder / RESULTS).exists() else None
    log = read_log(folder / LOG) if (folder / LOG).exists() else []
    config = accuracy = None
    if (folder / STUDENT).exists():
        _, state = checkpoint.load(folder / STUDENT)
        config = make_config(state.get("config", {}), str(folder / STUDENT))
        accuracy = _number(state.get("accuracy"))
    if results is not None:
        accuracy = results.accuracy
    if results is None and not log and config is None:
        raise ResultsError(
            f"{folder}: not a run of `tutelage train`: it has none of {RESULTS}, {LOG}, {STUDENT}"
        )
    return TrainingRun(folder, results, log, config, accuracy)


def read_log(path: Path) -> list[Epoch]:
    """Read a log.csv.

    Raises
    ------
    ResultsError
        The file cannot be read, or a column is missing or has text in place of numbers.
    """
    try:
        data = read_bounded(path, MAX_JSON_BYTES)
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8"))))
        found = [{key: _log_cell(key, row[key]) for key in row} for row in rows]
        for row in found:
            epoch, loss = row["epoch"], row["loss"]
            if not isinstance(epoch, float) or not math.isfinite(epoch) or loss is None:
                raise ValueError("an epoch lacks its number or its loss")
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise ResultsError(f"{path}: not the log of a training run: {error}") from error
    return found


def _log_cell(key: str, cell: str) -> float | str | None:
    if key == "phase":
        return cell
    return float(cell) if cell else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
