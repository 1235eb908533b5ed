"""What can go wrong: the project's errors, each a message of one clear line, and exit statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, WRONG_USE = 0, 1, 2
"""Exit statuses of every command. A bad file or a missing package is wrong use."""

INTERRUPTED = 128 + 2
"""What a shell reports of a program that SIGINT (2) ended: of `tutelage shim` and `make bench`."""


class TutelageError(Exception):
    """Base of every error that a command reports in one line.

    Attributes
    ----------
    status : exit status of the command; WRONG_USE where what was given is at fault
    """

    status = WRONG_USE


class DpuError(TutelageError, RuntimeError):
    """Base of every error that dpu/ raises on purpose.

    Attributes
    ----------
    subject : file or graph that the text begins with; "" for none
    """

    subject = ""


class MeasureError(TutelageError):
    """A measurement is refused, ends early or is damaged; the text is one line for the user."""

    status = FAILED


class OverlayError(TutelageError):
    """An overlay cannot be fetched, verified or loaded; the text is one line with advice."""

    status = FAILED


class OverlayUsageError(TutelageError):
    """A request about an overlay cannot be carried out; the text is one line."""


class XmodelError(DpuError):
    """The file is not a usable .xmodel: truncated, corrupt, too large or of another kind."""


def error_text(error: object) -> str:
    """Return an error's text, or the name of its type where it has none."""
    return str(error).strip() or type(error).__name__


def first_line(error: object) -> str:
    """Return the first line of `error_text`."""
    return error_text(error).splitlines()[0]


def one_line(error: object) -> str:
    """Return all of `error_text` in one line, each white space as one blank."""
    return " ".join(error_text(error).split())


@contextmanager
def contradictions(name: str) -> Iterator[None]:
    """Turn what broken attributes of the model `name` cause in numpy and Python into XmodelError.

    Errors of dpu/ itself pass, with the name in front.

    A file may say anything: a string for a fix point, a kernel of three numbers. Each op
    reads its attributes plainly; this is the one place that minds.
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
        raise XmodelError(f"{name}: too many ops that wait for each other, refused") from None
    except MemoryError:
        raise XmodelError(f"{name}: takes more memory than there is") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise XmodelError(f"{name}: the model contradicts itself: {text}") from error


class UnsortedWarning(UserWarning):
    """The ops of a file that is read are not in topological order."""


UNSORTED = (
    "its ops are not in topological order: AMD's XIR crashes on it (read and written here, it is "
    "sorted)"
)
"""The text of an `UnsortedWarning`, behind the file's name."""


class UnknownOpError(DpuError):
    """An op type that neither the built-in operators nor a plugin implements."""


def plugin_name(kind: str) -> str:
    """The name behind ``op_`` of a plugin function for the op type `kind`.

    Each run of characters that are not valid in a Python name becomes one underscore:
    ``op_aten_mean`` is for aten::mean.
    """
    return re.sub(r"\W+", "_", kind)


def unknown_op(op: Any, why: str = "which is not built in") -> UnknownOpError:
    """The error for an op that nobody implements, or not all of whose arguments the file has."""
    kind = op.get_type()
    return UnknownOpError(
        f"op {op.get_name()!r} has the type {kind!r}, {why}; "
        f"give a plugin (--plugin FILE) with the function op_{plugin_name(kind)}"
    )


class UnsupportedError(DpuError):
    """A known op with attributes, shapes or types that are not implemented."""


class NotEmulatedError(NotImplementedError, AttributeError):
    """A name of the board's API that the emulation leaves out; `hasattr` says no to it."""


def not_emulated(where: str, name: str) -> Exception:
    """The error for a missing name; names with underscores are Python's own affair."""
    if name.startswith("_"):
        return AttributeError(f"{where} has no {name}")
    return NotEmulatedError(f"{where}.{name} is not emulated")
