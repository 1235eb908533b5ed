"""Sampling of candidates with Optuna, from a space too large to predict, or to train some of them.

Candidates that are only predicted are sampled by NSGA-II, those that are trained by TPE. Of a space
of 16,800 networks (181 on the front, all predicted in 28 s), 500 samples of NSGA-II reach 98.7 % of
the front's hypervolume in latency and MACs, of TPE 97.9 %, and random samples 95.9 %; 1,000 samples
reach 99.2, 99.3 and 97.2 %. TPE finds more networks of the front (105 of 181 with 1,000 samples;
NSGA-II 59), but needs 5 s to draw them instead of 1 s. A space that is small enough is predicted
completely, since only this finds the whole front.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.commands import needs
from tutelage.host.explore.forecast import Budget, Forecast, costs
from tutelage.host.explore.space import Candidate, Spec, configurations
from tutelage.host.search.leases import MOST_LOSSES, Leases
from tutelage.host.search.storage import (
    DEFAULT_LEASE_SECONDS,
    Direction,
    Shared,
    StorageError,
    number_in,
    open_study,
    storage_errors,
    trials_of,
)
from tutelage.host.search.worker import work
from tutelage.host.train.training_process import TrainingProcesses

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_KEYS = {
    "growth_rate": "growth_rate", "depth": "block_config", "stem": "stem", "shape": "shape",
    "compression": "compression", "bottleneck": "bottleneck",
}  # fmt: skip
_MOST_REJECTED = 10
_MOST_DRAWS = 50  # per network to train; repetitions and candidates over the budget are rejected


@dataclass(frozen=True)
class Sampling:
    """How candidates are sampled.

    Attributes
    ----------
    trials : number of candidates, over all workers
    shared : storage shared with other workers; None if this is the only one
    epochs : of the float runs, with capacity "accuracy"; 0: as in the specification
    jobs : number of runs in parallel
    """

    trials: int
    shared: Shared | None = None
    epochs: int = 0
    jobs: int = 1


Predict = Callable[[Candidate], "Forecast | None"]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """The objectives of a search.

    Attributes
    ----------
    spec : the search space
    budget : its costs are minimised
    predict : returns a candidate's forecast; None if the DPU cannot run it
    capacity : quantity to maximise, one of `tutelage.host.explore.forecast.CAPACITIES`
    board : the board of the prediction
    """

    spec: Spec
    budget: Budget
    predict: Predict
    capacity: str
    board: str

    @property
    def trains(self) -> bool:
        """Whether candidates are trained, not only predicted."""
        return self.capacity == "accuracy"


def sample(search: Search, sampling: Sampling, output: Path, report: Report) -> list[Forecast]:
    """Sample candidates; return the forecasts of all that this and other workers have sampled.

    Parameters
    ----------
    output : directory; candidates are trained in its subdirectory "trained"
    report : called with a line of text for each candidate trained

    Raises
    ------
    MissingPackage
        Optuna is not installed.
    StorageError
        The storage cannot be used.
    """
    url = sampling.shared.url if sampling.shared else ""
    with storage_errors(url):
        study = open_study(url, study_name(search, sampling), _directions(search),
                           _sampler(search, sampling))  # fmt: skip
        if search.trains:
            _train(study, search, sampling, output, report)
        else:
            _predict(study, search, sampling.trials)
        return _forecasts(study, search)


def _directions(search: Search) -> list[Direction]:
    budget = search.budget
    count = sum(x is not None for x in (budget.latency_ms, budget.fps, budget.energy_mj))
    costly: list[Direction] = ["minimize"] * max(count, 1)  # in the order of `costs`
    return [*costly, "maximize"]


def study_name(search: Search, sampling: Sampling) -> str:
    """Return a study name with a hash of all settings that affect the results, not of paths."""
    table = {**search.spec.table, "data": asdict(search.spec.config.data) | {"path": ""}}
    what = [table, search.spec.space, search.spec.float_training, asdict(search.budget),
            search.capacity, search.board, sampling.epochs * search.trains]  # fmt: skip
    if search.trains and search.spec.config.data.validates:
        what.append("judged by validation images")
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
    return f"tutelage-explore-{digest.hexdigest()[:12]}"


def _sampler(search: Search, sampling: Sampling) -> BaseSampler:
    with needs("search"):
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIISampler, TPESampler
    # Workers with the same seed would draw the same candidates.
    seed = None if sampling.shared else search.spec.config.seed
    if not search.trains:
        return NSGAIISampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


# -- candidates as trials -------------------------------------------------------------------------


def _choices(spec: Spec) -> dict[str, dict[str, Any]]:
    """Return for each hyper-parameter its values by their text, which the storage contains."""
    return {key: {_text(value): value for value in spec.space[key]} for key in _KEYS}


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _suggested(trial: Trial, spec: Spec) -> Candidate:
    return _candidate(spec, trial.suggest_categorical)


def _candidate_of(trial: FrozenTrial, spec: Spec) -> Candidate:
    try:
        return _candidate(spec, lambda key, _: trial.params[key])
    except (LookupError, TypeError) as error:
        raise StorageError(f"trial {trial.number}: not a candidate of this search") from error


def _candidate(spec: Spec, choose: Callable[[str, list[str]], Any]) -> Candidate:
    """Return the candidate; `choose` is called for each key with several values."""
    return Candidate(**{
        _KEYS[key]: values[choose(key, list(values)) if len(values) > 1 else next(iter(values))]
        for key, values in _choices(spec).items()
    })  # fmt: skip


def _forecasts(study: Study, search: Search) -> list[Forecast]:
    """Return the forecast of each candidate with a complete trial."""
    from optuna.trial import TrialState

    found: dict[str, Forecast] = {}
    for trial in trials_of(study):
        if trial.state != TrialState.COMPLETE:
            continue
        candidate = _candidate_of(trial, search.spec)
        if candidate.name not in found and (each := search.predict(candidate)):
            accuracy = (trial.values or [0.0])[-1] if search.trains else None
            found[candidate.name] = replace(each, accuracy=accuracy)
    return list(found.values())


def _values(search: Search, each: Forecast) -> list[float]:
    return [*costs(each, search.budget), float(getattr(each, search.capacity))]


# -- predicted only -------------------------------------------------------------------------------


def _predict(study: Study, search: Search, trials: int) -> None:
    """Sample and predict until `trials` are finished, not counting those of killed workers."""
    from optuna.trial import TrialState

    ended = sum(trial.state.is_finished() for trial in trials_of(study))
    while ended < trials:
        trial = study.ask()
        each = search.predict(_suggested(trial, search.spec))
        if each is None:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, _values(search, each))
        ended = trial.number + 1
        if ended >= trials:
            ended = sum(trial.state.is_finished() for trial in trials_of(study))


# -- trained --------------------------------------------------------------------------------------


def _train(
    study: Study, search: Search, sampling: Sampling, output: Path, report: Report
) -> None:  # fmt: skip
    runs = TrainingProcesses(sampling.jobs)

    def run(item: _Item) -> dict[str, Any]:
        name = item.candidate.name
        (_, table), *_ = configurations(search.spec, item.candidate, output).items()
        if sampling.epochs:
            table = {**table, "training": {**table["training"], "epochs": sampling.epochs}}
        return runs.run(name, table, output / "trained" / name)

    with trained_trials(study, search, sampling, runs) as trials:
        for item, result in work(trials, run, sampling.jobs, 0, runs.end_all):
            if isinstance(result, str):
                report(f"failed: {result}")
            else:
                report(f"{item.candidate.name}: {judged_accuracy(result):.2f} %")


def judged_accuracy(result: Mapping[str, Any]) -> float:
    """Return the accuracy by which trained candidates are ranked, %.

    It is the validation accuracy if there is one: chosen by the test set, the best candidates
    would look better on it than they are.
    """
    validation = result["validation_accuracy"]
    return float(result["accuracy"] if validation is None else validation)


@dataclass(frozen=True)
class _Item:
    """A candidate that this worker trains."""

    trial_id: int
    candidate: Candidate
    forecast: Forecast


@contextmanager
def trained_trials(
    study: Study, search: Search, sampling: Sampling, runs: TrainingProcesses
) -> Iterator[_TrainedTrials]:
    """Yield the candidates to train, as a worker's queue.

    Parameters
    ----------
    runs : of this worker; a run whose trial another worker has taken over is ended
    """
    seconds = sampling.shared.lease_seconds if sampling.shared else DEFAULT_LEASE_SECONDS
    with Leases(study, seconds) as leases:
        yield _TrainedTrials(study, search, sampling, leases, runs)


class _TrainedTrials:
    """Candidates to train, as a worker's queue."""

    def __init__(
        self, study: Study, search: Search, sampling: Sampling, leases: Leases,
        runs: TrainingProcesses,
    ) -> None:  # fmt: skip
        from optuna.samplers import RandomSampler

        self._study, self._search, self._leases, self._runs = study, search, leases, runs
        self._most = sampling.trials
        self._draws = _MOST_DRAWS * sampling.trials
        self._rejected = 0  # in a row
        self._samplers = study.sampler, RandomSampler(search.spec.config.seed)
        self.poll_seconds = leases.poll_seconds if sampling.shared else None

    def take(self) -> _Item | None:
        from optuna.trial import TrialState

        self._take_back()
        while self._draws > 0 and self._count(running=True) < self._most:
            self._draws -= 1
            # TPE may repeat itself, since it does not learn from rejected candidates.
            self._study.sampler = self._samplers[self._rejected > _MOST_REJECTED]
            trial = self._study.ask()
            candidate = _suggested(trial, self._search.spec)
            each = self._search.predict(candidate)
            # Train only candidates that would be written as fitting.
            if each is None or each.fits in ("maybe", "no") or not self._is_wanted(trial):
                self._study.tell(trial, state=TrialState.FAIL)
                self._rejected += 1
                continue
            self._rejected = 0
            self._leases.hold(trial._trial_id, partial(self._runs.end, candidate.name))
            return _Item(trial._trial_id, candidate, each)
        return None

    def is_open(self) -> bool:
        return self._draws > 0 and self._count(running=False) < self._most

    def finish(self, item: _Item, result: dict[str, Any]) -> bool:
        from optuna.trial import TrialState

        values = _values(self._search, replace(item.forecast, accuracy=judged_accuracy(result)))
        return self._leases.end(
            item.trial_id, TrialState.COMPLETE, values, seconds=result["seconds"]
        )

    def fail(self, item: _Item, text: str) -> bool:
        from optuna.trial import TrialState

        return self._leases.end(item.trial_id, TrialState.FAIL, error=text)

    def _take_back(self) -> None:
        """Queue the trials of dead workers again."""
        for trial in self._leases.take_back(trials_of(self._study)):
            losses = int(number_in(trial.user_attrs, "losses") or 0) + 1
            if losses < MOST_LOSSES:
                self._study.enqueue_trial(trial.params, {"losses": losses})

    def _count(self, running: bool) -> int:
        return sum(_counts(trial, running) for trial in trials_of(self._study))

    def _is_wanted(self, trial: Trial) -> bool:
        """Return whether a trial is neither a repetition nor, by its number, one too many.

        Workers that draw at the same time agree on this, since trial numbers are unique.
        """
        before = [t for t in trials_of(self._study) if t.number < trial.number and _counts(t)]
        return len(before) < self._most and all(t.params != trial.params for t in before)


def _counts(trial: FrozenTrial, running: bool = True) -> bool:
    from optuna.trial import TrialState

    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state == TrialState.COMPLETE or (running and trial.state == TrialState.RUNNING)
