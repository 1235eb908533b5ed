"""Default host of a board, from the user's configuration.

    # ~/.config/tutelage/boards.toml, or below $XDG_CONFIG_HOME
    [zcu104]
    host = "xilinx@pynq"

or an entry `Host zcu104` of ~/.ssh/config.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tutelage.core.board_profile import load_profile
from tutelage.core.toml_file import read_toml
from tutelage.host.deploy.plan import check_board
from tutelage.host.ssh.errors import RemoteUsageError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.settings import ssh_settings


def boards_file() -> Path:
    """Return the path of the file of the user's boards, which may not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "tutelage" / "boards.toml"


def hosts_of(board: str, named: Sequence[str] | None, ssh_config: Path | None) -> list[str]:
    """Return the named hosts, or else the host that is configured for a board.

    Parameters
    ----------
    board : name of the board's profile
    named : hosts on the command line
    ssh_config : configuration file for ssh -F; None for the user's

    Raises
    ------
    DeployUsageError
        There is no such board.
    RemoteUsageError
        No host is named and none is configured (the text says how), ssh is not installed, or the
        entry in the file of the user's boards is not a host.
    TomlError
        The file of the user's boards cannot be read.
    """
    check_board(board)
    if named:
        return list(named)
    host = _of_file(board)
    if host is None:
        check_hosts([board])
        host = board if _is_alias(board, ssh_config) else None
    if host is None:
        raise RemoteUsageError(_how_to_set(board, ssh_config))
    return [host]


def _of_file(board: str) -> str | None:
    path = boards_file()
    if not path.exists():
        return None
    entry = read_toml(path).get(board)
    if entry is None:
        return None
    host = entry.get("host") if isinstance(entry, dict) else None
    if not isinstance(host, str):
        raise RemoteUsageError(f'{path}: [{board}] needs host = "user@address"')
    try:
        check_hosts([host])
    except RemoteUsageError as error:
        raise RemoteUsageError(f"{path}: [{board}]: {error}") from error
    return host


def _is_alias(name: str, ssh_config: Path | None) -> bool:
    """Return whether ssh's configuration has an address for a name."""
    return ssh_settings(name, ssh_config).get("hostname", [name]) != [name]


def _how_to_set(board: str, ssh_config: Path | None) -> str:
    image = load_profile(board).image
    logins = (image.logins if image else ()) or ("user@address",)
    others = f" (or {' or '.join(logins[1:])}: the defaults of its image)" if logins[1:] else ""
    config = ssh_config or "~/.ssh/config"
    return (
        f"no host for the board {board}: give HOST={logins[0]}{others}, or configure it: in "
        f'{boards_file()} with [{board}] and host = "{logins[0]}" below it, or in {config} with '
        f"an entry Host {board} that has its HostName"
    )
