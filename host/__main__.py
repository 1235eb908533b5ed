"""Command line of the workstation: `tutelage train | study | export | compile | ...`."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tutelage.core.text import json_text, shown, shown_lines

DONE, FAILED, WRONG_USE = 0, 1, 2
INTERRUPTED = 130  # what Typer returns after Ctrl-C

app = typer.Typer(
    help="Teach networks to live in 8 bits.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keeps `train` a sub-command also while it is the only one."""


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="the run's TOML file, see host/train/config.py")],
    output: Annotated[Path, typer.Option(help="directory of checkpoints, log and result")],
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the last checkpoint")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="change the file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train a network in float or quantised, by any method.

    Over several processes or machines: accelerate launch -m tutelage train ...
    """
    from tutelage.host.train.config import read_config
    from tutelage.host.train.loop import train as run
    from tutelage.host.train.progress import Progress, Silent, Terminal

    settings = read_config(config, changes)
    _refuse_to_overwrite(output, resume)
    progress: Progress = Silent()
    if _is_main_process():
        progress = Terminal(Console(stderr=as_json), output / "tensorboard")
    result = run(settings, output, resume, progress)
    if not _is_main_process():
        return
    figures = {"accuracy": result.accuracy, "teacher_accuracy": result.teacher_accuracy,
               "seconds": round(result.seconds, 1), "output": str(output)}  # fmt: skip
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        _print(f"{settings.method}: {result.accuracy:.2f} % of the test set, in {output}")


@app.command()
def study(
    spec: Annotated[
        Path | None, typer.Argument(help="the study's TOML file; the default one")
    ] = None,
    output: Annotated[Path, typer.Option(help="directory of study.csv and the runs")] = Path(
        "results"
    ),
    jobs: Annotated[int, typer.Option(min=0, help="cells at a time; default: one per core")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="stop after so many cells")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the results as JSON")] = False,
) -> int:
    """Run every method at every bit width with every seed; goes on where it was stopped."""
    import os

    from tutelage.host.train import study as studies

    plan = studies.read_study(spec or studies.DEFAULT, output)
    console = Console(stderr=as_json, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{len(plan.done())} of {len(plan.cells)} cells are done, in {plan.table}")
    failures = 0
    for cell, result in plan.run(jobs or len(os.sched_getaffinity(0)), limit):
        if isinstance(result, str):
            failures += 1
            console.print(f"failed: {shown(result)}")
        else:
            console.print(f"{cell.name}: {result['accuracy']:.2f} % in {result['seconds']:.0f} s")
    rows = plan.done()
    if rows:
        (output / "study.md").write_text(studies.markdown(rows), encoding="utf-8")
        studies.plot(rows, output / "study.svg")
    print(json.dumps(list(rows.values()), indent=2) if as_json else studies.markdown(rows))
    return FAILED if failures else DONE


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="a quantised run's directory, or its student.safetensors")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="model directory")],
    images: Annotated[
        int, typer.Option(min=0, help="test images whose logits are compared; 0: all")
    ] = 1000,
    clip: Annotated[
        bool, typer.Option("--clip", help="add layers that clip activations below 8 bits")
    ] = False,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="export also what the DPU leaves to the CPU")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Write a trained student for the compiler: quantised.xmodel, model.onnx and model.toml."""
    from tutelage.host.export.model import export as run

    figures = run(checkpoint, output, images, clip, allow_cpu)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    _print(f"{output}: quantised.xmodel, model.onnx, model.toml")
    _print(
        f"  {figures['images_compared']:,} test images: every logit of the file is the student's"
    )
    _print(f"  accuracy {figures['accuracy_compared']:.2f} % of them; the ONNX file names the same "
          f"class for {figures['onnx_same_class']:.2f} %")  # fmt: skip
    for op, reason in figures["on_cpu"].items():
        _print(f"  on the CPU: {op}: {reason}")
    _print(f"  next: tutelage compile {shlex.quote(str(output))}")


@app.command("compile")
def compile_(
    model: Annotated[
        Path, typer.Argument(help="quantised .xmodel, or a directory with quantised.xmodel")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory; default: beside the model")
    ] = None,
    target: Annotated[
        str, typer.Option(help="zcu104 or emulator; default: zcu104 where a compiler is found")
    ] = "",
    compiler: Annotated[Path | None, typer.Option(help="AMD's vai_c_xir, if not on PATH")] = None,
    image: Annotated[
        str | None, typer.Option(help="container image with vai_c_xir, which docker or podman has")
    ] = None,
    arch: Annotated[Path | None, typer.Option(help="arch.json of the board's DPU")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="most seconds; 0: no limit")] = 3600,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the compiler's command line, do nothing")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Compile a quantised model for a board's DPU by AMD's compiler, or for the emulator."""
    from tutelage.host.compile.model import Choice, compile_model, plan_compile

    plan = plan_compile(model, output, Choice(target, compiler, image, arch, timeout), _tell)
    if dry_run:
        _print_command(plan.command, as_json)
        return
    figures = compile_model(plan, _tell)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    _print(f"{figures['model']}: compiled for {figures['target']} by {figures['compiler']}")
    _print(*(f"  {fact}" for fact in figures["checks"]), f"  next: {figures['next']}")


@app.command("predict")
def predict_(
    network: Annotated[
        str,
        typer.Argument(
            help="a preset, such as densenet-121, or your own: MODULE:FUNCTION, FILE.py:FUNCTION"
        ),
    ],
    shape: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="channels, height, width")
    ] = "3x32x32",
    board: Annotated[str, typer.Option(help="the board, by its profile")] = "zcu104",
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="tell the speed of so many threads as well")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Predict a PyTorch network's time and energy on a board, without weights, layer by layer."""
    from tutelage.dpu.predict.energy import board_watts
    from tutelage.dpu.predict.latency import predict
    from tutelage.dpu.predict.prediction import prediction_facts, prediction_lines
    from tutelage.host.explore.network_operations import create_operations

    try:
        operations = create_operations(network, shape)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    found = predict(operations, board)
    facts = prediction_facts(network, found, board_watts(board), threads or ())
    print(json.dumps(facts, indent=2) if as_json else "\n".join(prediction_lines(facts)))


@app.command()
def overlay(
    board: Annotated[str, typer.Argument(help="the board, such as zcu104")],
    source: Annotated[
        Path | None, typer.Option("--from", help="directory that has the files: download nothing")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory; default: overlays/BOARD/files")
    ] = None,
    url: Annotated[
        str, typer.Option(help="https address before each file's name, instead of the maker's")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Fetch a board's overlay, or take local files, verify it and put it in place."""
    from tutelage.host.deploy.overlay_files import place_overlay

    figures = place_overlay(board, source, output, url, _tell)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    _print(f"{figures['output']}: {figures['release']}, {', '.join(figures['files'])}")
    _print(f"  md5 as published; sha256 {figures['pins']}")
    _print("  next, on the board and as root: python -m tutelage.board.overlay load DIR")


@app.command()
def deploy(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="user@host, or names of ~/.ssh/config; default: your host for --board"),
    ] = None,
    model: Annotated[Path, typer.Option(help="model directory or .xmodel")] = Path("app/demo"),
    board: Annotated[str, typer.Option(help="the board, by its profile")] = "zcu104",
    wheels: Annotated[
        Path | None, typer.Option(help="directory of wheels for what boards lack: no downloads")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="a finding of the check that is no obstacle")
    ] = None,
    ssh_config: Annotated[Path | None, typer.Option("--ssh-config", help="for ssh -F")] = None,
    bandwidth: Annotated[int, typer.Option(min=0, help="most KiB/s; 0: no limit")] = 0,
    plugin: Annotated[
        Path | None, typer.Option(help="Python file of the model's operators for the CPU")
    ] = None,
    service: Annotated[
        str, typer.Option(help="arguments of classify.py, to be run as a systemd service")
    ] = "",
    service_user: Annotated[
        str, typer.Option("--service-user", help="whom it runs as; default: you, but not root")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the reports as JSON")] = False,
) -> int:
    """Put a release onto one or several boards; what runs there stays if anything fails."""
    from tutelage.host import deploy as deploying
    from tutelage.host.ssh.boards import hosts_of

    plan = deploying.Plan(board, model, wheels, ssh_config, tuple(accept or ()), plugin,
                          bandwidth, service, service_user)  # fmt: skip
    where = hosts_of(board, hosts, ssh_config)
    if dry_run:
        _print(*deploying.dry_run(where, plan))
        return DONE
    with _ended_like_ctrl_c():
        reports = deploying.deploy(where, plan, _tell)
    return _print_reports(reports, as_json)


@app.command()
def rollback(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(help="user@host, or names of ~/.ssh/config; default: your host for --board"),
    ] = None,
    board: Annotated[str, typer.Option(help="the board, by its profile")] = "zcu104",
    ssh_config: Annotated[Path | None, typer.Option("--ssh-config", help="for ssh -F")] = None,
    force: Annotated[bool, typer.Option("--force", help="switch without a smoke test")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the reports as JSON")] = False,
) -> int:
    """Go back to the release before, on one or several boards; once more undoes it."""
    from tutelage.host import deploy as deploying
    from tutelage.host.ssh.boards import hosts_of

    where = hosts_of(board, hosts, ssh_config)
    with _ended_like_ctrl_c():
        reports = deploying.rollback(where, ssh_config, _tell, board, force)
    return _print_reports(reports, as_json)


@app.command()
def measure(
    host: Annotated[
        str | None,
        typer.Argument(
            help="user@host, or a name of ~/.ssh/config; default: your host for --board"
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="model to deploy first; default: what is deployed")
    ] = None,
    board: Annotated[str, typer.Option(help="the board, by its profile")] = "zcu104",
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="single-stream, offline, server:QPS[:BOUND_MS]; default: the first two"),
    ] = None,
    threads: Annotated[str, typer.Option(help="numbers of threads")] = "1,2,4",
    repetitions: Annotated[int, typer.Option(min=1, help="of all windows, interleaved")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="of each window")] = 60.0,
    warm_up: Annotated[float, typer.Option(min=0.1, help="s before each window")] = 5.0,
    idle: Annotated[float, typer.Option(min=0.1, help="s of idle baseline")] = 30.0,
    cool_down: Annotated[float, typer.Option(min=0.1, help="s between windows")] = 20.0,
    power: Annotated[str, typer.Option(help="where the board reads watts")] = "auto",
    source: Annotated[str, typer.Option(help="images on the board; default: the model's")] = "",
    realtime: Annotated[str, typer.Option(help="pace of an emulated DPU, by its board")] = "",
    accept: Annotated[
        list[str] | None, typer.Option(help="a finding that does not hold the measurement up")
    ] = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="go on with one that was started: follow, collect")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="start it and leave")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="end one now, and collect it")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="what was measured there")] = False,
    name: Annotated[str, typer.Option("--id", help="with --attach: which; default: newest")] = "",
    output: Annotated[Path, typer.Option(help="results go to OUTPUT/BOARD/ID")] = Path("results"),
    plugin: Annotated[
        Path | None, typer.Option(help="as in deploy; default: what is deployed with the model")
    ] = None,
    wheels: Annotated[Path | None, typer.Option(help="as in deploy")] = None,
    ssh_config: Annotated[Path | None, typer.Option("--ssh-config", help="for ssh -F")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print run.json")] = False,
) -> int:
    """Measure latency, speed, watts and energy on a board, whatever becomes of the connection.

    The board measures by itself. Where this program ends early, by Ctrl-C or because it was killed,
    the board goes on; `measure --attach` follows and collects it.
    """
    from tutelage.host.deploy import measurement as measuring
    from tutelage.host.ssh.boards import hosts_of

    (host,) = hosts_of(board, [host] if host else None, ssh_config)
    if list_all:
        for each, state in measuring.listing(host, ssh_config):
            _print(f"{each}  {state}")
        return DONE
    arguments = ["--threads", threads, "--repetitions", str(repetitions), "--seconds", str(seconds),
                 "--warm-up", str(warm_up), "--idle", str(idle), "--cool-down", str(cool_down),
                 "--power", power]  # fmt: skip
    for option, values in (("--scenario", scenario or []), ("--source", [source] if source else []),
                           ("--realtime", [realtime] if realtime else [])):  # fmt: skip
        for value in values:
            arguments += [option, value]
    what = measuring.Measuring(board, model, wheels, ssh_config, tuple(accept or ()),
                               plugin, tuple(arguments))  # fmt: skip
    if attach or cancel:
        name = name or measuring.newest(host, ssh_config)
        if cancel:
            measuring.cancel(host, ssh_config, name)
    else:
        with _ended_like_ctrl_c():
            name = measuring.start(host, what, _tell)
    return _finish_measurement(host, ssh_config, name, output / board, detach, as_json)


def _finish_measurement(
    host: str, ssh_config: Path | None, name: str, results: Path, detach: bool, as_json: bool
) -> int:
    """Follow a measurement, collect it and print its table; returns the exit status."""
    from tutelage.host.deploy import measurement as measuring

    config = ["--ssh-config", str(ssh_config)] if ssh_config else []
    again = shlex.join(["tutelage", "measure", host, "--attach", "--id", name, *config])
    _tell(f"{host}: measurement {name}; if this ends before it does, go on with: {again}")
    if detach:
        return DONE
    try:
        with _ended_like_ctrl_c():
            measuring.follow(host, ssh_config, name, _tell)
            folder = measuring.collect(host, ssh_config, name, results, _tell)
    except KeyboardInterrupt:
        _tell("")  # behind the terminal's ^C
        _tell(f"the board goes on by itself; to collect it: {again}")
        return FAILED
    run = measuring.outcome(folder)
    if run["state"] == "refused":
        shutil.rmtree(folder)
        return _complain(f"the measurement was refused: {run.get('error')}", FAILED)
    if as_json:
        print(json_text(run, indent=2))
    else:
        print(shown_lines(measuring.summary(folder)))
    _tell(f"{folder}: run.json, frames.csv, power.csv, condition.csv")
    if run["state"] != "done":
        return _complain(f"the measurement is {run['state']}: {run.get('error')}", FAILED)
    return DONE


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let a signal that ends this program, or its terminal's end, interrupt the block as Ctrl-C."""
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, signal.default_int_handler) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


@app.command()
def bench(
    model: Annotated[
        Path, typer.Argument(help="a quantised run's directory, or a model directory")
    ],
    platforms: Annotated[
        list[str] | None, typer.Option("--platform", help="only this one; repeatable")
    ] = None,
    dpu: Annotated[
        list[Path] | None, typer.Option(help="a run of `tutelage measure`; repeatable")
    ] = None,
    board: Annotated[str, typer.Option(help="whose DPU is predicted without --dpu")] = "zcu104",
    images: Annotated[
        str,
        typer.Option(help="directory, CLASS/IMAGE in it is labelled; or: dataset, the run's own"),
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="most images; 0: all")] = 1000,
    repetitions: Annotated[int, typer.Option(min=1, help="each goes through all platforms")] = 6,
    seconds: Annotated[float, typer.Option(min=0.05, help="of each window")] = 3.0,
    warm_up: Annotated[float, typer.Option(min=0, help="seconds before each window")] = 1.0,
    threads: Annotated[int, typer.Option(min=0, help="of each framework; 0: every CPU")] = 0,
    watts: Annotated[
        list[str] | None, typer.Option(metavar="ROW=W", help="what your own meter says; repeatable")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory; default: results/bench/TIME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON")] = False,
) -> int:
    """Compare one student on CPU, GPU and DPU: latency, speed, watts, accuracy."""
    from tutelage.host.bench.command import Choice
    from tutelage.host.bench.command import bench as run

    choice = Choice(tuple(platforms or ()), tuple(dpu or ()), board, images, limit, repetitions,
                    seconds, warm_up, threads, tuple(watts or ()))  # fmt: skip
    report, folder, text = run(model, choice, output, _tell)
    print(json.dumps(report, indent=2) if as_json else shown_lines(text))
    _tell(f"written to {folder}")
    failed = any(row["state"] == "failed" for row in report["rows"])
    return FAILED if failed or report["state"] != "done" else DONE


@app.command()
def report(
    results: Annotated[Path, typer.Option(help="what it is made from")] = Path("results"),
    output: Annotated[
        Path, typer.Option("--output", "-o", help="OUTPUT.html and OUTPUT.md")
    ] = Path("results/report"),
    model: Annotated[
        Path, typer.Option(help="compiled or quantised .xmodel whose layers are shown")
    ] = Path("app/demo/model.xmodel"),
    board: Annotated[str, typer.Option(help="whose DPU is predicted")] = "zcu104",
    run: Annotated[
        Path | None, typer.Option(help="a measured run's directory; default: the newest")
    ] = None,
    bench_run: Annotated[
        Path | None, typer.Option("--bench", help="a comparison's directory; default: the newest")
    ] = None,
) -> None:
    """Write one page of everything that was found: it works offline, sorts and prints."""
    from tutelage.host.report.sections import Choice, write_report

    written = write_report(Choice(results, model, board, run, bench_run), output)
    _print(*written)


@app.command()
def explore(
    spec: Annotated[
        Path | None,
        typer.Argument(help="a run's TOML with [explore], see host/explore/space.py; the demo's"),
    ] = None,
    board: Annotated[str, typer.Option(help="the board, by its profile")] = "zcu104",
    latency: Annotated[float | None, typer.Option(help="most ms of an image, one thread")] = None,
    fps: Annotated[float | None, typer.Option(help="least frames per second")] = None,
    energy: Annotated[float | None, typer.Option(help="most mJ a frame, the whole board")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="of --fps and --energy; default: as many as help")
    ] = None,
    capacity: Annotated[
        str, typer.Option(help="what the front has most of: macs or parameters")
    ] = "macs",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory of explore.csv, .svg and the runs")
    ] = Path("results/explore"),
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> int:
    """Find the DenseNets that fit a budget on a board, by prediction; write what `train` takes."""
    from tutelage.host.explore import exploration as exploring
    from tutelage.host.explore import space

    budget = space.Budget(latency, fps, energy, threads)
    found = exploring.explore(space.read_spec(spec), budget, board, output, capacity)
    if as_json:
        print(json.dumps(exploring.facts(found), indent=2))
    else:
        _print(*exploring.lines(found))
    _tell(f"{output}: {exploring.TABLE}, {exploring.PLOT}, {len(found.written)} networks to train")
    return DONE if found.written else FAILED


def _print_reports(reports: list[Any], as_json: bool) -> int:
    """Print what became of each host; returns the exit status."""
    if as_json:
        print(json.dumps([vars(report) for report in reports], indent=2))
    for report in reports:
        for warning in report.warnings:
            _tell(f"{report.host}: warning: {warning}")
        if report.error:
            _tell(f"{report.host}: failed: {report.error}")
        elif not as_json:
            smoke = f"; {report.smoke}" if report.smoke else ""
            _print(f"{report.host}: {report.state}: {report.release}, {report.sent_bytes:,} bytes "
                  f"sent, {report.seconds:.1f} s{smoke}")  # fmt: skip
            if report.service:
                _print(f"{report.host}: {report.service}")
    return FAILED if any(report.error for report in reports) else DONE


def _print_command(command: list[str] | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"command": command}, indent=2))
    elif command is None:
        _tell("the emulator's compiler runs in this process, without a command")
    else:
        _print(shlex.join(command))


def _print(*lines: object) -> None:
    """Print lines for a reader; names in them may come from anywhere."""
    print("\n".join(map(shown, lines)))


def _tell(text: str) -> None:
    print(shown(text), file=sys.stderr, flush=True)


def _is_main_process() -> bool:
    """Whether this is the first of the processes that `accelerate launch` started."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _refuse_to_overwrite(output: Path, resume: bool) -> None:
    from tutelage.host.train.checkpoint import CheckpointError

    if not resume and (output / "checkpoint.safetensors").exists():
        raise CheckpointError(f"{output}: holds a run; go on with --resume or take another place")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from tutelage.core.errors import unsorted_in_one_line

    try:
        with unsorted_in_one_line("host"):
            result: Any = app(arguments, standalone_mode=False)
        if result == INTERRUPTED:
            return _complain("interrupted", FAILED)
        return result if isinstance(result, int) else DONE
    except typer.Exit as stop:
        return int(stop.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        return _complain(_text(error), status)


def _status(error: Exception) -> int | None:
    """The exit status of an error that is told in one line; None for a fault of ours."""
    # By name: what raises them is imported only where a command needs it, and Typer has taken
    # Click's classes in.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"Abort", "CompileError", "DeployError", "ExportError", "Interrupted", "OSError",
                "MeasureError", "OverlayError", "ReceivedError", "ReleaseError",
                "RemoteError"}:  # fmt: skip
        return FAILED
    wrong = {"BenchUsageError", "ClickException", "ConfigError", "DataError", "CheckpointError",
             "UnsupportedOp", "CompileUsageError", "DeployUsageError", "DpuError",
             "OverlayUsageError", "RemoteUsageError", "ReportError", "ExploreError",
             "XmodelError"}  # fmt: skip
    return WRONG_USE if names & wrong else None


def _text(error: Exception) -> str:
    message = getattr(error, "format_message", None)
    return str(message() if message else error).strip() or type(error).__name__


def _complain(text: str, status: int) -> int:
    print(f"host: {shown(text)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
