"""Comparison of a release's outputs on the board with the emulation's, before the switch to it."""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tutelage
from tutelage.core.errors import first_line
from tutelage.core.files import write_file
from tutelage.core.results.typed_json import MismatchError, json_value
from tutelage.core.text import json_text, shown
from tutelage.host.deploy.plan import DeployError
from tutelage.host.deploy.scripts import MOST_REPORT, OUTPUTS_SECONDS, outputs_script
from tutelage.host.ssh.errors import AccessRefused, ConnectionLost, RemoteError
from tutelage.host.ssh.remote import Remote

_SPARE_SECONDS = 60  # for ssh, and for Python's start on a busy board
_FACTS = ("model", "image", "python", "machine", "glibc", "modules", "fingerprint")


class OutputsDiffer(DeployError):
    """Outputs of a board differ from the emulation's, or a job failed or hung; one line."""


def compare_outputs(remote: Remote, place: str, model: str, facts: dict[str, Any]) -> str:
    """Run the comparison; return a summary, "" if the release has no expected outputs.

    Parameters
    ----------
    place : directory of the release on the board
    model : path of the model in it
    facts : about the board, for a report

    Raises
    ------
    OutputsDiffer
        An output differs, a job failed, or the comparison took too long.
    ConnectionLost, RemoteError
        As for `Remote.sh`.
    """
    try:
        answer = remote.sh(outputs_script(place, model), seconds=OUTPUTS_SECONDS + _SPARE_SECONDS)
        report = _report(answer)
    except AccessRefused:
        raise
    except ConnectionLost as error:
        raise ConnectionLost(f"outputs: during the comparison: {error}") from error
    except RemoteError as error:
        report = {"problem": first_line(error)}
    if not report:
        return ""
    if report["problem"]:
        raise OutputsDiffer(_advice(report, facts))
    counted = f"{report['inputs']} inputs ({report['jobs']} jobs)"
    return f"outputs of {counted} equal to the emulation's, "


def _report(answer: str) -> dict[str, Any]:
    """Return the report of board/outputs_check.py; {} for an empty answer.

    Raises
    ------
    RemoteError
        The answer is not such a report; a board may send anything.
    """
    if not answer.strip():
        return {}
    try:
        report = json_value(answer)
    except MismatchError:
        report = None
    wanted = {"problem": str, "inputs": int, "jobs": int}
    if (
        len(answer) > MOST_REPORT
        or not isinstance(report, dict)
        or not all(isinstance(report.get(name), kind) for name, kind in wanted.items())
    ):
        raise RemoteError("the comparison returned no report")
    return report


def _advice(report: dict[str, Any], facts: dict[str, Any]) -> str:
    """Save a report on this machine; return the problem and how to report it, in one line."""
    problem, home = shown(report["problem"], 600), str(facts.get("home", ""))
    if home.startswith("/") and home != "/":
        problem = problem.replace(home, "~")
    report = {
        **report,
        "problem": problem,
        "tutelage": tutelage.__version__,
        "board": {name: facts.get(name) for name in _FACTS},
    }
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    now = datetime.now(timezone.utc)
    path = base / "tutelage/reports" / f"outputs-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json_text(report, indent=1) + "\n")
        where = f"open an issue with {path} and the .xmodel"
    except (OSError, RecursionError) as error:  # a board may send deeply nested lists
        where = f"open an issue with this line and the .xmodel ({path}: {first_line(error)})"
    return f"outputs: {problem}; to report it, {where} (docs: Deploy)"
