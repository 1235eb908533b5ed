"""Shell scripts for measurements, which run on a board in the home directory."""

from __future__ import annotations

import re
import shlex

from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT
from tutelage.host.deploy.scripts import MEASUREMENTS, RELEASES
from tutelage.host.ssh.errors import RemoteUsageError

IDENTIFIER = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
"""Pattern of a measurement's name."""
LISTED = re.compile(rf"({IDENTIFIER.pattern}) (running|ended|collected)")
"""Pattern of a line that `LIST` prints."""
_KEPT = 20  # collected measurements to keep on a board

CURRENT = (
    "cd tutelage/current 2>/dev/null || "
    "{ echo nothing is deployed on the board: give --model >&2; exit 1; }; "
    f"basename $(readlink -f .); {MODEL_SCRIPT}"
)

REFUSE_SERVICE = (
    "if systemctl is-active --quiet tutelage.service 2>/dev/null; then "
    "echo 'the service tutelage is running on the board: stop it (sudo systemctl stop tutelage), "
    "or give --accept service' >&2; exit 1; fi"
)

LIST = (
    f"cd {MEASUREMENTS} 2>/dev/null || exit 0; for d in *Z-*; do test -d $d || continue; "
    "p=$(cat $d/pid 2>/dev/null); "
    "if [ -e $d/collected ]; then s=collected; "
    "elif grep -q $d /proc/$p/cmdline 2>/dev/null; then s=running; else s=ended; fi; "
    'echo "$d $s"; done'
)


def _enter(name: str) -> str:
    if not IDENTIFIER.fullmatch(name):
        raise RemoteUsageError(f"{name!r}: not the name of a measurement")
    missing = f"{{ echo there is no measurement {name} >&2; exit 1; }}"
    return f"{MEASUREMENTS}/{name} 2>/dev/null || {missing}"


def cancel_script(name: str) -> str:
    """Return a script that stops a measurement, which stores its results so far."""
    return (
        f"cd {_enter(name)}; {_is_running(name)} || {{ echo it is not running >&2; exit 1; }}; "
        "kill -TERM $p"
    )


def _is_running(name: str) -> str:
    # By its command line, since after a restart another process may have the same number.
    return f"p=$(cat pid 2>/dev/null); grep -q {name} /proc/$p/cmdline 2>/dev/null"


def running_script(name: str) -> str:
    """Return a script that prints "running" if a measurement is running."""
    return f"cd {_enter(name)}; if {_is_running(name)}; then echo running; fi"


def start_script(name: str, release: str, arguments: list[str]) -> str:
    """Return a script that starts a measurement, unless it has been started already."""
    place = f"../../measurements/{name}"
    return (
        f"set -e; mkdir -p {MEASUREMENTS}; cd {RELEASES}/{shlex.quote(release)}; "
        f"test ! -e {place} || exit 0; mkdir {place}; "
        # With setsid the measurement continues after the SSH session has ended.
        f"setsid nohup .venv/bin/python -m tutelage.app.measure $({PLUGIN_SCRIPT}) "
        f"{shlex.join(arguments)} > {place}/log 2>&1 < /dev/null & echo $! > {place}/pid"
    )


def follow_script(name: str, line: int) -> str:
    """Return a script that prints progress.jsonl from a line on until the measurement ends."""
    return (
        f"cd {_enter(name)}; if {_is_running(name)}; "
        # tail's exit status is an error if the file did not exist at first.
        f"then tail -n +{line} -F --pid=$p progress.jsonl 2>/dev/null; exit 0; fi; "
        f"test ! -e progress.jsonl || tail -n +{line} progress.jsonl"
    )


def collected_script(name: str) -> str:
    """Return a script that marks a measurement as collected, and removes the oldest collected."""
    return (
        f"cd {_enter(name)}; touch collected; cd ..; n=0; "
        "for d in $(ls -1dr *Z-*); do test ! -e $d/collected || n=$((n+1)); "
        f"test $n -le {_KEPT} || test ! -e $d/collected || rm -rf $d; done"
    )
