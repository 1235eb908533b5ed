"""A measurement as a Markdown table, which is also readable in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from tutelage.core.digits import digits, fixed, with_spread
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import PowerResults, RunResults, StepResults
from tutelage.core.text import markdown_table, markdown_text

_SPEED = ("step", "latency ms: mean", "p50", "p90", "p99", "fps")
_ENERGY = ("W", "W above idle", "mJ/frame", "above idle", "fps/W", "above idle")

# The starts of latencies are those of app/sources/load_patterns.py and app/pipeline/job.py.
_LATENCY = {
    "single-stream": "single-stream: it starts when the frame is issued (MLPerf judges p90).",
    "offline": "offline: it starts when a free thread takes the frame, and includes waiting for a "
    "core of the DPU (MLPerf judges fps only).",
    "server": "server: it starts when the frame arrives and includes waiting; a frame without a "
    "result counts as slower than all others (MLPerf judges p99).",
}


def summary(run: RunResults) -> str:
    """Return the text of summary.md."""
    return "\n".join([*_head(run), "", *_table(run), "", *_notes(run)]) + "\n"


def _head(run: RunResults) -> Iterator[str]:
    machine, model = run.machine, run.model
    yield f"# {markdown_text(model.name)} on {markdown_text(machine.place)}"
    yield ""
    yield f"{run.started}, {run.state}. Runs on {markdown_text(run.provider)}."
    if not run.on_dpu:
        what = "This is the emulation" if run.emulation else "This is not a DPU"
        pace = f", {markdown_text(run.pace.text)}" if run.pace else ""
        yield f"{what}{pace}: no figure here was measured on a DPU."
    yield (
        f"Model for {markdown_text(model.target)}; "
        f"image {markdown_text(machine.image)}, Linux {machine.kernel}, "
        f"Python {machine.python}, OpenCV {machine.opencv}; "
        f"governor {run.clocks.governor or 'not known'}."
    )
    yield _power_line(run)
    if run.error:
        yield f"Broken off: {markdown_text(run.error)}"


def _power_line(run: RunResults) -> str:
    power = run.power
    if power.source == "none":
        return f"No watts: {markdown_text(power.reason)}."
    if power.total_rail is None:
        return f"No watts of the whole board: {markdown_text(power.reason)}."
    text = f"Power from {power.source}, rail {power.total_rail}"
    idle, after = run.idle.get("before"), run.idle.get("after")
    if not idle or idle.watts.value is None:
        return f"{text}; idle power not measured."
    text += f"; idle {_cell(idle.watts)} W"
    if after and after.watts.value is not None:
        text += f", {_cell(after.watts)} W at the end"
    return text + "."


def _table(run: RunResults) -> list[str]:
    columns = _SPEED if run.power.source == "none" else (*_SPEED, *_ENERGY)
    return markdown_table(columns, [_row(step)[: len(columns)] for step in run.steps])


def _row(step: StepResults) -> tuple[str, ...]:
    latency = step.latency_ms
    marks = "".join(f" [{concern.name}]" for concern in step.concerns)
    cells = (latency.mean, latency.p50, latency.p90, latency.p99, step.fps, *_energy(step.power))
    return (step.name + marks, *map(_cell, cells))


def _energy(power: PowerResults) -> tuple[Figure, ...]:
    return (
        power.watts, power.watts_above_idle,
        power.joules_per_frame.scaled(1000, "mJ"),
        power.joules_per_frame_above_idle.scaled(1000, "mJ"),
        power.fps_per_watt, power.fps_per_watt_above_idle,
    )  # fmt: skip


def _cell(figure: Figure) -> str:
    """Return "12.34 ±0.05" with significant digits only; "-" if it was not measured.

    The error of the readings limits the digits of the value too.
    """
    value, half = figure.value, figure.half_width
    if value is None or half is None:
        return digits(value).replace(",", "")  # so that the cell parses as a number
    shown = with_spread(value, max(half, figure.sensor_error or 0.0)).replace(",", "")
    shown = shown.split(" ±")[0]
    width = fixed(half, len(shown.partition(".")[2])).replace(",", "")
    return f"{shown} ±{width if width.strip('0.') else 0}"


def _notes(run: RunResults) -> Iterator[str]:
    yield ("± is half of the 95 % interval, from sections of each window (sectioning); figures "
           "from too few frames or readings have none.")  # fmt: skip
    texts = (text for name, text in _LATENCY.items()
             if any(step.name.startswith(name) for step in run.steps))  # fmt: skip
    yield f"Latency ends when the result is output. {' '.join(texts)}".strip()
    errors = [step.power.watts.sensor_error for step in run.steps]
    known = [error for error in errors if error is not None]
    if known:
        yield (f"The known errors of the readings, such as their resolution, up to "
               f"±{max(known):.2g} W, are not included and do not decrease with time; nor are "
               "unknown ones, such as the tolerances of shunts.")  # fmt: skip
    warned = [warning.text for warning in run.power.doubts]
    yield from (f"- sensor: {markdown_text(text)}" for text in warned)
    for step in run.steps:
        for concern in step.concerns:
            if concern.text in warned:
                continue
            yield f"- {step.name}: {concern.name}: {concern.text}"
    for when, idle in run.idle.items():
        for concern in idle.concerns if idle else ():
            yield f"- idle {when}: {concern.name}: {concern.text}"
    for text in run.notes:
        yield f"- {markdown_text(text)}"
