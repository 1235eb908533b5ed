"""The project's errors, whose messages are one clear line each, and the exit statuses."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, WRONG_USE = 0, 1, 2
"""Exit statuses of every command. A bad file or a missing package is wrong use."""

INTERRUPTED = 128 + 2
"""Exit status of `tutelage shim` and `make bench` after SIGINT (2), as shells report it."""


class TutelageError(Exception):
    """Base class of every error that a command reports in one line.

    Attributes
    ----------
    status : exit status of the command; WRONG_USE if its input is at fault
    """

    status = WRONG_USE


class DpuError(TutelageError, RuntimeError):
    """Base class of every error that dpu/ raises deliberately.

    Attributes
    ----------
    subject : file or graph that the message begins with; "" for none
    """

    subject = ""


class MeasureError(TutelageError):
    """A measurement is refused, ends early or is damaged; the message is one line."""

    status = FAILED


class OverlayError(TutelageError):
    """An overlay cannot be fetched, verified or loaded; the message is one line with advice."""

    status = FAILED


class OverlayUsageError(TutelageError):
    """A request about an overlay cannot be carried out; the message is one line."""


class XmodelError(DpuError):
    """The file is not a usable .xmodel: truncated, corrupt, too large or of another kind."""


def error_text(error: object) -> str:
    """Return an error's message, or the name of its type if it has none."""
    return str(error).strip() or type(error).__name__


def first_line(error: object) -> str:
    """Return the first line of `error_text`."""
    return error_text(error).splitlines()[0]


def one_line(error: object) -> str:
    """Return all of `error_text` in one line, each run of white space as one space."""
    return " ".join(error_text(error).split())


def signal_text(number: int) -> str:
    """Return a signal's name, or its number if it has none, as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def contradictions(name: str) -> Iterator[None]:
    """Turn numpy and Python errors caused by malformed attributes of a model into XmodelError.

    Errors of dpu/ itself pass, prefixed with `name`.

    A file may contain anything: a string for a fix point, a kernel of three numbers. The ops read
    their attributes without checks; this is the only place that handles such errors.

    Parameters
    ----------
    name : of the model, for the message

    Raises
    ------
    XmodelError
        The attributes contradict each other, or the model needs too much memory or recursion.
    """
    try:
        yield
    except DpuError as error:
        if error.subject == name:
            raise
        named = type(error)(f"{name}: {error}")
        named.subject = name
        raise named from error
    except RecursionError:
        raise XmodelError(f"{name}: its chain of dependent ops is too long") from None
    except MemoryError:
        raise XmodelError(f"{name}: needs more memory than is available") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise XmodelError(f"{name}: the model is inconsistent: {text}") from error


class UnsortedWarning(UserWarning):
    """The ops of a file are not in topological order."""


UNSORTED = (
    "its ops are not in topological order, on which AMD's XIR crashes (Tutelage sorts them when it "
    "reads and writes the file)"
)
"""The message of an `UnsortedWarning`, after the file's name."""


class UnknownOpError(DpuError):
    """An op type that neither the built-in operators nor a plugin implements."""


def plugin_name(kind: str) -> str:
    """Return the name after ``op_`` of the plugin function for the op type `kind`.

    Each run of characters that are not valid in a Python name becomes one underscore:
    ``op_aten_mean`` is for aten::mean.
    """
    return re.sub(r"\W+", "_", kind)


def unknown_op(op: Any, why: str = "which is not built in") -> UnknownOpError:
    """Return the error for an op that is not implemented or lacks arguments in the file."""
    kind = op.get_type()
    return UnknownOpError(
        f"op {op.get_name()!r} has the type {kind!r}, {why}; "
        f"pass a plugin (--plugin FILE) with the function op_{plugin_name(kind)}"
    )


class UnsupportedError(DpuError):
    """A known op with attributes, shapes or types that are not implemented."""


class NotEmulatedError(NotImplementedError, AttributeError):
    """A name of the board's API that is not emulated; `hasattr` returns False for it."""


def not_emulated(where: str, name: str) -> Exception:
    """Return the error for a missing name: AttributeError if it has a leading underscore."""
    if name.startswith("_"):
        return AttributeError(f"{where} has no {name}")
    return NotEmulatedError(f"{where}.{name} is not emulated")
