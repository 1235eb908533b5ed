"""Comparison, report and search: `tutelage bench | report | explore`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.core.errors import DONE, FAILED
from tutelage.core.text import counted, shown_lines
from tutelage.host.cli.command import command
from tutelage.host.cli.options import BoardOptions, JsonOptions, NetworkOptions, StorageOptions
from tutelage.host.cli.printing import note, print_json, print_lines

if TYPE_CHECKING:
    from tutelage.host.explore.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class BenchOptions(NetworkOptions, BoardOptions, JsonOptions):
    """Options of `bench`; without --dpu the DPU of --board is predicted."""

    model: Annotated[
        Path,
        typer.Argument(
            help="directory of a quantised run, or model directory; with --input a network: a "
            "preset, such as densenet-121, or your own, MODULE:FUNCTION or FILE.py:FUNCTION"
        ),
    ]
    input: Annotated[
        str,
        typer.Option(
            metavar="CxHxW",
            help="channels, height, width of a network, which is quantised post-training",
        ),
    ] = ""
    weights: Annotated[
        str,
        typer.Option(
            help="file of the network's weights; without it they are random, and classes are "
            "meaningless"
        ),
    ] = ""
    platforms: Annotated[
        list[str],
        typer.Option(
            "--platform", help="measure only this platform; repeatable; default: all platforms"
        ),
    ] = field(default_factory=list)
    dpu: Annotated[
        list[Path],
        typer.Option(
            help="results of `tutelage measure`: run.json or its directory; repeatable; default: a "
            "prediction for --board"
        ),
    ] = field(default_factory=list)
    images: Annotated[
        str,
        typer.Option(
            help="directory of images, where CLASS/IMAGE is labelled; or `dataset`, the test set "
            "of the run"
        ),
    ] = ""
    limit: Annotated[
        int, typer.Option(min=0, help="largest number of images to classify; 0: all")
    ] = 1000
    repetitions: Annotated[
        int, typer.Option(min=1, help="number of repetitions, each of which measures all platforms")
    ] = 6
    seconds: Annotated[float, typer.Option(min=0.05, help="length of each window, s")] = 3.0
    warm_up: Annotated[
        float, typer.Option(min=0, help="length of the warm-up before each window, s")
    ] = 1.0
    threads: Annotated[
        int, typer.Option(min=0, help="threads of each framework; 0: one for each CPU")
    ] = 0
    watts: Annotated[
        list[str],
        typer.Option(metavar="ROW=W", help="power of a row, measured by you, W; repeatable"),
    ] = field(default_factory=list)
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="directory for the results; default: results/bench/TIME"
        ),
    ] = None


@command(
    "bench",
    "models/mine --images photos",
    "models/mine --images photos --dpu results/zcu104/TIME --watts openvino-int8=31.5",
    "densenet-121 --input 3x224x224 --repetitions 3",
)
def bench(options: BenchOptions) -> int:
    """Compare latency, speed, watts and accuracy."""
    from tutelage.core.results.bench_json import bench_text
    from tutelage.host.bench import command as benching

    settings = benching.BenchOptions(
        tuple(options.platforms), tuple(options.dpu), options.board, options.images, options.limit,
        options.repetitions, options.seconds, options.warm_up, options.threads,
        tuple(options.watts), options.input, options.weights, options.network,
    )  # fmt: skip
    results, folder, text = benching.bench(options.model, settings, options.output, note)
    print(bench_text(results) if options.json else shown_lines(text))
    note(f"written to {folder}")
    failed = any(row.state == "failed" for row in results.rows)
    return FAILED if failed or results.state != "done" else DONE


@dataclass(frozen=True, kw_only=True)
class ReportOptions(BoardOptions):
    """Options of `report`."""

    model: Annotated[
        Path | None,
        typer.Option(
            help="model directory, or compiled or quantised .xmodel; default: the newest in "
            "models/, else the newest run in runs/, else the demo"
        ),
    ] = None
    training: Annotated[
        Path | None,
        typer.Option(help="directory of `train`; default: the run in runs/ that made the model"),
    ] = None
    runs: Annotated[
        list[Path],
        typer.Option(
            "--run",
            help="directory of a measured run; repeatable; default: the newest of the model",
        ),
    ] = field(default_factory=list)
    bench: Annotated[
        Path | None,
        typer.Option(help="directory of a comparison; default: the newest of the model"),
    ] = None
    results: Annotated[
        Path, typer.Option(help="directory of the runs, comparisons and the study")
    ] = Path("results")
    output: Annotated[
        Path, typer.Option("--output", "-o", help="writes OUTPUT.html and OUTPUT.md")
    ] = Path("results/report")


@command(
    "report",
    "",
    "--model models/mine --training runs/mine",
    "--run results/zcu104/TIME --bench results/bench/TIME --model net.xmodel",
)
def report(options: ReportOptions) -> int:
    """Write a page about a model.

    The page has the model's accuracy, its training run, its cost on the board, measured runs and a
    comparison; missing results are listed with the command that creates them. The page has no
    scripts and works offline. Predicted figures are for --board.
    """
    from tutelage.host.report import sections

    settings = sections.ReportOptions(
        options.results, options.model, options.training, options.board, tuple(options.runs),
        options.bench,
    )  # fmt: skip
    print_lines(*sections.write_report(settings, options.output))
    return DONE


@dataclass(frozen=True, kw_only=True)
class ExploreOptions(BoardOptions, StorageOptions, JsonOptions):
    """Options of `explore`."""

    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPLORE.toml",
            help="run.toml with [explore], see docs/reference/run-toml.md; default: the demo's",
        ),
    ] = None
    latency: Annotated[
        float | None, typer.Option(help="largest latency of an image with one thread, ms")
    ] = None
    fps: Annotated[float | None, typer.Option(help="smallest number of frames per second")] = None
    energy: Annotated[
        float | None, typer.Option(help="largest energy of a frame, for the whole board, mJ")
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="threads for --fps and --energy; default: as many as increase the speed"
        ),
    ] = None
    capacity: Annotated[
        str,
        typer.Option(
            help="objective to maximise: macs, parameters, or accuracy, for which candidates that "
            "fit are trained in float and compared on the validation images ([data] validation), "
            "or on the test set if there are none"
        ),
    ] = "macs"
    trials: Annotated[
        int,
        typer.Option(
            min=0,
            help="number of candidates that Optuna chooses; 0: every candidate is predicted, none "
            "is trained",
        ),
    ] = 0
    epochs: Annotated[
        int, typer.Option(min=0, help="epochs of each training; 0: as in the TOML file")
    ] = 0
    jobs: Annotated[
        int, typer.Option(min=0, help="candidates to train at a time; 0: one per core")
    ] = 0
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory for explore.csv, .svg and the runs")
    ] = Path("results/explore")


@command(
    "explore",
    "--latency 0.6 -o out",
    "explore.toml --fps 4000 --threads 4 --energy 15 -o out",
    "explore.toml --latency 1 --capacity accuracy --trials 40 --epochs 3 "
    "--storage journal:/nfs/explore.journal -o out",
)
def explore(options: ExploreOptions) -> int:
    """Find networks.

    Networks that fit the budget are written as configurations of `tutelage train`. Without --trials
    every combination is predicted; with it Optuna chooses. With --storage several machines share
    the trials: run the same command on each. Trials of a machine that died are run again.
    """
    from tutelage.host.explore import exploration as exploring
    from tutelage.host.explore import space
    from tutelage.host.explore.forecast import Budget

    budget = Budget(options.latency, options.fps, options.energy, options.threads)
    found = exploring.explore(
        space.read_spec(options.spec), budget, options.board, options.output, options.capacity,
        _sampling(options), note,
    )  # fmt: skip
    if options.json:
        print_json(exploring.facts(found))
    else:
        print_lines(*exploring.lines(found))
    note(f"{options.output}: {exploring.TABLE}, {exploring.PLOT}, "
         f"{counted(len(found.written), 'network')} to train")  # fmt: skip
    return DONE if found.written else FAILED


def _sampling(options: ExploreOptions) -> Sampling | None:
    from tutelage.host.explore.sampling import Sampling
    from tutelage.host.search.storage import Shared, StorageUsageError

    if not options.trials:
        if options.storage:
            raise StorageUsageError("--storage shares trials: give their number with --trials")
        return None
    shared = Shared(options.storage, options.lease) if options.storage else None
    jobs = options.jobs or len(os.sched_getaffinity(0))
    return Sampling(options.trials, shared, options.epochs, jobs)
