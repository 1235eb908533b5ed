"""Several parallel outputs, independent of each other.

    outputs = Outputs()
    outputs.open("seen.csv", open_output("seen.csv"))
    outputs.add(result)

An output that fails, for example on a full disk, is reported once and then left out; the run and
the other outputs go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from tutelage.app.outputs.output import Output
from tutelage.app.pipeline.pipeline import LOOK_SECONDS
from tutelage.app.pipeline.result import Result
from tutelage.core.errors import first_line

_WAITING = 8  # results that wait for an output with its own thread


class Outputs:
    """All outputs of a run.

    Parameters
    ----------
    say : called with a line for the user when an output fails

    Attributes
    ----------
    reader_gone : the reader of standard output has closed it (`| head`)
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self._writers: list[_Writer] = []
        self._say = say
        self.reader_gone = False

    def open(self, uri: str, output: Output) -> None:
        """Add an output; it is closed with the others."""
        self._writers.append(_Writer(uri, output))

    @property
    def look_seconds(self) -> float:
        """Interval between calls of `look`, s."""
        return min((each.output.look_seconds for each in self._writers), default=LOOK_SECONDS)

    def add(self, result: Result) -> None:
        """Pass a result to every output that has not failed."""
        for writer in self._writers:
            if writer.error is None:
                self._attempt(writer, writer.add, result)

    def look(self) -> None:
        """Let every output update its display."""
        for writer in self._writers:
            if writer.error is None:
                self._attempt(writer, writer.output.look)

    def close(self) -> None:
        """Complete all outputs, including those that failed."""
        for writer in self._writers:
            self._attempt(writer, writer.close)

    def _attempt(self, writer: _Writer, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # outputs use many libraries
            if isinstance(error, BrokenPipeError) and writer.output.on_standard_output:
                self.reader_gone = True  # as in other programs, only the exit status reports it
                writer.error = writer.error or "the reader has closed it"
            if writer.error is None:
                writer.error = _text(error)
                self._say(
                    f"{writer.uri}: {writer.error}; it has {writer.count} results, "
                    "nothing more is written there"
                )

    def report(self) -> list[dict[str, Any]]:
        """Return the URI, number of results and error (or None) of each output."""
        return [
            {"uri": writer.uri, "results": writer.count, "error": writer.error}
            for writer in self._writers
        ]


def _text(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return first_line(reason or error)


class _Writer:
    """One output, in its own thread if it asks for one."""

    def __init__(self, uri: str, output: Output) -> None:
        self.uri = uri
        self.output = output
        self.error: str | None = None
        self.count = 0
        self._failure: Exception | None = None
        self._queue: Queue[Result | None] | None = Queue(_WAITING) if output.own_thread else None
        if self._queue is not None:
            self._thread = threading.Thread(target=self._work, name=f"output {uri}", daemon=True)
            self._thread.start()

    def add(self, result: Result) -> None:
        if self._queue is None:
            self.output.add(result)
            self.count += 1
            return
        if self._failure is not None:
            raise self._failure
        self._queue.put(result)  # waits while the output is behind

    def close(self) -> None:
        if self._queue is not None:
            self._queue.put(None)
            self._thread.join()
        self.output.close()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        assert self._queue is not None
        while (result := self._queue.get()) is not None:
            if self._failure is None:  # after a failure, keep emptying the queue for `add`
                try:
                    self.output.add(result)
                    self.count += 1
                except Exception as error:
                    self._failure = error
