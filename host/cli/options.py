"""Groups of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.host.search.storage import DEFAULT_LEASE_SECONDS


def xmodel_argument(text: str) -> Any:
    """Return the argument for an .xmodel, or for a model directory with a compiled one.

    Parameters
    ----------
    text : its help
    """
    return typer.Argument(
        metavar="X.xmodel | MODEL",
        help=f"{text}, or a model directory",
        parser=_compiled_file,
    )


def _compiled_file(path: str) -> Path:
    from tutelage.core.model_package import compiled_file

    return compiled_file(Path(path))


@dataclass(frozen=True, kw_only=True)
class JsonOptions:
    """The option --json."""

    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The option for a run's network."""

    network: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="name of the run's network, if it is not a preset: allows its code to be executed",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class PluginOptions:
    """The option --plugin."""

    plugin: Annotated[
        Path | None,
        typer.Option(
            metavar="OPS.py",
            help="Python file with functions op_<op_type>(inputs, attrs) for CPU ops",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """The option --board."""

    board: Annotated[str, typer.Option(help="name of the board's profile")] = DEFAULT_BOARD


@dataclass(frozen=True, kw_only=True)
class RemoteOptions(BoardOptions, JsonOptions):
    """Options of a board and the connection to it."""

    ssh_config: Annotated[
        Path | None,
        typer.Option("--ssh-config", help="configuration file for ssh, instead of ~/.ssh/config"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class HostsOptions(RemoteOptions):
    """Options of several boards with one profile."""

    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST",
            help="user@host, or names in ~/.ssh/config; default: the host configured for --board",
        ),
    ] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """Options of a release other than its model."""

    wheels: Annotated[
        Path | None,
        typer.Option(
            help="directory of wheels for packages that boards lack, instead of downloading them"
        ),
    ] = None
    accept: Annotated[
        list[str],
        typer.Option(help="name of a finding of the board's check to ignore; repeatable"),
    ] = field(default_factory=list)
    plugin: Annotated[
        Path | None,
        typer.Option(
            metavar="OPS.py",
            help="Python file with the model's CPU ops; default of measure: the one that is "
            "deployed with the model",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Options of the storage that workers on several machines share."""

    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="share the work with other machines through journal:FILE, or a database that "
            "Optuna supports, such as mysql://USER@HOST/NAME; run the same command on each",
        ),
    ] = ""
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="time without a heartbeat after which a worker counts as dead and its work is "
            "repeated",
        ),
    ] = DEFAULT_LEASE_SECONDS
