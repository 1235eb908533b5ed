"""Opening of outputs by URI: the implementation of `tutelage.output`.

output = open_output("seen.csv")
output.add(result)
output.close()
"""

from __future__ import annotations

import os
from dataclasses import replace

from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OUTPUTS, OutputContext, OutputOpener
from tutelage.app.uri_registry import help_line

# The run itself opens the page, which outlives the last result.
_PAGE = help_line("web, web:HOST:PORT", "the live page; the same as --web")


def outputs_help() -> str:
    """Return the lines of --help about outputs, one for each form of the URI."""
    return f"{OUTPUTS.help_text()}\n{_PAGE}"


def open_output(
    uri: str | os.PathLike[str],
    fps: float | None = None,
    context: OutputContext | None = None,
) -> Output:
    """Open an output by its URI.

    Parameters
    ----------
    uri : path of a file, which is overwritten, or another form that the help of
        `tutelage classify` lists
    fps : frames per second of a video; None for the context's, or else the default
    context : facts about the run that the output may use

    Returns
    -------
    Output
        The open output; a ``with`` block closes it

    Raises
    ------
    OutputError
        The suffix is unknown, or the file cannot be created.
    """
    uri, context = os.fspath(uri), context or OutputContext()
    return output_opener(uri)(uri, context if fps is None else replace(context, fps=fps))


def output_opener(uri: str) -> OutputOpener:
    """Return the function that opens an output.

    Raises
    ------
    OutputError
        The suffix is unknown.
    """
    opener = OUTPUTS.opener_of(uri)
    if opener is None:
        raise OutputError(
            f"{uri}: unknown kind of output; --help lists the suffixes and other forms"
        )
    return opener
