"""Charts and gains of a report's comparison: rows without a figure, and rows with doubts."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tests.bench_results import bench_results
from tutelage.core.results.bench_json import (
    CPU,
    DPU,
    FAILED,
    BenchResults,
    BenchRow,
)
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import Percentiles
from tutelage.host.bench.thesis import thesis_table
from tutelage.host.report.comparison_section import comparison_section, thesis_section
from tutelage.host.report.content import Plot, Section, Table

PATH = Path("bench.json")


def _row(name: str, family: str, network: float | None) -> BenchRow:
    latency, fps = Figure.around(2.0, unit="ms"), Figure.around(500.0, unit="fps")
    alone = Figure.around(network, unit="ms")
    speed = Figure.around(network and 1000 / network, unit="fps")
    return BenchRow(name, f"the {name}", family, latency_ms=Percentiles(p50=latency), fps=fps,
                    network_latency_ms=Percentiles(p50=alone), network_fps=speed)  # fmt: skip


def _results(*rows: BenchRow) -> BenchResults:
    return bench_results(*rows, thesis=thesis_table(rows))


def _plots(section: Section) -> list[Plot]:
    return [part for part in section.parts if isinstance(part, Plot)]


def test_a_chart_leaves_out_rows_without_its_figure() -> None:
    """A run of the application times whole frames; an empty bar would be the lowest latency."""
    results = _results(_row("cpu", CPU, 1.5), _row("dpu-1", DPU, None))
    plots = _plots(comparison_section(results, PATH))
    assert [plot.name for plot in plots] == ["latency-bars", "speed-bars"]
    for plot in plots:
        assert "the cpu" in plot.svg and "the dpu-1" not in plot.svg
        assert plot.caption.endswith(" Not timed alone, so not shown: the dpu-1.")
    (plot, _) = _plots(comparison_section(_results(_row("cpu", CPU, 1.5)), PATH))
    assert "not shown" not in plot.caption
    assert _plots(comparison_section(_results(_row("dpu-1", DPU, None)), PATH)) == []


def test_gains_of_rows_with_doubts_are_marked() -> None:
    cpu, cuda, dpu = _row("cpu", CPU, 1.5), _row("cuda", "gpu", 1.0), _row("dpu-1", DPU, None)
    cuda.state, cuda.reason = FAILED, "lost after 1 repetition"
    dpu.concerns.append("the run was not completed")
    section = thesis_section(_results(cpu, cuda, dpu), PATH)
    (table,) = (part for part in section.parts if isinstance(part, Table))
    assert [row[:2] for row in table.rows[:2]] == [
        ["dpu-1 [!] (measured)", "cpu"], ["dpu-1 [!] (measured)", "cuda [failed]"],
    ]  # fmt: skip
    assert "[!]" in table.caption
