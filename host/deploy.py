"""Put a release onto boards by SSH and rsync, and go back to the one before.

    python -m host deploy xilinx@board --model models/mine
    python -m host rollback xilinx@board

On the board everything lies below ~/tutelage: `releases/<hash>` holds a release with its venv,
`current` and `previous` are symbolic links to releases. A release is the application, the board's
side, the overlay, the model and the Python packages that the board lacks; its name is the hash of
its files, so that a second deployment of the same finds nothing to do. It is copied and tried as
`releases/.<hash>.<token>.partial`; the link is switched last, in one step. Deployments to one board
wait for each other. Where the connection was lost, a later run links what lies in such a directory
into one of its own: an rsync that still hangs on the board may write there. The board's own
packages are never touched, and it needs no internet.

SSH and rsync are the system's, with the user's own configuration; host keys are always checked.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpu.builder import EMULATOR_DPU_NAME
from host.config import read_toml
from host.release import (
    MODEL_SCRIPT,
    ROOT,
    SUMS,
    Packages,
    ReleaseError,
    gather,
    model_path,
    seal,
)
from host.remote import ConnectionLost, Remote, RemoteError, check_hosts
from host.target import PROFILES, compiled_for

KEPT = 3  # releases that stay on a board

RELEASES = "tutelage/releases"
"""Where releases lie on a board, from the home directory."""

_PYNQ_PYTHON = "/usr/local/share/pynq-venv/bin/python3"
_SPARE_BYTES = 32 << 20
_MOST_CLOCK_SECONDS = 86400.0
_SMOKE_SECONDS = 120
_MOST_LINKED = 20  # rsync's own limit of --link-dest

ACCEPTABLE = ("model", "packages", "vart", "pynq", "disk", "clock", "config", "fingerprint",
              "target")  # fmt: skip
"""Findings that --accept turns into warnings."""

Say = Callable[[str], None]


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


@dataclass(frozen=True)
class Finding:
    """Something about a board that is not as it should be."""

    name: str
    text: str
    fatal: bool


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


def deploy(hosts: list[str], plan: Plan, say: Say) -> list[Report]:
    """Deploy to all hosts at once; each has its report, in the given order.

    Raises
    ------
    DeployUsageError
        A host, the board, the model or an accepted finding is not one.
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
    hosts: list[str],
    ssh_config: Path | None,
    say: Say,
    board: str = "zcu104",
    force: bool = False,
) -> list[Report]:
    """Switch every host to the release before, when it has passed the smoke test; again goes back.

    Parameters
    ----------
    say : takes lines for the user, from any thread
    board : the board's profile, by name
    force : switch without the smoke test

    Raises
    ------
    DeployUsageError, RemoteUsageError
        The board or a host is not one.
    """
    check_hosts(hosts)
    _check_board(board)
    profile = _profile(board)

    def back(host: str, report: Report) -> None:
        remote = Remote(host, ssh_config)
        with remote.lock(RELEASES, lambda: say(f"{host}: waits for a deployment there")):
            name, model = remote.sh(_PREVIOUS).splitlines()
            if not force:
                report.facts = _ask(remote, profile)
                report.smoke = _smoke(remote, name, model, profile, report.facts, ("fingerprint",))
            report.previous, report.release = remote.sh(_ROLLBACK).split()
            remote.sh(_RESTART)
            report.state = "rolled back"

    return _on_all(hosts, back)


def dry_run(hosts: list[str], plan: Plan) -> list[str]:
    """The commands that `deploy` would run, in order; nothing is run.

    Raises
    ------
    DeployUsageError
        As `deploy`.
    """
    _check_plan(hosts, plan)
    lines, place = [], ".HASH.TOKEN.partial"
    options = _copy_options(["CURRENT"], plan.bandwidth)
    for host in hosts:
        remote = Remote(host, plan.ssh_config)
        lines += [
            shlex.join(remote.ssh(_check_command(_profile(plan.board)))) + " < board/check.py",
            shlex.join(remote.lock_command(RELEASES, make=True)),
            shlex.join(remote.push_command(Path("STAGE"), f"{RELEASES}/{place}", *options)),
            shlex.join(remote.ssh(_venv_script(place, "PYTHON", None))),
            shlex.join(remote.ssh(_smoke_script(place, model_path(plan.model), True))),
            shlex.join(remote.ssh(_switch_script("HASH", place))),
        ]
    return lines


def _check_plan(hosts: list[str], plan: Plan) -> None:
    check_hosts(hosts)
    _check_board(plan.board)
    if not plan.model.exists():
        raise DeployUsageError(f"{plan.model}: no such model")
    if plan.model.is_dir() and not (plan.model / "model.xmodel").is_file():
        raise DeployUsageError(f"{plan.model}: has no model.xmodel; first: python -m host compile "
                               f"{shlex.quote(str(plan.model))}")  # fmt: skip
    try:
        shlex.split(plan.service)
    except ValueError as error:
        raise DeployUsageError(f"--service: {error}") from error
    if not plan.service.isprintable():
        raise DeployUsageError("--service: one line of printable characters")
    for name in plan.accepted:
        if name not in ACCEPTABLE:
            raise DeployUsageError(f"--accept {name}: can be {', '.join(ACCEPTABLE)}")

    _check_target(plan)


def _check_board(board: str) -> None:
    if board not in {path.stem for path in PROFILES.glob("*.toml")}:
        raise DeployUsageError(f"no board {board!r}")


def _check_target(plan: Plan) -> None:
    """Refuse a model for the emulator before anything is copied; others are judged on the board."""
    path = plan.model / "model.xmodel" if plan.model.is_dir() else plan.model
    if "target" not in plan.accepted and compiled_for(path) == EMULATOR_DPU_NAME:
        raise DeployUsageError(
            f"target: {path} is compiled for the emulator, which no board runs; AMD's compiler "
            f"makes it the board's: python -m host compile {shlex.quote(str(plan.model))} "
            f"--target {plan.board}"
        )


def _on_all(hosts: list[str], work: Callable[[str, Report], None]) -> list[Report]:
    def one(host: str) -> Report:
        report, start = Report(host), time.monotonic()
        try:
            work(host, report)
        except (RemoteError, ReleaseError, OSError) as error:
            report.error = str(error).splitlines()[0]
        report.seconds = round(time.monotonic() - start, 2)
        return report

    with ThreadPoolExecutor(max_workers=len(hosts) or 1) as pool:
        return list(pool.map(one, hosts))


def _deploy_to(host: str, plan: Plan, packages: Packages, report: Report, say: Say) -> None:
    remote, profile = Remote(host, plan.ssh_config), _profile(plan.board)
    report.facts = _ask(remote, profile)
    with tempfile.TemporaryDirectory(prefix="tutelage-") as folder:
        stage = Path(folder)
        python = "{executable} {python} {machine}".format(**report.facts)
        gather(stage, plan.board, plan.model, packages.for_board(report.facts), python)
        name, size = seal(stage)
        _judge(report, profile, size, plan.accepted)
        told = f"{host}: waits for another deployment there"
        with remote.lock(RELEASES, lambda: say(told), make=True):
            state = _state(remote, name)
            report.release, report.previous = name, state.current
            if state.current == name:
                _refresh_service(remote, plan, report)
                return
            say(f"{host}: {name}, {size:,} bytes")
            place = _install(remote, stage, state, plan, report)
            remote.sh(_switch_script(name, place))
            _serve(remote, plan, report)
            report.state = "deployed"
            _tidy(remote, report, state.partial)


def _install(remote: Remote, stage: Path, state: State, plan: Plan, report: Report) -> str:
    """Copy a release, make its venv, try it; returns where it lies, "" where it lay already."""
    profile = _profile(plan.board)
    place = "" if state.complete else f".{report.release}.{secrets.token_hex(4)}.partial"
    try:
        if place:
            linked = [name for name in (state.current, *state.partial) if name]
            report.sent_bytes = _copy(remote, stage, place, linked, plan.bandwidth)
            facts = report.facts
            remote.sh(_venv_script(place, facts["executable"], facts["extra_path"]))
        model = model_path(plan.model)
        report.smoke = _smoke(remote, place or report.release, model, profile, report.facts,
                              plan.accepted)  # fmt: skip
    except ConnectionLost:
        raise  # what is there already serves the next run
    except RemoteError:
        if place:
            _discard(remote, place)
        raise
    return place


def _serve(remote: Remote, plan: Plan, report: Report) -> None:
    """Start or restart the service; where that fails, the old release runs again, or none."""
    try:
        if plan.service:
            unit = _unit(report.facts["home"], model_path(plan.model), plan.service)
            remote.sh(_SERVICE, unit)
        else:
            remote.sh(_RESTART)
    except ConnectionLost:
        raise
    except RemoteError as error:
        if report.previous and report.previous != report.release:
            remote.sh(_ROLLBACK)
        if report.previous:
            remote.sh(f"{_UNIT_BACK}; ({_RESTART}) || true")
        else:
            remote.sh(_NO_SERVICE)
        raise DeployError(f"service: {error}") from error


def _refresh_service(remote: Remote, plan: Plan, report: Report) -> None:
    """Set the service right where the release is there already; a run may have broken off then."""
    report.state = "unchanged"
    unit = _unit(report.facts["home"], model_path(plan.model), plan.service) if plan.service else ""
    if remote.sh(_SERVICE_STATE, unit).strip() != "right":
        _serve(remote, plan, report)
        report.state = "service restarted"


def _unit(home: str, model: str, arguments: str) -> str:
    """The service's unit file."""
    current = f"{home}/tutelage/current"
    words = [f"{current}/.venv/bin/python", "app/classify.py", "--model", model]
    quoted = [json.dumps(word, ensure_ascii=False).replace("%", "%%").replace("$", "$$")
              for word in (*words, *shlex.split(arguments))]  # fmt: skip
    return (
        "# Written by `python -m host deploy`.\n"
        "[Unit]\nDescription=Tutelage\nAfter=network.target\n\n"
        f"[Service]\nWorkingDirectory={current}\nExecStart={' '.join(quoted)}\n"
        "Restart=on-failure\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def _tidy(remote: Remote, report: Report, partial: list[str]) -> None:
    try:
        for place in partial:
            remote.sh(f"rm -rf {RELEASES}/{place}")
        remote.sh(_PRUNE)
    except RemoteError as error:
        report.warnings.append(f"old releases were not removed: {error}")


def _profile(board: str) -> dict[str, Any]:
    return read_toml(PROFILES / f"{board}.toml")


# -- the board --------------------------------------------------------------------------------


def _check_command(profile: dict[str, Any]) -> str:
    """Shell command that runs check.py, which comes on standard input, by the image's Python."""
    overlay = profile.get("overlay", {})
    arguments = []
    if overlay:
        arguments += ["--config", overlay["config"], "--firmware", overlay["firmware"]]
    for hazard in profile.get("hazards", ()):
        arguments += ["--path", hazard["where"]] if hazard.get("where") else []
    return (f"p={_PYNQ_PYTHON}; [ -x $p ] || p=python3; "
            f"exec $p - {shlex.join(arguments)}")  # fmt: skip


def _ask(remote: Remote, profile: dict[str, Any]) -> dict[str, Any]:
    script = (ROOT / "board" / "check.py").read_text(encoding="utf-8")
    try:
        facts: dict[str, Any] = json.loads(remote.sh(_check_command(profile), script))
    except ValueError as error:
        raise DeployError(f"{remote.host}: its answer to the check is no JSON") from error
    facts["clock_off"] = facts["time"] - time.time()
    return facts


def _judge(report: Report, profile: dict[str, Any], size: int, accepted: tuple[str, ...]) -> None:
    findings = list(findings_of(report.facts, profile, size))
    fatal = [f for f in findings if f.fatal and f.name not in accepted]
    report.warnings += [f"{f.name}: {f.text}" for f in findings if f not in fatal]
    if fatal:
        raise DeployError("; ".join(f"{f.name}: {f.text}" for f in fatal))


def findings_of(facts: dict[str, Any], profile: dict[str, Any], size: int) -> Iterator[Finding]:
    """What speaks against a release of `size` bytes on a board, and what its user should know."""
    modules, version = facts["modules"], tuple(map(int, facts["python"].split(".")[:2]))
    if profile["name"].lower() not in (facts["model"] or "").lower():
        yield Finding("model", f"is {facts['model'] or 'unknown'}, not a {profile['name']}", True)
    if version < (3, 10):
        yield Finding("python", f"is {facts['python']}; 3.10 is needed", True)
    if not facts["rsync"]:
        yield Finding("rsync", "is not installed on the board; apt install rsync there", True)
    for names, group in ((("numpy", "cv2"), "packages"), (("vart", "xir"), "vart"),
                         (("pynq",), "pynq")):  # fmt: skip
        missing = [name for name in names if modules[name] is None]
        if missing:
            yield Finding(group, f"{' and '.join(missing)} cannot be imported there", True)
    if facts["free_bytes"] < 2 * size + _SPARE_BYTES:
        yield Finding("disk", f"{facts['free_bytes']:,} bytes are free in {facts['home']}; "
                      f"{2 * size + _SPARE_BYTES:,} are needed", True)  # fmt: skip
    yield from _image_findings(facts, profile)
    if abs(facts["clock_off"]) > _MOST_CLOCK_SECONDS:
        yield Finding("clock", f"is {facts['clock_off'] / 86400:+.0f} days off; set it", True)
    yield from _dpu_findings(facts, profile)


def _image_findings(facts: dict[str, Any], profile: dict[str, Any]) -> Iterator[Finding]:
    """Tell of an image that is not the one whose versions are known."""
    known = profile.get("image")
    if not known:
        return
    own = facts["modules"]["pynq"], facts["python"], facts["image"] or "no os-release"
    right = own[0] == known["pynq"] and own[1].startswith(f"{known['python']}.")
    if not right or known["system"] not in own[2]:
        told = f"{own[2]}, Python {own[1]}, pynq {own[0] or 'unknown'}"
        yield Finding("image", f"{told}; what is known is {known['name']}", False)


def _dpu_findings(facts: dict[str, Any], profile: dict[str, Any]) -> Iterator[Finding]:
    overlay = profile.get("overlay")
    if overlay:
        wanted, expected = f"firmware: {overlay['firmware']}", overlay.get("fingerprint")
        if facts["config"] != wanted:
            yield Finding("config", f"{overlay['config']} is not the line {wanted!r}, which can "
                          "crash the board; see board/overlay.py", True)  # fmt: skip
        if facts["fingerprint"] is None:
            yield Finding("dpu", "the DPU's fingerprint cannot be asked for there", False)
        elif expected and facts["fingerprint"] != int(expected, 16):
            yield Finding("fingerprint", f"the DPU has {facts['fingerprint']:#x}, "
                          f"{overlay['release']} {expected}", True)  # fmt: skip
    for hazard in profile.get("hazards", ()):
        if not hazard.get("where") or facts["paths"].get(hazard["where"]):
            yield Finding(hazard["name"], f"{hazard['text']}; {hazard['remedy']}", False)


@dataclass(frozen=True)
class State:
    """What a board has: the current release ("" for none), whether the new one is there already,
    and the directories that broken-off runs of it left."""

    current: str
    complete: bool
    partial: list[str]


def _state(remote: Remote, name: str) -> State:
    """What the board has, where `name` is to be deployed."""
    answer = remote.sh(
        'cd tutelage && echo "current $(readlink current)"; ls -1a releases'
    ).splitlines()
    current = re.fullmatch(r"current releases/([0-9a-f]{16})", answer[0]) if answer else None
    partial = re.compile(rf"\.{name}\.[0-9a-f]{{8}}\.partial")
    left = [line for line in answer[1:] if partial.fullmatch(line)]
    return State(current[1] if current else "", name in answer[1:], left)


def _copy_options(linked: list[str], bandwidth: int) -> list[str]:
    """Options of rsync for a release; what `linked` have already is linked there."""
    options = ["--delete", "--exclude=/.venv"]
    options += [f"--link-dest=../{name}" for name in linked[:_MOST_LINKED]]
    return [*options, *([f"--bwlimit={bandwidth}"] if bandwidth else [])]


def _copy(remote: Remote, stage: Path, place: str, linked: list[str], bandwidth: int) -> int:
    """Copy a release and verify it there; returns the bytes that were sent."""
    target = f"{RELEASES}/{place}"
    sent = remote.push(stage, target, *_copy_options(linked, bandwidth))
    remote.sh(f"cd {target} && sha256sum -c --quiet {SUMS}")
    return sent


def _discard(remote: Remote, place: str) -> None:
    """Remove what was copied, as far as that goes."""
    with suppress(RemoteError):
        remote.sh(f"rm -rf {RELEASES}/{place}")


# -- shell scripts that run in the home directory on the board ----------------------------------


def _venv_script(place: str, python: str, extra: str | None) -> str:
    """Make the release's venv: the system's packages, the image's own venv's, those carried."""
    lines = [
        f"set -e; cd {RELEASES}/{place}",
        f"{shlex.quote(python)} -m venv --clear --without-pip --system-site-packages .venv",
        "s=$(echo .venv/lib/python3.*/site-packages)",
        # Relative to site-packages, as the release is renamed when it is complete.
        "echo ../../../../packages > $s/carried.pth",
    ]
    if extra:
        lines.append(f"echo {shlex.quote(extra)} > $s/image.pth")
    return "; ".join(lines)


def _smoke_script(place: str, model: str, on_dpu: bool) -> str:
    enter = f"set -e; cd {RELEASES}/{place}; run='timeout {_SMOKE_SECONDS} .venv/bin/python'"
    if not on_dpu:
        return f"{enter}; $run app/classify.py --help > /dev/null"
    images = f"{model}/images" if not model.endswith(".xmodel") else ""
    return (
        f"{enter}; i=app/demo/images; test ! -d {shlex.quote(images or 'none')} || "
        f"i={shlex.quote(images)}; "
        f"$run app/classify.py --model {shlex.quote(model)} --source $i --frames 3 --quiet "
        "--json - 2>.smoke || { tail -n 1 .smoke >&2; exit 1; }; rm -f .smoke"
    )


def _switch_script(name: str, place: str) -> str:
    """Give a complete release in `place` ("": it has it already) its name, and switch to it."""
    # Where a run that was cut off still came so far, its release is the same.
    rename = (
        f"sync; if [ -e releases/{name} ]; then rm -rf releases/{place}; "
        f"else mv -T releases/{place} releases/{name}; fi; "
    )
    rename = rename if place else ""
    return (
        f"set -e; cd tutelage; {rename}touch releases/{name}; old=$(readlink current || true); "
        'test -z "$old" || { ln -sfn "$old" .previous; mv -T .previous previous; }; '
        f"ln -sfn releases/{name} .current; mv -T .current current; sync"
    )


_NONE_BEFORE = (
    "cd tutelage 2>/dev/null || { echo nothing was deployed there >&2; exit 1; }; "
    "c=$(readlink current); p=$(readlink previous); "
    'if [ -z "$p" ] || [ "$p" = "$c" ] || [ ! -d "$p" ]; '
    "then echo no release before this one is there >&2; exit 1; fi; set -e; "
)
_PREVIOUS = f'{_NONE_BEFORE}cd "$p"; echo "${{p#releases/}}"; {MODEL_SCRIPT}'

_ROLLBACK = (
    f"{_NONE_BEFORE}"
    'ln -sfn "$c" .previous; ln -sfn "$p" .current; mv -T .current current; '
    'mv -T .previous previous; sync; echo "${c#releases/} ${p#releases/}"'
)

_UNIT = "/etc/systemd/system/tutelage.service"
# Root needs no sudo; others need one that asks for no password.
_AS_ROOT = 's="sudo -n"; [ "$(id -u)" != 0 ] || s=; '
_STAYS_UP = (
    "sleep 2; $s systemctl is-active --quiet tutelage.service || "
    "{ echo it does not stay up, see journalctl -u tutelage >&2; exit 1; }"
)
# What ran before must run afterwards.
_RESTART = (
    f"{_AS_ROOT}test -e {_UNIT} || exit 0; systemctl is-active --quiet tutelage.service; r=$?; "
    "$s systemctl try-restart tutelage.service || exit 1; [ $r != 0 ] || "
    f"{{ {_STAYS_UP}; }}"
)
# The first release's: nothing is left that would be started at the next boot.
_NO_SERVICE = (
    f"{_AS_ROOT}$s systemctl disable --now tutelage.service || true; "
    f"$s rm -f {_UNIT} {_UNIT}.before; $s systemctl daemon-reload || true; rm -f tutelage/current"
)
_UNIT_BACK = (
    f"{_AS_ROOT}test ! -e {_UNIT}.before || {{ $s mv {_UNIT}.before {_UNIT}; "
    "$s systemctl daemon-reload; }"
)
_SERVICE = (
    f"set -e; {_AS_ROOT}test ! -e {_UNIT} || $s cp {_UNIT} {_UNIT}.before; "
    f"$s tee {_UNIT} > /dev/null; $s systemctl daemon-reload; "
    f"$s systemctl enable tutelage.service; $s systemctl restart tutelage.service; {_STAYS_UP}"
)

# Tells "right" where the unit is the one on standard input (any, if that is empty) and what runs by
# it runs from the current release; also where there is neither.
_SERVICE_STATE = (
    f'w=$(cat); test -n "$w" || test -e {_UNIT} || {{ echo right; exit; }}; '
    f'test -z "$w" || test "$w" = "$(cat {_UNIT} 2>/dev/null)" || {{ echo unit; exit; }}; '
    "p=$(systemctl show -p MainPID --value tutelage.service); "
    'if [ "${p:-0}" = 0 ]; then test -n "$w" && echo down || echo right; exit; fi; '
    "s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; "
    'if [ "$($s readlink /proc/$p/cwd)" = "$(readlink -f tutelage/current)" ]; '
    "then echo right; else echo old; fi"
)

_PRUNE = (
    "cd tutelage; c=$(readlink current); p=$(readlink previous); n=0; "
    "for d in $(ls -1t releases); do n=$((n+1)); r=releases/$d; "
    f'[ $n -le {KEPT} ] || [ "$r" = "$c" ] || [ "$r" = "$p" ] || '
    # A measurement holds the list of its release; without flock nobody knows, and all stay.
    f'! flock -n -x "$r/{SUMS}" true 2>/dev/null || rm -rf "$r"; done; '
    "find releases -mindepth 1 -maxdepth 1 -name '.*.partial' -mmin +1440 -exec rm -rf {} +"
)


def _smoke(
    remote: Remote,
    place: str,
    model: str,
    profile: dict[str, Any],
    facts: dict[str, Any],
    accepted: tuple[str, ...],
) -> str:
    """Try the release where it lies; says what was seen."""
    modules, config, overlay = facts["modules"], facts["config"], profile.get("overlay")
    ready = overlay is None or config == f"firmware: {overlay['firmware']}"
    if modules["vart"] is None or modules["xir"] is None or not ready:
        remote.sh(_smoke_script(place, model, False))
        return "imports only: without vart, xir and a right vart.conf no model is run"
    if "fingerprint" not in accepted:
        _check_model(remote, place, model, profile, facts)
    try:
        figures = json.loads(remote.sh(_smoke_script(place, model, True)))
        frames = figures["frames"]
    except (ValueError, LookupError) as error:
        raise DeployError("the smoke test gives no figures") from error
    if frames["failed"] or not frames["classified"]:
        raise DeployError(f"smoke test: {frames['failed']} of {frames['in']} frames failed")
    return f"{frames['classified']} frames classified on {figures['provider']}"


def _check_model(
    remote: Remote, place: str, model: str, profile: dict[str, Any], facts: dict[str, Any]
) -> None:
    """See on the board that the model is compiled for its DPU."""
    path = model if model.endswith(".xmodel") else f"{model}/model.xmodel"
    told = json.loads(
        remote.sh(
            f"cd {RELEASES}/{place} && .venv/bin/python -m board.check --model {shlex.quote(path)}"
        )
    )
    expected = profile.get("overlay", {}).get("fingerprint")
    own = facts["fingerprint"] or (int(expected, 16) if expected else None)
    if own is not None and told["fingerprint"] != own:
        number = told["fingerprint"]
        what = told["dpu_name"] if number is None else f"{number:#x}"
        raise DeployError(f"fingerprint: the model is compiled for {what}, the DPU is {own:#x}")
