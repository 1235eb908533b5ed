"""What is asked of a deployment, and what it reports."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core import board_profile
from tutelage.core.errors import TutelageError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.core.model_package import COMPILED, compiled_file
from tutelage.host.compile.target import compiled_for
from tutelage.host.deploy.service import check_service
from tutelage.host.ssh.errors import RemoteError
from tutelage.host.ssh.hosts import check_hosts

ACCEPTABLE = ("model", "packages", "vart", "pynq", "disk", "clock", "config", "fingerprint",
              "target", "outputs")  # fmt: skip
"""Findings that --accept turns into warnings."""

Say = Callable[[str], None]


class DeployError(RemoteError):
    """A board could not be deployed to; one line. What ran there still does."""


class DeployUsageError(TutelageError):
    """What was asked for cannot be; the text is one line."""


@dataclass(frozen=True)
class BoardPlan:
    """What deploying to a board and measuring on one have in common.

    Attributes
    ----------
    board : the board's profile, by name
    model : model directory or .xmodel to deploy; None for what is deployed there
    wheels : directory of wheels for what boards lack; None for the package index
    ssh_config : file for ssh -F; None for the user's own
    accepted : findings that do not stop it
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
    """What is deployed, and how; it has a model.

    Attributes
    ----------
    bandwidth : most KiB/s, 0 for no limit
    service : arguments of app/classify.py as a systemd service; "" leaves services alone, but
        one that is there is restarted
    service_user : user that the service runs as; "" for the user who deploys, unless that is root
    """

    model: Path
    bandwidth: int = 0
    service: str = ""
    service_user: str = ""


@dataclass
class Report:
    """What became of one host; `state` is deployed, unchanged, service restarted, rolled back or
    failed, `service` says whom it runs as, `measuring` is a measurement that runs there."""

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
    """Verify what can be verified before a board is asked.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        A host, the board, the model, the plugin, the service or an accepted finding is not one.
    """
    check_hosts(hosts)
    check_board(plan.board)
    if not plan.model.exists():
        raise DeployUsageError(f"{plan.model}: no such model")
    if plan.model.is_dir() and not compiled_file(plan.model).is_file():
        raise DeployUsageError(f"{plan.model}: has no {COMPILED}; first: tutelage compile "
                               f"{shlex.quote(str(plan.model))}")  # fmt: skip
    if plan.plugin is not None and not (plan.plugin.is_file() and plan.plugin.suffix == ".py"):
        raise DeployUsageError(f"{plan.plugin}: not a Python file; --plugin takes one")
    try:
        check_service(shlex.split(plan.service), plan.service_user)
    except ValueError as error:
        raise DeployUsageError(f"--service: {error}") from error
    for name in plan.accepted:
        if name not in ACCEPTABLE:
            raise DeployUsageError(f"--accept {name}: can be {', '.join(ACCEPTABLE)}")
    _check_target(plan)


def check_board(board: str) -> None:
    """Raise DeployUsageError where there is no profile of this board."""
    try:
        board_profile.check_board(board)
    except board_profile.UnknownBoardError as error:
        raise DeployUsageError(str(error)) from error


def _check_target(plan: Plan) -> None:
    """Refuse a model for the emulator before anything is copied; others are judged on the board."""
    path = compiled_file(plan.model)
    if "target" not in plan.accepted and compiled_for(path) == EMULATOR_DPU_NAME:
        raise DeployUsageError(
            f"target: {path} is compiled for the emulator, which no board runs; AMD's compiler "
            f"makes it the board's: tutelage compile {shlex.quote(str(plan.model))} "
            f"--target {plan.board}"
        )
