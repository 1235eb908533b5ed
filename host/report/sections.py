"""Which sections a report has, the files that they come from, and the report's own files."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

from host.report.content import Plot, Section
from host.report.html import page
from host.report.markdown import document, plot_file
from host.report.study import study_sections
from host.report.trace import trace_section

TITLE = "Tutelage: a DenseNet in 8 bits, and what it costs"


class ReportError(ValueError):
    """A file that was named is not what a report can use; one line."""


def write_report(results: Path, output: Path, run: Path | None) -> list[Path]:
    """Write OUTPUT.html, OUTPUT.md and its plots; returns the files.

    Parameters
    ----------
    results : directory of study.csv, bench and measured runs
    output : path without suffix
    run : directory of the measured run to show; None for the newest below `results`

    Raises
    ------
    ReportError
        `run` is no measured run.
    """
    place = output.parent
    sections = [*study_sections(results), _trace(results, run)]
    lead = f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC from {results}."
    place.mkdir(parents=True, exist_ok=True)
    written = [output.with_suffix(".html"), output.with_suffix(".md")]
    written[0].write_text(page(TITLE, lead, sections, place), encoding="utf-8")
    written[1].write_text(document(TITLE, lead, sections, place), encoding="utf-8")
    for plot in (part for section in sections for part in section.parts if isinstance(part, Plot)):
        path = place / plot_file(plot)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot.svg, encoding="utf-8")
        written.append(path)
    return written


def newest_run(results: Path) -> Path | None:
    """Return the directory of the newest measured run that came to its end, None without one."""
    found: list[tuple[str, Path]] = []
    for path in results.glob("*/*/run.json"):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            if run["state"] == "done" and run["steps"]:
                found.append((run["started"], path.parent))
        except (OSError, ValueError, LookupError, TypeError):
            continue  # not ours, or torn: the report is made of the others
    return max(found, default=(None, None))[1]


def _trace(results: Path, run: Path | None) -> Section:
    named, run = run is not None, run or newest_run(results)
    if run is None:
        missing = (
            "No run was measured yet. On a board: `make measure BOARD=zcu104 HOST=user@board`; on "
            "this machine, with the emulation: `python -m app.measure --output results/here/first`."
        )
        return Section("trace", "A measured run", [missing])
    try:
        return trace_section(run)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if named:
            raise ReportError(f"{run}: no measured run: {error!r}") from error
        return Section("trace", "A measured run", [f"{run}: cannot be read: {error!r}"])
