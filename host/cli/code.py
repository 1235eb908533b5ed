"""Code of the DPU: `tutelage disasm | asm`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.core.errors import DONE, TutelageError, UnsortedWarning, contradictions
from tutelage.core.files import read_bounded
from tutelage.core.text import counted
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions, xmodel_argument
from tutelage.host.cli.output_file import write_file
from tutelage.host.cli.printing import print_json, print_lines

if TYPE_CHECKING:
    from tutelage.dpu.inspect.code import LayerCode, PartCode


@dataclass(frozen=True, kw_only=True)
class DisasmOptions(JsonOptions):
    """Options of `disasm`."""

    xmodel: Annotated[Path, xmodel_argument("file that is compiled for a board")]
    layer: Annotated[
        str, typer.Option(metavar="NAME", help="only layers whose name contains this")
    ] = ""
    part: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="only this DPU subgraph, counted from 0"),
    ] = None
    summary: Annotated[
        bool,
        typer.Option("--summary", help="print a row for each layer instead of the instructions"),
    ] = False
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="draw when each of the four engines works or waits"),
    ] = None


@command(
    "disasm",
    "board.xmodel --summary",
    "board.xmodel --layer conv1 --svg engines.svg",
    "board.xmodel --part 0 > code.s",
)
def disasm(options: DisasmOptions) -> int:
    """Show the DPU code of a compiled file.

    The code is executed to find the layer of each instruction, which takes some seconds for a large
    network. Cycles are simulated.
    """
    from tutelage.dpu.inspect.engines_drawing import engines_svg

    parts = _parts(options)
    chosen = [[each for each in part.layers if options.layer in each.name] for part in parts]
    if options.layer and not any(chosen):
        raise TutelageError(f"{options.xmodel}: no layer has {options.layer!r} in its name")
    if options.svg:
        write_file(options.svg, engines_svg(parts).encode())
    if options.json:
        print_json({"file": str(options.xmodel), "subgraphs": [
            _facts(part, layers, options) for part, layers in zip(parts, chosen, strict=True)
        ]})  # fmt: skip
        return DONE
    for part, layers in zip(parts, chosen, strict=True):
        if layers:
            print_lines(*_lines(part, layers, options))
    return DONE


def _parts(options: DisasmOptions) -> list[PartCode]:
    from tutelage.dpu.inspect.code import analyse_part, compiled_parts
    from tutelage.dpu.xmodel.graph import Graph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsortedWarning)
        graph = Graph.deserialize(options.xmodel)
    with contradictions(str(options.xmodel)):
        parts = compiled_parts(graph)
        if options.part is not None and options.part >= len(parts):
            raise TutelageError(
                f"--part {options.part}: {options.xmodel} has "
                f"{counted(len(parts), 'DPU subgraph')}, counted from 0"
            )
        return [analyse_part(p) for p in (parts if options.part is None else [parts[options.part]])]


def _places(part: PartCode, layers: list[LayerCode]) -> list[int]:
    """Return the indices of the instructions of some layers."""
    names = {layer.name for layer in layers}
    numbers = part.attribution.layers
    return [place for place, number in enumerate(numbers) if part.name_of(number) in names]


def _facts(part: PartCode, layers: list[LayerCode], options: DisasmOptions) -> dict[str, object]:
    facts = {**part.facts(), "layers": [layer.facts() for layer in layers]}
    if not options.summary:
        facts["code"] = part.instruction_facts(_places(part, layers))
    return facts


def _lines(part: PartCode, layers: list[LayerCode], options: DisasmOptions) -> list[str]:
    from tutelage.dpu.inspect.code_listing import assembly_lines, summary_lines

    if options.summary:
        return summary_lines(part, layers)
    return assembly_lines(part, _places(part, layers))


@dataclass(frozen=True, kw_only=True)
class AsmOptions(JsonOptions):
    """Options of `asm`."""

    source: Annotated[
        Path,
        typer.Argument(metavar="CODE.s", help="assembly of one DPU subgraph, printed by `disasm`"),
    ]
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="CODE.bin", help="file for the code, as in mc_code"),
    ]
    isa: Annotated[str, typer.Option(help="instruction set: isa1, or isa0 of Vitis AI 1.x")] = (
        "isa1"
    )


@command("asm", "code.s -o code.bin")
def asm(options: AsmOptions) -> int:
    """Assemble DPU code."""
    from tutelage.dpu.isa.assembly import assemble
    from tutelage.dpu.isa.encoding import decode, encode
    from tutelage.dpu.isa.formats import ISAS

    isa = {isa.name.lower(): isa for isa in ISAS.values()}.get(options.isa.lower())
    if isa is None:
        raise TutelageError(f"--isa {options.isa}: not one of isa0, isa1")
    text = _source(options.source)
    with contradictions(str(options.source)):
        instructions = assemble(text.split("\n"), isa)
        code = encode(instructions)
        decode(code, isa)  # checks that there is one END, at the end
    write_file(options.output, code)
    if options.json:
        print_json({"output": str(options.output), "isa": isa.name, "bytes": len(code),
                    "instructions": len(instructions)})  # fmt: skip
    else:
        print_lines(f"{options.output}: {len(instructions):,} instructions, {len(code):,} bytes")
    return DONE


def _source(path: Path) -> str:
    from tutelage.dpu.isa.assembly import MAX_SOURCE

    try:
        found = read_bounded(path, MAX_SOURCE)
    except OSError as error:
        raise TutelageError(f"{path}: cannot read: {error.strerror}") from error
    if len(found) > MAX_SOURCE:
        raise TutelageError(f"{path}: more than the limit of {MAX_SOURCE:,} bytes")
    return found.decode("utf-8", "replace")
