"""User of the service on a board."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.host.deploy.service_scripts import AS_ROOT, MAY_SUDO
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.remote import Remote

USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


@dataclass(frozen=True)
class Account:
    """User of a service.

    Attributes
    ----------
    user : name of the user
    groups : groups of the device files that the service needs
    warnings : concerns about this user, one line each
    """

    user: str
    groups: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# The deploying user's name; the groups that exist; the device files with their groups and modes.
_WHO = (
    "id -un; grep -oE '^(video|render):' /etc/group | tr -d '\\n'; echo; "
    "for d in /dev/dri/renderD* /dev/dpu* /dev/video*; do "
    'test ! -c "$d" || stat -c "%n %G %a" "$d"; done'
)


def account_of(remote: Remote, place: str, user: str) -> Account:
    """Return the user of a service.

    Parameters
    ----------
    place : directory of the releases, relative to the home directory
    user : name given with --service-user; "" for the user who deploys

    Raises
    ------
    RemoteError
        The user would be root without being named, does not exist, or cannot read the releases; or
        sudo asks for a password.
    """
    lines = remote.sh(_WHO).splitlines()
    if len(lines) < 2 or not USER_NAME.fullmatch(lines[0]):
        raise RemoteError(f"{remote.host}: does not return the name of the deploying user")
    deployer, known, *devices = lines
    if deployer == "root" and not user:
        raise RemoteError(
            "it would run as root, since root deploys: deploy as the board's user, such as "
            "xilinx@board, or name a user with --service-user (root if necessary)"
        )
    remote.sh(MAY_SUDO)
    if user not in ("", deployer, "root"):
        remote.sh(_may_read(user, place))
    user = user or deployer
    if user == "root":
        return Account(
            user, (), ("service: runs as root, so that a break-in gives root access to the board",)
        )
    return _with_devices(user, known.split(":"), devices)


def _with_devices(user: str, known: Sequence[str], devices: Sequence[str]) -> Account:
    groups, warnings = {name for name in known if name}, []
    for line in devices:
        found = re.fullmatch(r"(/dev/[\w/]+) (\S+) ([0-7]{3,4})", line)
        if not found:
            continue
        path, group, mode = found[1], found[2], int(found[3], 8)
        if group != "root" and USER_NAME.fullmatch(group) and mode & 0o060 == 0o060:
            groups.add(group)
        elif mode & 0o006 != 0o006:
            warnings.append(
                f"service: {user} cannot open {path} (group {group}, mode {mode:o}): assign it a "
                "group with a udev rule, or give --service-user root"
            )
    return Account(user, tuple(sorted(groups)), tuple(warnings))


def _may_read(user: str, place: str) -> str:
    """Return a shell script that fails if a user cannot enter the directory of the releases."""
    return (
        f"{AS_ROOT}id {user} > /dev/null 2>&1 || "
        f"{{ echo 'there is no user {user}: create it with useradd --system {user}' "
        ">&2; exit 1; }; "
        f'$s runuser -u {user} -- test -x "$HOME/{place}" || '
        f'{{ echo "{user} cannot enter $HOME/{place}: deploy as {user}, or allow it with chmod" '
        ">&2; exit 1; }"
    )
