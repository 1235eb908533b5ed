"""Deployment and rollback: the sequence of steps, on several boards in parallel."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from tutelage.core.board_profile import DEFAULT_BOARD, load_profile
from tutelage.core.errors import first_line
from tutelage.host.deploy import scripts
from tutelage.host.deploy.emulated_outputs import EmulatedOutputs
from tutelage.host.deploy.findings import ask, judge
from tutelage.host.deploy.installation import install, tidy
from tutelage.host.deploy.packages import Packages
from tutelage.host.deploy.plan import (
    DeployError,
    Plan,
    Report,
    Say,
    check_board,
    check_plan,
)
from tutelage.host.deploy.release import Parts, ReleaseError, gather, seal
from tutelage.host.deploy.scripts import RELEASES, read_state
from tutelage.host.deploy.service_steps import prepare_unit, refresh_service, serve
from tutelage.host.deploy.smoke import smoke
from tutelage.host.ssh.bounded_process import Programs
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.lock import lock
from tutelage.host.ssh.remote import Remote


def deploy(hosts: list[str], plan: Plan, say: Say) -> list[Report]:
    """Deploy to all hosts in parallel; return a report for each, in the given order.

    Parameters
    ----------
    say : called with lines for the user, from any thread

    Raises
    ------
    DeployUsageError
        A host, the board, the model or an accepted finding is not valid.
    """
    check_plan(hosts, plan)
    programs = Programs()
    packages = Packages(plan.wheels, programs)
    emulated = EmulatedOutputs(plan.model, plan.plugin is not None)

    def one(remote: Remote, report: Report) -> None:
        _deploy(remote, plan, packages, emulated, report, say)

    return _on_all(hosts, plan.ssh_config, one, programs)


def deploy_one(host: str, plan: Plan, say: Say) -> Report:
    """Deploy to one host; return the report, which has the release's name.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        As for `deploy`.
    DeployError
        The deployment failed; the board still runs its current release.
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
    """Switch every host to the previous release after its smoke test; a second call undoes it.

    Parameters
    ----------
    say : called with lines for the user, from any thread
    board : name of the board's profile
    force : switch without running the smoke test

    Raises
    ------
    DeployUsageError, RemoteUsageError
        There is no such board, or a host's name is not valid.
    """
    check_hosts(hosts)
    check_board(board)
    profile = load_profile(board)

    def back(remote: Remote, report: Report) -> None:
        with _locked(remote, say):
            _warn_of_measurement(remote, report, say)
            name, model = scripts.release_and_model(remote, scripts.PREVIOUS)
            if not force:
                report.facts = ask(remote, profile)
                report.smoke = smoke(remote, name, model, profile, report.facts, ("fingerprint",))
            report.previous, report.release = remote.sh(scripts.ROLLBACK).split()
            serve(remote, "", report)
            report.state = "rolled back"

    return _on_all(hosts, ssh_config, back, Programs())


def _on_all(
    hosts: list[str],
    ssh_config: Path | None,
    work: Callable[[Remote, Report], None],
    programs: Programs,
) -> list[Report]:
    """Connect to all hosts in parallel and call `work` for each; Ctrl-C ends the programs."""

    def one(host: str) -> Report:
        report, start = Report(host), time.monotonic()
        try:
            with Remote(host, ssh_config, programs) as remote:
                work(remote, report)
        except (RemoteError, ReleaseError, OSError) as error:
            report.error = first_line(error)
        report.seconds = round(time.monotonic() - start, 2)
        return report

    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        try:
            return list(pool.map(one, hosts))
        except BaseException:
            programs.end()
            raise


def _locked(remote: Remote, say: Say, make: bool = False) -> AbstractContextManager[None]:
    message = f"{remote.host}: waiting for another deployment to finish"
    return lock(remote, RELEASES, lambda: say(message), make)


def _warn_of_measurement(remote: Remote, report: Report, say: Say) -> None:
    """Warn immediately if a measurement is running on the board."""
    running = remote.sh(scripts.MEASURING).strip()
    if running:
        text = (f"measurement {running} is running, and this disturbs it: wait for it by "
                f"tutelage measure {remote.host} --attach")  # fmt: skip
        say(f"{remote.host}: warning: {text}")
        report.measuring = running


def _deploy(
    remote: Remote,
    plan: Plan,
    packages: Packages,
    emulated: EmulatedOutputs,
    report: Report,
    say: Say,
) -> None:
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
            unit = prepare_unit(remote, plan, report)
            if state.current == name:
                refresh_service(remote, unit, report)
                return
            say(f"{remote.host}: {name}, {size:,} bytes")
            place = install(remote, stage, state, plan, emulated, report)
            remote.sh(scripts.switch_script(name, place))
            serve(remote, unit, report)
            report.state = "deployed"
            tidy(remote, report, state.partial)
