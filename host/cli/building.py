"""Conversion of a trained student to a model that runs: `tutelage export | compile`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.core.errors import DONE
from tutelage.core.text import counted, shown
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions, NetworkOptions
from tutelage.host.cli.output_file import write_file
from tutelage.host.cli.printing import note, print_json, print_lines

if TYPE_CHECKING:
    from tutelage.dpu.compiler.board.graph import BoardModel


@dataclass(frozen=True, kw_only=True)
class ExportOptions(NetworkOptions, JsonOptions):
    """Options of `export`."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="directory of a quantised run, or its student.safetensors"
        ),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="model directory to write")]
    images: Annotated[
        int, typer.Option(min=0, help="number of test images to compare the logits of; 0: all")
    ] = 1000
    clip: Annotated[
        bool,
        typer.Option("--clip", help="add layers that clip activations of fewer than 8 bits"),
    ] = False
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="allow operations that the DPU leaves to the CPU")
    ] = False


@command(
    "export",
    "runs/qkd -o models/mine",
    "runs/w4a4 -o models/narrow --clip",
    "runs/ptq -o models/ptq --network net.py:Net",
)
def export(options: ExportOptions) -> int:
    """Write a model directory.

    The directory has quantised.xmodel, model.onnx and model.toml.
    """
    from tutelage.host.export.model_directory import export as run

    output = options.output
    figures = run(
        options.checkpoint, output, options.images, options.clip, options.allow_cpu,
        network=options.network,
    )  # fmt: skip
    if options.json:
        print_json(figures)
        return DONE
    print_lines(
        f"{output}: quantised.xmodel, model.onnx, model.toml",
        f"  {counted(figures['images_compared'], 'test image')}: every logit of the file equals "
        "the student's",
        f"  {_of_classes(figures)}; the ONNX file has the same class for "
        f"{figures['onnx_same_class']:.2f} %",
        *(f"  on the CPU: {op}: {reason}" for op, reason in figures["on_cpu"].items()),
        f"  next: tutelage compile {shlex.quote(str(output))}",
    )
    return DONE


def _of_classes(figures: dict[str, Any]) -> str:
    if "accuracy_compared" in figures:
        return f"accuracy {figures['accuracy_compared']:.2f} % of them"
    return f"the float network's class for {figures['agreement_compared']:.2f} % of them"


@dataclass(frozen=True, kw_only=True)
class CompileOptions(JsonOptions):
    """Options of `compile`."""

    model: Annotated[
        Path, typer.Argument(help="quantised .xmodel, or directory with quantised.xmodel")
    ]
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="directory to write; default: the directory of the model"
        ),
    ] = None
    target: Annotated[
        str,
        typer.Option(
            help="name of a board, `emulator`, or the fingerprint of a DPU such as "
            "0x101000016010407; default: zcu104"
        ),
    ] = ""
    compiler: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="`own` for this project's compiler; `vai_c_xir`, or its path, for AMD's",
        ),
    ] = "own"
    image: Annotated[
        str | None,
        typer.Option(help="container image of docker or podman that has AMD's compiler"),
    ] = None
    arch: Annotated[
        Path | None, typer.Option(help="arch.json of the board's DPU, for AMD's compiler")
    ] = None
    timeout: Annotated[
        float, typer.Option(min=0, help="time limit of AMD's compiler, s; 0: no limit")
    ] = 3600
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="print for each layer its tiles, bytes and cycles, and what stays on the chip",
        ),
    ] = False
    banks: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="draw the contents of the DPU's banks over time"),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only print the compiler's command line")
    ] = False


@command(
    "compile",
    "models/mine --target zcu104",
    "models/mine --explain --banks banks.svg",
    "models/mine --compiler vai_c_xir --dry-run",
    "models/mine -o out --target emulator",
)
def compile_(options: CompileOptions) -> int:
    """Compile a quantised model for a board's DPU, or for the emulator.

    The instructions for a board's DPU are generated without AMD's tools; --compiler vai_c_xir uses
    AMD's compiler instead. No file of this compiler has run on a real DPU yet.
    """
    from tutelage.host.compile import compilation as compiling

    settings = compiling.CompileOptions(
        options.target,
        "" if options.image and options.compiler == "own" else options.compiler,
        options.image,
        options.arch,
        options.timeout,
    )
    plan = compiling.plan_compile(options.model, options.output, settings)
    if options.dry_run:
        _print_command(plan.command, options.json)
        return DONE
    result = compiling.compile_model(plan, note)
    figures, own = result.figures, result.own
    if (options.explain or options.banks) and own is None:
        note("--explain and --banks have no effect without this project's compiler for boards")
    if options.banks and own is not None:
        from tutelage.dpu.inspect.banks_drawing import banks_svg

        write_file(options.banks, banks_svg(own.parts).encode())
    if options.json:
        print_json(_with_plan(figures, own, options.explain))
        return DONE
    print_lines(
        f"{figures['model']}: compiled for {figures['target']} by {figures['compiler']}",
        *(f"  {fact}" for fact in figures["checks"]),
        *(_on_cpu_lines(own) if own else []),
        *(_plan_lines(own) if own and options.explain else []),
        f"  next: {figures['next']}",
    )
    return DONE


def _with_plan(figures: dict[str, Any], own: BoardModel | None, explain: bool) -> dict[str, Any]:
    if own is None:
        return figures
    found = {**figures, "on_cpu": own.on_cpu}
    if explain:
        from tutelage.dpu.inspect.plan import plan_facts

        found["subgraphs"] = [plan_facts(part) for part in own.parts]
    return found


def _on_cpu_lines(own: BoardModel) -> list[str]:
    return [f"  on the CPU: {shown(op)}: {reason}" for op, reason in own.on_cpu.items()]


def _plan_lines(own: BoardModel) -> list[str]:
    from tutelage.dpu.inspect.plan import plan_lines

    return [line for part in own.parts for line in ["", *plan_lines(part), ""]]


def _print_command(command: list[str] | None, as_json: bool) -> None:
    if as_json:
        print_json({"command": command})
    elif command is None:
        note("this project's compiler runs in this process; there is no command to print")
    else:
        print_lines(shlex.join(command))
