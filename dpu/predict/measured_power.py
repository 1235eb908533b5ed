"""Power and energy measured on boards: by runs, and by DPU rows of comparisons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.board_profile import Profile
from tutelage.core.errors import DpuError
from tutelage.core.files import sha256_of
from tutelage.core.model_package import DESCRIPTION, read_description
from tutelage.core.results.bench_json import BENCH_FILE, DPU, BenchResults, read_bench
from tutelage.core.results.figure import MEASURED
from tutelage.core.results.run_json import RUN_FILE, RunResults, read_run
from tutelage.core.results.typed_json import ResultsError

_OFFLINE = "offline"

_DOUBTS = ("sensor", "throttled", "disturbed")
"""Names of concerns that make the watts of a window doubtful as the DPU's (app/measure)."""


@dataclass(frozen=True)
class Step:
    """A window of Offline, which keeps all threads busy, that was measured on a board.

    Attributes
    ----------
    file : file that contains it
    run : start and place of its run
    threads : threads of the application
    watts : power of the whole board, W
    joules : energy per frame, J; None if not measured
    same_model : whether it ran the requested model
    doubt : why its watts are not used; "" if there is no reason
    """

    file: Path
    run: tuple[str, str]
    threads: int
    watts: float
    joules: float | None = None
    same_model: bool = False
    doubt: str = ""


def found_steps(results: Path, board: str, profile: Profile, model: Path | None) -> list[Step]:
    """Return the steps of all usable files below a folder of results.

    Parameters
    ----------
    board : board whose folder in `results` has its runs
    model : requested .xmodel, if any
    """
    found: list[Step] = []
    sums = model_sums(model)
    runs = sorted((results / board).glob(f"*/{RUN_FILE}"))
    for path in (*runs, *sorted((results / "bench").glob(f"*/{BENCH_FILE}"))):
        with suppress(ResultsError):
            found += _of_file(path, profile, sums)
    return _once(found)


def given_steps(paths: Iterable[Path], profile: Profile, model: Path | None) -> list[Step]:
    """Return the steps of files or directories named by the user.

    Raises
    ------
    DpuError
        One of them cannot be read, or has no power of this board.
    """
    found: list[Step] = []
    sums = model_sums(model)
    for path in paths:
        try:
            steps = list(_of_file(path, profile, sums))
        except ResultsError as error:
            raise DpuError(str(error)) from error
        if not steps:
            raise DpuError(f"{path}: contains no power of a {profile.name}, measured in Offline")
        if all(step.doubt for step in steps):
            doubts = ", ".join(sorted({step.doubt for step in steps}))
            raise DpuError(f"{path}: its power cannot be used: {doubts}; measure again")
        found += steps
    return _once(found)


def _of_file(path: Path, profile: Profile, sums: frozenset[str]) -> Iterator[Step]:
    file = path
    if path.is_dir():
        file = path / (BENCH_FILE if (path / BENCH_FILE).exists() else RUN_FILE)
    if file.name == BENCH_FILE:
        yield from _of_bench(read_bench(file), file, profile, sums)
        return
    run = read_run(file)
    if run.machine.board is None or _is_board(run.machine.board, profile):
        yield from _of_run(run, file, sums)


def _of_run(run: RunResults, file: Path, sums: frozenset[str]) -> Iterator[Step]:
    """Yield the steps of a run on the board itself; none for a run with the emulation."""
    made_from = str(run.model.provenance.get("checkpoint_sha256"))  # the file may hold any type
    same = not sums.isdisjoint({run.model.sha256, made_from})
    for step in run.steps if run.on_dpu else ():
        watts, joules = step.power.watts.value, step.power.joules_per_frame.value
        if step.scenario == _OFFLINE and watts is not None and watts > 0:
            doubt = _doubt({concern.name for concern in step.concerns})
            start = (run.started, run.machine.place)
            yield Step(file, start, step.threads, watts, joules, same, doubt)


def _of_bench(
    results: BenchResults, file: Path, profile: Profile, sums: frozenset[str]
) -> Iterator[Step]:
    """Yield a step for each measured row of this board's DPU."""
    same = results.model.checkpoint_sha256 in sums
    for row in results.rows:
        watts, joules = row.watts.value, row.joules_per_frame.value
        if row.family != DPU or row.kind != MEASURED or not _is_board(row.where, profile):
            continue
        if watts is not None and watts > 0:
            own = same and row.same_student is True
            # A window's concern is "<step>: <name>: <text>" here, see host/bench/dpu_rows.py.
            parts = [concern.split(": ", 2) for concern in row.concerns]
            doubt = _doubt({part[1] for part in parts if part[0].startswith(_OFFLINE) and part[1:]})
            run = (row.when, row.where)
            yield Step(file, run, row.threads or 1, watts, joules, own, doubt)


def _doubt(concerns: Collection[str]) -> str:
    """Return those of the concerns' names that make watts doubtful, as text."""
    return ", ".join(name for name in _DOUBTS if name in concerns)


def _once(steps: Iterable[Step]) -> list[Step]:
    """Return the steps without those of comparisons whose run is in an earlier file, too.

    A row of a comparison has the start and the place of the run that it was made from.
    """
    found: list[Step] = []
    files: dict[tuple[str, str], Path] = {}
    for step in sorted(steps, key=lambda step: step.file.name == BENCH_FILE):
        first = files.setdefault(step.run, step.file)
        if step.file.name != BENCH_FILE or first == step.file:
            found.append(step)
    return found


def _is_board(place: str, profile: Profile) -> bool:
    return profile.name.lower() in place.lower()


def model_sums(model: Path | None) -> frozenset[str]:
    """Return the checksums that may identify a model in a run: of the file and its checkpoint."""
    if model is None:
        return frozenset()
    found = {sha256_of(model)}
    description = model.with_name(DESCRIPTION)
    if description.exists():
        with suppress(DpuError):  # a bad model.toml must not prevent the prediction
            found.add(str(read_description(description).provenance.get("checkpoint_sha256", "")))
    return frozenset(found - {""})
