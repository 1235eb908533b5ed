"""The sections of a report, the files that they are made from, and the report's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD, UnknownBoardError
from tutelage.core.results.bench_json import BENCH_FILE
from tutelage.host.report.classes_section import classes_section, confusion_section
from tutelage.host.report.comparison_section import comparison_section, thesis_section
from tutelage.host.report.content import Gap, Plot, Section, Table
from tutelage.host.report.cost_section import Cost, cost_section, predicted_cost
from tutelage.host.report.errors import UNREADABLE, ReportError, reason
from tutelage.host.report.found import FoundComparison, FoundRun, comparison_of, runs_of
from tutelage.host.report.headline_section import headline_section
from tutelage.host.report.html_page import html_page
from tutelage.host.report.markdown import document, plot_file
from tutelage.host.report.page_style import PLOT_STYLE
from tutelage.host.report.prediction_section import prediction_section
from tutelage.host.report.study_section import study_sections
from tutelage.host.report.subject import Subject, find_subject
from tutelage.host.report.trace_section import trace_section
from tutelage.host.report.training_run import TrainingRun
from tutelage.host.report.training_section import training_section

Parts = Iterator[Section | Gap]


@dataclass(frozen=True)
class ReportOptions:
    """Inputs of a report.

    Attributes
    ----------
    results : directory of study.csv, latency.json, bench/, measured runs and, in subdirectories,
        other studies
    model : model directory, or compiled or quantised .xmodel; None: see `find_subject`
    training : directory of the training run; None: see `find_subject`
    board : board for which the model's cost is predicted
    runs : directories of measured runs; if empty, the newest in `results`
    bench : directory of a comparison; None for the newest
    """

    results: Path
    model: Path | None = None
    training: Path | None = None
    board: str = DEFAULT_BOARD
    runs: tuple[Path, ...] = ()
    bench: Path | None = None


def write_report(options: ReportOptions, output: Path) -> list[Path]:
    """Write OUTPUT.html, OUTPUT.md and its plots in OUTPUT/; return the paths of these files.

    Parameters
    ----------
    output : path without suffix; .html or .md at its end is left out

    Raises
    ------
    ReportError
        A named file, or the model, cannot be used.
    """
    subject = find_subject(options.model, options.training)
    sections = _with_gaps(list(_sections(subject, options)))
    if output.suffix in (".html", ".md"):
        output = output.with_suffix("")
    title, place = subject.name, output.parent
    lead = _lead(subject)
    end = (
        f"Made {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by `tutelage report`. Predicted "
        "figures were not measured; nothing was measured on a DPU unless it says so."
    )
    place.mkdir(parents=True, exist_ok=True)
    texts = {
        place / f"{output.name}.html": html_page(title, lead, sections, place, end),
        place / f"{output.name}.md": document(title, lead, sections, output, end),
    }
    plots = [part for section in sections for part in section.parts if isinstance(part, Plot)]
    for plot in plots:
        texts[plot_file(plot, output)] = plot.svg.replace(">", f">{PLOT_STYLE}", 1) + "\n"
    if plots:
        output.mkdir(exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _lead(subject: Subject) -> str:
    """Return a line that names the network, and how it was found."""
    known, run = subject.provenance, subject.training
    what = known.get("name")
    if what is None and run and run.config:
        what = f"{run.config.student.network} {run.config.method}"
    data = known.get("dataset")
    if data is None and run and run.config:
        data = f"{run.config.data.kind} {run.config.data.path}".strip()
    text = f"{what or subject.place or subject.name}{f', trained on {data}' if data else ''}."
    return " ".join(filter(None, [text, subject.how]))


def _sections(subject: Subject, options: ReportOptions) -> Parts:
    cost = None if subject.model is None else _cost(subject.model, options)
    runs = runs_of(subject, options.results, options.runs)
    comparison = comparison_of(subject, options.results, options.bench)
    own = [each.run for each in runs if each.is_own] if isinstance(runs, list) else []
    yield headline_section(subject, cost, own)
    yield from _of_training(subject)
    yield from _of_cost(subject, cost)
    yield from _of_runs(runs)
    yield from _of_comparison(comparison)
    yield from _of_project(options.results)


def _cost(model: Path, options: ReportOptions) -> Cost:
    try:
        return predicted_cost(model, options.board, options.results)
    except UnknownBoardError:
        raise
    except UNREADABLE as error:
        raise ReportError(reason(model, error)) from error


def _of_training(subject: Subject) -> Parts:
    run = subject.training
    if run is None:
        text = subject.training_error or (
            "The run that trained this model was not found: `tutelage train` writes one, and "
            "`--training` names its directory."
        )
        yield Gap("Training", text)
        return
    yield from _made("Training", lambda: [training_section(run)], run.folder)
    results = run.results
    if results is None:
        yield Gap("Accuracy by class", f"{run.folder} has no results.json, which `tutelage train` "
                                       "writes at the end of a run.")  # fmt: skip
        return
    yield from _made("Accuracy by class", lambda: [classes_section(run, results)], run.folder)
    yield from _made("Confusion matrix", lambda: [confusion_section(run, results)], run.folder)


def _of_cost(subject: Subject, cost: Cost | None) -> Parts:
    if cost is not None:
        try:
            yield cost_section(cost)
        except UNREADABLE as error:
            raise ReportError(reason(cost.model, error)) from error
    elif subject.training:
        yield Gap("Cost on the board", _no_model(subject.training))


def _no_model(run: TrainingRun) -> str:
    if run.config and not run.config.quantises:
        return ("The run is in float. Start a run with method ptq, qat or qkd from it, and export "
                "that run with `tutelage export`.")  # fmt: skip
    return (f"There is no model of this run: `tutelage export {run.folder} -o models/mine` and "
            "`tutelage compile models/mine` create one.")  # fmt: skip


def _of_runs(found: list[FoundRun] | Gap) -> Parts:
    if isinstance(found, Gap):
        yield found
        return
    for number, each in enumerate(found, start=1):

        def make(each: FoundRun = each, number: int = number) -> list[Section]:
            return [trace_section(each.folder, each.run, each.is_own, number)]

        yield from _made("Measured run", make, each.folder)


def _of_comparison(found: FoundComparison | Gap) -> Parts:
    if isinstance(found, Gap):
        yield found
        return
    path = found.folder / BENCH_FILE
    yield comparison_section(found.results, path, found.is_own)
    yield thesis_section(found.results, path)


def _of_project(results: Path) -> Parts:
    """Yield the studies of methods and the latency model, which do not depend on the model."""
    study, latency = results / "study.csv", results / "latency.json"
    if study.is_file():
        yield from _made("Study of methods", lambda: study_sections(study), study)
    else:
        yield Gap("Study of methods", "`tutelage study` trains every method and bit width.")
    for number, other in enumerate(sorted(results.glob("*/study.csv")), start=2):
        make = partial(study_sections, other, number)
        yield from _made(f"Study {other.parent.name}", make, other)
    if latency.is_file():
        yield from _made("Predicted against published", lambda: [prediction_section(results)],
                         latency)  # fmt: skip
    else:
        yield Gap("Predicted against published",
                  "`python -m tutelage.host.latency.fit` fits the latency model.")  # fmt: skip


def _made(title: str, make: Callable[[], list[Section]], path: Path) -> Parts:
    """Yield the sections made from a file, or the reason why it cannot be used."""
    try:
        yield from make()
    except UNREADABLE as error:
        yield Gap(title, reason(path, error))


def _with_gaps(found: list[Section | Gap]) -> list[Section]:
    """Return the sections, and a last one that lists the missing ones."""
    sections = [each for each in found if isinstance(each, Section)]
    gaps = [each for each in found if isinstance(each, Gap)]
    if gaps:
        table = Table(["section", "reason, and how to get it"], [[g.title, g.text] for g in gaps])
        sections.append(Section("missing", "Not in this report", [table]))
    return sections
