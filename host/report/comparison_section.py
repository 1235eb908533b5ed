"""Sections of the comparison of CPU, GPU and DPU, and of the gains that the thesis reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tutelage.core.digits import digits, with_range
from tutelage.core.results.bench_json import (
    DONE,
    BenchResults,
    BenchRow,
    DpuComparison,
)
from tutelage.core.results.figure import PREDICTED
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


def _plots(rows: list[BenchRow], path: Path) -> Iterator[Plot]:
    """Yield bars of latency and throughput of the network alone, of the rows that have them."""
    for name, what, unit, figures in (
        ("latency-bars", "Latency of one image", "p50 [ms]",
         [(row, row.network_latency_ms.p50.value) for row in rows]),
        ("speed-bars", "Frames per second", "Offline [fps]",
         [(row, row.network_fps.value) for row in rows]),
    ):  # fmt: skip
        known = [(row, value) for row, value in figures if value is not None]
        absent = [row.title for row, value in figures if value is None]
        caption = f"{what} of the network alone: blue is measured, red is predicted."
        if absent:
            caption += f" Not timed alone, so not shown: {'; '.join(absent)}."
        if known:
            yield Plot(name, _bars(known, unit), caption, path, is_small=True)


def _bars(rows: list[tuple[BenchRow, float]], unit: str) -> str:
    drawing, axes = new_figure(SMALL[0], 0.7 + 0.3 * len(rows))
    places = range(len(rows))
    colours = [_PREDICTED_COLOUR if row.kind == PREDICTED else _MEASURED_COLOUR for row, _ in rows]
    axes.barh(places, [value for _, value in rows], color=colours)
    for place, (_, value) in enumerate(rows):
        axes.annotate(f" {digits(value)}", (value, place), fontsize=8, va="center")
    axes.set_xlabel(unit)
    axes.margins(x=0.2)
    axes.set_yticks(places, [label(row.title) for row, _ in rows])
    axes.invert_yaxis()
    return as_svg(drawing)


def thesis_section(results: BenchResults, path: Path) -> Section:
    """Return the section of the DPU's gains, beside those that the thesis reports.

    Parameters
    ----------
    results : the comparison; gains of rows that are not complete or have warnings are marked
    path : path of its bench.json, which has the inputs of each gain
    """
    thesis, reference = results.thesis, results.thesis.reference
    text = (
        f"The thesis that this project builds on reports {reference.text} ({reference.source}). "
        "The table has the ratios of the platform's p50 latency to the DPU's, of the DPU's frames "
        "per second and watt to the platform's, and of the platform's watts to the DPU's."
    )
    missing = [f"Missing: {one}." for one in thesis.missing]
    marks = {row.id: _marks(row) for row in results.rows}
    rows = [_comparison(one, marks) for one in thesis.comparisons]
    rows.append(["reported", "other platforms and models", "-", *map(_at_least, (
        reference.speed_up, reference.efficiency, reference.power))])  # fmt: skip
    columns = ["DPU", "over", "stages", "latency [×]", "fps/W [×]", "lower power [×]"]  # fmt: skip
    title = "Background: against the thesis"
    caption = '"[!]": there are warnings about the row.' if any(marks.values()) else ""
    return Section("thesis", title, [text, *missing, Table(columns, rows, path, caption)])


def _marks(row: BenchRow) -> str:
    """Return the state of a row that is not complete, and "[!]" if there are doubts about it."""
    return (f" [{row.state}]" if row.state != DONE else "") + (" [!]" if row.concerns else "")


def _comparison(one: DpuComparison, marks: dict[str, str]) -> list[Cell]:
    gains = (one.speed_up, one.efficiency, one.power)
    dpu, platform = (f"{name}{marks.get(name, '')}" for name in (one.dpu, one.platform))
    return [f"{dpu} ({one.kind})", platform, one.stages,
            *(gain.figure.value for gain in gains)]  # fmt: skip


def _at_least(value: float) -> str:
    return f"at least {digits(value)}" if value else "-"
