"""From a trained student to a model that runs: `tutelage export | compile`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tutelage.core.errors import DONE
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions
from tutelage.host.cli.printing import note, print_json, print_lines


@dataclass(frozen=True, kw_only=True)
class ExportOptions(JsonOptions):
    """Of `export`."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="a quantised run's directory, or its student.safetensors"
        ),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="model directory")]
    images: Annotated[
        int, typer.Option(min=0, help="test images whose logits are compared; 0: all")
    ] = 1000
    clip: Annotated[
        bool, typer.Option("--clip", help="add layers that clip activations below 8 bits")
    ] = False
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="export also what the DPU leaves to the CPU")
    ] = False


@command("export", "runs/qkd -o models/mine", "runs/w4a4 -o models/narrow --clip")
def export(options: ExportOptions) -> int:
    """Write a model directory.

    It has quantised.xmodel, model.onnx and model.toml.
    """
    from tutelage.host.export.model_directory import export as run

    output = options.output
    figures = run(options.checkpoint, output, options.images, options.clip, options.allow_cpu)
    if options.json:
        print_json(figures)
        return DONE
    print_lines(
        f"{output}: quantised.xmodel, model.onnx, model.toml",
        f"  {figures['images_compared']:,} test images: every logit of the file is the student's",
        f"  accuracy {figures['accuracy_compared']:.2f} % of them; the ONNX file names the same "
        f"class for {figures['onnx_same_class']:.2f} %",
        *(f"  on the CPU: {op}: {reason}" for op, reason in figures["on_cpu"].items()),
        f"  next: tutelage compile {shlex.quote(str(output))}",
    )
    return DONE


@dataclass(frozen=True, kw_only=True)
class CompileOptions(JsonOptions):
    """Of `compile`."""

    model: Annotated[
        Path, typer.Argument(help="quantised .xmodel, or a directory with quantised.xmodel")
    ]
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="directory; default: beside the model")
    ] = None
    target: Annotated[
        str, typer.Option(help="a board, or emulator; default: zcu104 where a compiler is found")
    ] = ""
    compiler: Annotated[Path | None, typer.Option(help="AMD's vai_c_xir, if not on PATH")] = None
    image: Annotated[
        str | None, typer.Option(help="container image with vai_c_xir, which docker or podman has")
    ] = None
    arch: Annotated[Path | None, typer.Option(help="arch.json of the board's DPU")] = None
    timeout: Annotated[float, typer.Option(min=0, help="most seconds; 0: no limit")] = 3600
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the compiler's command line, do nothing")
    ] = False


@command(
    "compile",
    "models/mine --target zcu104",
    "models/mine -o out --target emulator",
    "models/mine --dry-run",
)
def compile_(options: CompileOptions) -> int:
    """Compile a quantised model by AMD's compiler, or for the emulator."""
    from tutelage.host.compile import compilation as compiling

    settings = compiling.CompileOptions(
        options.target, options.compiler, options.image, options.arch, options.timeout
    )
    plan = compiling.plan_compile(options.model, options.output, settings, note)
    if options.dry_run:
        _print_command(plan.command, options.json)
        return DONE
    figures = compiling.compile_model(plan, note)
    if options.json:
        print_json(figures)
        return DONE
    print_lines(
        f"{figures['model']}: compiled for {figures['target']} by {figures['compiler']}",
        *(f"  {fact}" for fact in figures["checks"]),
        f"  next: {figures['next']}",
    )
    return DONE


def _print_command(command: list[str] | None, as_json: bool) -> None:
    if as_json:
        print_json({"command": command})
    elif command is None:
        note("the emulator's compiler runs in this process, without a command")
    else:
        print_lines(shlex.join(command))
