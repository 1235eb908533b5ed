"""Current figures of a run: queues, DPU load, machine, watts."""

from __future__ import annotations

import time
from typing import Any

from tutelage.app.pipeline.pipeline import Pipeline, utilisation
from tutelage.board.power import Power
from tutelage.board.system import SystemMonitor

_SYSTEM_SECONDS = 1.0  # between two readings of the machine, which take system calls


class Gauges:
    """Reader of the current figures of a run; `look` updates their means and maxima.

    Parameters
    ----------
    pipeline : pipeline of the run
    cores : number of cores of the DPU
    power : power sampler; None if power is not measured
    """

    def __init__(self, pipeline: Pipeline, cores: int, power: Power | None) -> None:
        self._pipeline = pipeline
        self._cores = cores
        self._power = power
        self.restart()

    def restart(self) -> None:
        """Begin to measure: the figures of the run cover the time from here."""
        self._system = SystemMonitor()
        self._machine = {**self._system.read(), "cpu_percent": None}  # a rate needs some time
        self._machine_at = self._start = self._use_at = time.monotonic()
        self._busy_at_start = self._busy_before = self._pipeline.core_seconds()
        self._use: float | None = None
        self._depths: dict[str, list[int]] = {}  # name -> sum, maximum
        self._looks = 0

    def look(self) -> None:
        """Sample the depths of the queues. Called several times per second."""
        self._looks += 1
        for name, depth in self._pipeline.depths().items():
            summary = self._depths.setdefault(name, [0, 0])
            summary[0] += depth
            summary[1] = max(summary[1], depth)
        now = time.monotonic()
        if self._use is None or now - self._machine_at >= _SYSTEM_SECONDS:
            self._machine, self._machine_at = self._system.read(), now
            busy = self._pipeline.core_seconds()
            self._use = utilisation(self._busy_before, busy, now - self._use_at)
            self._busy_before, self._use_at = busy, now

    def read(self) -> dict[str, Any]:
        """Return the current figures; those that are not measured are None."""
        watts = self._power.latest() if self._power else None
        total = self._power.total_rail if self._power else None
        return {
            "dropped": self._pipeline.dropped,
            "queues": self._pipeline.depths(),
            "dpu_utilisation": self._use,
            **self._machine,
            "watts": watts,
            "total_watts": watts.get(total) if watts and total else None,
        }

    def report(self) -> dict[str, Any]:
        """Return the figures of the whole run: queues, DPU, runners and machine."""
        looks = max(1, self._looks)
        seconds = time.monotonic() - self._start
        return {
            "queues": {
                name: {"mean": round(total / looks, 2), "max": most}
                for name, (total, most) in self._depths.items()
            },
            "dpu": {
                "cores": self._cores,
                "utilisation": round(
                    utilisation(self._busy_at_start, self._pipeline.core_seconds(), seconds), 4
                ),
            },
            "runners": {
                "restarts": self._pipeline.restarts,
                "hangs": self._pipeline.hangs,
                "retried_frames": self._pipeline.retried,
                "given_up": self._pipeline.given_up,
            },
            "system": self._system.report(),
        }
