"""Which sections a report has, the files that they come from, and the report's own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.errors import DpuError
from tutelage.host.report.comparison import comparison_sections
from tutelage.host.report.content import Plot, Section
from tutelage.host.report.html import page
from tutelage.host.report.layers_section import layers_section
from tutelage.host.report.markdown import document, plot_file
from tutelage.host.report.prediction import prediction_section
from tutelage.host.report.study import study_sections
from tutelage.host.report.trace import trace_section

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


class ReportError(ValueError):
    """A file that was named is not what a report can use; one line."""


@dataclass(frozen=True)
class Choice:
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


def write_report(choice: Choice, output: Path) -> list[Path]:
    """Write OUTPUT.html, OUTPUT.md and its plots; returns the files.

    Parameters
    ----------
    output : path without suffix

    Raises
    ------
    ReportError
        A run, a comparison or a model that was named cannot be read.
    """
    place, sections = output.parent, list(_sections(choice))
    lead = f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC from {choice.results}."
    place.mkdir(parents=True, exist_ok=True)
    written = [output.with_suffix(".html"), output.with_suffix(".md")]
    written[0].write_text(page(TITLE, lead, sections, place), encoding="utf-8")
    written[1].write_text(document(TITLE, lead, sections, place), encoding="utf-8")
    for plot in (part for section in sections for part in section.parts if isinstance(part, Plot)):
        path = place / plot_file(plot)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot.svg + "\n", encoding="utf-8")
        written.append(path)
    return written


def _sections(choice: Choice) -> Iterator[Section]:
    results = choice.results
    yield from study_sections(results)
    bench = choice.bench or _newest(results / "bench", "*/bench.json")
    yield from _made(
        bench, choice.bench is not None, comparison_sections, "comparison", "CPU, GPU and DPU",
        "No comparison was made yet: `tutelage bench models/fashion-densenet`.",
    )  # fmt: skip
    yield from _made(
        choice.model, True, lambda path: [layers_section(path, choice.board)], "layers",
        "Where the DPU's time goes", "",
    )  # fmt: skip
    run = choice.run or _newest(results, "*/*/run.json")
    yield from _made(
        run, choice.run is not None, lambda path: [trace_section(path)], "trace", "A measured run",
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
    except _UNREADABLE as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error or type(error).__name__
        reason = f"{path}: cannot be used: {what}"
        if named:
            raise ReportError(reason) from error
        return [Section(name, title, [reason])]


def _newest(folder: Path, pattern: str) -> Path | None:
    """Return the directory of the newest result that came to its end, None without one."""
    found: list[tuple[str, Path]] = []
    for path in folder.glob(pattern):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["state"] == "done":
                found.append((str(told["started"]), path.parent))
        except _UNREADABLE:
            continue  # not ours, or torn: the report is made of the others
    return max(found)[1] if found else None
