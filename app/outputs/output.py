"""What every output is: something that takes results."""

from __future__ import annotations

from tutelage.app.pipeline.pipeline import LOOK_SECONDS
from tutelage.app.pipeline.result import Result
from tutelage.core.errors import TutelageError


class OutputError(TutelageError):
    """An output that cannot be written; the text is one line for the user."""


class Output:
    """Takes results, in order.

    Attributes
    ----------
    own_thread : so slow that it should not delay the others
    on_standard_output : ends the run, without a message, when the reader goes away (`| head`)
    look_seconds : how often `look` is wanted
    """

    own_thread = False
    on_standard_output = False
    look_seconds = LOOK_SECONDS

    def add(self, result: Result) -> None:
        """Take one result."""
        raise NotImplementedError

    def look(self) -> None:
        """Called from the main thread every `look_seconds`: what is shown may be renewed."""

    def close(self) -> None:
        """Complete what was written."""

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
