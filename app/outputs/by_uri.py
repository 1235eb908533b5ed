"""Where results go, by URI.

output = open_output("seen.csv")
output.add(result)
output.close()
"""

from __future__ import annotations

import os
from dataclasses import replace

from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OUTPUTS, OutputContext
from tutelage.app.uri_registry import help_line

# Opened by the run itself, for which the page outlives the last result.
_PAGE = help_line("web, web:HOST:PORT", "the live page; the same as --web")


def outputs_help() -> str:
    """Return a line for each form of an output's URI, for --help."""
    return f"{OUTPUTS.help_text()}\n{_PAGE}"


def open_output(
    uri: str | os.PathLike[str],
    fps: float | None = None,
    context: OutputContext | None = None,
) -> Output:
    """Open an output by its URI; `outputs_help` shows them.

    Parameters
    ----------
    uri : a path, which is overwritten, or what else `outputs_help` shows
    fps : frames per second of a video, None for the context's or the usual
    context : what the output may know of the run

    Raises
    ------
    OutputError
        The suffix is unknown, or the file cannot be made there.
    """
    uri, context = os.fspath(uri), context or OutputContext()
    opener = OUTPUTS.opener_of(uri)
    if opener is None:
        raise OutputError(
            f"{uri}: the suffix says what is written; --help lists those that are known"
        )
    return opener(uri, context if fps is None else replace(context, fps=fps))
