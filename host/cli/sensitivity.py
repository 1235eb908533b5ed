"""Sensitivity of each layer to rounding: `tutelage sensitivity`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from tutelage.core.errors import DONE
from tutelage.core.text import counted
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions, NetworkOptions
from tutelage.host.cli.printing import print_json, print_lines


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(NetworkOptions, JsonOptions):
    """Options of `sensitivity`."""

    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="directory of a quantised run, its student.safetensors, or the configuration "
            "RUN.toml of a run, whose network is then quantised without training",
        ),
    ]
    images: Annotated[
        int,
        typer.Option(min=1, help="number of test images, each run twice for each quantiser"),
    ] = 64
    rows: Annotated[
        int, typer.Option(min=0, help="number of layers to show, the most harmful first; 0: all")
    ] = 20
    changes: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="TABLE.KEY=VALUE", help="override a value of RUN.toml; repeatable"
        ),
    ] = field(default_factory=list)


@command("sensitivity", "runs/qat", "ptq.toml --set quantisation.weights=4 --rows 5")
def sensitivity(options: SensitivityOptions) -> int:
    """Show layers by the harm of their rounding.

    "alone": only this rounding is applied; "without": all the others are. Each gives the ratio of
    the outputs to their error in dB and the percentage of images that keep their class, compared
    with the same weights in float. Labels are not used.
    """
    from tutelage.host.export.sensitivity_run import student_and_images
    from tutelage.host.quantise.ptq.sensitivity import sensitivity as report
    from tutelage.host.quantise.ptq.sensitivity import table

    student, images = student_and_images(
        options.run, options.changes, options.images, options.network
    )
    found = report(student, images)
    if options.json:
        print_json(asdict(found))
        return DONE
    rows = table(found, options.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    whole = found.whole
    print_lines(
        f"{counted(found.images, 'image')}, everything rounded: {whole.sqnr:.1f} dB, "
        f"{whole.same_class:.1f} % have the same class as in float",
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
    )
    return DONE
