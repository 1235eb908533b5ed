"""Leases on trials: which worker runs a trial, and which trials have lost their worker.

While a worker holds a lease on a trial, it increments the trial's attribute "beat". Every other
worker measures by its own clock how long a count has not changed, so the machines' clocks need not
agree, and any storage can be used (Optuna's own heartbeats work with databases only, not with its
journal).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tutelage.host.search.storage import StorageError

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEAT = "beat"
MOST_LOSSES = 3
"""Number of workers that may die while they run a piece of work, for example for lack of memory,
before it counts as failed."""

_BEATS = 6
"""Number of beats per lease time."""


class Leases:
    """The leases of this process on trials of a study; a context manager that releases them.

    Parameters
    ----------
    study : the study
    seconds : time without a beat after which a trial's worker counts as dead, s
    """

    def __init__(self, study: Study, seconds: float) -> None:
        self._study, self.seconds = study, seconds
        self._held: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seen: dict[int, tuple[Any, float]] = {}  # other workers' trials: beat, its time
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def poll_seconds(self) -> float:
        """Interval at which to read the storage, s."""
        return min(self.seconds / _BEATS, 5.0)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.release()

    def take(self, trial_id: int, lost: Callable[[], None]) -> bool:
        """Start a waiting trial and lease it; return False if another worker was faster.

        Parameters
        ----------
        trial_id : Optuna's id of the trial
        lost : see `hold`
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            taken = self._study._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
        if taken:
            self.hold(trial_id, lost)
        return taken

    def hold(self, trial_id: int, lost: Callable[[], None]) -> None:
        """Lease a trial that this process runs: send its beats from now on.

        Parameters
        ----------
        trial_id : Optuna's id of the trial
        lost : called, in another thread, if other workers have taken the trial back, for example
            because this process was suspended or had no network for too long
        """
        with self._lock:
            self._held[trial_id] = lost

    def end(self, trial_id: int, state: Any, values: list[float] | None = None,
            **attributes: Any) -> bool:  # fmt: skip
        """End a trial and store its result; return False if other workers have taken it back.

        Parameters
        ----------
        trial_id : Optuna's id of the trial
        state : `optuna.trial.TrialState` of the ended trial
        values : one value for each objective
        attributes : user attributes of the trial, of types that JSON has
        """
        from optuna.exceptions import UpdateFinishedTrialError

        with self._lock:
            self._held.pop(trial_id, None)
        storage = self._study._storage
        try:
            for key, value in attributes.items():
                storage.set_trial_user_attr(trial_id, key, value)
            return storage.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            return False

    def release(self) -> None:
        """End all leases, so that other workers can take the trials immediately."""
        from optuna.trial import TrialState

        for trial_id in list(self._held):
            self.end(trial_id, TrialState.FAIL, released=True)

    def take_back(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Fail the running trials whose workers are silent, and return them.

        Trials that another worker has failed in the meantime are not returned.

        Parameters
        ----------
        trials : the current trials of the study
        """
        from optuna.trial import TrialState

        now, seen = time.monotonic(), {}
        silent = []
        for trial in trials:
            if trial.state != TrialState.RUNNING or trial._trial_id in self._held:
                continue
            beat = trial.user_attrs.get(BEAT)
            known = self._seen.get(trial._trial_id, (beat, now))
            seen[trial._trial_id] = known if known[0] == beat else (beat, now)
            if now - seen[trial._trial_id][1] > self.seconds:
                silent.append(trial)
        self._seen = seen
        return [trial for trial in silent if self.end(trial._trial_id, TrialState.FAIL)]

    def _beat(self) -> None:
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

        count = 0
        while not self._ended.wait(self.seconds / _BEATS):
            count += 1
            for trial_id in list(self._held):
                try:
                    self._study._storage.set_trial_user_attr(trial_id, BEAT, count)
                except UpdateFinishedTrialError:
                    with self._lock:
                        lost = self._held.pop(trial_id, None)
                    if lost:
                        lost()
                except (StorageInternalError, StorageError, OSError):
                    continue  # the storage may be back at the next beat
