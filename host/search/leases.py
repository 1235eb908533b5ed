"""Trials that a worker holds, and those whose worker has died.

While a worker holds a trial it counts up the trial's attribute "beat". Each of the others looks by
its own clock for how long a count has not changed, so the machines' clocks need not agree, and
every storage will do (Optuna's own heartbeats are for databases only, not for its journal).
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
_BEATS = 6
"""Beats in the time after which silence counts as death."""


class Leases:
    """The trials of a study that this process works on; a context that gives back what is left.

    Parameters
    ----------
    seconds : silence after which a trial's worker counts as dead
    """

    def __init__(self, study: Study, seconds: float) -> None:
        self._study, self.seconds = study, seconds
        self._held: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seen: dict[int, tuple[Any, float]] = {}  # of others, by id: the beat, and since when
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def poll_seconds(self) -> float:
        """How often to look at the storage."""
        return min(self.seconds / _BEATS, 5.0)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.release()

    def take(self, trial_id: int, lost: Callable[[], None]) -> bool:
        """Take a waiting trial; False where another worker was faster.

        Parameters
        ----------
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
        """Give signs of life for a trial that this process runs.

        Parameters
        ----------
        lost : called, in a thread, where others have taken the trial back meanwhile, as when this
            process or its network was down for too long
        """
        with self._lock:
            self._held[trial_id] = lost

    def end(self, trial_id: int, state: Any, values: list[float] | None = None,
            **attributes: Any) -> bool:  # fmt: skip
        """End a trial with its result; False, and no result, where others have taken it back.

        Parameters
        ----------
        attributes : JSON, stored with it
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
        """Give back all trials, for other workers to take at once."""
        from optuna.trial import TrialState

        for trial_id in list(self._held):
            self.end(trial_id, TrialState.FAIL, released=True)

    def take_back(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Fail the running trials whose workers are silent; return those that this call has failed.

        Parameters
        ----------
        trials : all of the study, as they are now
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
                    continue  # away for a moment: the next beat may reach it
