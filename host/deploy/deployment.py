"""Deploying and rolling back: the steps in their order, on several boards at once."""

from __future__ import annotations

import secrets
import shlex
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD, load_profile
from tutelage.host.deploy import scripts, service
from tutelage.host.deploy.findings import ask, check_command, judge
from tutelage.host.deploy.plan import (
    DeployError,
    Plan,
    Report,
    Say,
    check_board,
    check_plan,
)
from tutelage.host.deploy.release import (
    SUMS,
    Packages,
    Parts,
    ReleaseError,
    gather,
    model_path,
    seal,
)
from tutelage.host.deploy.scripts import RELEASES, State, read_state
from tutelage.host.deploy.smoke import smoke
from tutelage.host.ssh.bounded_process import Programs
from tutelage.host.ssh.remote import ConnectionLost, Remote, RemoteError, check_hosts

_MOST_LINKED = 20  # rsync's own limit of --link-dest


def deploy(hosts: list[str], plan: Plan, say: Say) -> list[Report]:
    """Deploy to all hosts at once; each has its report, in the given order.

    Raises
    ------
    DeployUsageError
        A host, the board, the model or an accepted finding is not one.
    """
    check_plan(hosts, plan)
    packages = Packages(plan.wheels)
    return _on_all(
        hosts, plan.ssh_config, lambda remote, report: _deploy(remote, plan, packages, report, say)
    )


def deploy_one(host: str, plan: Plan, say: Say) -> Report:
    """Deploy to one host; the report has the release's name.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        As `deploy`.
    DeployError
        It was not deployed; what ran there still does.
    """
    report = deploy([host], plan, say)[0]
    if report.error:
        raise DeployError(report.error)
    return report


def rollback(
    hosts: list[str],
    ssh_config: Path | None,
    say: Say,
    board: str = DEFAULT_BOARD,
    force: bool = False,
) -> list[Report]:
    """Switch every host to the release before, when it has passed the smoke test; again goes back.

    Parameters
    ----------
    say : takes lines for the user, from any thread
    board : the board's profile, by name
    force : switch without the smoke test

    Raises
    ------
    DeployUsageError, RemoteUsageError
        The board or a host is not one.
    """
    check_hosts(hosts)
    check_board(board)
    profile = load_profile(board)

    def back(remote: Remote, report: Report) -> None:
        with _locked(remote, say):
            _warn_of_measurement(remote, report, say)
            name, model = remote.sh(scripts.PREVIOUS).splitlines()
            if not force:
                report.facts = ask(remote, profile)
                report.smoke = smoke(remote, name, model, profile, report.facts, ("fingerprint",))
            report.previous, report.release = remote.sh(scripts.ROLLBACK).split()
            remote.sh(service.RESTART)
            report.state = "rolled back"

    return _on_all(hosts, ssh_config, back)


def dry_run(hosts: list[str], plan: Plan) -> list[str]:
    """The commands that `deploy` would run, in order; nothing is run.

    A line that begins with # says what the next command reads. Each host has one SSH connection,
    which its commands share.

    Raises
    ------
    DeployUsageError
        As `deploy`.
    """
    check_plan(hosts, plan)
    lines, place = [], ".HASH.TOKEN.partial"
    options = _copy_options(["CURRENT"], plan.bandwidth)
    for host in hosts:
        remote = Remote(host, plan.ssh_config)
        lines += [
            shlex.join(remote.ssh(check_command(load_profile(plan.board)))) + " < board/check.py",
            shlex.join(remote.lock_command(RELEASES, make=True)),
            shlex.join(remote.ssh(scripts.MEASURING)),
            shlex.join(remote.push_command(Path("STAGE"), f"{RELEASES}/{place}", *options)),
            shlex.join(remote.ssh(scripts.venv_script(place, "PYTHON", None))),
            shlex.join(remote.ssh(scripts.smoke_script(place, model_path(plan.model), True))),
            shlex.join(remote.ssh(scripts.switch_script("HASH", place))),
            *_service_lines(remote, plan),
        ]
    return lines


def _service_lines(remote: Remote, plan: Plan) -> list[str]:
    """The commands about the service, for `dry_run`."""
    if not plan.service:
        return [shlex.join(remote.ssh(service.RESTART))]
    account = service.Account(plan.service_user or "USER", ("GROUPS",))
    unit = service.unit_text("HOME", account, shlex.split(plan.service))
    return [
        shlex.join(remote.ssh(service.MAKE_TOKEN)),
        *(f"# {line}".rstrip() for line in (f"{service.UNIT}:", *unit.splitlines())),
        shlex.join(remote.ssh(service.INSTALL)) + " < UNIT",
    ]


def _on_all(
    hosts: list[str], ssh_config: Path | None, work: Callable[[Remote, Report], None]
) -> list[Report]:
    """Connect to all hosts at once and work on each; Ctrl-C ends what runs for them."""
    programs = Programs()

    def one(host: str) -> Report:
        report, start = Report(host), time.monotonic()
        try:
            with Remote(host, ssh_config, programs) as remote:
                work(remote, report)
        except (RemoteError, ReleaseError, OSError) as error:
            report.error = str(error).splitlines()[0]
        report.seconds = round(time.monotonic() - start, 2)
        return report

    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        try:
            return list(pool.map(one, hosts))
        except BaseException:
            programs.end()
            raise


def _locked(remote: Remote, say: Say, make: bool = False) -> AbstractContextManager[None]:
    told = f"{remote.host}: waits for another deployment there"
    return remote.lock(RELEASES, lambda: say(told), make)


def _warn_of_measurement(remote: Remote, report: Report, say: Say) -> None:
    """Warn at once where a measurement runs on the board."""
    running = remote.sh(scripts.MEASURING).strip()
    if running:
        text = (f"measurement {running} is running there; this disturbs it: wait for it with "
                f"tutelage measure {remote.host} --attach")  # fmt: skip
        say(f"{remote.host}: warning: {text}")
        report.measuring = running


def _deploy(remote: Remote, plan: Plan, packages: Packages, report: Report, say: Say) -> None:
    profile = load_profile(plan.board)
    with tempfile.TemporaryDirectory(prefix="tutelage-") as folder:
        stage = Path(folder)
        report.facts = ask(remote, profile)
        python = "{executable} {python} {machine}".format(**report.facts)
        lacking = packages.for_board(report.facts)
        gather(stage, Parts(plan.board, plan.model, plan.plugin, lacking, python))
        name, size = seal(stage)
        judge(report, profile, size, plan.accepted)
        with _locked(remote, say, make=True):
            _warn_of_measurement(remote, report, say)
            state = read_state(remote, name)
            report.release, report.previous = name, state.current
            unit = _unit(remote, plan, report)
            if state.current == name:
                _refresh_service(remote, unit, report)
                return
            say(f"{remote.host}: {name}, {size:,} bytes")
            place = _install(remote, stage, state, plan, report)
            remote.sh(scripts.switch_script(name, place))
            _serve(remote, unit, report)
            report.state = "deployed"
            _tidy(remote, report, state.partial)


def _install(remote: Remote, stage: Path, state: State, plan: Plan, report: Report) -> str:
    """Copy a release, make its venv, try it; return its directory, "" where it was there."""
    profile = load_profile(plan.board)
    place = "" if state.complete else f".{report.release}.{secrets.token_hex(4)}.partial"
    try:
        if place:
            linked = [name for name in (state.current, *state.partial) if name]
            report.sent_bytes = _copy(remote, stage, place, linked, plan.bandwidth)
            facts = report.facts
            remote.sh(scripts.venv_script(place, facts["executable"], facts["extra_path"]))
        model = model_path(plan.model)
        report.smoke = smoke(remote, place or report.release, model, profile, report.facts,
                             plan.accepted)  # fmt: skip
    except ConnectionLost:
        raise  # what is there already serves the next run
    except RemoteError:
        if place:
            _discard(remote, place)
        raise
    return place


def _unit(remote: Remote, plan: Plan, report: Report) -> str:
    """Return the service's unit file, "" where none was asked for."""
    if not plan.service:
        return ""
    arguments = shlex.split(plan.service)
    try:
        account = service.account_of(remote, RELEASES, plan.service_user)
        remote.sh(service.MAKE_TOKEN)
    except ConnectionLost:
        raise
    except RemoteError as error:
        raise DeployError(f"service: {error}") from error
    report.warnings += account.warnings
    report.service = f"service: runs as {account.user}"
    if service.has_page(arguments):
        report.service += f"; the live page's token: ssh {remote.host} cat {service.TOKEN_FILE}"
    return service.unit_text(report.facts["home"], account, arguments)


def _serve(remote: Remote, unit: str, report: Report) -> None:
    """Start or restart the service; where that fails, the old release runs again, or none."""
    try:
        if unit:
            remote.sh(service.INSTALL, unit)
        else:
            remote.sh(service.RESTART)
    except ConnectionLost:
        raise
    except RemoteError as error:
        if report.previous and report.previous != report.release:
            remote.sh(scripts.ROLLBACK)
        if report.previous:
            remote.sh(f"{service.UNIT_BACK}; ({service.RESTART}) || true")
        else:
            remote.sh(service.REMOVE)
        raise DeployError(f"service: {error}") from error


def _refresh_service(remote: Remote, unit: str, report: Report) -> None:
    """Set the service right where the release is there already; a run may have broken off then."""
    report.state = "unchanged"
    if remote.sh(service.STATE, unit).strip() != "right":
        _serve(remote, unit, report)
        report.state = "service restarted"


def _tidy(remote: Remote, report: Report, partial: list[str]) -> None:
    try:
        for place in partial:
            remote.sh(f"rm -rf {RELEASES}/{place}")
        remote.sh(scripts.PRUNE)
    except RemoteError as error:
        report.warnings.append(f"old releases were not removed: {error}")


def _copy_options(linked: list[str], bandwidth: int) -> list[str]:
    """Options of rsync for a release; what `linked` have already is linked there."""
    options = ["--delete", "--exclude=/.venv"]
    options += [f"--link-dest=../{name}" for name in linked[:_MOST_LINKED]]
    return [*options, *([f"--bwlimit={bandwidth}"] if bandwidth else [])]


def _copy(remote: Remote, stage: Path, place: str, linked: list[str], bandwidth: int) -> int:
    """Copy a release and verify it there; returns the bytes that were sent."""
    target = f"{RELEASES}/{place}"
    sent = remote.push(stage, target, *_copy_options(linked, bandwidth))
    remote.sh(f"cd {target} && sha256sum -c --quiet {SUMS}")
    return sent


def _discard(remote: Remote, place: str) -> None:
    """Remove what was copied, as far as that goes."""
    with suppress(RemoteError):
        remote.sh(f"rm -rf {RELEASES}/{place}")
