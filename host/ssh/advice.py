"""What to do where ssh or rsync does not get through to a host, in one line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tutelage.host.ssh.settings import ssh_command, ssh_settings

NOISE = (
    "a login file there prints text where nobody reads it, which breaks rsync: put what prints in "
    "~/.bashrc or ~/.profile behind `case $- in *i*) ... esac`"
)
"""What to do about text in front of a command's output."""

_SECONDS = 20.0
_NO_AGENT = 2  # status of ssh-add -l where no agent answers


def refusal(host: str, config: Path | None, errors: str) -> str:
    """Return why ssh was refused, and what to do; "" where its error output says nothing of it.

    Parameters
    ----------
    host, config : as given to ssh
    errors : ssh's error output
    """
    if "Host key verification failed" in errors:
        return _host_key(host, config, "IDENTIFICATION HAS CHANGED" in errors)
    if "Permission denied (" in errors:
        return _login(host, config)
    return ""


def is_noise(errors: str) -> bool:
    """Whether rsync's error output says that there was text in front of its protocol."""
    return "is your shell clean?" in errors


def _host_key(host: str, config: Path | None, changed: bool) -> str:
    reason = "Host key verification failed"
    ssh = shlex.join([*ssh_command(config), host])
    if not changed:
        return (f"{reason}: the key of {host} is not known here; connect once with `{ssh}` and "
                "compare the fingerprint with the board's")  # fmt: skip
    return (
        f"{reason}: {host} has another key than before: a new image, another board, or somebody in "
        f"between; where you know why, forget the old one with `{_forget(host, config)}`, connect "
        f"once with `{ssh}` and compare the fingerprint"
    )


def _forget(host: str, config: Path | None) -> str:
    """Return the command that removes a host's known key: by the name that ssh looks it up by."""
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
    reason = f"Permission denied: {host} does not let {user} in"
    keys = [Path(text).expanduser() for text in settings.get("identityfile", ())]
    locked = [path for path in keys if path.is_file() and _has_passphrase(path)]
    if not locked:
        there = shlex.join(["ssh-copy-id", *(["-F", str(config)] if config else []), host])
        return f"{reason} with any of your keys; put one there with `{there}`"
    add = f"ssh-add {shlex.quote(str(locked[0]))}"
    if _agent_status() == _NO_AGENT:
        add = f'eval "$(ssh-agent)" && {add}'
    return (f"{reason}; the key {locked[0]} has a passphrase, which is not asked for here: load it "
            f"into your agent with `{add}`")  # fmt: skip


def _has_passphrase(key: Path) -> bool:
    """Whether a private key cannot be read with an empty passphrase."""
    done = _ask(["ssh-keygen", "-y", "-P", "", "-f", str(key)])
    return done is not None and re.search("passphrase", done.stderr) is not None


def _agent_status() -> int:
    done = _ask(["ssh-add", "-l"])
    return _NO_AGENT if done is None else done.returncode


def _ask(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a tool of OpenSSH's that must not ask the user; None where it does not run or end."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, env={**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
