"""Training: `tutelage train | study`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.core.errors import DONE, FAILED, TutelageError
from tutelage.core.text import counted, shown
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions, StorageOptions
from tutelage.host.cli.printing import print_json, print_lines

if TYPE_CHECKING:
    from tutelage.host.train.results import RunResults
    from tutelage.host.train.study import Study


@dataclass(frozen=True, kw_only=True)
class TrainOptions(JsonOptions):
    """Options of `train`."""

    config: Annotated[
        Path,
        typer.Argument(
            metavar="RUN.toml", help="configuration of the run, see docs/reference/run-toml.md"
        ),
    ]
    output: Annotated[Path, typer.Option(help="directory for checkpoints, log and results")]
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint")] = (
        False
    )
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="TABLE.KEY=VALUE", help="override a value of RUN.toml; repeatable"
        ),
    ] = field(default_factory=list)


@command(
    "train",
    "qkd.toml --output runs/qkd",
    "qkd.toml --output runs/w4a4 --set quantisation.weights=4 --set quantisation.activations=4",
    "qkd.toml --output runs/qkd --resume",
)
def train(options: TrainOptions) -> int:
    """Train a network.

    With several processes or machines: accelerate launch -m tutelage train ...
    """
    from rich.console import Console

    from tutelage.host.train.config import read_config
    from tutelage.host.train.loop import train as run
    from tutelage.host.train.progress import Progress, Silent, Terminal

    settings = read_config(options.config, options.changes)
    _prepare(options.output, options.resume)
    progress: Progress = Silent()
    if _is_main_process():
        progress = Terminal(Console(stderr=options.json), options.output / "tensorboard")
    result = run(settings, options.output, options.resume, progress)
    if not _is_main_process():
        return DONE
    if options.json:
        found = {"seconds": round(result.seconds, 1), "output": str(options.output)}
        print_json({**result.results.table(), **found})
    else:
        print_lines(*_result_lines(result.results, options.output))
    return DONE


def _result_lines(results: RunResults, output: Path) -> list[str]:
    """Return a summary of a run; without labels it compares with the float network's classes."""
    top5 = f" ({results.top5_accuracy:.2f} % top-5)" if results.top5_accuracy is not None else ""
    start = f"{results.method}: {results.accuracy:.2f} %"
    if results.labels != "data":
        return [f"{start} of the test images have the float network's class{top5}, in {output}"]
    lines = [f"{start} of the test set{top5}, in {output}"]
    if results.validation_accuracy is not None:
        lines.append(
            f"  weights of epoch {results.kept_epoch} of {results.epochs}: "
            f"{results.validation_accuracy:.2f} % of the validation images"
        )
    if worst := results.worst_line():
        lines.append(f"  worst classes: {worst}; all in results.json")
    return lines


def _is_main_process() -> bool:
    """Whether this is the first of the processes that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


def _prepare(output: Path, resume: bool) -> None:
    """Create the directory of a run; refuse one that has a run already, unless to resume it."""
    from tutelage.host.train.checkpoint import CheckpointError

    if not resume and (output / "checkpoint.safetensors").exists():
        raise CheckpointError(
            f"{output}: has a run already: continue it with --resume, or give another --output"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{output}: {error.strerror}: give another --output") from error


class RunDirectoryError(TutelageError):
    """A directory for results cannot be created."""

    status = FAILED


@dataclass(frozen=True, kw_only=True)
class StudyOptions(StorageOptions, JsonOptions):
    """Options of `study`."""

    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY.toml",
            help="the study, see docs/reference/study-toml.md; default: the project's own",
        ),
    ] = None
    output: Annotated[Path, typer.Option(help="directory for study.csv and the runs")] = Path(
        "results"
    )
    jobs: Annotated[int, typer.Option(min=0, help="cells to run at a time; 0: one per core")] = 0
    limit: Annotated[
        int, typer.Option(min=0, help="stop after this number of cells; 0: run all")
    ] = 0


@command(
    "study",
    "",
    "study.toml --output results/mine --jobs 2 --limit 4",
    "study.toml --output /nfs/study --storage journal:/nfs/study.journal",
)
def study(options: StudyOptions) -> int:
    """Run the cells of a study.

    A study that was stopped continues. With --storage several machines share the cells: run the
    same command on each, with an --output that all of them can access. Cells of a machine that died
    are run again.
    """
    from rich.console import Console

    from tutelage.host.search.storage import Shared
    from tutelage.host.train import study as studies
    from tutelage.host.train import study_results
    from tutelage.host.train.study_judge import JUDGES

    shared = Shared(options.storage, options.lease) if options.storage else None

    plan = studies.read_study(options.spec or studies.DEFAULT, options.output)
    console = Console(stderr=options.json, highlight=False, markup=False, soft_wrap=True)
    jobs = options.jobs or len(os.sched_getaffinity(0))
    console.print(f"{_finished(plan)}{_time_left(plan, jobs)}")
    failures = 0
    for cell, result in plan.run(jobs, options.limit, shared):
        if isinstance(result, str):
            failures += 1
            console.print(f"failed: {shown(result)}")
        else:
            accuracy = result[JUDGES[plan.judged_by]]
            found = "done" if accuracy is None else f"{accuracy:.2f} %"
            left = _time_left(plan, jobs)
            console.print(f"{cell.name}: {found} in {result['seconds']:.0f} s{left}")
    rows = plan.done()
    judged = plan.judged(rows)
    table = study_results.markdown(judged, plan.judged_by)
    if judged:
        (options.output / "study.md").write_text(table, encoding="utf-8")
        study_results.plot(judged, options.output / "study.svg", plan.judged_by)
    if options.json:
        print_json(list(rows.values()))
    else:
        print(table)
    undone = 0 if options.limit else len(plan.cells) - len(rows)  # other workers' failures too
    return FAILED if failures or undone else DONE


def _finished(plan: Study) -> str:
    done = f"{len(plan.done())} of {counted(len(plan.cells), 'cell')} finished"
    repeated = plan.repeated()
    again = f", {len(repeated)} of them to be run again for their weights" if repeated else ""
    return f"{done}{again}, in {plan.table}"


def _time_left(plan: Study, jobs: int) -> str:
    from tutelage.host.train.study_time import duration

    left = plan.seconds_left(jobs)
    return f"; about {duration(left)} left, {jobs} at a time" if left else ""
