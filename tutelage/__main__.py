"""The command line: `tutelage COMMAND ...`, or `python3 -m tutelage COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import tutelage
from tutelage.core.commands import COMMANDS, PROGRAM, needs, overview
from tutelage.core.errors import DONE, TutelageError
from tutelage.core.messages import run_command, run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(PROGRAM, lambda: _run(given))


def _run(given: list[str]) -> int:
    name = given[0] if given else ""
    if name in ("-h", "--help"):
        print(overview())
        return DONE
    if name == "--version":
        print(f"{PROGRAM} {tutelage.__version__}")
        return DONE
    if name not in COMMANDS:
        what = f"no such command: {name}" if name else "which command?"
        raise TutelageError(f"{what}; there are {', '.join(COMMANDS)} ({PROGRAM} --help)")
    command = COMMANDS[name]
    with needs(command.extra):
        if name == "classify":  # argparse's, since boards have no Typer
            return int(import_module(command.module).main(given[1:], f"{PROGRAM} {name}"))
        if find_spec("tutelage.host") is None:
            raise TutelageError(f"a board has no {PROGRAM} {name}, only classify")
        return int(import_module("tutelage.host.cli.command").run(name, given[1:]))


def run() -> int:
    """Run as a program."""
    return run_program(main)


if __name__ == "__main__":
    sys.exit(run())
