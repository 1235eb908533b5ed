"""The forms of an output's URI.

An output is one file of this folder: a class derived from `tutelage.app.outputs.output.Output`, and
the function that opens it, registered here:

    @register_output(has_suffix(".csv"), {"seen.csv": "a row per frame"})
    def open_table(uri: str, context: OutputContext) -> Output: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.app.outputs.output import Output
from tutelage.app.uri_registry import UriRegistry


@dataclass(frozen=True)
class OutputContext:
    """What an output may know of the run, and do to it.

    Attributes
    ----------
    fps : frames per second of the source, None where that has no meaning or is not known
    length : frames to come, None where that is not known
    top : classes of each result, the best first
    label_width : characters of the longest label
    gauges : gives current values: dropped, queues, watts
    tell : called with each line for the user
    stop : ends the run
    """

    fps: float | None = None
    length: int | None = None
    top: int = 1
    label_width: int = 0
    gauges: Callable[[], dict[str, Any]] = dict
    tell: Callable[[str], None] = lambda text: None
    stop: Callable[[], None] = lambda: None


OUTPUTS: UriRegistry[Callable[[str, OutputContext], Output]] = UriRegistry("tutelage.app.outputs")
register_output = OUTPUTS.register


def is_folder(uri: str) -> bool:
    """Return whether a URI is a directory's: it ends with a slash, or there is one."""
    return uri.endswith("/") or Path(uri).is_dir()


def has_suffix(*suffixes: str) -> Callable[[str], bool]:
    """Return what says whether a URI is a file's with one of these suffixes (lower case)."""
    return lambda uri: Path(uri).suffix.lower() in suffixes and not is_folder(uri)
