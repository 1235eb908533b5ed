"""Base class of all outputs."""

from __future__ import annotations

from tutelage.app.pipeline.pipeline import LOOK_SECONDS
from tutelage.app.pipeline.result import Result
from tutelage.core.errors import TutelageError


class OutputError(TutelageError):
    """An output cannot be written; the message is one line."""


class Output:
    """Base class of outputs, which take results in order.

    Attributes
    ----------
    own_thread : run the output in its own thread, since it is slow and would delay the others
    on_standard_output : a reader that closes it ends the run without a message (`| head`)
    look_seconds : interval between calls of `look`, s
    """

    own_thread = False
    on_standard_output = False
    look_seconds = LOOK_SECONDS

    def add(self, result: Result) -> None:
        """Take one result."""
        raise NotImplementedError

    def look(self) -> None:
        """Update the display. Called from the main thread every `look_seconds`."""

    def close(self) -> None:
        """Complete the output. Also called after a failure."""

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
