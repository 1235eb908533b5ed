"""Errors of files that a report cannot use."""

from __future__ import annotations

from tutelage.core.errors import DpuError, TutelageError, error_text
from tutelage.core.results.typed_json import ResultsError

UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    DpuError,
    RecursionError,
)
"""Exceptions that readers raise for damaged or wrong files."""


class ReportError(TutelageError):
    """A named file cannot be used; the message is one line."""


def reason(path: object, error: Exception) -> str:
    """Return one line that says which file cannot be used and why."""
    if isinstance(error, ResultsError):  # its text has the path
        return f"cannot be used: {error}"
    return f"{path}: cannot be used: {error_text(error)}"
