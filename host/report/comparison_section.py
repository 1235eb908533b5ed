"""Sections of the comparison of CPU, GPU and DPU, and of the gains that the thesis reports."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.digits import digits, with_range
from tutelage.core.results.bench_json import (
    DONE,
    BenchResults,
    BenchRow,
    DpuComparison,
    ThesisTable,
)
from tutelage.core.results.figure import PREDICTED, Figure
from tutelage.host.report.content import (
    SMALL,
    Cell,
    Plot,
    Section,
    Table,
    as_svg,
    label,
    new_figure,
)

_MEASURED_COLOUR, _PREDICTED_COLOUR = "#4c72b0", "#c44e52"


def comparison_section(results: BenchResults, path: Path, is_own: bool = True) -> Section:
    """Return the section of a comparison of `tutelage bench`.

    Parameters
    ----------
    path : path of its bench.json
    is_own : whether it is a comparison of the report's model
    """
    rows = [row for row in results.rows if row.state == DONE]
    machine = results.environment
    text = (
        f"{results.model.name}, {results.started}; {machine.cpu}, {machine.threads} "
        f"threads; {results.setting.repetitions} repetitions in turn. Figures are medians with "
        "their intervals; those of a predicted row have the range of its known errors."
    )
    if not is_own:
        text += " This comparison is of a different model."
    columns = ["platform", "kind", "latency p50 [ms]", "network alone [ms]", "Offline [fps]",
               "power [W]", "energy [mJ/frame]", "top-1 [%]", "model [KiB]"]  # fmt: skip
    table = Table(columns, [_row(row) for row in rows], path, '"-": not measured.')
    section = Section("comparison", "CPU, GPU and DPU", [text, *_plots(rows, path), table])
    absent = [[row.title, row.state, row.reason] for row in results.rows if row.state != DONE]
    if absent:
        section.parts.append(Table(["left out", "state", "reason"], absent, path))
    warnings = [[row.title, text] for row in rows for text in row.concerns]
    if warnings:
        caption = "Warnings about rows."
        section.parts.append(Table(["platform", "warning"], warnings, path, caption))
    return section


def _row(row: BenchRow) -> list[Cell]:
    size = row.model_bytes
    return [
        row.title, row.kind, with_range(*row.latency_ms.p50.ends),
        row.network_latency_ms.p50.value, row.fps.value, row.watts.value,
        row.joules_per_frame.scaled(1e3, "mJ").value, row.accuracy,
        None if size is None else round(size / 1024, 1),
    ]  # fmt: skip


def _plots(rows: list[BenchRow], path: Path) -> list[Plot]:
    """Return bars of latency and throughput of the network alone, which every row has."""
    if not rows:
        return []
    caption = "of the network alone: blue is measured, red is predicted."
    return [
        Plot("latency-bars", _bars(rows, [row.network_latency_ms.p50 for row in rows], "p50 [ms]"),
             f"Latency of one image {caption}", path, is_small=True),
        Plot("speed-bars", _bars(rows, [row.network_fps for row in rows], "Offline [fps]"),
             f"Frames per second {caption}", path, is_small=True),
    ]  # fmt: skip


def _bars(rows: list[BenchRow], figures: list[Figure], unit: str) -> str:
    drawing, axes = new_figure(SMALL[0], 0.7 + 0.3 * len(rows))
    colours = [_PREDICTED_COLOUR if row.kind == PREDICTED else _MEASURED_COLOUR for row in rows]
    axes.barh(range(len(rows)), [figure.value or 0.0 for figure in figures], color=colours)
    for place, figure in enumerate(figures):
        text = f" {digits(figure.value)}"
        axes.annotate(text, (figure.value or 0.0, place), fontsize=8, va="center")
    axes.set_xlabel(unit)
    axes.margins(x=0.2)
    axes.set_yticks(range(len(rows)), [label(row.title) for row in rows])
    axes.invert_yaxis()
    return as_svg(drawing)


def thesis_section(thesis: ThesisTable, path: Path) -> Section:
    """Return the section of the DPU's gains, beside those that the thesis reports.

    Parameters
    ----------
    path : path of the comparison's bench.json, which has the inputs of each gain
    """
    reference = thesis.reference
    text = (
        f"The thesis that this project builds on reports {reference.text} ({reference.source}). "
        "The table has the ratios of the platform's p50 latency to the DPU's, of the DPU's frames "
        "per second and watt to the platform's, and of the platform's watts to the DPU's."
    )
    missing = [f"Missing: {one}." for one in thesis.missing]
    rows = [_comparison(one) for one in thesis.comparisons]
    rows.append(["reported", "other platforms and models", "-", *map(_at_least, (
        reference.speed_up, reference.efficiency, reference.power))])  # fmt: skip
    columns = ["DPU", "over", "stages", "latency [×]", "fps/W [×]", "lower power [×]"]  # fmt: skip
    title = "Background: against the thesis"
    return Section("thesis", title, [text, *missing, Table(columns, rows, path)])


def _comparison(one: DpuComparison) -> list[Cell]:
    gains = (one.speed_up, one.efficiency, one.power)
    return [f"{one.dpu} ({one.kind})", one.platform, one.stages,
            *(gain.figure.value for gain in gains)]  # fmt: skip


def _at_least(value: float) -> str:
    return f"at least {digits(value)}" if value else "-"
