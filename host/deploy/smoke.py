"""Smoke test of a release on the board before the switch to it.

The board's outputs are compared with the emulation's, and the release classifies three frames.
"""

from __future__ import annotations

import shlex
from typing import Any

from tutelage.core.board_profile import Profile
from tutelage.core.results.typed_json import json_value
from tutelage.core.text import counted
from tutelage.host.deploy.outputs import OutputsDiffer, compare_outputs
from tutelage.host.deploy.plan import DeployError
from tutelage.host.deploy.scripts import RELEASES, compiled_path, smoke_script
from tutelage.host.ssh.remote import Remote

# Errors of an answer that is not the expected JSON; a board may send anything.
_NOT_FIGURES = (ValueError, LookupError, TypeError, OverflowError)


def smoke(
    remote: Remote,
    place: str,
    model: str,
    profile: Profile,
    facts: dict[str, Any],
    accepted: tuple[str, ...],
) -> str:
    """Test a release; return a summary.

    Parameters
    ----------
    place : directory of the release on the board
    model : path of the model in it
    facts : about the board, see `tutelage.host.deploy.findings.ask`
    accepted : names of findings to ignore

    Raises
    ------
    DeployError, RemoteError
        The release fails the test, or the test cannot be run.
    """
    modules, config, overlay = facts["modules"], facts["config"], profile.overlay
    ready = overlay is None or config == overlay.config_line
    if modules["vart"] is None or modules["xir"] is None or not ready:
        remote.sh(smoke_script(place, model, False))
        return "imports only: running a model needs vart, xir and the right vart.conf"
    if "fingerprint" not in accepted:
        _check_model(remote, place, model, profile, facts)
    try:
        outputs = compare_outputs(remote, place, model, facts)
    except OutputsDiffer as error:
        if "outputs" not in accepted:
            raise
        outputs = f"accepted: {error}; "
    try:
        figures = json_value(remote.sh(smoke_script(place, model, True)))
        counts = (int(figures["frames"][name]) for name in ("in", "classified", "failed"))
        total, classified, failed = counts
        provider = figures["provider"]
    except _NOT_FIGURES as error:
        raise DeployError("smoke test: returned no figures") from error
    if failed or not classified:
        raise DeployError(f"smoke test: {failed} of {counted(total, 'frame')} failed")
    return f"{outputs}{counted(classified, 'frame')} classified on {provider}"


def _check_model(
    remote: Remote, place: str, model: str, profile: Profile, facts: dict[str, Any]
) -> None:
    """Check on the board that the model is compiled for its DPU."""
    path = shlex.quote(compiled_path(model))
    command = f".venv/bin/python -m tutelage.board.check --model {path}"
    try:
        compiled = json_value(remote.sh(f"cd {RELEASES}/{place} && {command}"))
        number, name = compiled["fingerprint"], compiled["dpu_name"]
    except _NOT_FIGURES as error:
        raise DeployError("fingerprint: the check of the model returned none") from error
    own = facts["fingerprint"] or (profile.overlay.fingerprint if profile.overlay else None)
    if own is not None and number != own:
        what = f"{number:#x}" if isinstance(number, int) else name
        raise DeployError(f"fingerprint: the model is compiled for {what}, the DPU is {own:#x}")
