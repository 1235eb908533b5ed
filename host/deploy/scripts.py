"""Shell scripts for releases, which run on a board in the home directory."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tutelage.core.expected_outputs import EXPECTED
from tutelage.core.model_package import COMPILED
from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT, SUMS
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.remote import Remote

KEPT = 3  # releases to keep on a board

RELEASES = "tutelage/releases"
"""Directory of the releases on a board, relative to the home directory."""

MEASUREMENTS = "tutelage/measurements"
"""Directory of the measurements on a board, relative to the home directory."""

_SMOKE_SECONDS = 120
_KILL_SECONDS = 10  # between SIGTERM and SIGKILL: a job that hangs in VART blocks Python's handlers
_TIMED_OUT = "[ $s = 124 ] || [ $s = 137 ]"  # statuses of timeout, the latter after SIGKILL

JOB_SECONDS, OUTPUTS_SECONDS = 60, 480
"""Time limits of one job whose outputs are compared, and of all of them, s."""

MOST_REPORT = 1 << 16
"""Most bytes of a report of `tutelage.board.outputs_check`."""


def venv_script(place: str, python: str, extra: str | None) -> str:
    """Return a script that creates a release's venv.

    It has the packages of the system, of the image's venv, and those that the release includes.

    Parameters
    ----------
    place : directory of the release
    python : Python of the board
    extra : path of the packages in the image's venv; None for none
    """
    lines = [
        f"set -e; cd {RELEASES}/{place}",
        f"{shlex.quote(python)} -m venv --clear --without-pip --system-site-packages .venv",
        "s=$(echo .venv/lib/python3.*/site-packages)",
        # Relative to site-packages, since the release is renamed when it is complete.
        "echo ../../../../packages > $s/carried.pth",
    ]
    if extra:
        lines.append(f"echo {shlex.quote(extra)} > $s/image.pth")
    return "; ".join(lines)


def smoke_script(place: str, model: str, on_dpu: bool) -> str:
    """Return a script that classifies three frames by the release in `place`.

    Parameters
    ----------
    model : path of the model in the release
    on_dpu : False only imports everything, for boards that cannot run the DPU
    """
    enter = f"set -e; cd {RELEASES}/{place}; "
    enter += f"run='timeout -k {_KILL_SECONDS} {_SMOKE_SECONDS} .venv/bin/python'"
    if not on_dpu:
        return f"{enter}; $run app/classify.py --help > /dev/null"
    images = f"{model}/images" if not model.endswith(".xmodel") else ""
    ended = shlex.quote(f"smoke test: no result within {_SMOKE_SECONDS} s")
    return (
        f"{enter}; s=0; i=app/demo/images; test ! -d {shlex.quote(images or 'none')} || "
        f"i={shlex.quote(images)}; "
        f"$run app/classify.py --model {shlex.quote(model)} $({PLUGIN_SCRIPT}) --source $i "
        "--frames 3 --quiet --json - 2>.smoke || s=$?; "
        f"if {_TIMED_OUT}; then echo {ended} >&2; exit 1; "
        "elif [ $s != 0 ]; then tail -n 1 .smoke >&2; exit 1; fi; rm -f .smoke"
    )


def compiled_path(model: str) -> str:
    """Return the path of a model's compiled file, from the model's path in a release."""
    return model if model.endswith(".xmodel") else f"{model}/{COMPILED}"


def outputs_script(place: str, model: str) -> str:
    """Return a script that compares outputs with the release's expected ones.

    It prints the report, or nothing if the release has no expected outputs.
    """
    ended = f"no result within {OUTPUTS_SECONDS} s"
    return (
        f"set -e; cd {RELEASES}/{place}; test -d {EXPECTED} || exit 0; rm -f .outputs.json; s=0; "
        f"timeout -k {_KILL_SECONDS} {OUTPUTS_SECONDS} "
        ".venv/bin/python -m tutelage.board.outputs_check "
        f"--model {shlex.quote(compiled_path(model))} $({PLUGIN_SCRIPT}) --expected {EXPECTED} "
        f"--seconds {JOB_SECONDS} --report .outputs.json >/dev/null 2>.smoke || s=$?; "
        f"if [ -s .outputs.json ]; then head -c {MOST_REPORT} .outputs.json; "
        f"elif {_TIMED_OUT}; then echo {shlex.quote(ended)} >&2; exit 1; "
        "else tail -n 1 .smoke >&2; exit 1; fi; rm -f .outputs.json .smoke"
    )


def switch_script(name: str, place: str) -> str:
    """Return a script that renames the release in `place` to `name` and switches to it.

    Parameters
    ----------
    place : directory of the complete release; "" if it has its name already
    """
    # An interrupted run may have come this far; its release is the same.
    rename = (
        f"sync; if [ -e releases/{name} ]; then rm -rf releases/{place}; "
        f"else mv -T releases/{place} releases/{name}; fi; "
    )
    rename = rename if place else ""
    return (
        f"set -e; cd tutelage; {rename}touch releases/{name}; old=$(readlink current || true); "
        'test -z "$old" || { ln -sfn "$old" .previous; mv -T .previous previous; }; '
        f"ln -sfn releases/{name} .current; mv -T .current current; sync"
    )


_NONE_BEFORE = (
    "cd tutelage 2>/dev/null || { echo nothing is deployed on the board >&2; exit 1; }; "
    "c=$(readlink current); p=$(readlink previous); "
    'if [ -z "$p" ] || [ "$p" = "$c" ] || [ ! -d "$p" ]; '
    "then echo the board has no previous release >&2; exit 1; fi; set -e; "
)
PREVIOUS = f'{_NONE_BEFORE}cd "$p"; echo "${{p#releases/}}"; {MODEL_SCRIPT}'

ROLLBACK = (
    f"{_NONE_BEFORE}"
    'ln -sfn "$c" .previous; ln -sfn "$p" .current; mv -T .current current; '
    'mv -T .previous previous; sync; echo "${c#releases/} ${p#releases/}"'
)


def release_and_model(remote: Remote, script: str) -> tuple[str, str]:
    """Return the name of a release and the path of its model.

    Parameters
    ----------
    script : prints them, such as `PREVIOUS`

    Raises
    ------
    ConnectionLost, RemoteError
        As for `Remote.sh`, or the release has no model.
    """
    lines = remote.sh(script).splitlines()
    if len(lines) != 2 or not re.fullmatch(r"[0-9a-f]{16}", lines[0]):
        raise RemoteError(
            f"{remote.host}: the release has no model, so it is damaged: deploy again"
        )
    return lines[0], lines[1]


PRUNE = (
    "cd tutelage; c=$(readlink current); p=$(readlink previous); n=0; "
    "for d in $(ls -1t releases); do n=$((n+1)); r=releases/$d; "
    f'[ $n -le {KEPT} ] || [ "$r" = "$c" ] || [ "$r" = "$p" ] || '
    # A measurement locks the list of its release; without flock all releases are kept.
    f'! flock -n -x "$r/{SUMS}" true 2>/dev/null || rm -rf "$r"; done; '
    "find releases -mindepth 1 -maxdepth 1 -name '.*.partial' -mmin +1440 -exec rm -rf {} +"
)


# app/measure/store.py locks that file while it runs, and writes the measurement's name there.
MEASURING = (
    f"test ! -e {MEASUREMENTS}/.lock || flock -n -s {MEASUREMENTS}/.lock true || "
    f"head -c 200 {MEASUREMENTS}/.lock"
)
"""Script that prints the name of the measurement that is running on the board, if there is one."""


@dataclass(frozen=True)
class State:
    """Releases of a board.

    Attributes
    ----------
    current : name of the current release; "" for none
    complete : whether the new release is on the board already
    partial : directories of incomplete copies of the new release
    """

    current: str
    complete: bool
    partial: list[str]


def read_state(remote: Remote, name: str) -> State:
    """Return the state of a board to which the release `name` is to be deployed."""
    answer = remote.sh(
        'cd tutelage && echo "current $(readlink current)"; ls -1a releases'
    ).splitlines()
    current = re.fullmatch(r"current releases/([0-9a-f]{16})", answer[0]) if answer else None
    partial = re.compile(rf"\.{name}\.[0-9a-f]{{8}}\.partial")
    left = [line for line in answer[1:] if partial.fullmatch(line)]
    return State(current[1] if current else "", name in answer[1:], left)
