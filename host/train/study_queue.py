"""Queue of the cells of a study that are still to be run, by one worker or by several.

In a storage each cell is a trial of one Optuna study, with the cell's name and settings as its
attributes; a changed study file has other settings and thus its own trials. Workers that start
together may each add a trial of the same cell; the first that has not failed counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tutelage.host.search.leases import MOST_LOSSES, Leases
from tutelage.host.search.storage import (
    Shared,
    StorageError,
    number_in,
    open_study,
    storage_errors,
    trials_of,
)
from tutelage.host.train.study_cells import StudyCell
from tutelage.host.train.training_process import TrainingProcesses

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.trial import FrozenTrial

    from tutelage.host.train.study import Study

NAME = "tutelage-study"
_FACTS = ("teacher_accuracy", "validation_accuracy", "seconds")  # of a result, beside its accuracy


class _OwnCells:
    """Queue of the only worker."""

    poll_seconds: float | None = None

    def __init__(self, study: Study, done: set[str]) -> None:
        self._study, self._done = study, done
        self._waiting = [cell for cell in study.cells if cell.name not in done]

    def take(self) -> StudyCell | None:
        for cell in self._waiting:
            if set(cell.needs) <= self._done:
                self._waiting.remove(cell)
                return cell
        return None

    def is_open(self) -> bool:
        return False

    def finish(self, cell: StudyCell, result: dict[str, Any]) -> bool:
        self._done.add(cell.name)
        self._study.record({cell.name: result})
        return True

    def fail(self, _cell: StudyCell, _text: str) -> bool:
        return True


@contextmanager
def own_cells(study: Study, done: set[str]) -> Iterator[_OwnCells]:
    """Yield a study's cells for one worker.

    Parameters
    ----------
    done : names of the cells that are finished
    """
    yield _OwnCells(study, done)


class _SharedCells:
    """Queue of one of several workers.

    Parameters
    ----------
    done : names of the cells that are finished
    """

    def __init__(
        self, study: Study, done: set[str], trials: OptunaStudy, leases: Leases,
        runs: TrainingProcesses,
    ) -> None:  # fmt: skip
        self._study, self._done, self._trials = study, done, trials
        self._leases, self._runs = leases, runs
        self.poll_seconds: float | None = leases.poll_seconds
        self._cells = {(cell.name, cell.settings): cell for cell in study.cells}
        # Cells that failed before this command are tried again, as without a storage.
        self._old = {trial.number for trial in trials_of(trials) if "error" in trial.user_attrs}
        self._taken: dict[str, int] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._failed: set[str] = set()
        self._live: dict[str, FrozenTrial] = {}
        self._missing: dict[str, float] = {}

    def take(self) -> StudyCell | None:
        from optuna.trial import TrialState

        self._look()
        for cell in self._study.cells:
            trial = self._live.get(cell.name)
            if trial is None or trial.state != TrialState.WAITING or not self._is_ready(cell):
                continue
            if self._leases.take(trial._trial_id, partial(self._runs.end, cell.name)):
                self._taken[cell.name] = trial._trial_id
                return cell
        return None

    def is_open(self) -> bool:
        left_out = set(self._failed)
        for cell in self._study.cells:  # a cell comes after those that it needs
            if left_out & set(cell.needs):
                left_out.add(cell.name)
        return any(c.name not in self._done and c.name not in left_out for c in self._study.cells)

    def finish(self, cell: StudyCell, result: dict[str, Any]) -> bool:
        from optuna.trial import TrialState

        values = [float(result["accuracy"])]
        facts = {key: result.get(key) for key in _FACTS}
        trial_id = self._taken.pop(cell.name)
        accepted = self._leases.end(trial_id, TrialState.COMPLETE, values, **facts)
        self.collect()
        return accepted

    def fail(self, cell: StudyCell, text: str) -> bool:
        from optuna.trial import TrialState

        return self._leases.end(self._taken.pop(cell.name), TrialState.FAIL, error=text)

    def collect(self) -> None:
        """Write the results of all workers to study.csv."""
        self._look()
        self._study.record(self._results)

    def _look(self) -> None:
        """Read the results of the workers, and add trials for cells that have none."""
        if self._leases.take_back(self._sort()):
            self._sort()
        wanting = [
            cell
            for cell in self._study.cells
            if cell.name not in self._done | self._failed | self._live.keys()
        ]
        for cell in wanting:
            facts = {key: value for key, value in cell.facts.items() if value != ""}
            self._trials.enqueue_trial(
                {}, {**facts, "cell": cell.name, "settings": cell.settings,
                     "seed": cell.config["seed"]},
            )  # fmt: skip
        if wanting:
            self._sort()

    def _sort(self) -> list[FrozenTrial]:
        """Sort the trials into finished, failed and live ones; return all."""
        from optuna.trial import TrialState

        trials = trials_of(self._trials)
        losses: dict[str, int] = {}
        self._live, self._failed = {}, set()
        for trial in trials:
            if (cell := self._cell_of(trial)) is None:
                continue
            name = cell.name
            if trial.state == TrialState.COMPLETE:
                self._results.setdefault(name, _result(trial))
                self._done.add(name)
            elif not trial.state.is_finished():
                self._live.setdefault(name, trial)
            elif "error" not in trial.user_attrs:
                losses[name] = losses.get(name, 0) + ("released" not in trial.user_attrs)
            elif trial.number not in self._old:
                self._failed.add(name)
        self._failed |= {name for name, count in losses.items() if count >= MOST_LOSSES}
        self._live = {name: trial for name, trial in self._live.items() if name not in self._done}
        self._failed -= self._done | self._live.keys()
        return trials

    def _cell_of(self, trial: FrozenTrial) -> StudyCell | None:
        name, settings = trial.user_attrs.get("cell"), trial.user_attrs.get("settings")
        if not isinstance(name, str) or not isinstance(settings, str):
            return None
        return self._cells.get((name, settings))

    def _is_ready(self, cell: StudyCell) -> bool:
        """Whether all cells that a cell needs are finished, and their weights are on this disk.

        Raises
        ------
        StorageError
            Weights have been missing for longer than a lease.
        """
        if not set(cell.needs) <= self._done:
            return False
        absent = [name for name in cell.needs if not self._study.weights(name).exists()]
        for name in absent:  # another machine may have written them a moment ago
            since = self._missing.setdefault(name, time.monotonic())
            if time.monotonic() - since > self._leases.seconds:
                raise StorageError(
                    f"{self._study.weights(name)}: no such file, though the storage has the result "
                    f"of {name}: --output must be a directory that all machines share"
                )
        return not absent


def _result(trial: FrozenTrial) -> dict[str, Any]:
    accuracy = trial.values[0] if trial.values else None
    seconds = number_in(trial.user_attrs, "seconds")
    if accuracy is None or seconds is None:
        raise StorageError(f"trial {trial.number} of {NAME}: its result is damaged")
    return {
        "accuracy": accuracy,
        **{key: number_in(trial.user_attrs, key) for key in _FACTS},
    }


@contextmanager
def shared_cells(
    study: Study, done: set[str], shared: Shared, runs: TrainingProcesses
) -> Iterator[_SharedCells]:
    """Yield a study's cells for one of several workers, which share them through a storage.

    Parameters
    ----------
    done : names of the cells that are finished
    shared : the storage
    runs : training processes of this worker; that of a cell that another worker has taken over is
        ended

    Raises
    ------
    MissingPackage
        Optuna is not installed.
    StorageError
        The storage cannot be used, or --output is not a directory that the machines share.
    """
    with storage_errors(shared.url):
        trials = open_study(shared.url, NAME, ["maximize"])

        with Leases(trials, shared.lease_seconds) as leases:
            cells = _SharedCells(study, done, trials, leases, runs)
            yield cells
            cells.collect()
