"""A measurement as a table in Markdown, which reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.core.digits import digits, fixed, with_spread
from tutelage.core.text import markdown_table, markdown_text

_SPEED = ("step", "latency ms: mean", "p50", "p90", "p99", "fps")
_ENERGY = ("W", "W above idle", "mJ/frame", "above idle", "fps/W", "above idle")

# From when latency counts, see app/sources/load_patterns.py and app/pipeline/pipeline.py.
_LATENCY = {
    "single-stream": "single-stream: it counts from the frame's issue (MLPerf judges p90).",
    "offline": "offline: from the frame's reading, so that waiting for a free thread is most of "
    "it (MLPerf judges fps only).",
    "server": "server: from the frame's arrival, waiting included (MLPerf judges p99).",
}


def summary(run: Mapping[str, Any]) -> str:
    """Return the text of a run's figures, of `run.json`."""
    return "\n".join([*_head(run), "", *_table(run), "", *_notes(run)]) + "\n"


def _head(run: Mapping[str, Any]) -> Iterator[str]:
    machine, model = run["machine"], run["model"]
    place = markdown_text(machine["board"] or machine["machine"])
    yield f"# {markdown_text(model['name'])} on {place}"
    yield ""
    yield f"{run['started']}, {run['state']}. Runs on {markdown_text(run['provider'])}."
    pace = run.get("pace") or {"measured": not run["emulation"], "text": "at its own pace"}
    if not pace["measured"]:
        what = "This is the emulation" if run["emulation"] else "This is not a DPU"
        yield f"{what}, {markdown_text(pace['text'])}: no figure here was measured on a DPU."
    yield (
        f"Model for {markdown_text(model['target'])}; "
        f"image {markdown_text(machine['image'])}, Linux {machine['kernel']}, "
        f"Python {machine['python']}, OpenCV {machine['opencv']}; "
        f"governor {run['clocks']['governor'] or 'not told'}."
    )
    yield _power_line(run)
    if run["error"]:
        yield f"Broken off: {markdown_text(run['error'])}"


def _power_line(run: Mapping[str, Any]) -> str:
    power = run["power"]
    if power["source"] == "none":
        return f"No watts: {markdown_text(power['reason'])}."
    idle, after = run["idle"]["before"], run["idle"]["after"]
    if power["total_rail"] is None:
        return f"No watts of the whole board: {markdown_text(power['reason'])}."
    text = f"Power from {power['source']}, rail {power['total_rail']}"
    if not idle or idle["watts"] is None:
        return f"{text}; idle power not measured."
    text += f"; idle {_measured(idle['watts'], idle['ci95'], idle.get('sensor_error'))} W"
    if after and after["watts"] is not None:
        end = _measured(after["watts"], after["ci95"], after.get("sensor_error"))
        text += f", {end} W at the end"
    return text + "."


def _table(run: Mapping[str, Any]) -> list[str]:
    measured = run["power"]["source"] != "none"
    columns = (*_SPEED, *_ENERGY) if measured else _SPEED
    rows = [_row(step)[: len(columns)] for step in run["steps"]]
    return markdown_table(columns, rows)


def _row(step: Mapping[str, Any]) -> tuple[str, ...]:
    latency, power = step["latency_ms"], step["power"]
    cells = [latency[name] for name in ("mean", "p50", "p90", "p99")]
    cells += [step["fps"], power["watts"], power["watts_above_idle"]]
    energies = [_scaled(power[f"joules_per_frame{suffix}"], 1000) for suffix in ("", "_above_idle")]
    ratios = [power[f"fps_per_watt{suffix}"] for suffix in ("", "_above_idle")]
    cells += [*energies, *ratios]
    marks = "".join(f" [{concern['name']}]" for concern in step["concerns"])
    return (step["name"] + marks, *map(_cell, cells))


def _scaled(figure: Mapping[str, Any], factor: float) -> dict[str, float | None]:
    names = ("value", "ci95", "sensor_error")
    return {name: None if figure[name] is None else factor * figure[name] for name in names}


def _cell(figure: Mapping[str, float | None]) -> str:
    return _measured(figure["value"], figure["ci95"], figure.get("sensor_error"))


def _measured(value: float | None, ci95: float | None, error: float | None = None) -> str:
    """Return "12.34 ±0.05" with the digits that have a meaning; "-" where it was not measured.

    Parameters
    ----------
    value, ci95 : a figure and half of its interval
    error : what its readings are uncertain by
    """
    if value is None or ci95 is None:
        return digits(value).replace(",", "")  # for who reads a cell as a number
    shown = with_spread(value, max(ci95, error or 0.0)).replace(",", "").split(" ±")[0]
    width = fixed(ci95, len(shown.partition(".")[2])).replace(",", "")
    return f"{shown} ±{width if width.strip('0.') else 0}"


def _notes(run: Mapping[str, Any]) -> Iterator[str]:
    yield ("± is half of the 95 % interval, from sections of each window (sectioning); a figure "
           "without it rests on too few frames or readings for one.")  # fmt: skip
    texts = (text for name, text in _LATENCY.items()
             if any(step["name"].startswith(name) for step in run["steps"]))  # fmt: skip
    yield f"Latency ends when a result is given out. {' '.join(texts)}".strip()
    errors = [step["power"]["watts"]["sensor_error"] for step in run["steps"]]
    known = [error for error in errors if error is not None]
    if known:
        yield (f"The readings' own error, up to ±{max(known):.2g} W, comes on top of it and does "
               "not shrink with time.")  # fmt: skip
    doubted = [doubt["text"] for doubt in run["power"].get("doubts", ())]
    yield from (f"- sensor: {markdown_text(text)}" for text in doubted)
    for step in run["steps"]:
        for concern in step["concerns"]:
            if concern["text"] in doubted:
                continue
            yield f"- {step['name']}: {concern['name']}: {concern['text']}"
    for when, idle in run["idle"].items():
        for concern in idle["concerns"] if idle else ():
            yield f"- idle {when}: {concern['name']}: {concern['text']}"
    for text in run["notes"]:
        yield f"- {markdown_text(text)}"
