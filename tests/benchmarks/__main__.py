"""Run the benchmarks and print one JSON object: `make bench`."""

from __future__ import annotations

import json
import os
import platform

from tests.benchmarks import application, emulation, power, training


def _machine() -> dict[str, object]:
    flags = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        flags = lines.get("flags\t\t", "")
        model = lines.get("model name\t", platform.processor()).strip()
    except OSError:
        model = platform.processor()
    known = [name for name in ("avx2", "avx512f", "avx512_vnni") if name in flags.split()]
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "flags": known}


if __name__ == "__main__":
    figures = {
        "machine": _machine(),
        "emulation": emulation.report(),
        "training": training.report(),
        "application": application.report(),
        "power": power.report(),
    }
    print(json.dumps(figures, indent=2))
