"""Commands of a deployment, without running them."""

from __future__ import annotations

import shlex
from pathlib import Path

from tutelage.core.board_profile import load_profile
from tutelage.host.deploy import scripts, service, service_scripts
from tutelage.host.deploy.findings import check_command
from tutelage.host.deploy.installation import copy_options
from tutelage.host.deploy.plan import Plan, check_plan
from tutelage.host.deploy.release import model_path
from tutelage.host.deploy.scripts import RELEASES
from tutelage.host.deploy.service_account import Account
from tutelage.host.ssh.lock import lock_command
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import push_command


def dry_run(hosts: list[str], plan: Plan) -> list[str]:
    """Return the commands that `deploy` would run, in order.

    Lines that begin with # have the standard input of the next command. The commands for a host
    share one SSH connection.

    Raises
    ------
    DeployUsageError
        As for `deploy`.
    """
    check_plan(hosts, plan)
    lines, place, model = [], ".HASH.TOKEN.partial", model_path(plan.model)
    options = copy_options(["CURRENT"], plan.bandwidth)
    for host in hosts:
        remote = Remote(host, plan.ssh_config)
        lines += [
            shlex.join(remote.ssh(check_command(load_profile(plan.board)))) + " < board/check.py",
            shlex.join(lock_command(remote, RELEASES, make=True)),
            shlex.join(remote.ssh(scripts.MEASURING)),
            shlex.join(push_command(remote, Path("STAGE"), f"{RELEASES}/{place}", *options)),
            shlex.join(remote.ssh(scripts.venv_script(place, "PYTHON", None))),
            shlex.join(remote.ssh(scripts.outputs_script(place, model))),
            shlex.join(remote.ssh(scripts.smoke_script(place, model, True))),
            shlex.join(remote.ssh(scripts.switch_script("HASH", place))),
            *_service_lines(remote, plan),
        ]
    return lines


def _service_lines(remote: Remote, plan: Plan) -> list[str]:
    """Return the commands for the service."""
    if not plan.service:
        return [shlex.join(remote.ssh(service_scripts.RESTART))]
    account = Account(plan.service_user or "USER", ("GROUPS",))
    unit = service.unit_text("HOME", account, shlex.split(plan.service))
    return [
        shlex.join(remote.ssh(service_scripts.MAKE_TOKEN)),
        *(f"# {line}".rstrip() for line in (f"{service_scripts.UNIT}:", *unit.splitlines())),
        shlex.join(remote.ssh(service_scripts.INSTALL)) + " < UNIT",
    ]
