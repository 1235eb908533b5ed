"""Put a release onto boards by SSH and rsync, and go back to the one before.

    python -m host deploy xilinx@board --model models/mine
    python -m host rollback xilinx@board

On the board everything lies below ~/tutelage: `releases/<hash>` holds a release with its venv,
`current` and `previous` are symbolic links to releases. A release is the application, the
board's side, the overlay, the model and the Python packages that the board lacks; its name is the
hash of its files, so that a second deployment of the same finds nothing to do. It is copied and
tried as `releases/.<hash>.<token>.partial`; the link is switched last, in one step. Where the
connection was lost, a later run links what lies in such a directory into one of its own: an rsync
that still hangs on the board may write there. One deployment at a time holds `~/tutelage/.lock`,
so that whatever is partial under the lock is a broken-off run's. The board's own packages are never
touched, and it needs no internet.

SSH and rsync are the system's, with the user's own configuration; host keys are always checked.
"""

from __future__ import annotations

import json
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpu.builder import EMULATOR_DPU_NAME
from host.board_check import (
    ACCEPTABLE,
    Finding,
    ask,
    can_run_models,
    check_command,
    disk_findings,
    findings_of,
    profile_of,
    target_findings,
)
from host.release import MODEL_SCRIPT, SUMS, Packages, ReleaseError, gather, model_path, seal
from host.remote import ConnectionLost, Remote, RemoteError, check_hosts
from host.service import RIGHT, Service, unit_text
from host.target import PROFILES, compiled_for

KEPT = 3  # releases that stay on a board

_SMOKE_SECONDS = 120
_MOST_LINKED = 20  # rsync's own limit of --link-dest
_LOCK = "tutelage/.lock"

Say = Callable[[str], None]
Check = Callable[[], None]


class DeployError(RemoteError):
    """A board could not be deployed to; one line. What ran there still does."""


class DeployUsageError(ValueError):
    """What was asked for cannot be; the text is one line."""


@dataclass(frozen=True)
class Plan:
    """What is deployed, and how.

    Attributes
    ----------
    board : the board's profile, by name
    model : model directory or .xmodel
    wheels : directory of wheels for what boards lack; None for the package index
    ssh_config : file for ssh -F; None for the user's own
    accepted : findings that do not hold up the deployment
    bandwidth : most KiB/s, 0 for no limit
    service : arguments of app/classify.py as a systemd service; "" leaves services alone, but
        one that is there is restarted
    """

    board: str
    model: Path
    wheels: Path | None = None
    ssh_config: Path | None = None
    accepted: tuple[str, ...] = ()
    bandwidth: int = 0
    service: str = ""

    @property
    def xmodel(self) -> Path:
        """The compiled model's file."""
        return self.model / "model.xmodel" if self.model.is_dir() else self.model


@dataclass
class Report:
    """What became of one host; `state` is deployed, unchanged, service restarted, rolled back or
    failed."""

    host: str
    state: str = "failed"
    release: str = ""
    previous: str = ""
    error: str = ""
    smoke: str = ""
    sent_bytes: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What a board has, read under the lock.

    Attributes
    ----------
    current, previous : releases, "" for none
    complete : whether the release that is to come is there already
    partial : directories that broken-off runs of it left
    free_bytes : on the disk
    """

    current: str
    previous: str
    complete: bool
    partial: list[str]
    free_bytes: int


def deploy(hosts: list[str], plan: Plan, say: Say) -> list[Report]:
    """Deploy to all hosts at once; each has its report, in the given order.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        A host, the board, the model, the wheels or an accepted finding is not one.
    """
    _check_plan(hosts, plan)
    packages = Packages(plan.wheels)
    return _on_all(hosts, lambda host, report: _deploy_to(host, plan, packages, report, say))


def deploy_one(host: str, plan: Plan, say: Say) -> Report:
    """Deploy to one host; the report tells the release's name.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        As `deploy`.
    DeployError
        It was not deployed; what ran there still does.
    """
    report = deploy([host], plan, say)[0]
    if report.error:
        raise DeployError(report.error)
    return report


def rollback(
    hosts: list[str], ssh_config: Path | None, board: str = "zcu104", force: bool = False
) -> list[Report]:
    """Switch every host to the release before, when it has passed the smoke test; again goes back.

    Parameters
    ----------
    board : the board's profile, by name
    force : switch without the smoke test

    Raises
    ------
    DeployUsageError, RemoteUsageError
        The board or a host is not one.
    """
    check_hosts(hosts)
    _check_board(board)
    profile = profile_of(board)
    return _on_all(
        hosts,
        lambda host, report: _roll_back(Remote(host, ssh_config), profile, force, report),
    )


def dry_run(hosts: list[str], plan: Plan) -> list[str]:
    """The commands that `deploy` would run, in order; nothing is run.

    Raises
    ------
    DeployUsageError, RemoteUsageError
        As `deploy`.
    """
    _check_plan(hosts, plan)
    lines, place = [], ".HASH.TOKEN.partial"
    options = _copy_options(["CURRENT"], plan.bandwidth)
    for host in hosts:
        remote = Remote(host, plan.ssh_config)
        lines += [
            shlex.join(remote.ssh(check_command(profile_of(plan.board)))) + " < board/check.py",
            shlex.join(remote.push_command(Path("STAGE"), f"tutelage/releases/{place}", *options)),
            shlex.join(remote.ssh(_venv_script(place, "PYTHON", None))),
            shlex.join(remote.ssh(_smoke_script(place, model_path(plan.model), True))),
            shlex.join(remote.ssh(_switch_script("HASH", place, "CURRENT"))),
        ]
    return lines


# -- what is asked for ------------------------------------------------------------------------


def _check_plan(hosts: list[str], plan: Plan) -> None:
    check_hosts(hosts)
    _check_board(plan.board)
    if not plan.model.exists():
        raise DeployUsageError(f"{plan.model}: no such model")
    if not plan.xmodel.is_file():
        raise DeployUsageError(f"{plan.model}: has no model.xmodel; python -m host compile first")
    if plan.wheels and not any(plan.wheels.glob("*.whl")):
        raise DeployUsageError(f"--wheels {plan.wheels}: is no directory with wheels (*.whl)")
    if plan.ssh_config and not plan.ssh_config.is_file():
        raise DeployUsageError(f"--ssh-config {plan.ssh_config}: no such file")
    try:
        shlex.split(plan.service)
    except ValueError as error:
        raise DeployUsageError(f"--service: {error}") from error
    if not plan.service.isprintable():
        raise DeployUsageError("--service: one line of printable characters")
    for name in plan.accepted:
        if name not in ACCEPTABLE:
            raise DeployUsageError(f"--accept {name}: can be {', '.join(ACCEPTABLE)}")
    _refuse_emulator(plan)


def _check_board(board: str) -> None:
    if board not in {path.stem for path in PROFILES.glob("*.toml")}:
        raise DeployUsageError(f"no board {board!r}")


def _refuse_emulator(plan: Plan) -> None:
    """Refuse a model for the emulator before any board is asked."""
    if "target" not in plan.accepted and compiled_for(plan.xmodel)[0] == EMULATOR_DPU_NAME:
        raise DeployUsageError(
            f"target: {plan.xmodel} is compiled for the emulator, which no board runs; AMD's "
            f"compiler makes it the board's: python -m host compile {plan.model} "
            f"--target {plan.board}"
        )


def _judge(report: Report, findings: Iterable[Finding], accepted: tuple[str, ...]) -> None:
    """Put findings that hold nothing up into the report's warnings; raise for the others."""
    found = list(findings)
    fatal = [f for f in found if f.fatal and f.name not in accepted]
    report.warnings += [f"{f.name}: {f.text}" for f in found if f not in fatal]
    if fatal:
        raise DeployError("; ".join(f"{f.name}: {f.text}" for f in fatal))


# -- the way of a release ----------------------------------------------------------------------


def _on_all(hosts: list[str], work: Callable[[str, Report], None]) -> list[Report]:
    def one(host: str) -> Report:
        report, start = Report(host), time.monotonic()
        try:
            work(host, report)
        except (RemoteError, ReleaseError, OSError) as error:
            report.state = "failed"
            report.error = (str(error).splitlines() or [type(error).__name__])[0]
        report.seconds = round(time.monotonic() - start, 2)
        return report

    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        return list(pool.map(one, hosts))


def _deploy_to(host: str, plan: Plan, packages: Packages, report: Report, say: Say) -> None:
    remote, profile = Remote(host, plan.ssh_config), profile_of(plan.board)
    folders = tempfile.TemporaryDirectory(prefix="tutelage-")
    with remote.connected(), folders as folder:
        report.facts = ask(remote, profile)
        findings = findings_of(report.facts, profile, compiled_for(plan.xmodel)[1])
        _judge(report, findings, plan.accepted)
        stage = Path(folder)
        python = "{executable} {python} {machine}".format(**report.facts)
        gather(stage, plan.board, plan.model, packages.for_board(report.facts), python)
        report.release, size = seal(stage)
        remote.sh("mkdir -p tutelage/releases")
        with remote.locked(_LOCK) as check_lock:
            _put(remote, stage, size, plan, report, say, check_lock)


def _put(
    remote: Remote, stage: Path, size: int, plan: Plan, report: Report, say: Say, check_lock: Check
) -> None:
    """Bring a gathered release of `size` bytes onto a board that is ours alone."""
    name, state = report.release, _state(remote, report.release)
    report.previous = state.current
    if state.current == name:
        report.state = _refresh_service(remote, plan, state, report)
        return
    _judge(report, disk_findings(state.free_bytes, size), plan.accepted)
    say(f"{report.host}: {name}, {size:,} bytes")
    place = _install(remote, stage, state, plan, report)
    check_lock()
    remote.sh(_switch_script(name, place, state.current))
    _serve(remote, Service(remote, _unit(plan, report)), state)
    report.state = "deployed"
    _tidy(remote, report)


def _install(remote: Remote, stage: Path, state: State, plan: Plan, report: Report) -> str:
    """Copy a release, make its venv, try it; returns where it lies, "" where it lay already."""
    place = "" if state.complete else f".{report.release}.{secrets.token_hex(4)}.partial"
    try:
        if place:
            linked = [name for name in (state.current, *state.partial) if name]
            report.sent_bytes = _copy(remote, stage, place, linked, plan.bandwidth)
            facts = report.facts
            remote.sh(_venv_script(place, facts["executable"], facts["extra_path"]))
        model, profile = model_path(plan.model), profile_of(plan.board)
        if "target" not in plan.accepted and can_run_models(report.facts, profile):
            _check_target(remote, place or report.release, model, profile, report)
        report.smoke = _smoke(remote, place or report.release, model, profile, report.facts)
    except ConnectionLost:
        raise  # what is there already serves the next run
    except RemoteError:
        if place:
            _discard(remote, place)
        raise
    return place


def _roll_back(remote: Remote, profile: dict[str, Any], force: bool, report: Report) -> None:
    with remote.connected(), ExitStack() as stack:
        remote.sh("test -d tutelage || { echo nothing was deployed there >&2; exit 1; }")
        check_lock = stack.enter_context(remote.locked(_LOCK))
        state = _state(remote, "")
        name = state.previous
        if name in ("", state.current):
            raise DeployError("no release before this one is there")
        report.release, report.previous = name, state.current
        if not force:
            # A model whose fingerprint is another was accepted when it was deployed.
            report.facts = ask(remote, profile)
            model = remote.sh(f"cd tutelage/releases/{name} && {{ {MODEL_SCRIPT}; }}").strip()
            report.smoke = _smoke(remote, name, model, profile, report.facts)
        check_lock()
        remote.sh(_switch_script(name, "", state.current))
        _serve(remote, Service(remote), state)
        report.state = "rolled back"


def _unit(plan: Plan, report: Report) -> str:
    if not plan.service:
        return ""
    return unit_text(report.facts["home"], model_path(plan.model), plan.service)


def _serve(remote: Remote, service: Service, state: State) -> None:
    """Start or restart the service; where that fails, what was before `state` runs again."""
    try:
        service.start()
    except ConnectionLost:
        raise
    except RemoteError as error:
        remote.sh(_links_script(state.current, state.previous))
        with suppress(RemoteError):
            service.put_back()
        raise DeployError(f"service: {error}") from error


def _refresh_service(remote: Remote, plan: Plan, state: State, report: Report) -> str:
    """Set the service right where the release is current; tells what that made of the board.

    A run may have broken off between the switch and the service, or it asks for another one.
    """
    service = Service(remote, _unit(plan, report))
    told = service.state()
    if told == RIGHT:
        return "unchanged"
    if told == state.previous:  # it runs still by what was before the switch
        state = State(state.previous, "", True, [], 0)
    _serve(remote, service, state)
    return "service restarted"


def _tidy(remote: Remote, report: Report) -> None:
    try:
        remote.sh(_prune_script(KEPT))
    except RemoteError as error:
        report.warnings.append(f"old releases were not removed: {error}")


def _state(remote: Remote, name: str) -> State:
    """What the board has, where `name` is to be deployed; others' broken-off runs are removed."""
    answer = remote.sh(
        "set -e; cd tutelage; for d in releases/.*.partial; do "
        f"case $d in releases/.{name}.*) test -e releases/{name} || continue;; esac; "
        'rm -rf "$d" || true; done; '
        'for l in current previous; do t=$(readlink $l || true); test -d "$t" || t=; '
        'echo "$(basename "$t")"; done; '
        "df -Pk . | { read -r h; read -r d s u a r; echo $a; }; ls -1a releases"
    ).splitlines()
    left = [line for line in answer[3:] if line.startswith(f".{name}.")]
    return State(answer[0], answer[1], name in answer[3:], left, int(answer[2]) * 1024)


def _copy_options(linked: list[str], bandwidth: int) -> list[str]:
    """Options of rsync for a release; what `linked` have already is linked there."""
    # By content: two files of one size may have the same time, as lists of checksums do at least.
    options = ["--checksum", "--delete", "--exclude=/.venv"]
    options += [f"--link-dest=../{name}" for name in linked[:_MOST_LINKED]]
    return [*options, *([f"--bwlimit={bandwidth}"] if bandwidth else [])]


def _copy(remote: Remote, stage: Path, place: str, linked: list[str], bandwidth: int) -> int:
    """Copy a release and verify it there; returns the bytes that were sent."""
    target = f"tutelage/releases/{place}"
    sent = remote.push(stage, target, *_copy_options(linked, bandwidth))
    remote.sh(f"cd {target} && sha256sum -c --quiet {SUMS}")
    return sent


def _discard(remote: Remote, place: str) -> None:
    """Remove what was copied, as far as that goes."""
    with suppress(RemoteError):
        remote.sh(f"rm -rf tutelage/releases/{place}")


def _smoke(
    remote: Remote, place: str, model: str, profile: dict[str, Any], facts: dict[str, Any]
) -> str:
    """Try the release where it lies; says what was seen."""
    if not can_run_models(facts, profile):
        _try(remote, _smoke_script(place, model, False))
        return "imports only: without vart, xir and a right vart.conf no model is run"
    try:
        figures = json.loads(_try(remote, _smoke_script(place, model, True)))
        frames = figures["frames"]
    except (ValueError, LookupError) as error:
        raise DeployError("smoke test: it gives no figures") from error
    if frames["failed"] or not frames["classified"]:
        raise DeployError(f"smoke test: {frames['failed']} of {frames['in']} frames failed")
    return f"{frames['classified']} frames classified on {figures['provider']}"


def _check_target(
    remote: Remote, place: str, model: str, profile: dict[str, Any], report: Report
) -> None:
    """See by the board's own xir that the model is for its DPU: not all files can be read here."""
    path = model if model.endswith(".xmodel") else f"{model}/model.xmodel"
    told = json.loads(
        _try(
            remote,
            f"cd tutelage/releases/{place} && "
            f".venv/bin/python -m board.check --model {shlex.quote(path)}",
        )
    )
    _judge(report, target_findings(report.facts, profile, told["fingerprint"]), ())


def _try(remote: Remote, command: str) -> str:
    try:
        return remote.sh(command)
    except ConnectionLost:
        raise
    except RemoteError as error:
        raise DeployError(f"smoke test: {error}") from error


# -- shell scripts that run in the home directory on the board ----------------------------------


def _venv_script(place: str, python: str, extra: str | None) -> str:
    """Make the release's venv: the system's packages, the image's own venv's, those carried."""
    lines = [
        f"set -e; cd tutelage/releases/{place}",
        f"{shlex.quote(python)} -m venv --clear --without-pip --system-site-packages .venv",
        "s=$(echo .venv/lib/python3.*/site-packages)",
        # Relative to site-packages, as the release is renamed when it is complete.
        "echo ../../../../packages > $s/carried.pth",
    ]
    if extra:
        lines.append(f"echo {shlex.quote(extra)} > $s/image.pth")
    return "; ".join(lines)


def _smoke_script(place: str, model: str, on_dpu: bool) -> str:
    enter = f"set -e; cd tutelage/releases/{place}; run='timeout {_SMOKE_SECONDS} .venv/bin/python'"
    if not on_dpu:
        return f"{enter}; $run app/classify.py --help > /dev/null"
    images = f"{model}/images" if not model.endswith(".xmodel") else ""
    return (
        f"{enter}; i=app/demo/images; test ! -d {shlex.quote(images or 'none')} || "
        f"i={shlex.quote(images)}; "
        f"$run app/classify.py --model {shlex.quote(model)} --source $i --frames 3 --quiet "
        "--json - 2>.smoke || { tail -n 1 .smoke >&2; exit 1; }; rm -f .smoke"
    )


def _link(name: str, release: str) -> str:
    """Set a link of tutelage/ in one step; remove it where there is no release."""
    if not release:
        return f"rm -f {name}"
    return f"ln -sfn releases/{release} .{name}; mv -T .{name} {name}"


def _links_script(current: str, previous: str) -> str:
    return f"set -e; cd tutelage; {_link('current', current)}; {_link('previous', previous)}; sync"


def _switch_script(name: str, place: str, current: str) -> str:
    """Give a complete release in `place` ("": it has it already) its name, and switch to it."""
    rename = f"sync; mv -T releases/{place} releases/{name}; " if place else ""
    before = f"{_link('previous', current)}; " if current else ""
    return (
        f"set -e; cd tutelage; {rename}touch releases/{name}; "
        f"{before}{_link('current', name)}; sync"
    )


def _prune_script(kept: int) -> str:
    return (
        "cd tutelage; c=$(readlink current); p=$(readlink previous); n=0; "
        "for d in $(ls -1t releases); do n=$((n+1)); r=releases/$d; "
        f'[ $n -le {kept} ] || [ "$r" = "$c" ] || [ "$r" = "$p" ] || [ ! -e "$r/{SUMS}" ] || '
        # A measurement holds the list of its release.
        f'flock -n -x "$r/{SUMS}" rm -rf "$r"; done; '
        # What a killed run began there may still write; a moment later it has ended.
        "rm -rf releases/.*.partial || { sleep 3; rm -rf releases/.*.partial; }"
    )
