"""Fuzz every target in turn with new seeds: `python -m tests.fuzz SECONDS [TARGET ...]`.

Prints the results of each target as JSON, with the faults by kind and a case of each; status
1 if there is a fault.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import Verbosity, given, seed, settings

import tutelage.core  # noqa: F401  (sets OpenCV's limits, before anything imports it)
from tests.fuzz.harness import FIGURES, QUIET, TARGETS, Figures

ROUND = 200
"""Examples of a target before it is the next one's turn."""


def main(seconds: float, only: list[str]) -> int:
    """Fuzz until the time is over; return the exit status."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.fuzz.{path.stem}")
    end, number = time.monotonic() + seconds, int(time.time())
    shown: dict[str, str] = {}
    while time.monotonic() < end:
        for name in only or list(TARGETS):
            number += 1
            _round(name, number, shown)
            if time.monotonic() > end:
                break
    targets = {name: _summary(figures) for name, figures in FIGURES.items() if figures.examples}
    print(json.dumps({"targets": targets, "cases": shown}, indent=1))
    return 1 if shown else 0


def _round(name: str, number: int, shown: dict[str, str]) -> None:
    cases, bounded = TARGETS[name]

    def example(case: Any) -> None:
        try:
            bounded(case)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            kind = f"{name}: {_place(error)}"
            FIGURES[name].faults[kind] += 1
            if kind not in shown:
                shown[kind] = f"{type(error).__name__}: {error}; {case!r}"[:1500]
                print(f"{kind}: {shown[kind]}", file=sys.stderr, flush=True)

    chosen = settings(max_examples=ROUND, deadline=None, database=None,
                      suppress_health_check=QUIET, verbosity=Verbosity.quiet)  # fmt: skip
    seed(number)(chosen(given(cases)(example)))()


def _place(error: BaseException) -> str:
    """Return the deepest line of this project in an error's traceback."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename
    ]
    own = [f for f in frames if "/tests/" not in f.filename and "/lib/" not in f.filename] or frames
    last = own[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def _summary(figures: Figures) -> dict[str, Any]:
    return {"examples": figures.examples, "mebibytes": round(figures.mebibytes),
            "seconds": round(figures.seconds, 2), "faults": dict(figures.faults)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
