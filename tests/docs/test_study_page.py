"""The study's page: the accuracies and differences in its tables are those of the kept studies."""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.host.train.study_judge import judged, read_judge
from tutelage.host.train.study_results import differences, standard_error, summary

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/explanation/study.md"
STUDIES = {"CIFAR-10 (JPEG)": "results/cifar10", "Fashion-MNIST": "results"}
"""Directories of study.csv by the headings of the page."""

_METHOD = re.compile(r"`([^`]+)`")
_BITS = re.compile(r"W\dA\d")
_FIGURE = re.compile(r"([+−]?\d+\.\d+)(?: ± (\d+\.\d+))?")


def _sections() -> dict[str, list[str]]:
    """Return the page's lines by heading."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        found.setdefault(heading, []).append(line)
    return found


def _cells(lines: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (method, base, bits, text) for the rows of tables that name a method in backticks.

    The base is the method in the second column, whose accuracies were subtracted, or "".
    """
    heads: list[str] = []
    for line in lines:
        if not line.startswith("|"):
            heads = []
            continue
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        heads = heads or cells
        if method := _METHOD.search(cells[0]):
            base = _METHOD.search(cells[1])
            yield from ((method[1], base[1] if base else "", bits, text)
                        for bits, text in zip(heads, cells, strict=True)
                        if _BITS.fullmatch(bits) and text)  # fmt: skip


@pytest.mark.parametrize("heading", STUDIES)
def test_figures_are_those_of_the_study(heading: str) -> None:
    folder = ROOT / STUDIES[heading]
    with (folder / "study.csv").open(encoding="utf-8", newline="") as file:
        rows = judged({row["cell"]: row for row in csv.DictReader(file)}, read_judge(folder))
    shown = list(_cells(_sections()[heading]))
    assert len(shown) > 10
    for method, base, bits, text in shown:
        values = (differences(rows, 1, base) if base else summary(rows))[method, bits]
        match = _FIGURE.fullmatch(text)
        assert match, (method, bits, text)
        mean = f"{statistics.mean(values):{'+' if base else ''}.2f}".replace("-", "−")
        assert match[1] == mean, (method, base, bits)
        spread = None
        if len(values) > 1:  # standard errors of differences, else standard deviations
            spread = f"{standard_error(values) if base else statistics.stdev(values):.2f}"
        assert match[2] == spread, (method, base, bits)
