"""Before training: `tutelage check`."""

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
    """A trained network and images, for the accuracy after quantisation."""

    weights: Annotated[
        str,
        typer.Option(metavar="FILE", help="of a trained network: .safetensors, .pth, .pt, .bin"),
    ] = ""
    part: Annotated[str, typer.Option(help="of --weights, where it has several")] = ""
    skip: Annotated[
        list[str], typer.Option(metavar="PREFIX", help="tensors that --weights lacks; repeatable")
    ] = field(default_factory=list)
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="some images, CLASS/IMAGE in it is labelled: compares the network with its "
            "quantised form",
        ),
    ] = None
    mean: Annotated[
        list[float], SEVERAL, typer.Option(metavar="M...", help="of the images, pixels being 0..1")
    ] = field(default_factory=list)
    std: Annotated[
        list[float], SEVERAL, typer.Option(metavar="S...", help="of the images, as --mean")
    ] = field(default_factory=list)
    limit: Annotated[
        int, typer.Option(min=1, help="most images, each for calibration and comparison")
    ] = 200


@dataclass(frozen=True, kw_only=True)
class CheckOptions(TrainedOptions, BoardOptions, JsonOptions):
    """Of `check`."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK | X.xmodel | RUN.toml",
            help="a network: MODULE:FUNCTION, FILE.py:FUNCTION or a preset; a quantised or "
            "compiled file; or a planned run of `tutelage train`",
        ),
    ]
    input: Annotated[
        str,
        typer.Option(metavar="CxHxW", help="channels, height, width; default: the run's, else "
                     "3x32x32"),
    ] = ""  # fmt: skip
    option: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE", help="of the network's function; repeatable"),
    ] = field(default_factory=list)
    replace: Annotated[
        str,
        typer.Option(
            metavar="OLD=NEW,...", help="activations to exchange: silu=hardswish,gelu=relu"
        ),
    ] = ""
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="accept also what the DPU leaves to the CPU")
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
    """Say whether the DPU takes a network, and what it will cost.

    Every refusal has its place in your code and a remedy. The compiler for boards decides what runs
    where. Exit status 0: accepted, 1: not accepted, 2: it cannot be checked.
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
    """Read KEY=VALUE; a value is TOML's, and a bare word is a string."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not key or not equals:
            raise TutelageError(f"{option} {text}: write KEY=VALUE")
        found[key] = parse_value(value)
    return found


def _replacements(text: str) -> dict[str, str]:
    pairs = _pairs([pair.strip() for pair in text.split(",") if pair.strip()], "--replace")
    return {old: str(new) for old, new in pairs.items()}
