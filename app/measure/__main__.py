"""Command line of the measurement: `python -m tutelage.app.measure --output DIR`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tutelage.app.measure.measurement import Measurement
from tutelage.app.measure.plan import (
    REFUSALS,
    MeasurementSettings,
    Phases,
    Step,
    make_steps,
)
from tutelage.app.measure.store import SUMS, Store, hold
from tutelage.app.model import load_classifier
from tutelage.app.options import MOST_THREADS
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.load_patterns import decoded_frames
from tutelage.board.power import open_power
from tutelage.board.power.sources.registry import source_names
from tutelage.core.board_profile import board_names, load_profile
from tutelage.core.deployed_model import default_model
from tutelage.core.errors import DONE
from tutelage.core.locations import CODE, DEMO_MODEL
from tutelage.core.messages import run_command, run_program, say
from tutelage.core.text import shown_lines

PROGRAM = "measure"
_SPARE_HISTORY_SECONDS = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit status: 0 done, 1 failed or refused, 2 wrong use."""
    parser = command_line_parser()
    options = parser.parse_args(arguments)
    try:
        steps = make_steps(options.scenario or ["single-stream", "offline"], options.threads,
                           options.repetitions)  # fmt: skip
    except ValueError as error:
        parser.error(str(error))

    def measure() -> int:
        with ExitStack() as stack:
            return _measure(options, steps, stack)

    return run_command(PROGRAM, measure)


def _measure(options: argparse.Namespace, steps: list[Step], stack: ExitStack) -> int:
    phases = Phases(options.idle, options.warm_up, options.seconds, options.cool_down)
    classifier = load_classifier(options.model, options.plugin)
    for line in classifier.warnings:
        _say_if_possible(line)
    source = open_source(options.source or _images(options.model))
    settings = MeasurementSettings(steps, phases, options.in_flight, tuple(options.accept),
                                   options.realtime, source.name, options.started,
                                   options.name)  # fmt: skip
    samples, left_out = decoded_frames(source)
    for line in (*source.warnings(), *([left_out] if left_out else [])):
        _say_if_possible(line)
    longest = max(phases.idle, phases.warm_up + phases.seconds, 5 * phases.cool_down)
    power = open_power(options.power, options.board, rate_hz=options.power_rate,
                       history_seconds=2 * longest + _SPARE_HISTORY_SECONDS)  # fmt: skip
    stack.callback(power.close)
    files = Store(options.output)
    stack.callback(files.close)
    held = hold(CODE / SUMS)
    if held:
        stack.enter_context(held)
    measurement = Measurement(settings, classifier, samples, power, load_profile(options.board),
                              files, _say_if_possible)  # fmt: skip
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda _number, _frame: measurement.stop())
    measurement.go()
    print(shown_lines((files.folder / "summary.md").read_text(encoding="utf-8")), end="")
    return DONE


def _images(model: Path) -> str:
    """Return the default source: the model's own images, or else the demo's."""
    own = model / "images"
    return str(own if own.is_dir() else DEMO_MODEL / "images")


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tutelage.app.measure",
        description="Measure a model's latency, throughput, power and energy on this machine.",
        epilog="Exit status: 0 done, 1 failed or refused, 2 wrong use. Ctrl-C ends the "
        "measurement; complete windows are kept.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="a new directory")
    add(
        "--model",
        type=Path,
        default=default_model(),
        metavar="PATH",
        help="model directory or .xmodel; default: as for classify.py",
    )
    add("--plugin", type=Path, metavar="FILE", help="CPU ops, as in classify.py")
    add("--source", metavar="URI", help="images; default: the model's own, or else the demo's")
    add(
        "--scenario",
        action="append",
        metavar="NAME",
        help="single-stream, offline, server:QPS or server:QPS:BOUND_MS; may be repeated; "
        "default: single-stream and offline",
    )
    add(
        "--threads",
        type=_threads,
        default=[1, 2, 4],
        metavar="N,N,...",
        help="numbers of threads, each with a runner; default: 1,2,4",
    )
    add(
        "--repetitions",
        type=_count,
        default=1,
        metavar="N",
        help="measure all steps N times, interleaved; default: %(default)s",
    )
    for name, default, text in (
        ("seconds", Phases.seconds, "of each measured window"),
        ("warm-up", Phases.warm_up, "of unmeasured frames before each window"),
        ("idle", Phases.idle, "of each idle baseline, before and after the windows"),
        ("cool-down", Phases.cool_down, "of rest between two windows, or more"),
    ):
        add(
            f"--{name}",
            type=_seconds,
            default=default,
            metavar="S",
            help=f"seconds {text}; default: %(default)g",
        )
    add(
        "--in-flight",
        type=_count,
        default=1,
        metavar="N",
        help="jobs that each runner has at once; default: %(default)s",
    )
    add(
        "--power",
        choices=("auto", *source_names(), "none"),
        default="auto",
        help="power sensor; default: auto",
    )
    add(
        "--power-rate",
        type=_rate,
        default=50.0,
        metavar="HZ",
        help="power readings per second; default: %(default)g",
    )
    add(
        "--board",
        choices=board_names(),
        default=board_names()[0],
        help="profile of the board; default: %(default)s",
    )
    add(
        "--realtime",
        choices=board_names(),
        metavar="BOARD",
        help="slow the emulation down to the predicted speed of a board",
    )
    add("--name", help="name of the model in the results; default: its own")
    add("--started", metavar="TIME", help="the time now, if this machine's clock is wrong")
    add(
        "--accept",
        action="append",
        default=[],
        choices=REFUSALS,
        metavar="NAME",
        help=f"measure in spite of a finding: {', '.join(REFUSALS)}; may be repeated",
    )
    return parser


def _threads(text: str) -> list[int]:
    return [_count(number) for number in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {MOST_THREADS}")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, 0.1, 86_400)


def _rate(text: str) -> float:
    return _number(text, 1, 1000)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a number from {least:g} to {most:g}")
    return number


def _say_if_possible(text: str) -> None:
    with suppress(OSError):  # the log may be on a full disk
        say(PROGRAM, text)


if __name__ == "__main__":
    sys.exit(run_program(main))
