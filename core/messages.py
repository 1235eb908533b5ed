"""One-line messages of a program on standard error, and its exit status after errors."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.core.errors import FAILED, TutelageError, UnsortedWarning, error_text
from tutelage.core.text import shown


def say(program: str, text: object) -> None:
    """Print a one-line message of `program` on standard error, with control characters escaped."""
    print(f"{program}: {shown(text)}", file=sys.stderr, flush=True)


def run_command(program: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit status; report an error that ends it in one line.

    Errors of the project have their own status; errors of the system, lack of memory and Ctrl-C
    give FAILED. BrokenPipeError propagates: a closed reader (`| head`) needs no message.
    """
    try:
        with unsorted_in_one_line(program):
            return command()
    except BrokenPipeError:
        raise
    except TutelageError as error:
        return _failed(program, error, error.status)
    except OSError as error:
        return _failed(program, error)
    except MemoryError:
        return _failed(program, "not enough memory")
    except KeyboardInterrupt:
        return _failed(program, "interrupted")


def run_program(main: Callable[[], int]) -> int:
    """Run `main` as a program; exit quietly if the reader of its output closes (`| head`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _failed(program: str, error: object, status: int = FAILED) -> int:
    say(program, error_text(error))
    return status


@contextmanager
def unsorted_in_one_line(program: str) -> Iterator[None]:
    """Print each distinct `UnsortedWarning` on standard error as one line of `program`."""
    usual, printed = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, UnsortedWarning):
            usual(message, category, *where, **more)
        elif str(message) not in printed:
            printed.add(str(message))
            say(program, message)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnsortedWarning)
        warnings.showwarning = show
        yield
