"""Common code of fuzz targets: bounds, number of examples, and checks of commands.

A target is a Hypothesis test in one of the modules beside this one. Under pytest each runs a few
dozen examples, always the same; `make fuzz SECONDS=900` runs them with new seeds until the
time is over (tests/fuzz/__main__.py).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tutelage.core.errors import UNSORTED

SECONDS = 30
"""Time after which an example counts as hanging; most take some milliseconds."""

MEBIBYTES = 4096
"""Most memory that one example may take on top of what the process has. The readers' own limits
allow more (see their constants), for models whose tensors are large."""


@dataclass
class Figures:
    """Results of a target: examples run, largest memory (MiB) and time (s) of one example."""

    examples: int = 0
    mebibytes: float = 0.0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)


TARGETS: dict[str, tuple[SearchStrategy[Any], Callable[[Any], None]]] = {}
"""Each target's cases and what is done with one, by name."""

FIGURES: dict[str, Figures] = {}

QUIET = list(HealthCheck)


class HangError(BaseException):
    """An example does not end. Not an Exception, which readers might handle as a file's fault."""


def fuzz(cases: SearchStrategy[Any], examples: int = 25) -> Callable[[Any], Any]:
    """Turn a function of one case into a target; `examples` are run under pytest."""

    def make(function: Callable[[Any], None]) -> Callable[[], None]:
        name = function.__name__.removeprefix("test_")
        FIGURES[name] = Figures()

        def bounded(case: Any) -> None:
            with bounds(FIGURES[name]):
                function(case)

        bounded.__name__ = bounded.__qualname__ = function.__name__
        bounded.__doc__, bounded.__module__ = function.__doc__, function.__module__
        chosen = settings(
            max_examples=examples, deadline=None, database=None, derandomize=True,
            suppress_health_check=QUIET,
        )  # fmt: skip
        test = chosen(given(cases)(bounded))
        TARGETS[name] = cases, bounded
        return test

    return make


@contextlib.contextmanager
def bounds(figures: Figures) -> Iterator[None]:
    """Verify that an example stays within its time and memory."""

    def hang(_number: int, _frame: object) -> None:
        raise HangError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    start, resting = time.monotonic(), _reset_peak()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        grown = (_status("VmHWM") - resting) / 1024
        figures.examples += 1
        figures.seconds = max(figures.seconds, time.monotonic() - start)
        figures.mebibytes = max(figures.mebibytes, grown)
    assert grown <= MEBIBYTES, f"took {grown:.0f} MiB"


def _reset_peak() -> int:
    """Reset the kernel's peak (proc(5), clear_refs); return the memory in use, KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def run_main(main: Callable[[list[str]], int], *arguments: object) -> tuple[int, str]:
    """Run a command line; it must end with 0, 1 or 2 and report errors in one short line.

    A line about a file whose ops are not in order may precede it.
    """
    status, out, text = run_main_with_output(main, *arguments)
    text = "".join(x for x in text.splitlines(True) if not x.endswith(f"{UNSORTED}\n"))
    assert text.count("\n") <= 1 and len(text) < 2000, text[:3000]
    assert "\x1b" not in text
    if status == 2:
        assert text and not out, out[:500]
    return status, text


def run_main_with_output(
    main: Callable[[list[str]], int], *arguments: object
) -> tuple[int, str, str]:
    """The same for commands that report several things; return status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    assert status in (0, 1, 2), status
    assert "Traceback" not in err.getvalue()
    return status, out.getvalue(), err.getvalue()


@functools.cache
def scratch() -> Path:
    """A directory for the files of this process."""
    folder = Path(tempfile.mkdtemp(prefix="tutelage-fuzz-"))
    owner = os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:  # and not a child of it
            shutil.rmtree(folder, ignore_errors=True)

    return folder


def one_line(error: BaseException, most: int = 8000) -> None:
    """Verify that an error's text is one line and not too long."""
    text = str(error)
    assert text and "\n" not in text and len(text) < most, repr(text[: 2 * most])
