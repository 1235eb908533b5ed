"""What a run shows besides its results: queues, the DPU's load, the machine, watts."""

from __future__ import annotations

import time
from typing import Any

from tutelage.app.pipeline.pipeline import Pipeline, utilisation
from tutelage.board.power import Power
from tutelage.board.system import SystemMonitor

_SYSTEM_SECONDS = 1.0  # between two readings of the machine, which cost system calls


class Gauges:
    """Reads the current values of a run; `look` keeps their means and maxima.

    Parameters
    ----------
    pipeline : the run
    cores : cores of the DPU
    power : its rails; None where power is not asked for
    """

    def __init__(self, pipeline: Pipeline, cores: int, power: Power | None) -> None:
        self._pipeline = pipeline
        self._cores = cores
        self._power = power
        self._system = SystemMonitor()
        self._machine = self._system.read()
        self._machine_at = self._start = self._use_at = time.monotonic()
        self._busy_at_start = self._busy_before = self._pipeline.core_seconds()
        self._use = 0.0
        self._depths: dict[str, list[int]] = {}  # name -> sum, maximum
        self._looks = 0

    def look(self) -> None:
        """Take the queues' depths into account; called several times per second."""
        self._looks += 1
        for name, depth in self._pipeline.depths().items():
            summary = self._depths.setdefault(name, [0, 0])
            summary[0] += depth
            summary[1] = max(summary[1], depth)
        now = time.monotonic()
        if now - self._machine_at >= _SYSTEM_SECONDS:
            self._machine, self._machine_at = self._system.read(), now
            busy = self._pipeline.core_seconds()
            self._use = utilisation(self._busy_before, busy, now - self._use_at)
            self._busy_before, self._use_at = busy, now

    def read(self) -> dict[str, Any]:
        """Return the values of now; what is not measured is None."""
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
        """Return the run's figures: depths, utilisation, the process and the machine."""
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
            },
            "system": self._system.report(),
        }
