"""CPU, GPU and DPU with the same student, and the thesis's figures beside them."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.digits import digits
from tutelage.core.results.bench_json import (
    BENCH_FILE,
    DONE,
    BenchResults,
    BenchRow,
    DpuComparison,
    Gain,
    GainInput,
    ThesisTable,
    read_bench,
)
from tutelage.core.results.figure import PREDICTED
from tutelage.host.report.content import Cell, Plot, Section, Table, as_svg, label, new_figure

_MEASURED_COLOUR, _PREDICTED_COLOUR = "#4c72b0", "#c44e52"


def comparison_sections(bench: Path) -> list[Section]:
    """Return the sections of a comparison of `tutelage bench`, its directory.

    Raises
    ------
    ResultsError
        It is not one.
    """
    path = bench / BENCH_FILE
    results = read_bench(path)
    return [_platforms(results, path), _thesis(results.thesis, path)]


def _platforms(results: BenchResults, path: Path) -> Section:
    rows = [row for row in results.rows if row.state == DONE]
    machine = results.environment
    text = (
        f"{results.model.name}, {results.started}; {machine.cpu}, {machine.threads} "
        f"threads; {results.setting.repetitions} repetitions in turn. Figures are medians, "
        "low and high their intervals; of a predicted row the range of its known errors. Each row "
        "says whether it was measured or predicted."
    )
    columns = ["row", "kind", "latency p50 [ms]", "low [ms]", "high [ms]", "p99 [ms]",
               "network p50 [ms]", "Offline [fps]", "network [fps]", "power [W]",
               "above idle [W]", "energy [mJ/frame]", "top-1 [%]", "model [KiB]", "by"]  # fmt: skip
    table = Table(columns, [_row(row) for row in rows], path, '"-": not measured.')
    section = Section("comparison", "CPU, GPU and DPU", [text, *_plots(rows, path), table])
    absent = [[row.title, row.state, row.reason] for row in results.rows if row.state != DONE]
    if absent:
        section.parts.append(Table(["not there", "state", "why"], absent, path))
    warnings = [[row.title, text] for row in rows for text in row.concerns]
    if warnings:
        caption = "What speaks against a row."
        section.parts.append(Table(["row", "what it says"], warnings, path, caption))
    return section


def _row(row: BenchRow) -> list[Cell]:
    p50, size = row.latency_ms.p50, row.model_bytes
    return [
        row.title, row.kind, *p50.ends, row.latency_ms.p99.value, row.network_latency_ms.p50.value,
        row.fps.value, row.network_fps.value, row.watts.value,
        row.watts_above_idle.value,
        row.joules_per_frame.scaled(1e3, "mJ").value, row.accuracy,
        None if size is None else round(size / 1024, 1), row.by,
    ]  # fmt: skip


def _plots(rows: list[BenchRow], path: Path) -> list[Plot]:
    """Return bars of latency and of throughput, of the network alone: what every row has."""
    if not rows:
        return []
    drawing, _ = new_figure(9.0, 0.6 + 0.36 * len(rows))
    drawing.clear()
    left, right = drawing.subplots(1, 2, sharey=True)
    colours = [_PREDICTED_COLOUR if row.kind == PREDICTED else _MEASURED_COLOUR for row in rows]
    for axis, figures, unit in (
        (left, [row.network_latency_ms.p50 for row in rows], "latency p50 of one image [ms]"),
        (right, [row.network_fps for row in rows], "Offline [fps]"),
    ):
        axis.barh(range(len(rows)), [figure.value or 0.0 for figure in figures], color=colours)
        for place, figure in enumerate(figures):
            text = f" {digits(figure.value)}"
            axis.annotate(text, (figure.value or 0.0, place), fontsize=8, va="center")
        axis.set_xlabel(unit)
        axis.margins(x=0.2)
    left.set_yticks(range(len(rows)), [label(row.title) for row in rows])
    left.invert_yaxis()
    caption = "The network alone: blue measured, red predicted."
    return [Plot("comparison", as_svg(drawing), caption, path)]


def _thesis(thesis: ThesisTable, path: Path) -> Section:
    reference = thesis.reference
    text = (
        f"The work that this one builds on reports {reference.text} ({reference.source}). "
        "Beside it: the platform's p50 latency by the DPU's, the DPU's frames per second and watt "
        "by the platform's, and the platform's watts by the DPU's."
    )
    missing = [f"Missing: {one}." for one in thesis.missing]
    rows = [_comparison(one) for one in thesis.comparisons]
    rows.append(["reported", "other platforms and models", "", reference.speed_up, "at least",
                 reference.efficiency, "at least", reference.power or None,
                 "at least"])  # fmt: skip
    columns = ["DPU", "over", "stages", "latency [×]", "from", "fps/W [×]", "from",
               "lower power [×]", "from"]  # fmt: skip
    return Section("thesis", "Against the thesis", [text, *missing, Table(columns, rows, path)])


def _comparison(one: DpuComparison) -> list[Cell]:
    return [f"{one.dpu} ({one.kind})", one.platform, one.stages,
            *_gain(one.speed_up), *_gain(one.efficiency), *_gain(one.power)]  # fmt: skip


def _gain(gain: Gain) -> list[Cell]:
    inputs = "; ".join(f"{each.row}: {each.figure} = {_number(each.value)}"
                       for each in _in_order(gain))  # fmt: skip
    missing, needed = gain.missing, gain.needs_watts.value
    if missing and needed is not None:
        missing += f"; what is reported holds from {digits(needed, 3)} W of it"
    return [gain.figure.value, missing or inputs]


def _in_order(gain: Gain) -> list[GainInput]:
    return [gain.inputs[side] for side in ("platform", "dpu") if side in gain.inputs]


def _number(value: float | None) -> str:
    return "not measured" if value is None else digits(value)
