"""A release on a board before the link is switched to it: copied, its venv made, tried."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from tutelage.core.board_profile import load_profile
from tutelage.core.errors import DpuError, first_line
from tutelage.core.expected_outputs import EXPECTED, RESULT, write_expected
from tutelage.host.deploy import scripts
from tutelage.host.deploy.emulated_outputs import EmulatedOutputs
from tutelage.host.deploy.plan import Plan, Report
from tutelage.host.deploy.release import SUMS, model_path
from tutelage.host.deploy.scripts import RELEASES, State
from tutelage.host.deploy.smoke import smoke
from tutelage.host.ssh.errors import ConnectionLost, RemoteError
from tutelage.host.ssh.remote import Remote
from tutelage.host.ssh.transfer import push

_MOST_LINKED = 20  # rsync's own limit of --link-dest


def install(
    remote: Remote, stage: Path, state: State, plan: Plan, emulated: EmulatedOutputs, report: Report
) -> str:
    """Copy a release, make its venv, try it; return its directory, "" where it was there.

    Raises
    ------
    RemoteError
        It does not pass the smoke test, and was removed, or the connection was lost.
    OSError
        The emulation's outputs cannot be written here.
    """
    profile = load_profile(plan.board)
    place = "" if state.complete else f".{report.release}.{secrets.token_hex(4)}.partial"
    try:
        if place:
            _write_expected(stage, emulated, report)
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


def tidy(remote: Remote, report: Report, partial: list[str]) -> None:
    """Remove what broken-off runs left, and old releases; what cannot be removed is a warning."""
    try:
        for place in partial:
            remote.sh(f"rm -rf {RELEASES}/{place}")
        remote.sh(scripts.PRUNE)
    except RemoteError as error:
        report.warnings.append(f"old releases were not removed: {error}")


def copy_options(linked: list[str], bandwidth: int) -> list[str]:
    """Options of rsync for a release; what `linked` have already is linked there."""
    options = ["--delete", "--exclude=/.venv"]
    options += [f"--link-dest=../{name}" for name in linked[:_MOST_LINKED]]
    return [*options, *([f"--bwlimit={bandwidth}"] if bandwidth else [])]


def _copy(remote: Remote, stage: Path, place: str, linked: list[str], bandwidth: int) -> int:
    """Copy a release and verify it there; returns the bytes that were sent."""
    target = f"{RELEASES}/{place}"
    sent = push(remote, stage, target, *copy_options(linked, bandwidth))
    remote.sh(f"cd {target} && sha256sum -c --quiet {SUMS}")
    return sent


def _write_expected(stage: Path, emulated: EmulatedOutputs, report: Report) -> None:
    """Put the emulation's outputs beside a sealed release; warn of what it lacks of the DPU's."""
    lacks = "outputs: not compared with the emulation's"
    try:
        expected = emulated.get()
    except DpuError as error:
        report.warnings.append(f"{lacks}: {first_line(error)}")
        return
    write_expected(stage / EXPECTED, expected)
    of_dpu = [text for text in expected.left_out if not text.startswith(RESULT)]
    report.warnings += [f"{lacks}: {text}" for text in of_dpu]


def _discard(remote: Remote, place: str) -> None:
    """Remove what was copied, as far as that goes."""
    with suppress(RemoteError):
        remote.sh(f"rm -rf {RELEASES}/{place}")
