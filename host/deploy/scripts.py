"""Shell scripts about releases that run on a board, in the home directory."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tutelage.core.expected_outputs import EXPECTED
from tutelage.core.model_package import COMPILED
from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT, SUMS
from tutelage.host.ssh.remote import Remote

KEPT = 3  # releases that stay on a board

RELEASES = "tutelage/releases"
"""Where releases are on a board, from the home directory."""

MEASUREMENTS = "tutelage/measurements"
"""Where measurements are on a board, from the home directory."""

_SMOKE_SECONDS = 120

JOB_SECONDS, OUTPUTS_SECONDS = 60, 480
"""Time limits of one job whose outputs are compared, and of all of them, s."""

MOST_REPORT = 1 << 16
"""Bytes of a report of `tutelage.board.outputs_check` that are read."""


def venv_script(place: str, python: str, extra: str | None) -> str:
    """Make the release's venv: the system's packages, the image's own venv's, those carried."""
    lines = [
        f"set -e; cd {RELEASES}/{place}",
        f"{shlex.quote(python)} -m venv --clear --without-pip --system-site-packages .venv",
        "s=$(echo .venv/lib/python3.*/site-packages)",
        # Relative to site-packages, as the release is renamed when it is complete.
        "echo ../../../../packages > $s/carried.pth",
    ]
    if extra:
        lines.append(f"echo {shlex.quote(extra)} > $s/image.pth")
    return "; ".join(lines)


def smoke_script(place: str, model: str, on_dpu: bool) -> str:
    """Classify three frames with the release in `place`, or only import everything."""
    enter = f"set -e; cd {RELEASES}/{place}; run='timeout {_SMOKE_SECONDS} .venv/bin/python'"
    if not on_dpu:
        return f"{enter}; $run app/classify.py --help > /dev/null"
    images = f"{model}/images" if not model.endswith(".xmodel") else ""
    return (
        f"{enter}; i=app/demo/images; test ! -d {shlex.quote(images or 'none')} || "
        f"i={shlex.quote(images)}; "
        f"$run app/classify.py --model {shlex.quote(model)} $({PLUGIN_SCRIPT}) --source $i "
        "--frames 3 --quiet --json - 2>.smoke || { tail -n 1 .smoke >&2; exit 1; }; rm -f .smoke"
    )


def compiled_path(model: str) -> str:
    """Return the compiled file of a model, by the model's place in a release."""
    return model if model.endswith(".xmodel") else f"{model}/{COMPILED}"


def outputs_script(place: str, model: str) -> str:
    """Compare outputs with the release's expected ones; print the report, or nothing where a
    release has none."""
    ended = f"no outcome within {OUTPUTS_SECONDS} s"
    return (
        f"set -e; cd {RELEASES}/{place}; test -d {EXPECTED} || exit 0; rm -f .outputs.json; s=0; "
        f"timeout -k 10 {OUTPUTS_SECONDS} .venv/bin/python -m tutelage.board.outputs_check "
        f"--model {shlex.quote(compiled_path(model))} $({PLUGIN_SCRIPT}) --expected {EXPECTED} "
        f"--seconds {JOB_SECONDS} --report .outputs.json >/dev/null 2>.smoke || s=$?; "
        f"if [ -s .outputs.json ]; then head -c {MOST_REPORT} .outputs.json; "
        f"elif [ $s = 124 ] || [ $s = 137 ]; then echo {shlex.quote(ended)} >&2; exit 1; "
        "else tail -n 1 .smoke >&2; exit 1; fi; rm -f .outputs.json .smoke"
    )


def switch_script(name: str, place: str) -> str:
    """Give a complete release in `place` ("": it has it already) its name, and switch to it."""
    # Where a run that was cut off still came so far, its release is the same.
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
    "cd tutelage 2>/dev/null || { echo nothing was deployed there >&2; exit 1; }; "
    "c=$(readlink current); p=$(readlink previous); "
    'if [ -z "$p" ] || [ "$p" = "$c" ] || [ ! -d "$p" ]; '
    "then echo no release before this one is there >&2; exit 1; fi; set -e; "
)
PREVIOUS = f'{_NONE_BEFORE}cd "$p"; echo "${{p#releases/}}"; {MODEL_SCRIPT}'

ROLLBACK = (
    f"{_NONE_BEFORE}"
    'ln -sfn "$c" .previous; ln -sfn "$p" .current; mv -T .current current; '
    'mv -T .previous previous; sync; echo "${c#releases/} ${p#releases/}"'
)

PRUNE = (
    "cd tutelage; c=$(readlink current); p=$(readlink previous); n=0; "
    "for d in $(ls -1t releases); do n=$((n+1)); r=releases/$d; "
    f'[ $n -le {KEPT} ] || [ "$r" = "$c" ] || [ "$r" = "$p" ] || '
    # A measurement holds the list of its release; without flock nobody knows, and all stay.
    f'! flock -n -x "$r/{SUMS}" true 2>/dev/null || rm -rf "$r"; done; '
    "find releases -mindepth 1 -maxdepth 1 -name '.*.partial' -mmin +1440 -exec rm -rf {} +"
)


# app/measure/store.py locks that file while it runs, and writes the measurement's name there.
MEASURING = (
    f"test ! -e {MEASUREMENTS}/.lock || flock -n -s {MEASUREMENTS}/.lock true || "
    f"head -c 200 {MEASUREMENTS}/.lock"
)
"""Print the name of the measurement that runs on the board, if one does."""


@dataclass(frozen=True)
class State:
    """What a board has: the current release ("" for none), whether the new one is there already,
    and the directories that broken-off runs of it left."""

    current: str
    complete: bool
    partial: list[str]


def read_state(remote: Remote, name: str) -> State:
    """What the board has, where `name` is to be deployed."""
    answer = remote.sh(
        'cd tutelage && echo "current $(readlink current)"; ls -1a releases'
    ).splitlines()
    current = re.fullmatch(r"current releases/([0-9a-f]{16})", answer[0]) if answer else None
    partial = re.compile(rf"\.{name}\.[0-9a-f]{{8}}\.partial")
    left = [line for line in answer[1:] if partial.fullmatch(line)]
    return State(current[1] if current else "", name in answer[1:], left)
