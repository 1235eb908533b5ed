"""Where results go, by URI.

output = open_output("seen.csv")
output.add(result)
output.close()
"""

from __future__ import annotations

import os
from dataclasses import replace

from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext, uri_forms

# Opened by the run itself, for which the page outlives the last result.
_PAGE = {"web, web:HOST:PORT": "the live page; the same as --web"}


def forms_help() -> str:
    """Return a line for each form of a URI, for --help."""
    lines = [line for form in uri_forms() for line in form.examples.items()]
    return "\n".join(f"  {example:24} {text}" for example, text in (*lines, *_PAGE.items()))


def open_output(
    uri: str | os.PathLike[str],
    fps: float | None = None,
    context: OutputContext | None = None,
) -> Output:
    """Open an output by its URI; `forms_help` shows them.

    Parameters
    ----------
    uri : a path, which is overwritten, or what else `forms_help` shows
    fps : frames per second of a video, None for the context's or the usual
    context : what the output may know of the run

    Raises
    ------
    OutputError
        The suffix is unknown, or the file cannot be made there.
    """
    uri, context = os.fspath(uri), context or OutputContext()
    form = next((form for form in uri_forms() if form.matches(uri)), None)
    if form is None:
        raise OutputError(
            f"{uri}: the suffix says what is written; --help lists those that are known"
        )
    return form.open(uri, context if fps is None else replace(context, fps=fps))
