"""The command line: `tutelage COMMAND ...`, or `python3 -m tutelage COMMAND ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

_EMULATION = ("inspect", "diff", "run", "shim")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else ""
    if command == "classify":
        return int(import_module("tutelage.app.classify").main(given[1:]))
    compiled = command == "predict" and any(text.endswith(".xmodel") for text in given)
    if command in _EMULATION or compiled:
        return int(import_module("tutelage.dpu.__main__").main(given))
    return int(import_module("tutelage.host.__main__").main(given))


def run() -> int:
    """Run as a program; a reader of its output that goes away (`| head`) ends it quietly."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(run())
