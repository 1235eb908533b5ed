"""Which sections a report has, the files that they come from, and the report's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.errors import DpuError, TutelageError, error_text
from tutelage.core.results.bench_json import BENCH_FILE
from tutelage.core.results.run_json import DONE, RUN_FILE, read_outcome
from tutelage.core.results.typed_json import ResultsError
from tutelage.host.report.comparison_section import comparison_sections
from tutelage.host.report.content import Plot, Section
from tutelage.host.report.html_page import html_page
from tutelage.host.report.layers_section import layers_section
from tutelage.host.report.markdown import document, plot_file
from tutelage.host.report.prediction_section import prediction_section
from tutelage.host.report.study_section import study_sections
from tutelage.host.report.trace_section import trace_section

TITLE = "Tutelage: a DenseNet in 8 bits, and what it costs"
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    DpuError,
    RecursionError,
)


class ReportError(TutelageError):
    """A file that was named is not what a report can use; one line."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made from.

    Attributes
    ----------
    results : directory of study.csv, latency.csv, bench/ and measured runs
    model : compiled or quantised .xmodel whose layers are shown
    board : whose DPU is predicted
    run, bench : directory of a measured run and of a comparison; None for the newest in `results`
    """

    results: Path
    model: Path
    board: str = DEFAULT_BOARD
    run: Path | None = None
    bench: Path | None = None


def write_report(options: ReportOptions, output: Path) -> list[Path]:
    """Write OUTPUT.html, OUTPUT.md and its plots; returns the files.

    Parameters
    ----------
    output : path without suffix

    Raises
    ------
    ReportError
        A run, a comparison or a model that was named cannot be read.
    """
    place, sections = output.parent, list(_sections(options))
    lead = f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC from {options.results}."
    place.mkdir(parents=True, exist_ok=True)
    written = [output.with_suffix(".html"), output.with_suffix(".md")]
    written[0].write_text(html_page(TITLE, lead, sections, place), encoding="utf-8")
    written[1].write_text(document(TITLE, lead, sections, place), encoding="utf-8")
    for plot in (part for section in sections for part in section.parts if isinstance(part, Plot)):
        path = place / plot_file(plot)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot.svg + "\n", encoding="utf-8")
        written.append(path)
    return written


def _sections(options: ReportOptions) -> Iterator[Section]:
    results = options.results
    yield from study_sections(results)
    bench = options.bench or _newest(results / "bench", f"*/{BENCH_FILE}")
    yield from _made(
        bench, options.bench is not None, comparison_sections, "comparison", "CPU, GPU and DPU",
        "No comparison was made yet: `tutelage bench models/fashion-densenet`.",
    )  # fmt: skip
    yield from _made(
        options.model, True, lambda path: [layers_section(path, options.board, results)], "layers",
        "Where the DPU's time goes", "",
    )  # fmt: skip
    run = options.run or _newest(results, f"*/*/{RUN_FILE}")
    yield from _made(
        run, options.run is not None, lambda path: [trace_section(path)], "trace", "A measured run",
        f"No run was measured yet. On a board: `make measure BOARD={DEFAULT_BOARD} "
        "HOST=user@board`; on this machine, emulated: `python -m tutelage.app.measure --output "
        "results/here/first`.",
    )  # fmt: skip
    yield from _made(
        results if (results / "latency.json").is_file() else None, False,
        lambda path: [prediction_section(path)], "prediction", "Predicted against published",
        "The latency model was not fitted here: `python -m tutelage.host.latency.fit`.",
    )  # fmt: skip


def _made(
    path: Path | None,
    named: bool,
    make: Callable[[Path], list[Section]],
    name: str,
    title: str,
    missing: str,
) -> list[Section]:
    """Return a file's sections, or one that says why there are none."""
    if path is None:
        return [Section(name, title, [missing])]
    try:
        return make(path)
    except ResultsError as error:  # which names the file
        reason = f"cannot be used: {error}"
    except _UNREADABLE as error:
        reason = f"{path}: cannot be used: {error_text(error)}"
    if named:
        raise ReportError(reason)
    return [Section(name, title, [reason])]


def _newest(folder: Path, pattern: str) -> Path | None:
    """Return the directory of the newest result that came to its end, None without one."""
    found: list[tuple[str, Path]] = []
    for path in folder.glob(pattern):
        try:
            outcome = read_outcome(path)
        except ResultsError:
            continue  # not ours, or torn: the report is made of the others
        if outcome.state == DONE:
            found.append((outcome.started, path.parent))
    return max(found)[1] if found else None
