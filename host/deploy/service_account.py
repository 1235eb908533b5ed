"""The user that the service on a board runs as."""

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
    """The user that a service runs as.

    Attributes
    ----------
    user : its name
    groups : those whose device files it needs
    warnings : what speaks against it, one line each
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
    """Return whom a service runs as.

    Parameters
    ----------
    place : directory of the releases, from the home directory
    user : the user that was asked for, "" for the one who deploys

    Raises
    ------
    RemoteError
        The user is root and was not asked for, does not exist, or cannot reach the releases; or
        sudo asks for a password.
    """
    told = remote.sh(_WHO).splitlines()
    if len(told) < 2 or not USER_NAME.fullmatch(told[0]):
        raise RemoteError(f"{remote.host}: does not say which user deploys there")
    deployer, known, *devices = told
    if deployer == "root" and not user:
        raise RemoteError(
            "it would run as root, since root deploys: deploy as the board's user, such as "
            "xilinx@board, or name its user with --service-user (root, where it must be)"
        )
    remote.sh(MAY_SUDO)
    if user not in ("", deployer, "root"):
        remote.sh(_may_read(user, place))
    user = user or deployer
    if user == "root":
        return Account(
            user, (), ("service: runs as root, and whoever breaks into it is root there",)
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
                f"service: {user} cannot open {path} (group {group}, mode {mode:o}): give it a "
                "group by a udev rule, or run as --service-user root"
            )
    return Account(user, tuple(sorted(groups)), tuple(warnings))


def _may_read(user: str, place: str) -> str:
    """Shell script that fails where a user cannot enter the directory of the releases."""
    return (
        f"{AS_ROOT}id {user} > /dev/null 2>&1 || "
        f"{{ echo 'there is no user {user}; make one: useradd --system {user}' >&2; exit 1; }}; "
        f'$s runuser -u {user} -- test -x "$HOME/{place}" || '
        f'{{ echo "{user} cannot enter $HOME/{place}; deploy as {user}, or open that directory" '
        ">&2; exit 1; }"
    )
