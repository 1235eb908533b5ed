"""Unit file of the systemd service that runs app/classify.py on a board.

The service runs as the deploying user, or as another with --service-user; as root only with
--service-user root. It gets the groups of the device files of the DPU and the cameras; power
sensors are readable by everyone. The unit has no secrets: systemd reads the live page's token, and
a source with a password, from ~/tutelage/web.env, which only the deploying user and root can read.

A test runs the unit under a real systemd, in namespaces on a PC (version 252, of Debian 12). None
of this was run on a board: whether VART works there for users other than root is not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT
from tutelage.host.deploy.service_account import USER_NAME, Account
from tutelage.host.deploy.service_scripts import SOURCE_VARIABLE, TOKEN_FILE, UNIT_END

_LOWEST_FREE_PORT = 1024  # lower ones need root or a capability

# Permissions that classify.py does not need: it writes to its home and /tmp, and reads devices and
# sensors.
_SANDBOX = """\
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
"""


def check_service(arguments: Sequence[str], user: str) -> None:
    """Check the service's arguments and the name of its user.

    Raises
    ------
    ValueError
        An argument or the name cannot be written into a unit file, or an argument has a password.
    """
    if not all(word.isprintable() for word in arguments):
        raise ValueError("the arguments must be one line of printable characters")
    if user and not USER_NAME.fullmatch(user):
        raise ValueError(f"--service-user {user!r} is not a user's name")
    for word in arguments:
        if re.search(r"://[^/@]*:[^/@]*@", word):
            raise ValueError(
                f"{re.sub(r'//.*@', '//...@', word)}: everyone on the board could read the "
                "password in the unit file and the list of processes: leave --source out and add "
                f"a line {SOURCE_VARIABLE}=URL to ~/{TOKEN_FILE} on the board"
            )


def unit_text(home: str, account: Account, arguments: Sequence[str]) -> str:
    """Return the unit file.

    It is the same for every release: the model and its plugin are found at each start, so that it
    remains valid after a rollback.

    Parameters
    ----------
    home : home directory of the deploying user
    account : user of the service
    arguments : of app/classify.py, other than --model and --plugin
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
        # systemd signals only classify.py, so that it can let a video encoder finish the file.
        "KillMode=mixed\n"
        f"Restart=on-failure\nRestartSec=5\n{_SANDBOX}\n[Install]\n{UNIT_END}\n"
    )


def _quoted(word: str) -> str:
    """Return a word quoted for systemd, with specifiers and variables escaped."""
    return json.dumps(word, ensure_ascii=False).replace("%", "%%").replace("$", "$$")


def has_page(arguments: Sequence[str]) -> bool:
    """Return whether the arguments enable the live page."""
    return any(re.match(r"--web(=|$)|web(:|$)", word) for word in arguments)


def _port(arguments: Sequence[str]) -> int | None:
    """Return the port of the live page; None if the arguments have none."""
    found = re.search(r"(?:--web[ =]|\bweb:)(?:\S*:)?(\d{1,5})(?!\S)", " ".join(arguments))
    return int(found[1]) if found else None
