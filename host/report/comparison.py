"""CPU, GPU and DPU with the same student, and the thesis's figures beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.core.digits import digits
from tutelage.host.report.content import Cell, Plot, Section, Table, as_svg, label, new_figure


def comparison_sections(bench: Path) -> list[Section]:
    """Return the sections of a comparison of `tutelage bench`, its directory.

    Raises
    ------
    OSError, ValueError, LookupError
        It is none.
    """
    path = bench / "bench.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for row in report["rows"] if row["state"] == "done"]
    return [_platforms(report, rows, path), _thesis(report["thesis"], path)]


def _platforms(report: Mapping[str, Any], rows: list[Mapping[str, Any]], path: Path) -> Section:
    machine = report["environment"]
    text = (
        f"{report['model']['name']}, {report['started']}; {machine['cpu']}, {machine['threads']} "
        f"threads; {report['setting']['repetitions']} repetitions in turn. Figures are medians, "
        "low and high their intervals; of a predicted row the range of its known errors. Each row "
        "says whether it was measured or predicted."
    )
    columns = ["row", "kind", "latency p50 [ms]", "low [ms]", "high [ms]", "p99 [ms]",
               "network p50 [ms]", "Offline [fps]", "network [fps]", "power [W]",
               "energy [mJ/frame]", "top-1 [%]", "model [KiB]", "by"]  # fmt: skip
    table = Table(columns, [_row(row) for row in rows], path, '"-": not measured.')
    section = Section("comparison", "CPU, GPU and DPU", [text, *_plots(rows, path), table])
    absent = [[row["title"], row["state"], row["reason"]] for row in report["rows"]
              if row["state"] != "done"]  # fmt: skip
    if absent:
        section.parts.append(Table(["not there", "state", "why"], absent, path))
    doubts = [[row["title"], text] for row in rows for text in row["concerns"]]
    if doubts:
        caption = "What speaks against a row."
        section.parts.append(Table(["row", "what it says"], doubts, path, caption))
    return section


def _row(row: Mapping[str, Any]) -> list[Cell]:
    p50, joules, size = (
        row["latency_ms"]["p50"],
        row["joules_per_frame"]["value"],
        row["model_bytes"],
    )
    return [
        row["title"], row["kind"], p50["value"], p50["low"], p50["high"],
        row["latency_ms"]["p99"]["value"], row["network_latency_ms"]["p50"]["value"],
        row["fps"]["value"], row["network_fps"]["value"], row["watts"]["value"],
        None if joules is None else 1e3 * joules, row["accuracy"],
        None if size is None else round(size / 1024, 1), row["by"],
    ]  # fmt: skip


def _plots(rows: list[Mapping[str, Any]], path: Path) -> list[Plot]:
    """Bars of latency and of throughput, of the network alone: what every row has."""
    figure, _ = new_figure(9.0, 0.6 + 0.36 * len(rows))
    figure.clear()
    left, right = figure.subplots(1, 2, sharey=True)
    names = [label(row["title"]) for row in rows]
    for axis, name, unit in ((left, "network_latency_ms", "latency p50 of one image [ms]"),
                             (right, "network_fps", "Offline [fps]")):  # fmt: skip
        figures = [row[name]["p50"] if name.endswith("ms") else row[name] for row in rows]
        values = [figure["value"] or 0.0 for figure in figures]
        colours = ["#c44e52" if row["kind"] == "predicted" else "#4c72b0" for row in rows]
        axis.barh(range(len(rows)), values, color=colours)
        for place, figure_ in enumerate(figures):
            text = f" {digits(figure_['value'])}"
            axis.annotate(text, (figure_["value"] or 0.0, place), fontsize=8, va="center")
        axis.set_xlabel(unit)
        axis.margins(x=0.2)
    left.set_yticks(range(len(rows)), names)
    left.invert_yaxis()
    caption = "The network alone: blue measured, red predicted."
    return [Plot("comparison", as_svg(figure), caption, path)] if rows else []


def _thesis(thesis: Mapping[str, Any], path: Path) -> Section:
    reference = thesis["reference"]
    text = (
        f"The work that this one builds on reports {reference['text']} ({reference['source']}). "
        "Beside it: the platform's p50 latency by the DPU's, and the DPU's frames per second and "
        "watt by the platform's."
    )
    missing = [f"Missing: {one}." for one in thesis["missing"]]
    rows: list[list[Cell]] = []
    for one in thesis["comparisons"]:
        row: list[Cell] = [f"{one['dpu']} ({one['kind']})", one["platform"], one["stages"]]
        for name in ("speed_up", "efficiency"):
            cell = one[name]
            inputs = [cell["inputs"][side] for side in ("platform", "dpu")]
            told = "; ".join(f"{each['row']}: {each['figure']} = {_number(each['value'])}"
                             for each in inputs)  # fmt: skip
            row += [cell["figure"]["value"], cell["missing"] or told]
        rows.append(row)
    rows.append(["reported", "other platforms and models", "", reference["speed_up"], "at least",
                 reference["efficiency"], "at least"])  # fmt: skip
    columns = ["DPU", "over", "stages", "latency [×]", "from", "fps/W [×]", "from"]
    return Section("thesis", "Against the thesis", [text, *missing, Table(columns, rows, path)])


def _number(value: float | None) -> str:
    return "not measured" if value is None else digits(value)
