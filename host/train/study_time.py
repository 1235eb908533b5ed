"""Estimate of the remaining time of a study."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tutelage.host.train.study_cells import StudyCell


def seconds_left(
    cells: Sequence[StudyCell],
    done: Mapping[str, Mapping[str, str]],
    repeated: Collection[str],
    expected: Mapping[str, Any],
    jobs: int,
) -> float | None:
    """Return an estimate of the time of the cells that are still to be run, s.

    A cell is expected to take the mean time of finished cells of its method, preferably at the same
    bit width, or else the time that `expected` has for its kind.

    Parameters
    ----------
    done : rows of study.csv by the cells' names
    repeated : names of the finished cells that are run again
    expected : seconds by kind of cell, see `kind_of`
    jobs : number of cells that run at a time

    Returns
    -------
    None if the time of a cell is not known
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    for cell in cells:
        if cell.name in done and (seconds := _number(done[cell.name].get("seconds"))):
            for key in _keys(cell):
                found.setdefault(key, []).append(seconds)
    total = 0.0
    for cell in cells:
        if cell.name in done and cell.name not in repeated:
            continue
        times = next((found[key] for key in _keys(cell) if key in found), None)
        guess = statistics.mean(times) if times else _number(expected.get(kind_of(cell)))
        if guess is None:
            return None
        total += guess
    return total / jobs


def kind_of(cell: StudyCell) -> str:
    """Return the key of a cell in a study's `[seconds]`.

    It is "float-teacher", "float-student", the name of another quantiser, or the cell's method.
    """
    method: str = cell.config["method"]
    if method == "float":
        return "float-teacher" if cell.name.startswith("float-teacher") else "float-student"
    peer: str | None = cell.config["quantisation"].get("quantiser")
    return peer or method


def _keys(cell: StudyCell) -> tuple[tuple[Any, ...], ...]:
    """Return keys that a cell shares with cells that take as long, the closest first."""
    title, bits = cell.facts["method"], cell.facts.get("weights")
    kind = kind_of(cell)
    return (kind, title, bits), (kind, title), (kind,)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def duration(seconds: float) -> str:
    """Return a duration in words: "40 min", "3.5 h"."""
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
