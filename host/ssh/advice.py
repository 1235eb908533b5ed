"""Advice for failed connections of ssh or rsync, in one line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tutelage.host.ssh.settings import ssh_command, ssh_settings

NOISE = (
    "a login file on the host prints text also without a terminal, which breaks rsync: in "
    "~/.bashrc or ~/.profile put what prints inside `case $- in *i*) ... esac`"
)
"""Advice about text before a command's output."""

_SECONDS = 20.0
_NO_AGENT = 2  # exit status of ssh-add -l without an agent


def refusal(host: str, config: Path | None, errors: str) -> str:
    """Return why the host refused ssh, and a remedy; "" if its error output is of another error.

    Parameters
    ----------
    host, config : as given to ssh
    errors : error output of ssh
    """
    if "Host key verification failed" in errors:
        return _host_key(host, config, "IDENTIFICATION HAS CHANGED" in errors)
    if "Permission denied (" in errors:
        return _login(host, config)
    return ""


def is_noise(errors: str) -> bool:
    """Return whether rsync's error output reports text before its protocol."""
    return "is your shell clean?" in errors


def _host_key(host: str, config: Path | None, changed: bool) -> str:
    reason = "Host key verification failed"
    ssh = shlex.join([*ssh_command(config), host])
    if not changed:
        return (f"{reason}: the key of {host} is not known: connect once with `{ssh}` and compare "
                "the fingerprint with the board's")  # fmt: skip
    return (
        f"{reason}: {host} has another key than before: a new image, another board, or an attack; "
        f"if you know why, remove the old key with `{_forget(host, config)}`, connect once with "
        f"`{ssh}` and compare the fingerprint"
    )


def _forget(host: str, config: Path | None) -> str:
    """Return the command that removes a host's known key, under the name that ssh looks up."""
    settings = ssh_settings(host, config)
    name = settings.get("hostkeyalias", settings.get("hostname", [host.rpartition("@")[2]]))[0]
    port = settings.get("port", ["22"])[0]
    if port != "22" and "hostkeyalias" not in settings:
        name = f"[{name}]:{port}"
    command = ["ssh-keygen", "-R", name]
    files = shlex.split(settings.get("userknownhostsfile", [""])[0])
    if files and Path(files[0]).expanduser() != Path.home() / ".ssh/known_hosts":
        command += ["-f", files[0]]
    return shlex.join(command)


def _login(host: str, config: Path | None) -> str:
    settings = ssh_settings(host, config)
    user = settings.get("user", ["this user"])[0]
    reason = f"Permission denied: {host} does not accept {user}"
    keys = [Path(text).expanduser() for text in settings.get("identityfile", ())]
    locked = [path for path in keys if path.is_file() and _has_passphrase(path)]
    if not locked:
        there = shlex.join(["ssh-copy-id", *(["-F", str(config)] if config else []), host])
        return f"{reason} with any of your keys: install one with `{there}`"
    add = f"ssh-add {shlex.quote(str(locked[0]))}"
    if _agent_status() == _NO_AGENT:
        add = f'eval "$(ssh-agent)" && {add}'
    return (f"{reason}; the key {locked[0]} has a passphrase, which cannot be entered here: load "
            f"the key into your agent with `{add}`")  # fmt: skip


def _has_passphrase(key: Path) -> bool:
    """Whether a private key cannot be read with an empty passphrase."""
    done = _ask(["ssh-keygen", "-y", "-P", "", "-f", str(key)])
    return done is not None and re.search("passphrase", done.stderr) is not None


def _agent_status() -> int:
    done = _ask(["ssh-add", "-l"])
    return _NO_AGENT if done is None else done.returncode


def _ask(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a tool of OpenSSH without user interaction; None if it cannot run or does not end."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, env={**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
