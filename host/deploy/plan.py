"""Settings of a deployment, and its report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core import board_profile
from tutelage.core.errors import TutelageError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.core.model_package import PackageError, compiled_file
from tutelage.host.compile.target import compiled_for
from tutelage.host.deploy.service import check_service
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.hosts import check_hosts

ACCEPTABLE = ("model", "packages", "vart", "pynq", "disk", "clock", "config", "fingerprint",
              "target", "outputs")  # fmt: skip
"""Names of findings that --accept turns into warnings."""

Say = Callable[[str], None]


class DeployError(RemoteError):
    """A deployment failed, and the board still runs its current release; the text is one line."""


class DeployUsageError(TutelageError):
    """A host or an option of a deployment is not valid; the text is one line."""


@dataclass(frozen=True)
class BoardPlan:
    """Settings that deployments and measurements have in common.

    Attributes
    ----------
    board : name of the board's profile
    model : model directory or .xmodel to deploy; None for the deployed model
    wheels : directory of wheels for packages that boards lack; None for the package index
    ssh_config : configuration file for ssh -F; None for the user's
    accepted : names of findings to ignore
    plugin : file of the model's operators for the CPU, deployed with it; None for none
    """

    board: str
    model: Path | None = None
    wheels: Path | None = None
    ssh_config: Path | None = None
    accepted: tuple[str, ...] = ()
    plugin: Path | None = None


@dataclass(frozen=True)
class Plan(BoardPlan):
    """Settings of a deployment.

    Attributes
    ----------
    bandwidth : limit of the transfer's speed, KiB/s; 0 for none
    service : arguments of app/classify.py to run as a systemd service; "" installs none, but
        restarts one that is installed
    service_user : user of the service; "" for the user who deploys, unless that is root
    """

    model: Path
    bandwidth: int = 0
    service: str = ""
    service_user: str = ""


@dataclass
class Report:
    """Result of a deployment or rollback on one host.

    Attributes
    ----------
    host : as the user named it
    state : "deployed", "unchanged", "service restarted", "rolled back" or "failed"
    release, previous : names of the current and of the previous release
    error : why it failed, in one line
    smoke : summary of the smoke test
    service : user of the service, for the reader
    measuring : name of a measurement that is running on the board; "" for none
    sent_bytes : bytes sent to the board
    seconds : duration
    warnings : one line each
    facts : about the board, see `tutelage.host.deploy.findings.ask`
    """

    host: str
    state: str = "failed"
    release: str = ""
    previous: str = ""
    error: str = ""
    smoke: str = ""
    service: str = ""
    measuring: str = ""
    sent_bytes: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def check_plan(hosts: Sequence[str], plan: Plan) -> None:
    """Check the settings of a deployment before connecting to a board.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        A host, the board, the model, the plugin, the service or an accepted finding is not valid.
    """
    check_hosts(hosts)
    check_board(plan.board)
    if not plan.model.exists():
        raise DeployUsageError(f"{plan.model}: no such model")
    try:
        compiled_file(plan.model)
    except PackageError as error:
        raise DeployUsageError(str(error)) from error
    if plan.plugin is not None and not (plan.plugin.is_file() and plan.plugin.suffix == ".py"):
        raise DeployUsageError(f"--plugin {plan.plugin}: not a Python file")
    try:
        check_service(shlex.split(plan.service), plan.service_user)
    except ValueError as error:
        raise DeployUsageError(f"--service: {error}") from error
    for name in plan.accepted:
        if name not in ACCEPTABLE:
            raise DeployUsageError(f"--accept {name}: not one of {', '.join(ACCEPTABLE)}")
    _check_target(plan)


def check_board(board: str) -> None:
    """Raise DeployUsageError if there is no profile of this board."""
    try:
        board_profile.check_board(board)
    except board_profile.UnknownBoardError as error:
        raise DeployUsageError(str(error)) from error


def _check_target(plan: Plan) -> None:
    """Refuse a model for the emulator before anything is copied; boards check others."""
    path = compiled_file(plan.model)
    if "target" not in plan.accepted and compiled_for(path) == EMULATOR_DPU_NAME:
        raise DeployUsageError(
            f"target: {path} is compiled for the emulator, which no board can run: compile it for "
            f"the board with tutelage compile {shlex.quote(str(plan.model))} --target {plan.board}"
        )
