"""The commands of `tutelage`: the purpose, module and required extra of each.

Uses the standard library only, so that `tutelage --help` works in every installation and on the
board.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tutelage.core.errors import TutelageError
from tutelage.core.locations import IS_CHECKOUT

PROGRAM = "tutelage"
DESCRIPTION = (
    "Quantise neural networks to 8 bits and run them on a ZCU104's DPU or its exact emulation"
)
"""As in pyproject.toml; a release on a board has neither that file nor metadata."""


@dataclass(frozen=True)
class Command:
    """A subcommand of `tutelage`.

    Attributes
    ----------
    summary : one line for --help
    module : full name of the module that implements it
    extra : the extra of the package that it needs: "pc", or "host", which includes "pc"
    """

    summary: str
    module: str
    extra: str


def _pc(module: str, summary: str) -> Command:
    return Command(summary, f"tutelage.host.cli.{module}", "pc")


def _host(module: str, summary: str) -> Command:
    return Command(summary, f"tutelage.host.cli.{module}", "host")


COMMANDS = {
    "classify": Command(
        "Classify what a camera, a video, a stream or images show, on the DPU or in emulation.",
        "tutelage.app.classify",
        "pc",
    ),
    "inspect": _pc("models", "Show a model's layers, fix points, cycles and memory, and values."),
    "diff": _pc("models", "Show the differences of two .xmodel files in ops, layers and weights."),
    "predict": _pc("models", "Predict a network's time and energy on a board, layer by layer."),
    "disasm": _pc("code", "Show a compiled model's DPU code: assembly, layers, engines over time."),
    "asm": _pc("code", "Assemble DPU code."),
    "run": _pc("emulation", "Run a model on .npy files, bit for bit, with its CPU ops."),
    "shim": _pc("emulation", "Run an unmodified VART or DPU-PYNQ script on the emulation."),
    "check": _host("checking", "Check whether the DPU can run a network, and what it will cost."),
    "train": _host("training", "Train a network in float or quantised, by any method."),
    "study": _host("training", "Run every method at every bit width with every seed."),
    "sensitivity": _host("sensitivity", "Show where rounding costs accuracy, and what to try."),
    "export": _host("building", "Write a trained student as a model directory for the compiler."),
    "compile": _pc("building", "Compile a quantised model for a board's DPU or the emulator."),
    "overlay": _pc("boards", "Fetch a board's overlay, or take local files, and verify it."),
    "deploy": _pc("boards", "Install a release on one or several boards."),
    "rollback": _pc("boards", "Return to the previous release; a second call undoes it."),
    "measure": _pc("boards", "Measure latency, speed, watts and energy on a board."),
    "bench": _host("analysis", "Compare one student on CPU, GPU and DPU."),
    "report": _host("analysis", "Write a page about a model: accuracy, cost and runs."),
    "explore": _host("analysis", "Find the DenseNets that fit a budget on a board, by prediction."),
}
"""In the order of --help: commands for a model, then the steps from a network to a board."""


def installation(extra: str) -> str:
    """Return the command that installs an extra of Tutelage.

    Without a package index, since Tutelage is not on PyPI.

    Parameters
    ----------
    extra : its name in pyproject.toml, such as "pc" or "host"
    """
    if IS_CHECKOUT:
        return f"pip install '.[{extra}]' (in the checkout)"
    return f"pip install 'WHEEL[{extra}]' (WHEEL is the path of {PROGRAM}'s .whl file)"


class MissingPackage(TutelageError):
    """A Python package is not installed; the message says how to install it."""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a failed import of a package that is not installed into MissingPackage.

    Parameters
    ----------
    extra : the extra of Tutelage that installs it
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "tutelage"):
            raise
        raise MissingPackage(
            f"the Python package {missing!r} is not installed; "
            f"{installation(extra)} installs everything that this command needs"
        ) from error


def overview() -> str:
    """Return the text of `tutelage --help`."""
    from textwrap import wrap  # here, since every command imports this module

    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    training = ", ".join(name for name, command in COMMANDS.items() if command.extra == "host")
    return "\n".join([
        f"Usage: {PROGRAM} COMMAND [OPTION ...], or {PROGRAM} --version",
        "",
        f"{DESCRIPTION}.",
        "",
        "Commands:",
        *lines,
        "",
        f"{PROGRAM} COMMAND --help shows its options and examples.",
        *wrap(
            f"Every command needs the extra emulation (or pc, which is faster); {training}, and "
            f"predict of PyTorch networks, the extra host: {installation('host')}.",
            99, break_long_words=False, break_on_hyphens=False,
        ),
        "Exit status: 0 done, 1 failed, 2 wrong options, an invalid file or a missing package.",
    ])  # fmt: skip
