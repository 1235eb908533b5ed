"""Where results go, by URI; several at once, each on its own.

    outputs = Outputs()
    outputs.open("seen.csv", open_output("seen.csv"))
    outputs.add(result)

An output that fails (a full disk, say) is told of once and left out from then on; the run and
the other outputs go on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

from tutelage.app.pipeline.pipeline import LOOK_SECONDS
from tutelage.app.pipeline.result import Result

FORMS = """\
  terminal                 a table on the terminal (the default, unless --quiet)
  seen.jsonl, seen.csv     a record per frame; - is JSONL on standard output
  seen.mp4                 the frames as a video that browsers play, labels written on them
  seen.avi, seen.mkv       the same with less work, for players such as VLC
  seen/                    the frames as JPEGs in a directory, labels written on them
  window                   a window, where there is a display
  web, web:HOST:PORT       the live page; the same as --web"""

ON_STANDARD_OUTPUT = ("terminal", "-")

_WAITING = 8  # results in front of an output with a thread of its own


class OutputError(Exception):
    """An output that cannot be written; the text is one line for the user."""


class Output:
    """Takes results, in order.

    Attributes
    ----------
    own_thread : so slow that it should not hold up the others
    look_seconds : how often `look` is wanted
    """

    own_thread = False
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


def open_output(
    uri: str | os.PathLike[str],
    fps: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Output:
    """Open a file or directory as an output, by its suffix; `FORMS` shows them.

    Parameters
    ----------
    uri : path, written anew; - is JSONL on standard output
    fps : frames per second of a video, None for the usual
    tell : takes a line for the user, such as what a video is written as

    Raises
    ------
    OutputError
        The suffix is unknown, or the file cannot be made there.
    """
    # Here, not at the top: these modules derive their classes from `Output`.
    from tutelage.app.outputs.pictures import ImageDirectory, VideoOutput
    from tutelage.app.outputs.records import CsvTable, JsonLines
    from tutelage.app.outputs.video_writer import VIDEO_CODES

    uri = os.fspath(uri)
    if uri == "-":
        return JsonLines(sys.stdout)
    path = Path(uri)
    kind = path.suffix.lower()
    if uri.endswith("/") or path.is_dir():
        return ImageDirectory(path)
    if kind in VIDEO_CODES:
        return VideoOutput(path, fps, tell)
    if kind not in (".jsonl", ".csv"):
        raise OutputError(
            f"{uri}: the suffix says what is written; --help lists those that are known"
        )
    try:
        file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OutputError(f"{uri}: {error.strerror or error}") from error
    return JsonLines(file) if kind == ".jsonl" else CsvTable(file)


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
            if isinstance(error, BrokenPipeError) and writer.uri in ON_STANDARD_OUTPUT:
                self.reader_gone = True  # told by nothing but the exit status, as of other programs
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
    text = error.strerror if isinstance(error, OSError) else None
    return text or (str(error).strip() or type(error).__name__).splitlines()[0]


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
