#!/usr/bin/env python3
"""Classify images from a camera, a video, a stream or a directory on the DPU."""

# ruff: noqa: E402  (the imports need the path that is set before them)

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _enter_environment() -> None:
    """Continue with the Python of .venv, which `make` or `deploy` has created beside app/.

    A Python of an active environment (venv or conda) stays, with the packages of the release.
    """
    python, packages = ROOT / ".venv" / "bin" / "python", ROOT / "packages"
    is_system = sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ
    if is_system and os.access(python, os.X_OK):
        os.execv(python, [str(python), *sys.argv])  # noqa: S606  (no shell is wanted)
    if packages.is_dir():
        sys.path.append(str(packages))


if not __package__:  # run as a script: sys.path has app/ instead of the root
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports prints no traceback
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT / "app"))]
    if __name__ == "__main__":
        _enter_environment()

from typing import Any

from tutelage.app.messages import PROGRAM, say
from tutelage.app.model import Classifier, load_classifier, override
from tutelage.app.options import SCRIPT, Options, read_options
from tutelage.app.outputs.output import OutputError
from tutelage.app.pipeline.run_summary import summary_lines
from tutelage.app.run import Run
from tutelage.board.model_parts import ModelError
from tutelage.core.errors import DONE, FAILED
from tutelage.core.files import read_bounded
from tutelage.core.messages import run_command, run_program
from tutelage.core.text import json_text

_MAX_LABELS_BYTES = 1 << 20  # of --labels, as of a model.toml


def main(arguments: Sequence[str] | None = None, program: str = SCRIPT) -> int:
    """Run the application and return its exit status.

    Parameters
    ----------
    arguments : command line without the program's name; None for that of this process
    program : the program's name in help and advice
    """
    options = read_options(arguments, program)
    return run_command(PROGRAM, lambda: classify(options))


def classify(options: Options) -> int:
    """Classify every frame of the source, report, and return the exit status.

    Raises
    ------
    TutelageError
        The model, source or an output cannot be opened.
    BrokenPipeError
        The reader of standard output has closed it.
    """
    _check_writable(options.json)
    # A signal must not break off the outputs either, while `stack` completes them.
    with ExitStack() as signals, ExitStack() as stack:
        run = Run(options, open_classifier(options), stack, say)
        signals.enter_context(_stopped_by_signals(run.stop))
        run.go()
    report = run.report()
    try:
        _write_figures(report, options.json)  # before the summary, whose reader may go away
    finally:  # print the summary even if the disk is full
        if not run.reader_gone:
            _publish(report, options.json)
    if run.reader_gone:
        raise BrokenPipeError
    return _status(report)


def _check_writable(json_path: str | None) -> None:
    """Raise OutputError before the run if the file for the figures cannot be written.

    A file that exists keeps its contents, and no other is left behind.
    """
    if json_path is None or json_path == "-":
        return
    existed = os.path.lexists(json_path)
    try:
        Path(json_path).open("a", encoding="utf-8").close()
        if not existed:
            Path(json_path).unlink()
    except OSError as error:
        raise OutputError(f"{json_path}: {error.strerror or error}") from error


def open_classifier(options: Options) -> Classifier:
    """Load the model, apply the options that override model.toml, and print its warnings."""
    classifier = override(
        load_classifier(options.model, options.plugin),
        labels=_read_labels(options.labels) if options.labels else None,
        colour=options.colour,
        mean=options.mean,
        scale=options.scale,
        crop=options.crop,
    )
    for line in classifier.warnings:
        say(line)
    return classifier


def _read_labels(path: Path) -> list[str]:
    """Return the lines of a file, one label each, without empty lines at the end.

    Editors may put a byte order mark at the start and spaces at the ends of lines. The labels would
    look the same with them, but differ from the names of the images' folders.
    """
    try:
        data = read_bounded(path, _MAX_LABELS_BYTES)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    if len(data) > _MAX_LABELS_BYTES:
        raise ModelError(f"{path}: labels of more than {_MAX_LABELS_BYTES >> 20} MiB")
    try:
        return [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a text file in UTF-8") from None


@contextmanager
def _stopped_by_signals(stop_run: Callable[[], None]) -> Iterator[None]:
    """Stop the run on Ctrl-C or SIGTERM, and end the program immediately on a second signal.

    The second signal closes nothing, because closing may be what hangs, for example on a pipe
    without a reader.
    """
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(_number: int, _frame: object) -> None:
        stop_run()
        for each in signals:
            signal.signal(each, end)

    def end(number: int, _frame: object) -> None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h\n")  # the live table hides the cursor
        os._exit(128 + number)

    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, before[each])


def _as_json(report: dict[str, Any]) -> str:
    return json_text(report, indent=2) + "\n"


def _write_figures(report: dict[str, Any], json_path: str | None) -> None:
    """Write the figures to the file of --json, if one was given."""
    if json_path is not None and json_path != "-":
        try:
            Path(json_path).write_text(
                _as_json(report), encoding="utf-8", errors="backslashreplace"
            )
        except OSError as error:
            raise OSError(f"{json_path}: {error.strerror or error}") from error


def _publish(report: dict[str, Any], json_path: str | None) -> None:
    """Print the summary, and with `--json -` the figures, to standard output."""
    # Standard output with figures or records must contain nothing else.
    taken = json_path == "-" or any(output["uri"] == "-" for output in report["outputs"])
    print("\n".join(summary_lines(report)), file=sys.stderr if taken else sys.stdout, flush=True)
    if json_path == "-":
        sys.stdout.write(_as_json(report))
        sys.stdout.flush()


def _status(report: dict[str, Any]) -> int:
    if report["error"] or any(output["error"] for output in report["outputs"]):
        return FAILED
    nothing_asked_for = report["interrupted"] and not report["frames"]["in"]
    return DONE if report["frames"]["classified"] or nothing_asked_for else FAILED


def run() -> int:
    """Run as a program; return the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_program(main)


if __name__ == "__main__":
    sys.exit(run())
