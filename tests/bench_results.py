"""A comparison's results with little besides its rows."""

from __future__ import annotations

from tutelage.core.results.bench_json import (
    BenchImages,
    BenchMachine,
    BenchModel,
    BenchResults,
    BenchRow,
    BenchSettings,
    ReportedGains,
    ThesisTable,
)

_NO_GAINS = ThesisTable(ReportedGains(9, 4, "x", "y"), [], [])


def bench_results(
    *rows: BenchRow, model: BenchModel | None = None, thesis: ThesisTable = _NO_GAINS
) -> BenchResults:
    """Return complete results with these rows."""
    return BenchResults(
        state="done", started="x", model=model or BenchModel("net"), rows=list(rows),
        images=BenchImages("x", 1, 1), setting=BenchSettings((), 1, 1.0, 0.0, 1, "zcu104"),
        environment=BenchMachine("a CPU", 1), thesis=thesis,
    )  # fmt: skip
