"""Runs on the emulation: `tutelage run | shim`."""

from __future__ import annotations

import io
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from tutelage.core.commands import PROGRAM
from tutelage.core.errors import DONE, FAILED, INTERRUPTED, TutelageError
from tutelage.core.fixed_point import Array
from tutelage.core.messages import say
from tutelage.core.text import counted, shown
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions, PluginOptions, xmodel_argument
from tutelage.host.cli.output_file import write_file
from tutelage.host.cli.printing import print_json, print_lines

if TYPE_CHECKING:
    from tutelage.dpu.engine.reference import Model

CHUNK = 32
"""Number of images that `run` computes at a time, which bounds its memory for long inputs."""

BRIEF_BYTES = 1 << 20
"""Most bytes of inputs for which the slower runtime is used, since it finishes before the faster
one would have started; so it does for up to `CHUNK` random images."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(PluginOptions, JsonOptions):
    """Options of `run`."""

    xmodel: Annotated[Path, xmodel_argument("quantised or compiled model")]
    input: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]IN.npy",
            help="values of an input, NHWC with any batch size: int8, or float32, which is rounded "
            "and saturated to int8 (VART truncates); one per input",
        ),
    ] = field(default_factory=list)
    output: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]OUT.npy",
            help="file for an output, as float32; without NAME in the order of the graph",
        ),
    ] = field(default_factory=list)
    random: Annotated[
        int,
        typer.Option(min=0, max=4096, metavar="N", help="N random images in place of --input"),
    ] = 0
    compare: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="compute with this engine too, and fail unless every output byte is equal",
        ),
    ] = ""
    engine: Annotated[
        str,
        typer.Option(
            help="engine that computes: fast, reference, or instructions, which executes the DPU "
            "code of a file that is compiled for a board"
        ),
    ] = "fast"
    order: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SEED",
            help="execute the instructions in a random order that their dependencies allow",
        ),
    ] = None


@command(
    "run",
    "net.xmodel --input in.npy --output out.npy",
    "board.xmodel --input in.npy --output out.npy --engine instructions --order 1",
    "board.xmodel --random 20 --compare instructions",
)
def run(options: RunOptions) -> int:
    """Run the whole graph."""
    from tutelage.dpu.engine.reference import load_engine
    from tutelage.dpu.inspect.samples import load_arrays, random_inputs
    from tutelage.dpu.ops.reference import load_plugins

    _check_run(options)
    plugins = load_plugins(options.plugin) if options.plugin else {}
    began = time.perf_counter()
    brief = _is_brief(options)
    model = load_engine(options.xmodel, options.engine, plugins, order=options.order, brief=brief)
    loaded = time.perf_counter()
    inputs = random_inputs(model.program, options.random)
    if options.input:
        inputs = load_arrays(model.program, options.input)
    targets = _targets(model, options.output)
    started = time.perf_counter()
    results, batch = _compute(model, inputs)
    seconds = time.perf_counter() - started
    if options.compare:
        other = load_engine(options.xmodel, options.compare, plugins, brief=brief)
        _check_equal(results, _compute(other, inputs)[0], options)
    for name, path in targets.items():
        content = io.BytesIO()
        np.save(content, results[name])
        write_file(path, content.getbuffer())
    shapes = {str(path): list(results[name].shape) for name, path in targets.items()}
    left_out = [name for name in results if name not in targets]
    if options.json:
        print_json({
            "model": str(options.xmodel),
            "engine": options.engine,
            "batch": batch,
            "load_seconds": round(loaded - began, 4),
            "run_seconds": round(seconds, 4),
            "outputs": shapes,
            "left_out": left_out,
            **({"equal_to": options.compare} if options.compare else {}),
        })  # fmt: skip
        return DONE
    written = ", ".join(f"{path} {shape}" for path, shape in shapes.items())
    done = f"{batch} in {seconds:.3f} s with the {options.engine} engine"
    print_lines(f"{done}: {written}" if written else done)
    if options.compare:
        print_lines(f"every output byte equals that of the {options.compare} engine")
    if left_out and targets:
        names = ", ".join(_short(name) for name in left_out)
        print_lines(f"not written: {names}; give --output NAME=OUT.npy for each")
    return DONE


def _check_run(options: RunOptions) -> None:
    """Raise TutelageError for options that exclude each other, and for unknown engines."""
    from tutelage.dpu.engine.reference import ENGINES

    for name, engine in (("--engine", options.engine), ("--compare", options.compare)):
        if engine not in ENGINES and (engine or name == "--engine"):
            raise TutelageError(f"{name} {engine}: not one of {', '.join(ENGINES)}")
    if options.order is not None and options.engine != "instructions":
        raise TutelageError("--order needs --engine instructions")
    if options.compare == options.engine and options.order is None:
        raise TutelageError(f"--compare {options.compare}: the same as --engine: give another")
    if bool(options.input) == bool(options.random):
        raise TutelageError("give --input IN.npy, or --random N")


def _is_brief(options: RunOptions) -> bool:
    """Whether computing takes less time than starting the faster runtime."""
    from tutelage.dpu.inspect.samples import split_name

    if options.random:
        return options.random <= CHUNK
    try:
        sizes = [split_name(text)[1].stat().st_size for text in options.input]
    except OSError:  # reported when the file is read
        return False
    return sum(sizes) <= BRIEF_BYTES


def _check_equal(found: dict[str, Array], others: dict[str, Array], options: RunOptions) -> None:
    """Compare the outputs of two engines.

    Raises
    ------
    EnginesDiffer
        They differ.
    """
    for name, values in found.items():
        wrong = int(np.count_nonzero(values != others[name]))
        if wrong:
            raise EnginesDiffer(
                f"{options.xmodel}: {wrong:,} of {counted(values.size, 'value')} of "
                f"{_short(name)} differ between the {options.engine} and the {options.compare} "
                "engine: please report this as a bug"
            )


class EnginesDiffer(TutelageError):
    """Two engines computed different outputs of one model."""

    status = FAILED


def _short(name: str) -> str:
    from tutelage.dpu.inspect.listing import MAX_CELL

    return shown(name, MAX_CELL)


def _targets(model: Model, texts: list[str]) -> dict[str, Path]:
    """Return the file of each output by name."""
    from tutelage.dpu.inspect.samples import split_name

    names = [op.get_name() for op in model.program.outputs]
    targets: dict[str, Path] = {}
    for position, text in enumerate(texts):
        name, path = split_name(text)
        if name is None:
            if position >= len(names):
                raise TutelageError(
                    f"--output: {counted(len(texts), 'file')}, but the model has "
                    f"{counted(len(names), 'output')}"
                )
            name = names[position]
        if name not in names:
            raise TutelageError(
                f"--output {text}: no output {name!r}; the model has {', '.join(names)}"
            )
        targets[name] = path
    return targets


def _compute(model: Model, inputs: list[Array]) -> tuple[dict[str, Array], int]:
    """Compute all outputs, in chunks; return them and the batch size."""
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


@dataclass(frozen=True, kw_only=True)
class ShimOptions(PluginOptions):
    """Options of `shim`."""

    script: Annotated[
        str, typer.Argument(metavar="SCRIPT", help="Python script to run, unmodified")
    ]
    arguments: Annotated[
        list[str], typer.Argument(metavar="ARG", help="arguments of the script")
    ] = field(default_factory=list)
    realtime: Annotated[
        str | None,
        typer.Option(
            metavar="BOARD",
            help="run at the speed of a board, such as zcu104: each job takes the time that "
            "`predict` predicts for a core of its DPU",
        ),
    ] = None
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous",
            help="let execute_async return immediately; on an edge board it returns when the job "
            "is finished",
        ),
    ] = False


@command(
    "shim",
    "your_board_script.py --its --own arguments",
    "--realtime zcu104 your_board_script.py",
    "resnet18_quant.py --quant_mode calib",
    allow_interspersed_args=False,
)
def shim(options: ShimOptions) -> int:
    """Run a script for the board, or for AMD's quantiser (pytorch_nndct).

    The exit status is that of the script, 130 after Ctrl-C.
    """
    from tutelage.dpu.ops.reference import load_plugins
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
    except Exception:  # of the script, printed as `python script` would print it
        sys.excepthook(*sys.exc_info())
        return FAILED
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return INTERRUPTED
    finally:  # also after a script that ends by sys.exit
        _report_lateness(vart.pace_report())
    return DONE


def _report_lateness(report: dict[str, float]) -> None:
    """Print how much a run at a board's speed was slower than the board."""
    if report["late"]:
        jobs, worst = (
            f"{report['late']} of {counted(int(report['jobs']), 'job')}",
            report["late_seconds_max"],
        )
        say(
            PROGRAM,
            f"the emulation could not keep pace in {jobs}, which ended up to "
            f"{1000 * worst:.1f} ms later than on the board",
        )
