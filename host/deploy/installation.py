"""Installation of a release on a board before the link is switched: copy, venv, smoke test."""

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

_MOST_LINKED = 20  # rsync's limit of options --link-dest


def install(
    remote: Remote, stage: Path, state: State, plan: Plan, emulated: EmulatedOutputs, report: Report
) -> str:
    """Copy a release, create its venv and run the smoke test.

    Parameters
    ----------
    stage : directory of the release on this machine
    state : state of the board
    emulated : source of the expected outputs

    Returns
    -------
    name of the release's directory on the board; "" if the release was there already

    Raises
    ------
    RemoteError
        The release failed the smoke test and was removed, or the connection was lost.
    OSError
        The emulation's outputs cannot be written on this machine.
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
        raise  # the next run uses the files that are there already
    except RemoteError:
        if place:
            _discard(remote, place)
        raise
    return place


def tidy(remote: Remote, report: Report, partial: list[str]) -> None:
    """Remove incomplete and old releases; warn if that fails."""
    try:
        for place in partial:
            remote.sh(f"rm -rf {RELEASES}/{place}")
        remote.sh(scripts.PRUNE)
    except RemoteError as error:
        report.warnings.append(f"old releases were not removed: {error}")


def copy_options(linked: list[str], bandwidth: int) -> list[str]:
    """Return rsync's options for a release.

    Parameters
    ----------
    linked : directories of releases whose files are linked instead of copied
    bandwidth : limit, KiB/s; 0 for none
    """
    options = ["--delete", "--exclude=/.venv"]
    options += [f"--link-dest=../{name}" for name in linked[:_MOST_LINKED]]
    return [*options, *([f"--bwlimit={bandwidth}"] if bandwidth else [])]


def _copy(remote: Remote, stage: Path, place: str, linked: list[str], bandwidth: int) -> int:
    """Copy a release and verify it on the board; return the number of bytes sent."""
    target, options = f"{RELEASES}/{place}", copy_options(linked, bandwidth)
    check = f"cd {target} && sha256sum -c --quiet {SUMS}"
    sent = push(remote, stage, target, *options)
    try:
        remote.sh(check)
    except ConnectionLost:
        raise
    except RemoteError:
        # A linked file is damaged, and has the right size and time, by which rsync compares.
        sent += push(remote, stage, target, *options, "--checksum")
        remote.sh(check)
    return sent


def _write_expected(stage: Path, emulated: EmulatedOutputs, report: Report) -> None:
    """Write the emulation's outputs beside a sealed release; warn of outputs that it lacks."""
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
    """Remove the copied files, if the board can be reached."""
    with suppress(RemoteError):
        remote.sh(f"rm -rf {RELEASES}/{place}")
