"""Registry of outputs by the form of their URI.

An output is one file of this folder: a class derived from `tutelage.app.outputs.output.Output`, and
a function that opens it, registered as follows:

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
    """The run as an output sees it.

    Attributes
    ----------
    fps : frames per second of the source; None if unknown or meaningless
    length : number of frames to come; None if unknown
    top : number of classes in each result
    label_width : characters of the longest label
    gauges : function that returns current values, such as dropped, queues and watts
    say : function that prints a line for the user
    stop : function that ends the run
    """

    fps: float | None = None
    length: int | None = None
    top: int = 1
    label_width: int = 0
    gauges: Callable[[], dict[str, Any]] = dict
    say: Callable[[str], None] = lambda text: None
    stop: Callable[[], None] = lambda: None


OutputOpener = Callable[[str, OutputContext], Output]
OUTPUTS: UriRegistry[OutputOpener] = UriRegistry("tutelage.app.outputs")
register_output = OUTPUTS.register


def is_folder(uri: str) -> bool:
    """Return whether a URI names a directory: it ends with a slash, or the directory exists."""
    return uri.endswith("/") or Path(uri).is_dir()


def has_suffix(*suffixes: str) -> Callable[[str], bool]:
    """Return a predicate for URIs of files with one of these suffixes (lower case)."""
    return lambda uri: Path(uri).suffix.lower() in suffixes and not is_folder(uri)
