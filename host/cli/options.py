"""Groups of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.host.search.storage import DEFAULT_LEASE_SECONDS


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    """--json."""

    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False


@dataclass(frozen=True, kw_only=True)
class PluginOptions:
    """--plugin."""

    plugin: Annotated[
        Path | None,
        typer.Option(
            metavar="OPS.py",
            help="Python file with functions op_<op_type>(inputs, attrs) for CPU ops",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """--board."""

    board: Annotated[str, typer.Option(help="the board, by its profile")] = DEFAULT_BOARD


@dataclass(frozen=True, kw_only=True)
class RemoteOptions(BoardOptions, JsonOptions):
    """The board and the way to it."""

    ssh_config: Annotated[Path | None, typer.Option("--ssh-config", help="for ssh -F")] = None


@dataclass(frozen=True, kw_only=True)
class HostsOptions(RemoteOptions):
    """Several boards of one kind."""

    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST",
            help="user@host, or names of ~/.ssh/config; default: your host for --board",
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """What of a release can be chosen besides its model."""

    wheels: Annotated[
        Path | None, typer.Option(help="directory of wheels for what boards lack: no downloads")
    ] = None
    accept: Annotated[
        list[str], typer.Option(help="a finding of the check that is not an obstacle; repeatable")
    ] = field(default_factory=list)
    plugin: Annotated[
        Path | None,
        typer.Option(
            metavar="OPS.py",
            help="Python file of the model's operators for the CPU; default of measure: what is "
            "deployed with the model",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Where the workers of several machines meet."""

    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="share the work with other machines: journal:FILE, or a database that Optuna "
            "takes, such as mysql://USER@HOST/NAME; run the same command on each",
        ),
    ] = ""
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="a worker silent for so long counts as dead, and its work is done again",
        ),
    ] = DEFAULT_LEASE_SECONDS
