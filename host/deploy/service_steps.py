"""The service's part of a deployment: its unit, its start, the way back where that fails."""

from __future__ import annotations

import shlex

from tutelage.host.deploy import scripts, service, service_account
from tutelage.host.deploy import service_scripts as on_board
from tutelage.host.deploy.plan import DeployError, Plan, Report
from tutelage.host.deploy.scripts import RELEASES
from tutelage.host.ssh.errors import ConnectionLost, RemoteError
from tutelage.host.ssh.remote import Remote


def prepare_unit(remote: Remote, plan: Plan, report: Report) -> str:
    """Return the service's unit file, "" where none was asked for."""
    if not plan.service:
        return ""
    arguments = shlex.split(plan.service)
    try:
        account = service_account.account_of(remote, RELEASES, plan.service_user)
        remote.sh(on_board.MAKE_TOKEN)
    except ConnectionLost:
        raise
    except RemoteError as error:
        raise DeployError(f"service: {error}") from error
    report.warnings += account.warnings
    report.service = f"service: runs as {account.user}"
    if service.has_page(arguments):
        report.service += f"; the live page's token: ssh {remote.host} cat {on_board.TOKEN_FILE}"
    return service.unit_text(report.facts["home"], account, arguments)


def serve(remote: Remote, unit: str, report: Report) -> None:
    """Start or restart the service; where that fails, the old release runs again, or none."""
    try:
        if unit:
            remote.sh(on_board.INSTALL, unit)
        else:
            remote.sh(on_board.RESTART)
    except ConnectionLost:
        raise
    except RemoteError as error:
        if report.previous and report.previous != report.release:
            remote.sh(scripts.ROLLBACK)
        if report.previous:
            remote.sh(f"{on_board.UNIT_BACK}; ({on_board.RESTART}) || true")
        else:
            remote.sh(on_board.REMOVE)
        raise DeployError(f"service: {error}") from error


def refresh_service(remote: Remote, unit: str, report: Report) -> None:
    """Set the service right where the release is there already; a run may have broken off then."""
    report.state = "unchanged"
    if remote.sh(on_board.STATE, unit).strip() != "right":
        serve(remote, unit, report)
        report.state = "service restarted"
