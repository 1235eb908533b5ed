"""The forms of an output's URI, and which function opens each.

An output is one file of this folder: a class derived from `tutelage.app.outputs.output.Output`, and
the function that opens it, registered here:

    @register_output(has_suffix(".csv"), {"seen.csv": "a row per frame"})
    def open_table(uri: str, context: OutputContext) -> Output: ...

All these files are imported before the first output is opened, by --help too: what only one output
needs is imported within its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.app.outputs.output import Output
from tutelage.core.discovery import import_modules


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
    tell : takes a line for the user
    stop : ends the run
    """

    fps: float | None = None
    length: int | None = None
    top: int = 1
    label_width: int = 0
    gauges: Callable[[], dict[str, Any]] = dict
    tell: Callable[[str], None] = lambda text: None
    stop: Callable[[], None] = lambda: None


Opener = Callable[[str, OutputContext], Output]


@dataclass(frozen=True)
class UriForm:
    """What one opener takes, see `register_output`."""

    matches: Callable[[str], bool]
    examples: Mapping[str, str]
    place: int
    open: Opener


_forms: list[UriForm] = []


def register_output(
    matches: Callable[[str], bool], examples: Mapping[str, str], place: int = 100
) -> Callable[[Opener], Opener]:
    """Register a function that opens an output by its URI.

    Parameters
    ----------
    matches : says whether a URI is of this form, and of no other one
    examples : lines for --help: an example of the URI -> what is written, up to 70 characters
    place : order in --help
    """

    def register(opener: Opener) -> Opener:
        _forms.append(UriForm(matches, examples, place, opener))
        return opener

    return register


def is_folder(uri: str) -> bool:
    """Return whether a URI is a directory's: it ends with a slash, or there is one."""
    return uri.endswith("/") or Path(uri).is_dir()


def has_suffix(*suffixes: str) -> Callable[[str], bool]:
    """Return what says whether a URI is a file's with one of these suffixes (lower case)."""
    return lambda uri: Path(uri).suffix.lower() in suffixes and not is_folder(uri)


@cache
def uri_forms() -> list[UriForm]:
    """Return all forms in the order of --help."""
    import_modules("tutelage.app.outputs")
    return sorted(_forms, key=lambda form: form.place)
