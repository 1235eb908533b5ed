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

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tutelage.core.errors import MeasureError
from tutelage.host.deploy import ACCEPTABLE, Plan, deploy_one, measurement_scripts
from tutelage.host.deploy.measurement_progress import MeasurementProgress
from tutelage.host.deploy.measurement_results import FILES, verify
from tutelage.host.deploy.plan import BoardPlan
from tutelage.host.deploy.release import model_path
from tutelage.host.deploy.scripts import MEASUREMENTS, MEASURING
from tutelage.host.ssh.advice import NOISE
from tutelage.host.ssh.errors import AccessRefused, ConnectionLost, RemoteError, RemoteUsageError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import fetch

_MOST_FILE = 4 << 30  # bytes of a file
_RETRY_SECONDS = (2.0, 30.0)  # first and longest pause before a lost connection is made again

Say = Callable[[str], None]


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
        script = measurement_scripts.start_script(name, release, arguments)
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
        remote.sh(measurement_scripts.REFUSE_SERVICE)


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
        The host's name is invalid, or it is not reached.
    """
    check_hosts([host])
    lines = Remote(host, ssh_config).sh(measurement_scripts.LIST).splitlines()
    pairs = [
        tuple(line.split(" ", 1)) for line in lines if measurement_scripts.IDENTIFIER.match(line)
    ]
    return [(name, state) for name, state in pairs]


def cancel(host: str, ssh_config: Path | None, name: str) -> None:
    """Let a measurement end now; what it has measured stays, to be collected.

    Raises
    ------
    RemoteError
        It is not reached, or does not run.
    """
    Remote(host, ssh_config).sh(measurement_scripts.cancel_script(name))


def follow(host: str, ssh_config: Path | None, name: str, say: Say) -> None:
    """Report how a measurement goes until it has ended, however often the connection breaks.

    Raises
    ------
    RemoteError
        There is no such measurement, or the connection is refused for good.
    """
    remote, told = Remote(host, ssh_config), 0
    progress = MeasurementProgress(say)
    pauses = _pauses()
    while True:
        try:
            with closing(remote.stream(measurement_scripts.follow_script(name, told + 1))) as lines:
                for line in lines:
                    told += 1
                    progress.take(line)
                    pauses = _pauses()
            if remote.sh(measurement_scripts.running_script(name)).strip() != "running":
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
        _persist(lambda: fetch(remote, place, partial, FILES, _MOST_FILE), say)
        verify(partial)
        partial.rename(folder)
    _persist(lambda: remote.sh(measurement_scripts.collected_script(name)), say)
    return folder


def _release(remote: Remote, host: str, what: Measuring, say: Say) -> tuple[str, str]:
    """Return the release that is measured, and its model's place in it."""
    if what.model is None:
        words = remote.sh(measurement_scripts.CURRENT).splitlines()
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
