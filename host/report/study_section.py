"""Sections of a study: accuracy by method and bit width, and the effect of QKD's phases."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.core.text import counted
from tutelage.host.report.content import Part, Plot, Section, Table, as_svg
from tutelage.host.train.study_cells import is_ablated
from tutelage.host.train.study_judge import judged, read_judge
from tutelage.host.train.study_results import (
    DIFFERENCES,
    accuracy_cells,
    difference_cells,
    figure,
    standard_error,
)

Rows = Mapping[str, Mapping[str, str]]


def study_sections(path: Path, number: int = 1) -> list[Section]:
    """Return the sections of a study.csv, with the accuracies that its study.md shows.

    Parameters
    ----------
    number : number of the study in the report; the title of each but the first has its directory

    Raises
    ------
    OSError, ValueError, LookupError, ResultsError
        The file cannot be read, or is not the table of a study.
    """
    images = read_judge(path.parent)
    with path.open(encoding="utf-8", newline="") as file:
        rows = judged({row["cell"]: row for row in csv.DictReader(file)}, images)
    methods = {name: row for name, row in rows.items() if not is_ablated(row["method"])}
    changed = {name: row for name, row in rows.items() if is_ablated(row["method"])}
    suffix = str(number) if number > 1 else ""
    title = f"Background: study {path.parent.name}" if suffix else "Background: study of methods"
    parts = _accuracies(methods, path, images, f"study{suffix}")
    sections = [Section(f"study{suffix}", title, parts, is_folded=True)]
    if changed:
        title = f"{title}, phases of QKD" if suffix else "Background: phases of QKD"
        parts = _ablation(rows, changed, path)
        sections.append(Section(f"ablation{suffix}", title, parts, is_folded=True))
    return sections


def _accuracies(rows: Rows, path: Path, images: str, name: str) -> list[Part]:
    seeds = {row["seed"] for row in rows.values() if row["weights"]}
    over = f": mean and standard deviation over {counted(len(seeds), 'seed')}" if seeds else ""
    text = (
        f"Top-1 on the {'test set' if images == 'test' else f'{images} images'}, in percent{over}. "
        "W4A4 is 4 bits for weights and for activations; the DPU needs W8A8. This is a study of "
        "training methods, not of this report's model."
    )
    parts: list[Part] = [text]
    if seeds:
        caption = (
            "Accuracy over bits; bars are one standard deviation, dashed lines are the float "
            "networks."
        )
        parts.append(Plot(name, as_svg(figure(rows, images)), caption, path))
    caption = "Mean ± standard deviation (number of seeds)."
    parts.append(_table(accuracy_cells(rows), path, caption))
    if (paired := difference_cells(rows))[1:]:
        parts.append(_table(paired, path, f"{DIFFERENCES}."))
    return parts


def _table(cells: Sequence[Sequence[str]], path: Path, caption: str) -> Table:
    columns, *rows = cells
    return Table(columns, [[cell or None for cell in row] for row in rows], path, caption)


def _statistics(values: list[float]) -> list[float | int | None]:
    if not values:
        return [None, None, None]
    spread = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return [round(statistics.mean(values), 2), spread, len(values)]


def _ablation(rows: Rows, changed: Rows, path: Path) -> list[Part]:
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
        change, *_ = _statistics(gains)
        error = round(standard_error(gains), 2) if len(gains) > 1 else None
        table.append([method, mean, spread, count, change, error])
    columns = ["method", "top-1 [%]", "standard deviation [points]", "seeds",
               "against qkd [points]", "standard error [points]"]  # fmt: skip
    text = (
        f"The effect of each part of QKD at W{width[0]}A{width[1]}: the same training without it "
        "or with another setting. Differences are computed per seed. With three seeds, one of less "
        "than 4.3 standard errors may be chance, with five seeds one of less than 2.8 (Student's "
        "t, 95 %)."
    )
    return [text, Table(columns, table, path)]
