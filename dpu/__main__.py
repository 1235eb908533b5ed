"""Command line of the emulation: `python -m dpu inspect | run | shim`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpu import cpu_ops
from dpu.arithmetic import Array
from dpu.describe import describe, lines
from dpu.engine import ENGINES, Model, load_engine
from dpu.errors import DpuError

DONE, FAILED, WRONG_USE = 0, 1, 2

CHUNK = 32
"""Images that `run` computes at once, which bounds its memory however long the input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except DpuError as error:
        return _complain(error, WRONG_USE)
    except MemoryError:
        return _complain("not enough memory for this model and input", FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def _complain(error: object, status: int) -> int:
    text = "".join(c if c.isprintable() else " " for c in str(error))
    print(f"dpu: {text}", file=sys.stderr)
    return status


def _inspect(options: argparse.Namespace) -> int:
    facts = describe(options.xmodel)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(lines(facts)))
    return DONE


def _run(options: argparse.Namespace) -> int:
    plugins = cpu_ops.load_plugins(options.plugin) if options.plugin else {}
    began = time.perf_counter()
    model = load_engine(options.xmodel, options.engine, plugins)
    loaded = time.perf_counter()
    inputs = _inputs(model, options.input)
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
    }
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        written = ", ".join(f"{path} {shape}" for path, shape in figures["outputs"].items())
        print(f"{batch} in {seconds:.3f} s with the {options.engine} engine: {written}")
    return DONE


def _named(text: str) -> tuple[str | None, Path]:
    """Split NAME=FILE; a plain FILE has no name."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and not Path(text).exists() else (None, Path(text))


def _inputs(model: Model, texts: list[str]) -> list[Array]:
    """The arrays of the model's inputs, in its order."""
    names = [op.get_name() for op in model.program.inputs]
    given: dict[str, Array] = {}
    for position, text in enumerate(texts):
        name, path = _named(text)
        if name is None:
            if len(texts) > len(names):
                raise DpuError(f"{len(texts)} inputs given, the model has {len(names)}: {names}")
            name = names[position]
        if name not in names:
            raise DpuError(f"no input {name!r}; the model has {', '.join(names)}")
        given[name] = _load(path)
    missing = [name for name in names if name not in given]
    if missing:
        raise DpuError(f"no --input for {', '.join(missing)} (write --input NAME=FILE)")
    return [given[name] for name in names]


def _load(path: Path) -> Array:
    """A float32 or int8 array from a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DpuError(f"{path}: {error.strerror or 'not a .npy file'}") from None
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError):
        raise DpuError(f"{path}: not a .npy file of numbers, or truncated") from None
    if not isinstance(array, np.ndarray):
        raise DpuError(f"{path}: a .npz archive; a .npy file is wanted")
    if array.dtype.kind != "f" and array.dtype != np.int8:
        raise DpuError(f"{path}: holds {array.dtype}; float32 or int8 is wanted")
    return array if array.dtype == np.int8 else array.astype(np.float32, copy=False)


def _targets(model: Model, texts: list[str]) -> dict[str, Path]:
    """Output name -> file."""
    names = [op.get_name() for op in model.program.outputs]
    targets: dict[str, Path] = {}
    for position, text in enumerate(texts):
        name, path = _named(text)
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
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            np.save(file, array)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        _complain(f"{path}: cannot write: {error.strerror or error}", FAILED)
        return False
    return True


def _shim(options: argparse.Namespace) -> int:
    from dpu import shim, vart

    if options.plugin:
        vart.set_plugins(cpu_ops.load_plugins(options.plugin))
    if not Path(options.script).is_file():
        return _complain(f"{options.script}: no such script", WRONG_USE)
    try:
        shim.run_script(options.script, options.arguments)
    except Exception:  # the script's own error, told as `python script` would tell it
        sys.excepthook(*sys.exc_info())
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpu",
        description="The DPU in pure software: look into .xmodel files and run them, bit for bit.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong use (a bad file is wrong use).",
    )
    commands = parser.add_subparsers(required=True, metavar="inspect | run | shim")
    _add_inspect(commands)
    _add_run(commands)
    _add_shim(commands)
    return parser


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="ops, subgraphs, fix points, workloads, memory")
    inspect.add_argument("xmodel", type=Path, metavar="X.xmodel")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(command=_inspect)


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run the whole graph on .npy files, CPU ops included")
    run.add_argument("xmodel", type=Path, metavar="X.xmodel")
    run.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="[NAME=]IN.npy",
        help="float32 (quantised on the way in) or int8, NHWC, any batch; one per input",
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


def _add_shim(commands: Any) -> None:
    shim = commands.add_parser(
        "shim", help="run an unmodified VART script on the emulation of vart and xir"
    )
    _add_plugin(shim)
    shim.add_argument("script", metavar="SCRIPT")
    shim.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG")
    shim.set_defaults(command=_shim)


def _add_plugin(parser: argparse.ArgumentParser) -> None:
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
