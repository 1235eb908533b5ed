"""Several outputs at once, each on its own.

    outputs = Outputs()
    outputs.open("seen.csv", open_output("seen.csv"))
    outputs.add(result)

An output that fails (a full disk, say) is reported once and left out from then on; the run and
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

_WAITING = 8  # results in front of an output with a thread of its own


class Outputs:
    """All outputs of a run.

    Parameters
    ----------
    tell : called with a line for the user when an output fails

    Attributes
    ----------
    reader_gone : whoever read standard output has gone away (`| head`)
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self._writers: list[_Writer] = []
        self._tell = tell
        self.reader_gone = False

    def open(self, uri: str, output: Output) -> None:
        """Add an output; it is closed with the others."""
        self._writers.append(_Writer(uri, output))

    @property
    def look_seconds(self) -> float:
        """How often `look` is wanted."""
        return min((each.output.look_seconds for each in self._writers), default=LOOK_SECONDS)

    def add(self, result: Result) -> None:
        """Give a result to every output that has not failed."""
        for writer in self._writers:
            if writer.error is None:
                self._attempt(writer, writer.add, result)

    def look(self) -> None:
        """Let every output renew what it shows."""
        for writer in self._writers:
            if writer.error is None:
                self._attempt(writer, writer.output.look)

    def close(self) -> None:
        """Complete all outputs, those that failed too."""
        for writer in self._writers:
            self._attempt(writer, writer.close)

    def _attempt(self, writer: _Writer, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # of whatever library writes there
            if isinstance(error, BrokenPipeError) and writer.output.on_standard_output:
                self.reader_gone = True  # reported by the exit status alone, as other programs do
                writer.error = writer.error or "the reader has gone away"
            if writer.error is None:
                writer.error = _text(error)
                self._tell(
                    f"{writer.uri}: {writer.error}; it has {writer.count} results, "
                    "nothing more is written there"
                )

    def report(self) -> list[dict[str, Any]]:
        """Return for each output its URI, how many results it took and its error or None."""
        return [
            {"uri": writer.uri, "results": writer.count, "error": writer.error}
            for writer in self._writers
        ]


def _text(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return first_line(reason or error)


class _Writer:
    """One output, in a thread of its own where it wants that."""

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
            if self._failure is None:  # goes on taking, else whoever puts would wait for ever
                try:
                    self.output.add(result)
                    self.count += 1
                except Exception as error:
                    self._failure = error
