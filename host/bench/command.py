"""`tutelage bench MODEL`: from the options to the files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import DEFAULT_BOARD, UnknownBoardError, check_board
from tutelage.host.bench.bench import Bench, Setting
from tutelage.host.bench.dpu_rows import read_runs
from tutelage.host.bench.platform import CATALOGUE
from tutelage.host.bench.subject import BenchUsageError, load_images, load_subject
from tutelage.host.bench.tables import write

DEFAULT_OUTPUT = Path("results/bench")


@dataclass(frozen=True)
class Choice:
    """The options of the command line, see `tutelage bench --help`."""

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


def bench(
    model: Path,
    choice: Choice,
    output: Path | None,
    tell: Callable[[str], None],
    meter_arguments: Sequence[str] = (),
) -> tuple[dict[str, Any], Path, str]:
    """Compare and write the files; returns the report, the directory and the text of bench.md.

    Raises
    ------
    BenchUsageError, and what `load_subject` raises
        Something that was given cannot be used. Nothing is measured then.
    """
    setting = _setting(choice)
    folder = output or DEFAULT_OUTPUT / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchUsageError(f"{folder}: is there already; take another --output")
    subject = load_subject(model)
    images = load_images(subject, choice.images, choice.limit)
    comparison = Bench(setting, subject, images, read_runs(choice.dpu, subject), tell,
                       meter_arguments)  # fmt: skip
    _check_rows(setting.watts, [row.id for row in comparison.rows])
    comparison.go()
    report = comparison.report()
    return report, folder, write(folder, report)


def _setting(choice: Choice) -> Setting:
    for name in choice.platforms:
        if name not in CATALOGUE:
            raise BenchUsageError(f"no platform {name!r}; there are {', '.join(CATALOGUE)}")
    try:
        check_board(choice.board)
    except UnknownBoardError as error:
        raise BenchUsageError(str(error)) from error
    here = len(os.sched_getaffinity(0))
    if choice.threads > here:
        raise BenchUsageError(f"{choice.threads} threads on {here} CPUs would wait for each other")
    platforms = tuple(dict.fromkeys(choice.platforms)) or tuple(CATALOGUE)
    return Setting(platforms, choice.repetitions, choice.seconds, choice.warm_up,
                   choice.threads or here, choice.board, _watts(choice.watts))  # fmt: skip


def _watts(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            watts = float(number)
        except ValueError:
            watts = math.nan
        if not equals or not 0 < watts < math.inf:
            raise BenchUsageError(
                f"--watts {text}: give a row and its watts, as openvino-int8=11.5"
            )
        found[name] = watts
    return found


def _check_rows(watts: dict[str, float] | Any, rows: Sequence[str]) -> None:
    for name in watts:
        if name not in rows:
            raise BenchUsageError(f"--watts {name}=...: no such row; there are {', '.join(rows)}")
