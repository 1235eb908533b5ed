"""The benchmarks' figures as a flat table, and the rules for comparing them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.core.digits import digits


@dataclass(frozen=True)
class Kind:
    """The properties that a figure's name determines.

    Attributes
    ----------
    higher_is_better : whether higher is better, rather than lower
    anywhere : comparable between different machines: a ratio, or a number of instructions
    """

    higher_is_better: bool
    anywhere: bool


# The first one found in the name counts. Figures without any of these are not compared.
_KINDS = (
    (re.compile(r"ratio_to_|^instructions/"), Kind(higher_is_better=False, anywhere=True)),
    (re.compile(r"speed_|share_of_bound$"), Kind(higher_is_better=True, anywhere=True)),
    (re.compile(r"(_per_second|/fps)$"), Kind(higher_is_better=True, anywhere=False)),
    (
        re.compile(r"(_(ms|us|s|seconds|mib|mb)|percent_of_core|us_per_\w+)$"),
        Kind(higher_is_better=False, anywhere=False),
    ),
)


def kind_of(name: str) -> Kind | None:
    """Return the kind of a figure; None if it is not compared, such as settings and counts."""
    return next((kind for pattern, kind in _KINDS if pattern.search(name)), None)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float | str]]:
    """Yield each number and text with the keys that lead to it, joined by "/"."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from leaves(each, f"{path}/{key}" if path else str(key))
    elif isinstance(value, int | float):
        yield path, value
    else:
        yield path, ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _text(value: Any) -> str:
    return digits(value) if isinstance(value, int | float) else str(value)


@dataclass(frozen=True)
class Measured:
    """A figure of one or several runs.

    Attributes
    ----------
    value : the median
    low, high : the range
    """

    value: float
    low: float
    high: float


def measured(runs: Iterable[Mapping[str, Any]]) -> dict[str, Measured]:
    """Return by name the numbers of runs of the same benchmarks."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in leaves(run):
            if not isinstance(value, str):
                values.setdefault(name, []).append(value)
    return {
        name: Measured(statistics.median(each), min(each), max(each))
        for name, each in values.items()
    }
