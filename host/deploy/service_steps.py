"""Steps of a deployment for the service: its unit, its start, and recovery if that fails."""

from __future__ import annotations

import shlex

from tutelage.host.deploy import scripts, service, service_account
from tutelage.host.deploy import service_scripts as on_board
from tutelage.host.deploy.plan import DeployError, Plan, Report
from tutelage.host.deploy.scripts import RELEASES
from tutelage.host.ssh.errors import ConnectionLost, RemoteError
from tutelage.host.ssh.remote import Remote


def prepare_unit(remote: Remote, plan: Plan, report: Report) -> str:
    """Return the service's unit file; "" without --service.

    Raises
    ------
    DeployError, ConnectionLost
        The service's user cannot be used, or the connection was lost.
    """
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
    """Start or restart the service; if that fails, restore the previous release, if there is one.

    Raises
    ------
    DeployError, ConnectionLost
        The service does not start, or the connection was lost.
    """
    try:
        if unit:
            remote.sh(on_board.INSTALL, unit)
        else:
            remote.sh(on_board.RESTART)
    except ConnectionLost:
        raise
    except RemoteError as error:
        restored = ""
        if report.previous and report.previous != report.release:
            remote.sh(scripts.ROLLBACK)
            restored = f"; release {report.previous} is current again"
        if report.previous:
            unit_back = f"{on_board.UNIT_BACK}; " if unit else ""
            remote.sh(f"{unit_back}({on_board.RESTART}) || true")
        else:
            remote.sh(on_board.REMOVE)
        raise DeployError(f"service: {error}{restored}") from error


def refresh_service(remote: Remote, unit: str, report: Report) -> None:
    """Start the service if it does not run the current release, as after an interrupted run."""
    if remote.sh(on_board.STATE, unit).strip() == "right":
        report.state = "unchanged"
    else:
        serve(remote, unit, report)
        report.state = "service restarted"
