"""Find the measured runs and the comparison of a report: the named ones, or the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tutelage.core.results.bench_json import BENCH_FILE, BenchResults, read_bench
from tutelage.core.results.run_json import DONE, RUN_FILE, RunResults, read_run
from tutelage.core.results.typed_json import ResultsError
from tutelage.host.report.content import Gap
from tutelage.host.report.errors import ReportError
from tutelage.host.report.subject import Subject

T = TypeVar("T")

_COMPARED, _MEASURED = "CPU, GPU and DPU", "Measured run"


@dataclass(frozen=True)
class FoundRun:
    """A measured run, its directory, and whether it ran the report's model."""

    folder: Path
    run: RunResults
    is_own: bool


@dataclass(frozen=True)
class FoundComparison:
    """A comparison, its directory, and whether it is of the report's model."""

    folder: Path
    results: BenchResults
    is_own: bool


def runs_of(subject: Subject, results: Path, named: Sequence[Path]) -> list[FoundRun] | Gap:
    """Return the named runs, or else the model's newest run; runs on a DPU take precedence.

    Raises
    ------
    ReportError
        A named run cannot be read.
    """
    if named:
        try:
            return [_run(subject, folder) for folder in named]
        except ResultsError as error:
            raise ReportError(f"cannot be used: {error}") from error
    found, unusable = _readable(results.glob(f"*/*/{RUN_FILE}"), partial(_run, subject))
    done = [each for each in found if each.run.state == DONE]
    own = [each for each in done if each.is_own]
    if own:
        return [max(own, key=lambda each: (each.run.on_dpu, each.run.started))]
    place = subject.place or "DIR"
    text = (
        f"{_none(len(done), unusable)} On a board: `tutelage measure user@board --model {place}`; "
        f"on this machine, emulated: `python -m tutelage.app.measure --model {place} --output "
        "results/here/first`."
    )
    return Gap(_MEASURED, text)


def comparison_of(subject: Subject, results: Path, named: Path | None) -> FoundComparison | Gap:
    """Return the named comparison, or else the model's newest one.

    Raises
    ------
    ReportError
        The named comparison cannot be read.
    """
    if named:
        try:
            return _comparison(subject, named)
        except ResultsError as error:
            raise ReportError(f"cannot be used: {error}") from error
    files = results.glob(f"bench/*/{BENCH_FILE}")
    found, unusable = _readable(files, partial(_comparison, subject))
    done = [each for each in found if each.results.state == DONE]
    own = [each for each in done if each.is_own]
    if own:
        return max(own, key=lambda each: each.results.started)
    place = subject.place or "DIR"
    return Gap(_COMPARED, f"{_none(len(done), unusable)} `tutelage bench {place}` creates one.")


def _readable(files: Iterable[Path], read: Callable[[Path], T]) -> tuple[list[T], list[str]]:
    """Read the directories of these files; return the contents, and why others cannot be used."""
    found, unusable = [], []
    for path in files:
        try:
            found.append(read(path.parent))
        except ResultsError as error:
            unusable.append(f"cannot be used: {error}")
    return found, unusable


def _run(subject: Subject, folder: Path) -> FoundRun:
    run = read_run(folder / RUN_FILE)
    made_from = run.model.provenance.get("checkpoint_sha256")
    return FoundRun(folder, run, subject.is_made_from(run.model.sha256, made_from))


def _comparison(subject: Subject, folder: Path) -> FoundComparison:
    results = read_bench(folder / BENCH_FILE)
    is_own = subject.is_made_from(results.model.checkpoint_sha256)
    return FoundComparison(folder, results, is_own)


def _none(others: int, unusable: Sequence[str]) -> str:
    """Return the message that this model has none, with the number of others and unusable files."""
    text = "There is none of this model yet"
    if others:
        text += f" ({others:,} of other models)"
    return ". ".join([text, *unusable]) + "."
