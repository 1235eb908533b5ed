"""Measurement of a model on a board: start, follow and collect it.

    tutelage measure xilinx@board --model models/mine
    tutelage measure xilinx@board --attach

The measurement is `python -m tutelage.app.measure`, a process on the board that SSH only starts: it
depends neither on the connection nor on this machine, and stores its files on the board below
~/tutelage/measurements/<time>. It is followed by one idle connection, which is restored if it
breaks, so that the board is not disturbed. At the end the files are copied to
results/<board>/<time> and verified by the board's checksums. They are untrusted: only the files of
a measurement are fetched, links are not followed, sizes are bounded.
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
from tutelage.host.deploy.scripts import MEASUREMENTS, MEASURING, release_and_model
from tutelage.host.ssh.advice import NOISE
from tutelage.host.ssh.errors import AccessRefused, ConnectionLost, RemoteError, RemoteUsageError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import fetch

_MOST_FILE = 4 << 30  # bytes of a file
_RETRY_SECONDS = (2.0, 30.0)  # first and longest pause before connecting again

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measuring(BoardPlan):
    """Settings of a measurement; `accepted` are findings of deploy and of `tutelage.app.measure`.

    Attributes
    ----------
    arguments : further arguments of `tutelage.app.measure`, other than --model, --plugin, --board,
        --output and --accept
    """

    arguments: tuple[str, ...] = ()


def start(host: str, what: Measuring, say: Say) -> str:
    """Deploy the model, if one is given, and start the measurement; return its name.

    Parameters
    ----------
    say : called with lines for the user

    Raises
    ------
    RemoteUsageError, DeployUsageError
        The host or an option is not valid.
    RemoteError, MeasureError
        The measurement was not started, or the connection was lost before that was known.
    """
    check_hosts([host])
    if what.plugin is not None and what.model is None:
        raise RemoteUsageError("--plugin is deployed with a model: give the --model too")
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
        # Before the connection was lost the script may have run; a second run does nothing.
        script = measurement_scripts.start_script(name, release, arguments)
        _persist(lambda: remote.sh(script, seconds=60), say)
    return name


def _refuse(remote: Remote, what: Measuring) -> None:
    """Raise an error if the board is busy, or its files could not be fetched."""
    running = remote.sh(MEASURING).strip()
    if running:
        raise MeasureError(f"a measurement is running: {running}: follow it with --attach")
    if remote.noise:
        raise RemoteError(f"{remote.host}: {NOISE}; it prints {remote.noise[:60]!r}")
    if "service" not in what.accepted:
        remote.sh(measurement_scripts.REFUSE_SERVICE)


def newest(host: str, ssh_config: Path | None) -> str:
    """Return the name of a board's newest measurement that is not collected, else of its newest.

    Raises
    ------
    MeasureError
        The board has no measurements.
    """
    found = listing(host, ssh_config)
    if not found:
        raise MeasureError(f"{host}: has no measurements")
    waiting = [name for name, state in found if state != "collected"]
    return waiting[-1] if waiting else found[-1][0]


def listing(host: str, ssh_config: Path | None) -> list[tuple[str, str]]:
    """Return the name and state ("running", "ended", "collected") of each measurement on a board.

    Raises
    ------
    RemoteUsageError, RemoteError
        The host's name is not valid, or it cannot be reached.
    """
    check_hosts([host])
    lines = Remote(host, ssh_config).sh(measurement_scripts.LIST).splitlines()
    found = map(measurement_scripts.LISTED.fullmatch, lines)
    return [(line[1], line[2]) for line in found if line]


def cancel(host: str, ssh_config: Path | None, name: str) -> None:
    """Stop a measurement; its results so far can be collected.

    Raises
    ------
    RemoteError
        The host cannot be reached, or the measurement is not running.
    """
    Remote(host, ssh_config).sh(measurement_scripts.cancel_script(name))


def follow(host: str, ssh_config: Path | None, name: str, say: Say) -> None:
    """Report the progress of a measurement until it ends, reconnecting as often as necessary.

    Raises
    ------
    RemoteError
        There is no such measurement, or the host refuses the connection.
    """
    remote, seen = Remote(host, ssh_config), 0
    progress = MeasurementProgress(say)
    pauses = _pauses()
    while True:
        try:
            with closing(remote.stream(measurement_scripts.follow_script(name, seen + 1))) as lines:
                for line in lines:
                    if not line.endswith("\n"):
                        continue  # cut by a lost connection; the next follower reads it again
                    seen += 1
                    progress.take(line)
                    pauses = _pauses()
            if remote.sh(measurement_scripts.running_script(name)).strip() != "running":
                return
            raise ConnectionLost("the process that follows the measurement was ended")
        except ConnectionLost as error:
            _wait(error, next(pauses), say)


def collect(host: str, ssh_config: Path | None, name: str, results: Path, say: Say) -> Path:
    """Copy a measurement that has ended to results/<name>; return that directory.

    Raises
    ------
    MeasureError, ReceivedError
        A file does not have the board's checksum, or is not a file of a measurement.
    RemoteError
        The host refuses the connection, or has links in place of files.
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
    """Return the name of the release to measure, and its model's path in it."""
    if what.model is None:
        return release_and_model(remote, measurement_scripts.CURRENT)
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
    say(f"no connection ({error}); trying again in {seconds:g} s. The board continues to measure")
    time.sleep(seconds)
