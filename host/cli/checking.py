"""Check of a network before training: `tutelage check`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.core.errors import DONE, FAILED, TutelageError
from tutelage.core.toml_file import parse_value
from tutelage.host.cli.command import SEVERAL, command
from tutelage.host.cli.options import BoardOptions, JsonOptions
from tutelage.host.cli.printing import print_json, print_lines


@dataclass(frozen=True, kw_only=True)
class TrainedOptions:
    """Options of a trained network and images, for the accuracy after quantisation."""

    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="weights of a trained network: .safetensors, .pth, .pt or .bin"
        ),
    ] = ""
    part: Annotated[
        str, typer.Option(help="part of --weights to load, if the file has several")
    ] = ""
    skip: Annotated[
        list[str],
        typer.Option(
            metavar="PREFIX",
            help="prefix of tensors not to load from --weights, such as fc.; repeatable",
        ),
    ] = field(default_factory=list)
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="directory of images, where CLASS/IMAGE is labelled, on which to compare the "
            "network with its quantised form",
        ),
    ] = None
    mean: Annotated[
        list[float],
        SEVERAL,
        typer.Option(metavar="M...", help="mean of the images by channel, for pixels in 0..1"),
    ] = field(default_factory=list)
    std: Annotated[
        list[float],
        SEVERAL,
        typer.Option(
            metavar="S...", help="standard deviation of the images by channel, for pixels in 0..1"
        ),
    ] = field(default_factory=list)
    limit: Annotated[
        int,
        typer.Option(min=1, help="largest number of images to calibrate with, and to compare on"),
    ] = 200


@dataclass(frozen=True, kw_only=True)
class CheckOptions(TrainedOptions, BoardOptions, JsonOptions):
    """Options of `check`."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK | X.xmodel | MODEL | RUN.toml",
            help="a network: MODULE:FUNCTION, FILE.py:FUNCTION or a preset; a quantised or "
            "compiled file, or its model directory; or a planned run of `tutelage train`",
        ),
    ]
    input: Annotated[
        str,
        typer.Option(
            metavar="CxHxW",
            help="channels, height, width of the images; default: those of the run, else 3x32x32",
        ),
    ] = ""
    option: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE", help="keyword argument of the network's function; repeatable"
        ),
    ] = field(default_factory=list)
    replace: Annotated[
        str,
        typer.Option(
            metavar="OLD=NEW,...",
            help="activations to exchange, such as silu=hardswish,gelu=relu",
        ),
    ] = ""
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="accept operations that the DPU leaves to the CPU")
    ] = False


@command(
    "check",
    "mine.py:Net --input 3x224x224",
    "torchvision.models:resnet18 --input 3x224x224 --json",
    "mine.py:make --option width=32 --weights net.pth --images photos",
    "qat.toml",
    "net.xmodel --board kv260",
)
def check(options: CheckOptions) -> int:
    """Check whether the DPU supports a network, and predict its cost.

    Every refusal names the place in your code and a remedy. The compiler for boards decides which
    operations run on the DPU. Exit status 0: accepted, 1: not accepted, 2: cannot be checked.
    """
    from tutelage.host.check.check import check as run
    from tutelage.host.check.listing import check_lines
    from tutelage.host.check.subject import Request

    facts = run(
        Request(
            options.model,
            options.input,
            options.weights,
            options.part,
            options.skip,
            _pairs(options.option, "--option"),
            options.images,
            options.mean,
            options.std,
            options.limit,
            options.board,
            options.allow_cpu,
            _replacements(options.replace),
        )
    )
    if options.json:
        print_json(facts)
    else:
        print_lines(*check_lines(facts))
    return DONE if facts["accepted"] else FAILED


def _pairs(texts: list[str], option: str) -> dict[str, Any]:
    """Return the pairs of KEY=VALUE texts; a value is in TOML's notation, or a bare word."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise TutelageError(f"{option} {text}: give KEY=VALUE")
        found[key] = parse_value(value)
    return found


def _replacements(text: str) -> dict[str, str]:
    pairs = _pairs([pair.strip() for pair in text.split(",") if pair.strip()], "--replace")
    return {old: str(new) for old, new in pairs.items()}
