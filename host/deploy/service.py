"""The systemd service that runs app/classify.py on a board: its unit file, its user, its commands.

The service does not run as root where another user can do it: not the deploying user unless that is
root, and then only with --service-user. It gets the groups of the device files of the DPU and the
cameras; power sensors are readable by everyone. The unit has no secrets: systemd reads the live
page's token, and a source with a password, from ~/tutelage/web.env, which only the deploying user
and root can read.

A test runs the unit under a real systemd, in namespaces on a PC (version 252, of Debian 12). On a
board none of this was run: whether VART works there for another user than root is not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT
from tutelage.host.ssh.remote import Remote, RemoteError

UNIT = "/etc/systemd/system/tutelage.service"
TOKEN_FILE = "tutelage/web.env"  # noqa: S105 (its name)
"""File with the service's environment, from the home directory on a board: the live page's token,
and the source where the user has put one there."""

# The application's variables, see app/options.py.
SOURCE_VARIABLE, TOKEN_VARIABLE = "TUTELAGE_SOURCE", "TUTELAGE_WEB_TOKEN"

_LOWEST_FREE_PORT = 1024  # those below are root's, or need a capability
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")

# What classify.py does without: it writes to its home and to /tmp, and reads devices and sensors.
_SANDBOX = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""


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


def check_service(arguments: Sequence[str], user: str) -> None:
    """Verify the service's arguments and its user's name.

    Raises
    ------
    ValueError
        They cannot be those of a unit file.
    """
    if not all(word.isprintable() for word in arguments):
        raise ValueError("one line of printable characters")
    if user and not _NAME.fullmatch(user):
        raise ValueError(f"--service-user {user!r} is not a user's name")
    for word in arguments:
        if re.search(r"://[^/@]*:[^/@]*@", word):
            raise ValueError(
                f"{re.sub(r'//.*@', '//...@', word)}: everyone on the board would read its "
                "password in the unit file and the list of processes; leave --source out and add "
                f"a line {SOURCE_VARIABLE}=URL to ~/{TOKEN_FILE} on the board"
            )


def unit_text(home: str, account: Account, arguments: Sequence[str]) -> str:
    """Return the unit file.

    It is the same for each release: the model and its plugin are looked for at each start, so that
    it is right after a rollback too.

    Parameters
    ----------
    home : home directory of the deploying user
    account : whom it runs as
    arguments : of app/classify.py, besides --model and --plugin
    """
    start = (f'exec .venv/bin/python app/classify.py --model "$({MODEL_SCRIPT})" '
             f'$({PLUGIN_SCRIPT}) "$@"')  # fmt: skip
    command = " ".join(map(_quoted, ("/bin/sh", "-c", start, "sh", *arguments)))
    groups = f"SupplementaryGroups={' '.join(account.groups)}\n" if account.groups else ""
    port = _port(arguments)
    low = account.user != "root" and port is not None and port < _LOWEST_FREE_PORT
    capability = "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" if low else ""
    folder = home.replace("%", "%%")
    return (
        "# Written by `tutelage deploy`.\n"
        "[Unit]\nDescription=Tutelage\nAfter=network.target\n\n"
        f"[Service]\nUser={account.user}\n{groups}{capability}"
        f"WorkingDirectory={folder}/tutelage/current\n"
        f"EnvironmentFile={folder}/{TOKEN_FILE}\n"
        f"ExecStart={command}\n"
        # An encoder of a video is not stopped beside classify.py, which ends the video itself.
        "KillMode=mixed\n"
        f"Restart=on-failure\nRestartSec=5\n{_SANDBOX}\n[Install]\nWantedBy=multi-user.target\n"
    )


def _quoted(word: str) -> str:
    """Return a word as systemd reads it, without its specifiers and variables."""
    return json.dumps(word, ensure_ascii=False).replace("%", "%%").replace("$", "$$")


def has_page(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for the live page."""
    return any(re.match(r"--web(=|$)|web(:|$)", word) for word in arguments)


def _port(arguments: Sequence[str]) -> int | None:
    """Return the port of the live page, where the arguments name one."""
    found = re.search(r"(?:--web[ =]|\bweb:)(?:\S*:)?(\d{1,5})(?!\S)", " ".join(arguments))
    return int(found[1]) if found else None


# -- the user ---------------------------------------------------------------------------------

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
    if len(told) < 2 or not _NAME.fullmatch(told[0]):
        raise RemoteError(f"{remote.host}: does not say which user deploys there")
    deployer, known, *devices = told
    if deployer == "root" and not user:
        raise RemoteError(
            "it would run as root, since root deploys: deploy as the board's user, such as "
            "xilinx@board, or name its user with --service-user (root, where it must be)"
        )
    remote.sh(_MAY_SUDO)
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
        if group != "root" and _NAME.fullmatch(group) and mode & 0o060 == 0o060:
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
        f"{_AS_ROOT}id {user} > /dev/null 2>&1 || "
        f"{{ echo 'there is no user {user}; make one: useradd --system {user}' >&2; exit 1; }}; "
        f'$s runuser -u {user} -- test -x "$HOME/{place}" || '
        f'{{ echo "{user} cannot enter $HOME/{place}; deploy as {user}, or open that directory" '
        ">&2; exit 1; }"
    )


# -- shell scripts that run on the board --------------------------------------------------------

# Root needs no sudo; others need one that asks for no password.
_AS_ROOT = 's="sudo -n"; [ "$(id -u)" != 0 ] || s=; '
_MAY_SUDO = (
    '[ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null || { '
    "echo 'sudo there asks for a password, which cannot be typed here: allow it without one "
    "(NOPASSWD in /etc/sudoers.d), or deploy as root with --service-user' >&2; exit 1; }"
)
_STAYS_UP = (
    "sleep 2; $s systemctl is-active --quiet tutelage.service || "
    "{ echo it does not stay up, see journalctl -u tutelage >&2; exit 1; }"
)
RESTART = (
    f"{_AS_ROOT}test -e {UNIT} || exit 0; systemctl is-active --quiet tutelage.service; r=$?; "
    "$s systemctl try-restart tutelage.service || exit 1; [ $r != 0 ] || "
    f"{{ {_STAYS_UP}; }}"
)
"""Restart the service where there is one; what ran before must run afterwards."""

REMOVE = (
    f"{_AS_ROOT}$s systemctl disable --now tutelage.service || true; "
    f"$s rm -f {UNIT} {UNIT}.before; $s systemctl daemon-reload || true; rm -f tutelage/current"
)
"""Remove the first release's service: nothing is left that would be started at the next boot."""

UNIT_BACK = (
    f"{_AS_ROOT}test ! -e {UNIT}.before || {{ $s mv {UNIT}.before {UNIT}; "
    "$s systemctl daemon-reload; }"
)
"""Put the unit file from before `INSTALL` back."""

MAKE_TOKEN = (
    f"set -e; umask 077; grep -qs '^{TOKEN_VARIABLE}=.' {TOKEN_FILE} || {{ "
    "t=$(head -c 18 /dev/urandom | base64 | tr +/ -_); "
    f"{{ grep -sv '^{TOKEN_VARIABLE}=' {TOKEN_FILE} || true; echo \"{TOKEN_VARIABLE}=$t\"; }} "
    f"> {TOKEN_FILE}.new; mv -T {TOKEN_FILE}.new {TOKEN_FILE}; }}; chmod 600 {TOKEN_FILE}"
)
"""Make the live page's token, once for all releases; other lines of the file stay."""

INSTALL = (
    f"set -e; {_AS_ROOT}test ! -e {UNIT} || $s cp {UNIT} {UNIT}.before; "
    f"$s tee {UNIT} > /dev/null; $s systemctl daemon-reload; "
    f"$s systemctl enable tutelage.service; $s systemctl restart tutelage.service; {_STAYS_UP}"
)
"""Write the unit file, which comes on standard input, and start the service."""

STATE = (
    f'w=$(cat); test -n "$w" || test -e {UNIT} || {{ echo right; exit; }}; '
    f'test -z "$w" || test "$w" = "$(cat {UNIT} 2>/dev/null)" || {{ echo unit; exit; }}; '
    "p=$(systemctl show -p MainPID --value tutelage.service); "
    'if [ "${p:-0}" = 0 ]; then test -n "$w" && echo down || echo right; exit; fi; '
    "s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; "
    'if [ "$($s readlink /proc/$p/cwd)" = "$(readlink -f tutelage/current)" ]; '
    "then echo right; else echo old; fi"
)
"""Print "right" where the unit is the one on standard input (any, if that is empty) and its process
runs from the current release; also where there is neither."""
