"""Work on boards: `tutelage overlay | deploy | rollback | measure`."""

from __future__ import annotations

import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.core.errors import DONE, FAILED, MeasureError
from tutelage.core.locations import DEMO_MODEL
from tutelage.core.text import json_text, shown_lines
from tutelage.host.cli.command import command
from tutelage.host.cli.options import HostsOptions, JsonOptions, ReleaseOptions, RemoteOptions
from tutelage.host.cli.printing import note, print_json, print_lines

if TYPE_CHECKING:
    from tutelage.host.deploy.plan import Report


@dataclass(frozen=True, kw_only=True)
class OverlayOptions(JsonOptions):
    """Options of `overlay`."""

    board: Annotated[str, typer.Argument(help="name of the board's profile, such as zcu104")]
    source: Annotated[
        Path | None,
        typer.Option("--from", help="directory that has the files; nothing is downloaded"),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="directory for the files; default: overlays/BOARD/files in "
            "the checkout, else below ~/.local/share/tutelage",
        ),
    ] = None
    url: Annotated[
        str,
        typer.Option(help="HTTPS address to download the files from, instead of the publisher's"),
    ] = ""


@command(
    "overlay",
    "zcu104",
    "zcu104 --from ~/Downloads",
    "zcu104 --output DIR --url https://mirror.example/",
)
def overlay(options: OverlayOptions) -> int:
    """Install an overlay."""
    from tutelage.host.deploy.overlay_files import place_overlay

    figures = place_overlay(options.board, options.source, options.output, options.url, note)
    if options.json:
        print_json(figures)
        return DONE
    print_lines(
        f"{figures['output']}: {figures['release']}, {', '.join(figures['files'])}",
        f"  md5 as published; sha256 {figures['pins']}",
        "  next, on the board and as root: python -m tutelage.board.overlay load DIR",
    )
    return DONE


@dataclass(frozen=True, kw_only=True)
class DeployOptions(ReleaseOptions, HostsOptions):
    """Options of `deploy`."""

    model: Annotated[Path, typer.Option(help="model directory or .xmodel to deploy")] = DEMO_MODEL
    bandwidth: Annotated[
        int, typer.Option(min=0, help="limit of the transfer's speed, KiB/s; 0: no limit")
    ] = 0
    service: Annotated[
        str,
        typer.Option(
            help="run the application as a systemd service, with these arguments of classify.py"
        ),
    ] = ""
    service_user: Annotated[
        str,
        typer.Option(
            "--service-user",
            help="user of the service; default: the user of the SSH connection, unless it is root",
        ),
    ] = ""
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only print the commands that would be run")
    ] = False


@command(
    "deploy",
    "xilinx@board --model models/mine",
    "--board zcu104 --dry-run",
    "xilinx@board --model models/mine --service '--camera --web 0.0.0.0'",
)
def deploy(options: DeployOptions) -> int:
    """Install a release on boards.

    If anything fails, the board keeps running its current release.
    """
    from tutelage.host import deploy as deploying
    from tutelage.host.ssh.boards import hosts_of

    plan = deploying.Plan(
        options.board, options.model, options.wheels, options.ssh_config, tuple(options.accept),
        options.plugin, options.bandwidth, options.service, options.service_user,
    )  # fmt: skip
    where = hosts_of(options.board, options.hosts, options.ssh_config)
    if options.dry_run:
        print_lines(*deploying.dry_run(where, plan))
        return DONE
    with _ended_like_ctrl_c():
        reports = deploying.deploy(where, plan, note)
    return _print_reports(reports, options.json)


@dataclass(frozen=True, kw_only=True)
class RollbackOptions(HostsOptions):
    """Options of `rollback`."""

    force: Annotated[
        bool, typer.Option("--force", help="switch without running the smoke test")
    ] = False


@command("rollback", "xilinx@board", "xilinx@board --force")
def rollback(options: RollbackOptions) -> int:
    """Switch to the previous release."""
    from tutelage.host import deploy as deploying
    from tutelage.host.ssh.boards import hosts_of

    where = hosts_of(options.board, options.hosts, options.ssh_config)
    with _ended_like_ctrl_c():
        reports = deploying.rollback(where, options.ssh_config, note, options.board, options.force)
    return _print_reports(reports, options.json)


def _print_reports(reports: list[Report], as_json: bool) -> int:
    """Print the report of each host; return the exit status."""
    if as_json:
        print_json([vars(report) for report in reports])
    for report in reports:
        for warning in report.warnings:
            note(f"{report.host}: warning: {warning}")
        if report.error:
            note(f"{report.host}: failed: {report.error}")
        elif not as_json:
            smoke = f"; {report.smoke}" if report.smoke else ""
            print_lines(f"{report.host}: {report.state}: {report.release}, {report.sent_bytes:,} "
                        f"bytes sent, {report.seconds:.1f} s{smoke}")  # fmt: skip
            if report.service:
                print_lines(f"{report.host}: {report.service}")
    return FAILED if any(report.error for report in reports) else DONE


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Options of the windows of a measurement and of its power source."""

    scenario: Annotated[
        list[str],
        typer.Option(
            help="scenario to measure: single-stream, offline or server:QPS[:BOUND_MS]; "
            "repeatable; default: single-stream and offline"
        ),
    ] = field(default_factory=list)
    threads: Annotated[
        str, typer.Option(help="numbers of threads to measure, separated by commas")
    ] = "1,2,4"
    repetitions: Annotated[
        int, typer.Option(min=1, help="repetitions of all windows, interleaved")
    ] = 1
    seconds: Annotated[float, typer.Option(min=0.1, help="length of each window, s")] = 60.0
    warm_up: Annotated[
        float, typer.Option(min=0.1, help="length of the warm-up before each window, s")
    ] = 5.0
    idle: Annotated[
        float, typer.Option(min=0.1, help="length of the measurement of idle power, s")
    ] = 30.0
    cool_down: Annotated[float, typer.Option(min=0.1, help="pause between windows, s")] = 20.0
    power: Annotated[
        str, typer.Option(help="power sensor on the board: auto, pmbus, hwmon, rapl, nvml or none")
    ] = "auto"
    source: Annotated[
        str, typer.Option(help="images on the board to classify; default: those of the model")
    ] = ""
    realtime: Annotated[
        str,
        typer.Option(
            metavar="BOARD", help="if the DPU is emulated, run at the speed predicted for a board"
        ),
    ] = ""

    def arguments(self) -> tuple[str, ...]:
        """Return the options as arguments of `tutelage.app.measure`, which runs on the board."""
        given: list[tuple[str, object]] = [
            ("--threads", self.threads),
            ("--repetitions", self.repetitions),
            ("--seconds", self.seconds),
            ("--warm-up", self.warm_up),
            ("--idle", self.idle),
            ("--cool-down", self.cool_down),
            ("--power", self.power),
            *(("--scenario", scenario) for scenario in self.scenario),
        ]
        given += [("--source", self.source)] if self.source else []
        given += [("--realtime", self.realtime)] if self.realtime else []
        return tuple(str(word) for pair in given for word in pair)


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(WindowOptions, ReleaseOptions, RemoteOptions):
    """Options of `measure`."""

    host: Annotated[
        str | None,
        typer.Argument(
            help="user@host, or a name in ~/.ssh/config; default: the host configured for --board"
        ),
    ] = None
    model: Annotated[
        Path | None,
        typer.Option(help="model to deploy first; default: measure the deployed model"),
    ] = None
    attach: Annotated[
        bool,
        typer.Option(
            "--attach", help="follow a measurement that was started before, and collect it"
        ),
    ] = False
    detach: Annotated[
        bool, typer.Option("--detach", help="start the measurement and do not wait for it")
    ] = False
    cancel: Annotated[
        bool, typer.Option("--cancel", help="stop a running measurement, and collect it")
    ] = False
    list_all: Annotated[bool, typer.Option("--list", help="list the measurements on the board")] = (
        False
    )
    name: Annotated[
        str,
        typer.Option("--id", help="measurement for --attach and --cancel; default: the newest"),
    ] = ""
    output: Annotated[Path, typer.Option(help="directory for results, in OUTPUT/BOARD/ID")] = Path(
        "results"
    )


@command(
    "measure",
    "xilinx@board --model models/mine",
    "xilinx@board --threads 1,2 --scenario server:200:15 --seconds 30",
    "xilinx@board --attach",
)
def measure(options: MeasureOptions) -> int:
    """Measure on a board.

    The measurement runs on the board by itself. If this program ends early, by Ctrl-C or because it
    is killed, the board continues; `measure --attach` follows the measurement and collects it.
    """
    from tutelage.host.deploy import measurement as measuring
    from tutelage.host.ssh.boards import hosts_of

    named = [options.host] if options.host else None
    (host,) = hosts_of(options.board, named, options.ssh_config)
    if options.list_all:
        for each, state in measuring.listing(host, options.ssh_config):
            print_lines(f"{each}  {state}")
        return DONE
    if options.attach or options.cancel:
        name = options.name or measuring.newest(host, options.ssh_config)
        if options.cancel:
            measuring.cancel(host, options.ssh_config, name)
    else:
        what = measuring.Measuring(
            options.board, options.model, options.wheels, options.ssh_config,
            tuple(options.accept), options.plugin, options.arguments(),
        )  # fmt: skip
        with _ended_like_ctrl_c():
            name = measuring.start(host, what, note)
    return _finish_measurement(host, name, options)


def _finish_measurement(host: str, name: str, options: MeasureOptions) -> int:
    """Follow a measurement, collect it and print its table; return the exit status."""
    from tutelage.host.deploy import measurement as measuring
    from tutelage.host.deploy import measurement_results

    ssh_config = options.ssh_config
    again = _attach_command(host, name, options)
    note(f"{host}: measurement {name}; if this program ends first, continue with: {again}")
    if options.detach:
        return DONE
    try:
        with _ended_like_ctrl_c():
            measuring.follow(host, ssh_config, name, note)
            folder = measuring.collect(host, ssh_config, name, options.output / options.board, note)
    except KeyboardInterrupt:
        note("")  # ends the line of the terminal's ^C
        note(f"the board continues to measure; to collect the results: {again}")
        return FAILED
    run = measurement_results.outcome(folder)
    if run["state"] == "refused":
        shutil.rmtree(folder)
        raise MeasureError(f"the measurement was refused: {run.get('error')}")
    print(
        json_text(run, indent=2)
        if options.json
        else shown_lines(measurement_results.summary(folder))
    )
    note(f"{folder}: run.json, frames.csv, power.csv, condition.csv")
    if run["state"] != "done":
        raise MeasureError(f"the measurement is {run['state']}: {run.get('error')}")
    return DONE


def _attach_command(host: str, name: str, options: MeasureOptions) -> str:
    """Return the command that follows a measurement and collects it in the same directory."""
    more = [
        word
        for each in ("ssh_config", "board", "output")
        if getattr(options, each) != getattr(MeasureOptions, each)
        for word in (f"--{each.replace('_', '-')}", str(getattr(options, each)))
    ]
    return shlex.join(["tutelage", "measure", host, "--attach", "--id", name, *more])


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM, and SIGHUP when the terminal closes, like Ctrl-C, unless they are ignored."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGHUP)}
    caught = [kind for kind, handler in before.items() if handler is not signal.SIG_IGN]  # nohup
    for kind in caught:
        signal.signal(kind, signal.default_int_handler)
    try:
        yield
    finally:
        for kind in caught:
            signal.signal(kind, before[kind])
