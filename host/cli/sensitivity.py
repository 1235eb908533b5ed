"""What rounding costs, layer by layer: `tutelage sensitivity`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from tutelage.core.errors import DONE
from tutelage.core.text import counted
from tutelage.host.cli.command import command
from tutelage.host.cli.options import JsonOptions
from tutelage.host.cli.printing import print_json, print_lines


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(JsonOptions):
    """Of `sensitivity`."""

    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="a quantised run's directory, its student.safetensors, or a run's RUN.toml, which "
            "is then quantised without training",
        ),
    ]
    images: Annotated[
        int, typer.Option(min=1, help="test images; each passes twice for each quantiser")
    ] = 64
    rows: Annotated[int, typer.Option(min=0, help="the most harmful ones; 0: all")] = 20
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="change RUN.toml; repeatable"),
    ] = field(default_factory=list)


@command("sensitivity", "runs/ptq", "ptq.toml --set quantisation.weights=4 --rows 5")
def sensitivity(options: SensitivityOptions) -> int:
    """Show layers in the order of what their rounding costs.

    "alone" is the network with this one rounding, "without" with all others: the signal of its
    outputs over their error in dB, and how many percent of the images keep their class. Both are
    compared with the same weights in float; labels are not used.
    """
    from tutelage.host.export.sensitivity_run import student_and_images
    from tutelage.host.quantise.ptq.sensitivity import sensitivity as report
    from tutelage.host.quantise.ptq.sensitivity import table

    student, images = student_and_images(options.run, options.changes, options.images)
    found = report(student, images)
    if options.json:
        print_json(asdict(found))
        return DONE
    rows = table(found, options.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    whole = found.whole
    print_lines(
        f"{counted(found.images, 'image')}, everything rounded: {whole.sqnr:.1f} dB, the class of "
        f"{whole.same_class:.1f} % as in float",
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
    )
    return DONE
