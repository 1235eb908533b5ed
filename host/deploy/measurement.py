"""Measure a model on a board: start it there, follow it, collect it.

    tutelage measure xilinx@board --model models/mine
    tutelage measure xilinx@board --attach

The measurement itself is `python -m tutelage.app.measure`, a process of the board's own that SSH
only starts: it needs neither the connection nor this machine, and stores everything on the board
below ~/tutelage/measurements/<time>. Following it is one idle connection, made again where it
breaks, so that the board is left alone while it measures. At the end the files come to
results/<board>/<time>, and are verified against the board's checksums. They are not trusted: only
the files of a measurement are fetched, links are not followed, sizes are bounded.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tutelage.host.deploy import ACCEPTABLE, RELEASES, Plan, deploy_one
from tutelage.host.deploy.plan import BoardPlan
from tutelage.host.deploy.release import MODEL_SCRIPT, PLUGIN_SCRIPT, model_path
from tutelage.host.deploy.scripts import MEASUREMENTS, MEASURING
from tutelage.host.ssh.advice import NOISE
from tutelage.host.ssh.received import read_received, sha256_of_received
from tutelage.host.ssh.remote import (
    AccessRefused,
    ConnectionLost,
    Remote,
    RemoteError,
    RemoteUsageError,
    check_hosts,
)

RUN, SUMMARY, SUMS, LOG = "run.json", "summary.md", "SHA256SUMS", "log"
_FILES = (RUN, SUMMARY, SUMS, LOG, "frames.csv", "power.csv", "condition.csv", "progress.jsonl",
          "pid")  # fmt: skip
_MOST_FILE, _MOST_TEXT = 4 << 30, 16 << 20  # bytes of a file, and of one that is read as a whole
_KEPT = 20  # collected measurements that stay on a board
_RETRY_SECONDS = (2.0, 30.0)  # first and longest pause before a lost connection is made anew
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")

Say = Callable[[str], None]


class MeasureError(RuntimeError):
    """There is no measurement, or it did not come to its end; one line."""


@dataclass(frozen=True)
class Measuring(BoardPlan):
    """What is measured; `accepted` are findings of deploy and of `tutelage.app.measure`.

    Attributes
    ----------
    arguments : for `tutelage.app.measure`, besides --model, --plugin, --board, --output, --accept
    """

    arguments: tuple[str, ...] = ()


def start(host: str, what: Measuring, say: Say) -> str:
    """Deploy the model where it is given, and start its measurement; returns its name.

    Raises
    ------
    RemoteUsageError, DeployUsageError
        What was asked for cannot be.
    RemoteError, MeasureError
        It was not started, or the connection broke before that was known.
    """
    check_hosts([host])
    if what.plugin is not None and what.model is None:
        raise RemoteUsageError("--plugin is deployed with a model: give its --model too")
    with Remote(host, what.ssh_config) as remote:
        _refuse(remote, what)
        release, model = _release(remote, host, what, say)
        now = datetime.now(timezone.utc)
        name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        arguments = ["--output", f"../../measurements/{name}", "--model", model]
        arguments += ["--board", what.board, "--started", now.isoformat(timespec="seconds")]
        for accepted in what.accepted:
            if accepted != "service" and (accepted not in ACCEPTABLE or accepted == "disk"):
                arguments += ["--accept", accepted]
        arguments += what.arguments
        # It does nothing the second time: a broken connection may have run it.
        script = _start_script(name, release, arguments)
        _persist(lambda: remote.sh(script, seconds=60), say)
    return name


def _refuse(remote: Remote, what: Measuring) -> None:
    """Raise where something else is at work on the board, or its files could not be fetched."""
    running = remote.sh(MEASURING).strip()
    if running:
        raise MeasureError(f"a measurement is running: {running}; --attach goes on with it")
    if remote.noise:
        raise RemoteError(f"{remote.host}: {NOISE}; it prints {remote.noise[:60]!r}")
    if "service" not in what.accepted:
        remote.sh(_REFUSE_SERVICE)


def newest(host: str, ssh_config: Path | None) -> str:
    """Return the name of the newest measurement on a board that is not collected, else of the last.

    Raises
    ------
    MeasureError
        There is none.
    """
    found = listing(host, ssh_config)
    if not found:
        raise MeasureError(f"{host}: nothing was measured there")
    waiting = [name for name, state in found if state != "collected"]
    return waiting[-1] if waiting else found[-1][0]


def listing(host: str, ssh_config: Path | None) -> list[tuple[str, str]]:
    """Return name and state ("running", "ended", "collected") of what was measured on a board.

    Raises
    ------
    RemoteUsageError, RemoteError
        The host is none, or not reached.
    """
    check_hosts([host])
    lines = Remote(host, ssh_config).sh(_LIST).splitlines()
    pairs = [tuple(line.split(" ", 1)) for line in lines if _ID.match(line)]
    return [(name, state) for name, state in pairs]


def cancel(host: str, ssh_config: Path | None, name: str) -> None:
    """Let a measurement end now; what it has measured stays, to be collected.

    Raises
    ------
    RemoteError
        It is not reached, or does not run.
    """
    Remote(host, ssh_config).sh(
        f"cd {_enter(name)}; {_is_running(name)} || {{ echo it is not running >&2; exit 1; }}; "
        "kill -TERM $p"
    )


def follow(host: str, ssh_config: Path | None, name: str, say: Say) -> None:
    """Tell how a measurement goes until it has ended, however often the connection breaks.

    Raises
    ------
    RemoteError
        There is no such measurement, or the connection is refused for good.
    """
    remote, told = Remote(host, ssh_config), 0
    progress = _Progress(say)
    pauses = _pauses()
    while True:
        try:
            with closing(remote.stream(_follow_script(name, told + 1))) as lines:
                for line in lines:
                    told += 1
                    progress.take(line)
                    pauses = _pauses()
            if remote.sh(_running_script(name)).strip() != "running":
                return
            raise ConnectionLost("what watched it there was ended")
        except ConnectionLost as error:
            _wait(error, next(pauses), say)


def collect(host: str, ssh_config: Path | None, name: str, results: Path, say: Say) -> Path:
    """Copy a measurement that has ended into results/<name>; returns that directory.

    Raises
    ------
    MeasureError, ReceivedError
        A file is not what the board stored, or not what a measurement stores.
    RemoteError
        The connection is refused for good, or the board has links for files.
    """
    remote, folder = Remote(host, ssh_config), results / name
    partial = results / f".{name}.partial"
    place = f"{MEASUREMENTS}/{name}"
    if not folder.exists():
        _persist(lambda: remote.fetch(place, partial, _FILES, _MOST_FILE), say)
        _verify(partial)
        partial.rename(folder)
    _persist(lambda: remote.sh(_collected_script(name)), say)
    return folder


def summary(folder: Path) -> str:
    """Return the table of a collected measurement, summary.md; raises ReceivedError."""
    return read_received(folder / SUMMARY, _MOST_TEXT).rstrip("\n")


def outcome(folder: Path) -> dict[str, Any]:
    """Return the figures of a collected measurement, run.json.

    Raises
    ------
    MeasureError, ReceivedError
        It ended before there were any: the text is what the board said. Or they are not figures.
    """
    if (folder / RUN).exists():
        return _figures(folder)
    try:
        lines = read_received(folder / LOG, _MOST_TEXT).split("\n")
    except FileNotFoundError:
        lines = []
    last = next((line for line in reversed(lines) if line.strip()), "it says nothing")
    raise MeasureError(last.removeprefix("measure: "))


def _figures(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        run = json.loads(read_received(path, _MOST_TEXT))
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict) or not isinstance(run.get("state"), str):
        raise MeasureError(f"{path}: not the figures of a measurement")
    return run


def _release(remote: Remote, host: str, what: Measuring, say: Say) -> tuple[str, str]:
    """Return the release that is measured, and its model's place in it."""
    if what.model is None:
        words = remote.sh(_CURRENT).splitlines()
        return words[0], words[1]
    accepted = tuple(name for name in what.accepted if name in ACCEPTABLE)
    plan = Plan(what.board, what.model, what.wheels, what.ssh_config, accepted, what.plugin)
    report = deploy_one(host, plan, say)
    for warning in report.warnings:
        say(f"{host}: warning: {warning}")
    say(f"{host}: {report.release}: {report.state}")
    return report.release, model_path(what.model)


def _persist(work: Callable[[], Any], say: Say) -> None:
    pauses = _pauses()
    while True:
        try:
            work()
            return
        except ConnectionLost as error:
            _wait(error, next(pauses), say)


def _pauses() -> Iterator[float]:
    pause, longest = _RETRY_SECONDS
    while True:
        yield pause
        pause = min(longest, 2 * pause)


def _wait(error: ConnectionLost, seconds: float, say: Say) -> None:
    if isinstance(error, AccessRefused):
        raise error
    say(f"no connection ({error}); again in {seconds:g} s. The board goes on by itself")
    time.sleep(seconds)


def _verify(folder: Path) -> None:
    """See that every file is what the board's checksums say; mark what has none as broken off."""
    sums = folder / SUMS
    if not sums.exists():
        _mark_broken_off(folder)
        return
    for line in read_received(sums, _MOST_TEXT).splitlines():
        digest, _, name = line.partition("  ")
        if name not in _FILES:
            raise MeasureError(f"{sums}: {name[:80]!r} is not a file of a measurement")
        path = folder / name
        try:
            same = sha256_of_received(path) == digest
        except FileNotFoundError:
            same = False
        if not same:
            raise MeasureError(f"{path}: is not what the board stored; --attach fetches it again")


def _mark_broken_off(folder: Path) -> None:
    """Write into the figures that their process was killed, or the board lost power."""
    if not (folder / RUN).exists():
        return
    run = _figures(folder)
    if run["state"] != "running":
        return
    run["state"] = "broken off"
    run["error"] = "the process ended without a word: it was killed, or the board restarted"
    text = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
    (folder / RUN).write_text(text, encoding="utf-8")
    table = summary(folder).replace(", running. ", ", broken off. ", 1) + "\n"
    (folder / SUMMARY).write_text(table, encoding="utf-8")


class _Progress:
    """Turns the lines of progress.jsonl into lines for a reader."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._steps = 0

    def take(self, line: str) -> None:
        try:
            event = json.loads(line)
            text = self._text(event)
            at = f"{event['at']:7.0f} s"
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return  # a line that is not complete, or not a measurement's
        if text:
            self._say(f"{at}  {text}")

    def _text(self, event: dict[str, Any]) -> str:
        kind = event["event"]
        if kind == "plan":
            self._steps = len(event["steps"])
            return f"{self._steps} windows, about {event['seconds'] / 60:.1f} minutes"
        if kind == "phase":
            number = f"{event['step'] + 1}/{self._steps} " if "step" in event else ""
            return f"{number}{event['name']}, {event['seconds']:g} s"
        if kind == "step":
            watts = "" if event["watts"] is None else f", {event['watts']:.2f} W"
            latency = "" if event["latency_ms"] is None else f", p50 {event['latency_ms']:.2f} ms"
            marks = "".join(f" [{name}]" for name in event["concerns"])
            return f"    {event['fps']:.1f} fps{latency}{watts}{marks}"
        if kind == "end":
            return f"{event['state']}{': ' + event['error'] if event['error'] else ''}"
        return ""


# -- shell scripts that run in the home directory on the board ----------------------------------

_CURRENT = (
    "cd tutelage/current 2>/dev/null || "
    "{ echo nothing is deployed there, give --model >&2; exit 1; }; "
    f"basename $(readlink -f .); {MODEL_SCRIPT}"
)

_REFUSE_SERVICE = (
    "if systemctl is-active --quiet tutelage.service 2>/dev/null; then "
    "echo 'the service tutelage is at work there; stop it (sudo systemctl stop tutelage), or "
    "--accept service' >&2; exit 1; fi"
)

_LIST = (
    f"cd {MEASUREMENTS} 2>/dev/null || exit 0; for d in *Z-*; do test -d $d || continue; "
    "p=$(cat $d/pid 2>/dev/null); "
    "if [ -e $d/collected ]; then s=collected; "
    "elif grep -q $d /proc/$p/cmdline 2>/dev/null; then s=running; else s=ended; fi; "
    'echo "$d $s"; done'
)


def _enter(name: str) -> str:
    if not _ID.fullmatch(name):
        raise RemoteUsageError(f"{name!r}: not the name of a measurement")
    missing = f"{{ echo there is no measurement {name} >&2; exit 1; }}"
    return f"{MEASUREMENTS}/{name} 2>/dev/null || {missing}"


def _is_running(name: str) -> str:
    # By its command line: after a restart of the board another process may have the number.
    return f"p=$(cat pid 2>/dev/null); grep -q {name} /proc/$p/cmdline 2>/dev/null"


def _running_script(name: str) -> str:
    return f"cd {_enter(name)}; if {_is_running(name)}; then echo running; fi"


def _start_script(name: str, release: str, arguments: list[str]) -> str:
    """Start a measurement once, however often this runs."""
    place = f"../../measurements/{name}"
    return (
        f"set -e; mkdir -p {MEASUREMENTS}; cd {RELEASES}/{shlex.quote(release)}; "
        f"test ! -e {place} || exit 0; mkdir {place}; "
        # setsid: the end of the SSH session is not the end of the measurement.
        f"setsid nohup .venv/bin/python -m tutelage.app.measure $({PLUGIN_SCRIPT}) "
        f"{shlex.join(arguments)} > {place}/log 2>&1 < /dev/null & echo $! > {place}/pid"
    )


def _follow_script(name: str, line: int) -> str:
    """Print progress.jsonl from a line on, until the measurement has ended."""
    return (
        f"cd {_enter(name)}; if {_is_running(name)}; "
        # tail's status tells that the file was not there at first.
        f"then tail -n +{line} -F --pid=$p progress.jsonl 2>/dev/null; exit 0; fi; "
        f"test ! -e progress.jsonl || tail -n +{line} progress.jsonl"
    )


def _collected_script(name: str) -> str:
    """Mark a measurement as collected; remove those that were long ago."""
    return (
        f"cd {_enter(name)}; touch collected; cd ..; n=0; "
        "for d in $(ls -1dr *Z-*); do test ! -e $d/collected || n=$((n+1)); "
        f"test $n -le {_KEPT} || test ! -e $d/collected || rm -rf $d; done"
    )
