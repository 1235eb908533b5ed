"""Implementation of `tutelage bench MODEL`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD, UnknownBoardError, check_board
from tutelage.core.results.bench_json import BenchResults, BenchSettings
from tutelage.core.text import counted
from tutelage.host.bench.bench import Bench
from tutelage.host.bench.dpu_rows import read_runs
from tutelage.host.bench.given_watts import check_rows, parse_watts
from tutelage.host.bench.network_subject import NetworkRequest, made_up_images, network_subject
from tutelage.host.bench.platform import CATALOGUE
from tutelage.host.bench.subject import BenchUsageError, Subject, load_images, load_subject
from tutelage.host.bench.subject_files import Images
from tutelage.host.bench.tables import write

DEFAULT_OUTPUT = Path("results/bench")


@dataclass(frozen=True)
class BenchOptions:
    """Options of the command line, described by `tutelage bench --help`."""

    platforms: tuple[str, ...] = ()
    dpu: tuple[Path, ...] = ()
    board: str = DEFAULT_BOARD
    images: str = ""
    limit: int = 1000
    repetitions: int = 6
    seconds: float = 3.0
    warm_up: float = 1.0
    threads: int = 0
    watts: tuple[str, ...] = ()
    input: str = ""
    weights: str = ""
    network: str = ""


def bench(
    model: Path,
    options: BenchOptions,
    output: Path | None,
    say: Callable[[str], None],
    meter_arguments: Sequence[str] = (),
) -> tuple[BenchResults, Path, str]:
    """Compare a model on all platforms and write the files.

    Parameters
    ----------
    model : run, model directory, or the name of a network
    output : directory to write; None for one of `DEFAULT_OUTPUT` named after the time
    say : called with each line of progress for the user
    meter_arguments : further arguments of `tutelage.board.power`

    Returns
    -------
    the results, the directory and the text of bench.md

    Raises
    ------
    BenchUsageError, OSError, and the errors of `load_subject`
        The model, an option or the directory cannot be used; nothing was measured.
    """
    settings = _settings(options)
    folder = output or DEFAULT_OUTPUT / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchUsageError(f"{folder}: exists and is not empty: give another --output")
    subject, images = _subject(model, options)
    comparison = Bench(settings, subject, images, read_runs(options.dpu, subject), say,
                       meter_arguments)  # fmt: skip
    check_rows(settings.watts, [row.id for row in comparison.rows])
    folder.mkdir(parents=True, exist_ok=True)  # before the measurement, which would be lost
    comparison.go()
    results = comparison.results()
    return results, folder, write(folder, results)


def _subject(model: Path, options: BenchOptions) -> tuple[Subject, Images]:
    if not options.input:
        if options.weights:
            raise BenchUsageError("--weights need a network: give its --input CxHxW too")
        subject = load_subject(model, options.network)
        return subject, load_images(subject, options.images, options.limit)
    request = NetworkRequest(str(model), options.input, options.weights, options.images)
    subject = network_subject(request)
    if not options.images:
        return subject, made_up_images(subject.form)
    return subject, load_images(subject, options.images, options.limit)


def _settings(options: BenchOptions) -> BenchSettings:
    for name in options.platforms:
        if name not in CATALOGUE:
            raise BenchUsageError(f"no platform {name!r}; choose from {', '.join(CATALOGUE)}")
    try:
        check_board(options.board)
    except UnknownBoardError as error:
        raise BenchUsageError(str(error)) from error
    here = len(os.sched_getaffinity(0))
    if options.threads > here:
        raise BenchUsageError(
            f"--threads {options.threads}: only {counted(here, 'CPU')} can be used: give at most "
            f"{here}"
        )
    platforms = tuple(dict.fromkeys(options.platforms)) or tuple(CATALOGUE)
    threads, watts = options.threads or here, parse_watts(options.watts)
    return BenchSettings(platforms, options.repetitions, options.seconds, options.warm_up, threads,
                         options.board, watts)  # fmt: skip
