"""What a report does about files that it cannot use."""

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
"""What readers of damaged and foreign files raise."""


class ReportError(TutelageError):
    """A file that was named is not what a report can use; one line."""


def reason(path: object, error: Exception) -> str:
    """Return one line that says which file cannot be used and why."""
    if isinstance(error, ResultsError):  # which names the file
        return f"cannot be used: {error}"
    return f"{path}: cannot be used: {error_text(error)}"
