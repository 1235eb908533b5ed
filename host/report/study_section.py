"""Sections of the study: accuracy by method and bit width, and the effect of QKD's phases."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from pathlib import Path

from tutelage.host.report.content import Cell, Plot, Section, Table, as_svg
from tutelage.host.train.study_results import figure, summary

Rows = Mapping[str, Mapping[str, str]]

_CHANGED = ("qkd ", "qkd,")  # methods of the ablation are "qkd without ..." and "qkd, ..."


def study_sections(path: Path) -> list[Section]:
    """Return the sections of a study.csv.

    Raises
    ------
    OSError, ValueError, LookupError
        The file cannot be read, or is not the table of a study.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["cell"]: row for row in csv.DictReader(file)}
    methods = {name: row for name, row in rows.items() if not row["method"].startswith(_CHANGED)}
    changed = {name: row for name, row in rows.items() if row["method"].startswith(_CHANGED)}
    sections = [_accuracies(methods, path)]
    if changed:
        sections.append(_ablation(rows, changed, path))
    return sections


def _accuracies(rows: Rows, path: Path) -> Section:
    seeds = {row["seed"] for row in rows.values() if row["weights"]}
    text = (
        f"Top-1 on the test set, in percent: mean and standard deviation over {len(seeds)} seeds. "
        "W4A4 is 4 bits for weights and for activations; the DPU needs W8A8. This is a study of "
        "training methods, not of this report's model."
    )
    plot = Plot("study", as_svg(figure(rows)), "Accuracy over bits; bars are one standard "
                "deviation, dashed lines are the float networks.", path)  # fmt: skip
    return Section("study", "Background: study of methods", [text, plot, _table(rows, path)])


def _table(rows: Rows, path: Path) -> Table:
    found = summary(rows)
    bits = sorted({b for _, b in found}, key=lambda b: (b != "float", b))
    cells: list[list[Cell]] = [
        [method, *(_mean_and_spread(found.get((method, each), [])) for each in bits)]
        for method in dict.fromkeys(method for method, _ in found)
    ]
    columns = ["method", *(f"{each} [%]" for each in bits)]
    return Table(columns, cells, path, "Mean ± standard deviation (number of seeds).")


def _mean_and_spread(values: list[float]) -> Cell:
    if not values:
        return None
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


def _statistics(values: list[float]) -> list[float | int | None]:
    if not values:
        return [None, None, None]
    spread = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return [round(statistics.mean(values), 2), spread, len(values)]


def _ablation(rows: Rows, changed: Rows, path: Path) -> Section:
    """Compare each variant of QKD with QKD itself, seed by seed."""
    some = next(iter(changed.values()))
    width = some["weights"], some["activations"]

    def of(method: str) -> dict[str, float]:
        return {
            row["seed"]: float(row["accuracy"])
            for row in rows.values()
            if row["method"] == method and (row["weights"], row["activations"]) == width
        }

    whole = of("qkd")
    table = []
    for method in dict.fromkeys(["qkd", *(row["method"] for row in changed.values())]):
        values = of(method)
        gains = [values[seed] - whole[seed] for seed in values if seed in whole]
        mean, spread, count = _statistics(list(values.values()))
        change, deviation, _ = _statistics(gains)
        table.append([method, mean, spread, count, change, deviation])
    columns = ["method", "top-1 [%]", "± [points]", "seeds", "against qkd [points]", "± [points]"]
    text = (
        f"The effect of each part of QKD at W{width[0]}A{width[1]}: the same training without it "
        "or with another setting. Differences are computed per seed. With three seeds, those of "
        "less than about twice their deviation may be chance."
    )
    return Section("ablation", "Background: phases of QKD", [text, Table(columns, table, path)])
