"""The power of a measured run over time, with its phases marked."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tutelage.host.report.content import Plot, Section, Table, as_svg, label, new_figure

_SAMPLES = 3000  # of the plot: more than the eye sees, less than makes the file heavy
_STEP_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")
_MOST_MARKED = 12


def trace_section(run: Path) -> Section:
    """Return the section of a run of `python -m tutelage.app.measure`.

    Parameters
    ----------
    run : its directory, with run.json

    Raises
    ------
    ValueError, LookupError
        It is no such directory.
    """
    figures = json.loads((run / "run.json").read_text(encoding="utf-8"))
    section = Section("trace", f"A measured run: {figures['model']['name']}", [_what(figures)])
    times, watts = _readings(run / "power.csv", figures["power"]["total_rail"])
    if times:
        svg = as_svg(_draw(figures, times, watts))
        caption = f"Rail {figures['power']['total_rail']}, W; measured windows are coloured."
        section.parts.append(Plot("power", svg, caption, run / "power.csv"))
    else:
        section.parts.append(f"No watts: {figures['power']['reason']}.")
    section.parts.append(_steps(figures, run / "run.json"))
    marks = [[step["name"], concern["name"], concern["text"]]
             for step in figures["steps"] for concern in step["concerns"]]  # fmt: skip
    if marks:
        caption = "What speaks against a window."
        section.parts.append(Table(["step", "mark", "what it says"], marks, None, caption))
    return section


def _what(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    text = (f"{figures['started']}, {machine['board'] or machine['machine']}, "
            f"{machine['image']}; runs on {figures['provider']}; {figures['state']}.")  # fmt: skip
    pace = figures.get("pace")  # older runs have none
    if figures["emulation"] or not (pace or {"measured": True})["measured"]:
        how = f", {pace['text']}" if pace else ""
        text += f" This is not a DPU{how}: nothing here was measured on a DPU."
    return text


def _readings(path: Path, rail: str | None) -> tuple[list[float], list[float]]:
    """Return times (s) and means of the rail (W), thinned out evenly."""
    if rail is None or not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        # Files of older versions name the rail without its unit.
        column = f"{rail}_W" if f"{rail}_W" in (table.fieldnames or ()) else rail
        rows = [(float(row["time_s"]), float(row[column])) for row in table if row.get(column)]
    step = max(1, len(rows) // _SAMPLES)
    groups = [rows[k : k + step] for k in range(0, len(rows), step)]
    times = [sum(t for t, _ in group) / len(group) for group in groups]
    return times, [sum(w for _, w in group) / len(group) for group in groups]


def _draw(figures: dict[str, Any], times: list[float], watts: list[float]) -> Any:
    figure, axes = new_figure()
    axes.plot(times, watts, linewidth=0.8, color="black")
    for number, step in enumerate(figures["steps"]):
        colour = _STEP_COLOURS[number % len(_STEP_COLOURS)]
        name = label(step["name"]) if number < _MOST_MARKED else None
        axes.axvspan(step["start_s"], step["end_s"], alpha=0.25, color=colour, label=name)
    for number, (when, idle) in enumerate(figures["idle"].items()):
        if idle:
            name = None if number else "idle"
            axes.axvspan(idle["start_s"], idle["end_s"], alpha=0.15, color="grey", label=name)
            if idle["watts"] is not None and when == "before":
                axes.axhline(idle["watts"], linestyle="--", linewidth=0.8, color="grey")
    axes.set_xlabel("time since the start [s]")
    axes.set_ylabel("power [W]")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def _steps(figures: dict[str, Any], source: Path) -> Table:
    columns = ["step", "latency p50 [ms]", "± [ms]", "p90 [ms]", "p99 [ms]", "speed [fps]",
               "± [fps]", "power [W]", "above idle [W]", "energy [mJ/frame]", "efficiency [fps/W]",
               "marks"]  # fmt: skip
    rows: list[list[str | float | None]] = []
    for step in figures["steps"]:
        latency, power = step["latency_ms"], step["power"]
        joules = power["joules_per_frame"]["value"]
        rows.append([
            step["name"], latency["p50"]["value"], latency["p50"]["ci95"], latency["p90"]["value"],
            latency["p99"]["value"], step["fps"]["value"], step["fps"]["ci95"],
            power["watts"]["value"], power["watts_above_idle"]["value"],
            None if joules is None else 1000 * joules, power["fps_per_watt"]["value"],
            " ".join(concern["name"] for concern in step["concerns"]),
        ])  # fmt: skip
    return Table(columns, rows, source, "± is half of the 95 % interval.")
