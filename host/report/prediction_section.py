"""Section of the latency model's errors: predicted against published speeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tutelage.host.report.content import Cell, Plot, Section, Table, svg_element


def prediction_section(results: Path) -> Section:
    """Return the section of `python -m tutelage.host.latency.fit`'s results.

    Raises
    ------
    OSError, ValueError, LookupError
        The results do not exist, or are not those of this command.
    """
    errors = json.loads((results / "latency.json").read_text(encoding="utf-8"))
    left_out, path = errors["left_out"], results / "latency.csv"
    one, many = left_out["mean"]
    dense = [row["percent"] for row in errors["python"] if row["network"] == "densenetx"]
    text = (
        f"Frames per second of {left_out['networks']} networks that AMD has published for "
        f"{', '.join(name.upper() for name in errors['boards'])}, each predicted with its whole "
        f"family left out of the fit: mean error {one:.1f} % with one thread and {many:.1f} % with "
        f"many, worst {left_out['worst'][0]:+.1f} % and {left_out['worst'][1]:+.1f} %. The only "
        f"DenseNet with published speeds (through Python) is in no fit: {min(dense):+.1f} to "
        f"{max(dense):+.1f} %. Nothing here was measured by this project."
    )
    section = Section("prediction", "Background: predicted against published", [text])
    svg = (results / "latency.svg").read_text(encoding="utf-8")
    caption = "Each family predicted by a fit without it; the band is 10 %."
    section.parts.append(Plot("latency", svg_element(svg), caption, path))
    section.parts.append(_families(errors, results / "latency.json"))
    return section


def _families(errors: dict[str, Any], path: Path) -> Table:
    rows: list[list[Cell]] = [
        [board.upper(), name, int(one["networks"]),
         *(one[k][t] for t in (0, 1) for k in ("mean", "worst"))]
        for board, found in errors["boards"].items()
        for name, one in {"all": found["left_out"], **found["families"]}.items()
    ]  # fmt: skip
    columns = ["board", "family left out", "networks", "1 thread: mean [%]", "worst [%]",
               "many: mean [%]", "worst [%]"]  # fmt: skip
    return Table(columns, rows, path)
