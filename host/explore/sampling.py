"""Candidates that Optuna samples: of a space too large to predict whole, or to train the best of.

What is only predicted is sampled by NSGA-II, what is trained by TPE: of 16,800 networks (front of
181, all predicted in 28 s) 500 samples of NSGA-II reach 98.7 % of the front's hypervolume in
latency and MACs, those of TPE 97.9 % and random ones 95.9 %; 1,000 samples 99.2, 99.3 and 97.2 %.
TPE finds more of the front's networks (105 of 181 with 1,000; NSGA-II 59), but takes 5 s to draw
them instead of one. So a space that can be predicted whole is: only that finds all of its front.
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
from tutelage.host.search.leases import Leases
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
from tutelage.host.search.training_process import TrainingProcesses
from tutelage.host.search.worker import work

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_KEYS = {
    "growth_rate": "growth_rate", "depth": "block_config", "stem": "stem", "shape": "shape",
    "compression": "compression", "bottleneck": "bottleneck",
}  # fmt: skip
_MOST_LOSSES = 3
_MOST_REJECTED = 10
_MOST_DRAWS = 50  # for each network that is trained: repetitions, and what breaks the budget


@dataclass(frozen=True)
class Sampling:
    """How many candidates are sampled, and by whom.

    Attributes
    ----------
    trials : how many in all, by all workers
    shared : storage of several workers; None where this is the only one
    epochs : of the float run, for capacity "accuracy"; 0: as many as the specification has
    jobs : runs at a time
    """

    trials: int
    shared: Shared | None = None
    epochs: int = 0
    jobs: int = 1


Predict = Callable[[Candidate], "Forecast | None"]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes
    ----------
    predict : returns a candidate's forecast; None where the DPU does not take it
    capacity : what is maximised beside the costs of `budget`, which are minimised
    board : for which is predicted
    """

    spec: Spec
    budget: Budget
    predict: Predict
    capacity: str
    board: str

    @property
    def trains(self) -> bool:
        """Whether candidates are trained."""
        return self.capacity == "accuracy"


def sample(search: Search, sampling: Sampling, output: Path, report: Report) -> list[Forecast]:
    """Return the forecasts of all candidates that were sampled, those of other workers too.

    Parameters
    ----------
    output : candidates are trained below output/trained
    report : called with a line for each that was

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
    costly: list[Direction] = ["minimize"] * max(count, 1)  # as `costs` has them
    return [*costly, "maximize"]


def study_name(search: Search, sampling: Sampling) -> str:
    """Name an Optuna study by all that its results depend on, apart from where the data is."""
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
    # Workers with the same seed would all draw the same.
    seed = None if sampling.shared else search.spec.config.seed
    if not search.trains:
        return NSGAIISampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)


# -- candidates as trials -------------------------------------------------------------------------


def _choices(spec: Spec) -> dict[str, dict[str, Any]]:
    """Return the values of each hyper-parameter by their texts, which a storage has."""
    return {key: {_text(value): value for value in spec.space[key]} for key in _KEYS}


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _suggested(trial: Trial, spec: Spec) -> Candidate:
    return _candidate(spec, trial.suggest_categorical)


def _candidate_of(trial: FrozenTrial, spec: Spec) -> Candidate:
    try:
        return _candidate(spec, lambda key, _: trial.params[key])
    except (LookupError, TypeError) as error:
        raise StorageError(f"trial {trial.number}: it is not a candidate of this search") from error


def _candidate(spec: Spec, choose: Callable[[str, list[str]], Any]) -> Candidate:
    """Return a candidate of what `choose` says where there is a choice."""
    return Candidate(**{
        _KEYS[key]: values[choose(key, list(values)) if len(values) > 1 else next(iter(values))]
        for key, values in _choices(spec).items()
    })  # fmt: skip


def _forecasts(study: Study, search: Search) -> list[Forecast]:
    """Return the forecast of each candidate that is in a complete trial."""
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
    """Sample and predict until `trials` are done; one whose worker was killed is not missed."""
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
    runs = TrainingProcesses()

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
    """Return the accuracy by which a trained candidate is chosen: that of images for validation.

    Chosen by the test set, the best candidates would be flattered by it.
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
    runs : of this worker; one that others have taken over meanwhile is ended there
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
            # TPE may keep to what it knows; what is rejected teaches it nothing.
            self._study.sampler = self._samplers[self._rejected > _MOST_REJECTED]
            trial = self._study.ask()
            candidate = _suggested(trial, self._search.spec)
            each = self._search.predict(candidate)
            # Only what would be kept is worth its training.
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
        """Queue again what a worker was at that died."""
        for trial in self._leases.take_back(trials_of(self._study)):
            losses = int(number_in(trial.user_attrs, "losses") or 0) + 1
            if losses < _MOST_LOSSES:
                self._study.enqueue_trial(trial.params, {"losses": losses})

    def _count(self, running: bool) -> int:
        return sum(_counts(trial, running) for trial in trials_of(self._study))

    def _is_wanted(self, trial: Trial) -> bool:
        """Whether a trial is neither a repetition nor, by its number, one too many.

        Workers that draw at the same time agree on it, since numbers are given in turn.
        """
        before = [t for t in trials_of(self._study) if t.number < trial.number and _counts(t)]
        return len(before) < self._most and all(t.params != trial.params for t in before)


def _counts(trial: FrozenTrial, running: bool = True) -> bool:
    from optuna.trial import TrialState

    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state == TrialState.COMPLETE or (running and trial.state == TrialState.RUNNING)
