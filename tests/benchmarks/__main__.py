"""Run the benchmarks and print one JSON object: `make bench`; with --short, each part once."""

from __future__ import annotations

import argparse
import json
import os
import platform

from tests.benchmarks import application, emulation, power, training
from tests.benchmarks.extent import FULL, SHORT


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


def main() -> None:
    """Run all and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="each part once: figures mean nothing")
    extent = SHORT if parser.parse_args().short else FULL
    figures = {
        "machine": _machine(),
        "emulation": emulation.report(extent),
        "training": training.report(extent),
        "application": application.report(extent),
        "power": power.report(extent),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
