"""Predicted against published: how far the latency model can be trusted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tutelage.host.report.content import Cell, Plot, Section, Table


def prediction_section(results: Path) -> Section:
    """Return the section of `python -m tutelage.host.latency.fit`'s results.

    Raises
    ------
    OSError, ValueError, LookupError
        There are none, or they are not its.
    """
    errors = json.loads((results / "latency.json").read_text(encoding="utf-8"))
    left_out, path = errors["left_out"], results / "latency.csv"
    one, many = left_out["mean"]
    text = (
        f"Frames per second of {left_out['networks']} networks that AMD has published for the "
        "ZCU104, each predicted with its whole family left out of the fit: mean error "
        f"{one:.1f} % with one thread and {many:.1f} % with many, worst "
        f"{left_out['worst'][0]:+.1f} % and {left_out['worst'][1]:+.1f} %. No DenseNet is among "
        "them, and nothing here was measured by this project."
    )
    section = Section("prediction", "Predicted against published", [text])
    svg = (results / "latency.svg").read_text(encoding="utf-8")
    caption = "Each family as predicted without it; the band is 10 %."
    section.parts.append(Plot("latency", svg[svg.index("<svg") :].strip(), caption, path))
    section.parts.append(_families(errors, results / "latency.json"))
    section.parts.append(_networks(path))
    return section


def _families(errors: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> Table:
    rows: list[list[Cell]] = [
        [name, int(str(one["networks"])), *(one[k][t] for t in (0, 1) for k in ("mean", "worst"))]
        for name, one in errors["families"].items()
    ]
    columns = ["family left out", "networks", "1 thread: mean [%]", "worst [%]",
               "many: mean [%]", "worst [%]"]  # fmt: skip
    return Table(columns, rows, path)


def _networks(path: Path) -> Table:
    columns = ["network", "release", "family", "work [GOP]", "1 thread: published [fps]",
               "predicted [fps]", "error [%]", "many: published [fps]", "predicted [fps]",
               "error [%]", "not in the fit, because"]  # fmt: skip
    rows: list[list[Cell]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            work = float(row["work_GOP"])
            cells: list[Cell] = [row["network"], row["release"], row["family"], work]
            for threads in ("one", "many"):
                published = float(row[f"{threads}_published_fps"])
                found = float(row[f"{threads}_left_out_fps"] or row[f"{threads}_fitted_fps"])
                cells += [published, found, round(100 * (found / published - 1), 1)]
            rows.append([*cells, row["not_fitted_because"]])
    return Table(columns, rows, path)
