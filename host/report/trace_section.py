"""Section of a measured run: its steps, and its power over time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tutelage.core.digits import with_spread
from tutelage.core.results.run_json import RUN_FILE, RunResults, StepResults
from tutelage.host.report.content import Cell, Plot, Section, Table, as_svg, label, new_figure

_SAMPLES = 3000  # in the plot: more than is visible, and still a small file
_STEP_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")
_MOST_MARKED = 12


def trace_section(folder: Path, run: RunResults, is_own: bool = True, number: int = 1) -> Section:
    """Return the section of a run of `python -m tutelage.app.measure`.

    Parameters
    ----------
    folder : its directory, with power.csv if watts were read
    run : its run.json
    is_own : whether it ran the report's model
    number : number of the section among those of runs

    Raises
    ------
    OSError, ValueError
        The table of readings cannot be read, or has text in place of a number.
    """
    readings = folder / "power.csv"
    kind = "Measured" if run.on_dpu else "Emulated"
    name = f"run{number if number > 1 else ''}"
    section = Section(name, f"{kind} run: {run.model.name}", [_what(run)])
    if not is_own:
        section.parts.append("This run used a different model, so no headline figure is from it.")
    times, watts = _readings(readings, run.power.total_rail)
    if times:
        svg = as_svg(_draw(run, times, watts))
        caption = f"Rail {run.power.total_rail}, W; measured windows are coloured."
        plot = f"power{number if number > 1 else ''}"
        section.parts.append(Plot(plot, svg, caption, readings))
    else:
        section.parts.append(f"No watts: {run.power.reason}.")
    section.parts.append(_steps(run, folder / RUN_FILE))
    marks = [[step.name, concern.name, concern.text]
             for step in run.steps for concern in step.concerns]  # fmt: skip
    if marks:
        caption = "Warnings about windows."
        section.parts.append(Table(["step", "mark", "warning"], marks, None, caption))
    return section


def _what(run: RunResults) -> str:
    text = (f"{run.started}, {run.machine.place}, {run.machine.image}; runs on {run.provider}; "
            f"{run.state}.")  # fmt: skip
    if not run.on_dpu:
        what = "This is the emulation" if run.emulation else "This is not a DPU"
        how = f", {run.pace.text}" if run.pace else ""
        text += f" {what}{how}: nothing here was measured on a DPU."
    return text


def _readings(path: Path, rail: str | None) -> tuple[list[float], list[float]]:
    """Return times, s, and powers of the rail, W, as means over equal numbers of readings."""
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


def _draw(run: RunResults, times: list[float], watts: list[float]) -> Any:
    figure, axes = new_figure()
    axes.plot(times, watts, linewidth=0.8, color="#000000")
    for number, step in enumerate(run.steps):
        colour = _STEP_COLOURS[number % len(_STEP_COLOURS)]
        name = label(step.name) if number < _MOST_MARKED else None
        axes.axvspan(step.start_s, step.end_s, alpha=0.25, color=colour, label=name)
    for number, (when, idle) in enumerate(run.idle.items()):
        if idle:
            name = None if number else "idle"
            axes.axvspan(idle.start_s, idle.end_s, alpha=0.15, color="grey", label=name)
            if idle.watts.value is not None and when == "before":
                axes.axhline(idle.watts.value, linestyle="--", linewidth=0.8, color="grey")
    axes.set_xlabel("time since the start [s]")
    axes.set_ylabel("power [W]")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def _steps(run: RunResults, source: Path) -> Table:
    columns = ["step", "latency p50 [ms]", "p90 [ms]", "p99 [ms]", "speed [fps]", "power [W]",
               "above idle [W]", "energy [mJ/frame]", "efficiency [fps/W]", "marks"]  # fmt: skip
    rows = [_row(step) for step in run.steps]
    return Table(columns, rows, source, "± is half of the 95 % interval.")


def _row(step: StepResults) -> list[Cell]:
    latency, power = step.latency_ms, step.power
    return [
        step.name, with_spread(latency.p50.value, latency.p50.half_width), latency.p90.value,
        latency.p99.value, with_spread(step.fps.value, step.fps.half_width), power.watts.value,
        power.watts_above_idle.value, power.joules_per_frame.scaled(1000, "mJ").value,
        power.fps_per_watt.value, ", ".join(concern.name for concern in step.concerns) or "-",
    ]  # fmt: skip
