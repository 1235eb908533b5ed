"""Command line of the emulation: `tutelage inspect | diff | run | predict | shim`."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, UnsortedWarning, contradictions, unsorted_in_one_line
from tutelage.core.fixed_point import Array
from tutelage.core.images.input_form import COLOURS, InputForm
from tutelage.core.text import shown
from tutelage.dpu.engine.reference import ENGINES, Model, load_engine
from tutelage.dpu.inspect import diff, draw
from tutelage.dpu.inspect.describe import describe_graph
from tutelage.dpu.inspect.html_page import page
from tutelage.dpu.inspect.listing import MAX_CELL, lines
from tutelage.dpu.inspect.samples import Samples, image_form, load_arrays, split_name
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.predict.cycles import add_cycles
from tutelage.dpu.xmodel.graph import Graph

DONE, FAILED, WRONG_USE = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT
"""What a shell makes of Ctrl-C in a Python script; of `shim` alone."""

CHUNK = 32
"""Images that `run` computes at once, which bounds its memory however long the input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        with unsorted_in_one_line("dpu"):
            return int(options.command(options))
    except DpuError as error:
        return _complain(error, WRONG_USE)
    except MemoryError:
        return _complain("not enough memory for this model and input", FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def _complain(error: object, status: int) -> int:
    print(f"dpu: {shown(error)}", file=sys.stderr)
    return status


def _inspect(options: argparse.Namespace) -> int:
    alone = options.colour or options.mean or options.scale or options.plugin
    if alone and not options.images:
        raise DpuError("--colour, --mean, --scale and --plugin go with --images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsortedWarning)  # it is one of the notes
        graph = Graph.deserialize(options.xmodel)
    with contradictions(str(options.xmodel)):
        facts = describe_graph(options.xmodel, graph)
        add_cycles(facts, graph)
        if options.images:
            _add_statistics(facts, graph, options)
        drawings = _drawings(facts, options)
        text = json.dumps(facts, indent=2) if options.json else "\n".join(lines(facts, options.ops))
    for path, content in drawings.items():
        if not _write(path, content):
            return FAILED
    print(text)
    return DONE


def _drawings(facts: dict[str, Any], options: argparse.Namespace) -> dict[Path, bytes]:
    """What goes into the files of --svg and --html."""
    drawings = {}
    if options.svg:
        drawings[options.svg] = draw.svg(facts).encode()
    if options.html:
        drawings[options.html] = page(facts).encode()
    return drawings


def _add_statistics(facts: dict[str, Any], graph: Graph, options: argparse.Namespace) -> None:
    from tutelage.dpu.inspect.statistics import add_statistics

    def form(shape: Sequence[int]) -> InputForm:
        return image_form(options.xmodel, shape, options.colour, options.mean, options.scale)

    plugins = load_plugins(options.plugin) if options.plugin else {}
    model = load_engine(graph, "fast", plugins, trace=True, name=str(options.xmodel))
    add_statistics(facts, model, Samples(model.program, options.images, form))


def _diff(options: argparse.Namespace) -> int:
    found = diff.diff(options.a, options.b, options.layers)
    print(json.dumps(found, indent=2) if options.json else "\n".join(diff.lines(found)))
    return DONE if found["equal"] else FAILED


def _run(options: argparse.Namespace) -> int:
    plugins = load_plugins(options.plugin) if options.plugin else {}
    began = time.perf_counter()
    model = load_engine(options.xmodel, options.engine, plugins)
    loaded = time.perf_counter()
    inputs = load_arrays(model.program, options.input)
    targets = _targets(model, options.output)
    started = time.perf_counter()
    results, batch = _compute(model, inputs)
    seconds = time.perf_counter() - started
    for name, path in targets.items():
        if not _save(path, results[name]):
            return FAILED
    figures = {
        "model": str(options.xmodel),
        "engine": options.engine,
        "batch": batch,
        "load_seconds": round(loaded - began, 4),
        "run_seconds": round(seconds, 4),
        "outputs": {str(path): list(results[name].shape) for name, path in targets.items()},
        "left_out": [name for name in results if name not in targets],
    }
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        written = ", ".join(f"{path} {shape}" for path, shape in figures["outputs"].items())
        print(shown(f"{batch} in {seconds:.3f} s with the {options.engine} engine: {written}"))
        if figures["left_out"]:
            names = ", ".join(shown(name, MAX_CELL) for name in figures["left_out"])
            print(shown(f"left out: {names}; each takes an --output NAME=OUT.npy"))
    return DONE


def _targets(model: Model, texts: list[str]) -> dict[str, Path]:
    """Output name -> file."""
    names = [op.get_name() for op in model.program.outputs]
    targets: dict[str, Path] = {}
    for position, text in enumerate(texts):
        name, path = split_name(text)
        if name is None:
            if position >= len(names):
                raise DpuError(f"{len(texts)} outputs asked for, the model has {len(names)}")
            name = names[position]
        if name not in names:
            raise DpuError(f"no output {name!r}; the model has {', '.join(names)}")
        targets[name] = path
    return targets


def _compute(model: Model, inputs: list[Array]) -> tuple[dict[str, Array], int]:
    """All outputs, computed in chunks, and the batch size."""
    first = model.program.inputs[0].get_output_tensor().dims[0] if inputs else 1
    batch = len(inputs[0]) // first if inputs and inputs[0].ndim else 1
    whole = not inputs or batch <= CHUNK or not model.program.takes_batches
    if whole or len({len(array) for array in inputs}) > 1:
        return model.run_all(*inputs), batch
    parts = [
        model.run_all(*(array[start : start + CHUNK] for array in inputs))
        for start in range(0, batch, CHUNK)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, batch


def _save(path: Path, array: Array) -> bool:
    """Write a .npy file atomically; says what went wrong."""
    content = io.BytesIO()
    np.save(content, array)
    return _write(path, content.getbuffer())


def _write(path: Path, content: bytes | memoryview) -> bool:
    """Write a file atomically; says what went wrong."""
    scratch = None
    try:
        if path.exists() and not path.is_file():  # a pipe or terminal is no file to replace
            path.write_bytes(content)
            return True
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(content)
        scratch.replace(path)
    except (OSError, ValueError) as error:
        if scratch is not None:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        _complain(f"{path}: cannot write: {reason}", FAILED)
        return False
    return True


def _predict(options: argparse.Namespace) -> int:
    from tutelage.dpu.predict import prediction
    from tutelage.dpu.predict.energy import board_watts

    found = prediction.prediction_of(options.model, options.board)
    watts = board_watts(options.board)
    facts = prediction.prediction_facts(options.model, found, watts, options.threads)
    print(json.dumps(facts, indent=2) if options.json else
          "\n".join(prediction.prediction_lines(facts)))  # fmt: skip
    return DONE


def _shim(options: argparse.Namespace) -> int:
    from tutelage.dpu.predict import latency
    from tutelage.dpu.runtime import device, shim, vart

    if options.asynchronous:
        os.environ[device.EXECUTION_VARIABLE] = "asynchronous"  # for child processes as well
    if options.realtime:
        vart.set_pace(latency.board_pace(options.realtime))
    if options.plugin:
        vart.set_plugins(load_plugins(options.plugin))
    shim.prepare(options.script, options.arguments)
    try:
        shim.run(options.script)
    except Exception:  # the script's own error, told as `python script` would tell it
        sys.excepthook(*sys.exc_info())
        return FAILED
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return INTERRUPTED
    finally:  # also behind a script that ends by sys.exit
        _tell_lateness(vart.pace_report())
    return DONE


def _tell_lateness(report: dict[str, float]) -> None:
    """Say it where a paced run was slower than the board would have been."""
    if report["late"]:
        jobs, worst = f"{report['late']} of {report['jobs']} jobs", report["late_seconds_max"]
        print(
            f"dpu: the emulation could not keep pace in {jobs}, which ended up to "
            f"{1000 * worst:.1f} ms later than on the board",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tutelage",
        description="The DPU in pure software: look into .xmodel files and run them, bit for bit.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong use (a bad file is wrong use); of shim the "
        "script's own, 130 after Ctrl-C.",
    )
    commands = parser.add_subparsers(required=True, metavar="inspect | diff | run | predict | shim")
    _add_inspect(commands)
    _add_diff(commands)
    _add_run(commands)
    _add_predict(commands)
    _add_shim(commands)
    return parser


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect", help="layers, subgraphs, fix points, cycles, memory; values on sample inputs"
    )
    inspect.add_argument("xmodel", type=Path, metavar="X.xmodel")
    inspect.add_argument("--ops", action="store_true", help="list every op as well")
    inspect.add_argument("--json", action="store_true", help="print JSON, ops included")
    inspect.add_argument("--svg", type=Path, metavar="FILE", help="draw the graph")
    inspect.add_argument(
        "--html", type=Path, metavar="FILE", help="write the graph and the tables as one page"
    )
    _add_images(inspect)
    inspect.set_defaults(command=_inspect)


def _add_images(inspect: argparse.ArgumentParser) -> None:
    group = inspect.add_argument_group("values on sample inputs")
    group.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="IN.npy (NAME=IN.npy for several inputs; as for `run`), or images and directories "
        "of images: shows saturation, unused bits and dead channels of each layer",
    )
    beside = "; default: as model.toml beside the file says, else"
    group.add_argument("--colour", choices=list(COLOURS), help=f"of images{beside} grey or bgr")
    group.add_argument(
        "--mean", type=float, nargs="+", metavar="M", help=f"taken off pixels 0..255{beside} 0"
    )
    group.add_argument(
        "--scale", type=float, nargs="+", metavar="S", help=f"then multiplied with{beside} 1"
    )
    _add_plugin(group)


def _add_diff(commands: Any) -> None:
    compare = commands.add_parser(
        "diff",
        help="what two .xmodels differ in; exit status 0: equal, 1: different, or not all could be "
        "compared (weights of another DPU), 2: a bad file",
    )
    compare.add_argument("a", type=Path, metavar="A.xmodel")
    compare.add_argument("b", type=Path, metavar="B.xmodel")
    compare.add_argument(
        "--layers",
        action="store_true",
        help="compare layers, not ops: what a quantised file against a compiled one always does",
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(command=_diff)


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run the whole graph on .npy files, CPU ops included")
    run.add_argument("xmodel", type=Path, metavar="X.xmodel")
    run.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="[NAME=]IN.npy",
        help="float32 (rounded and saturated to int8 on the way in, where VART truncates) or int8, "
        "NHWC, any batch; one per input",
    )
    run.add_argument(
        "--output",
        action="append",
        required=True,
        metavar="[NAME=]OUT.npy",
        help="where an output goes, as float32; without NAME in the graph's order",
    )
    run.add_argument("--engine", choices=ENGINES, default="fast")
    _add_plugin(run)
    run.add_argument("--json", action="store_true", help="print the figures as JSON")
    run.set_defaults(command=_run)


def _add_predict(commands: Any) -> None:
    predict = commands.add_parser(
        "predict", help="time and energy of a network on a board, layer by layer"
    )
    predict.add_argument(
        "model",
        metavar="X.xmodel | MODULE:FUNCTION",
        help="quantised or compiled; or a function that returns tutelage.dpu.predict.operations",
    )
    predict.add_argument("--board", default="zcu104", help="by its profile; default: zcu104")
    predict.add_argument(
        "--threads",
        nargs="+",
        type=_count,
        default=[],
        metavar="N",
        help="tell the speed of so many threads as well; one and as many as help are told always",
    )
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.set_defaults(command=_predict)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads")
    return int(text)


def _add_shim(commands: Any) -> None:
    shim = commands.add_parser(
        "shim", help="run an unmodified VART or DPU-PYNQ script on the emulation"
    )
    shim.add_argument(
        "--realtime",
        metavar="BOARD",
        help="let each job take what `predict` predicts for the board's core, such as zcu104",
    )
    shim.add_argument(
        "--asynchronous",
        action="store_true",
        help="let execute_async return at once; on an edge board it returns when the job is done",
    )
    _add_plugin(shim)
    shim.add_argument("script", metavar="SCRIPT")
    shim.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG")
    shim.set_defaults(command=_shim)


def _add_plugin(parser: Any) -> None:
    parser.add_argument(
        "--plugin",
        type=Path,
        metavar="OPS.py",
        help="Python file with functions op_<op_type>(inputs, attrs) for CPU ops",
    )


def _program() -> int:
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # a reader like `head` that has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


if __name__ == "__main__":
    sys.exit(_program())
