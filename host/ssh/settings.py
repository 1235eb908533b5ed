"""Settings of ssh for a host, as ssh reads them from the user's configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SECONDS = 20.0


def ssh_command(config: Path | None) -> list[str]:
    """Return the beginning of an ssh command line, with `config` for -F; None: the user's."""
    return ["ssh", *(("-F", str(config)) if config else ())]


def ssh_settings(host: str, config: Path | None) -> dict[str, list[str]]:
    """Return the settings that `ssh -G` prints for a command on a host, without connecting.

    Returns
    -------
    keyword in lower case -> its values, in ssh's order; empty if ssh fails
    """
    try:
        done = subprocess.run(
            [*ssh_command(config), "-o", "RemoteCommand=none", "-G", host, "true"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    settings: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        settings.setdefault(keyword.lower(), []).append(value)
    return settings
