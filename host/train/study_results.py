"""Results of a study: accuracies by method and bit width, as a table and as a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.host.train.methods import METHODS
from tutelage.host.train.student_kinds import STUDENT_KINDS


def summary(rows: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], list[float]]:
    """Return accuracies in percent by (method, "W4A4"), one per seed.

    Float runs have the bits "float"; those of teachers have the cell's name as their method.
    """
    return {key: list(values.values()) for key, values in _by_seed(rows).items()}


def _by_seed(rows: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], dict[str, float]]:
    """Return accuracies in percent by (method, bits) as in `summary`, and by seed."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, row in rows.items():
        bits = f"W{row['weights']}A{row['activations']}" if row["weights"] else "float"
        method = name.rpartition("-s")[0] or name if bits == "float" else row["method"]
        method = name if name.startswith("float-teacher") else method
        found.setdefault((method, bits), {})[row["seed"]] = float(row["accuracy"])
    return found


def differences(
    rows: Mapping[str, Mapping[str, str]], least: int = 2, base: str = "qat"
) -> dict[tuple[str, str], list[float]]:
    """Return accuracies less those of a method with the same bits and seed, in percentage points.

    Parameters
    ----------
    rows : rows of study.csv by the cells' names
    least : methods that share fewer seeds with the base at a bit width are left out there
    base : method to compare the others with
    """
    found = _by_seed(rows)
    pairs = {
        (method, bits): [value - found[base, bits][seed] for seed, value in values.items()
                         if seed in found[base, bits]]
        for (method, bits), values in found.items() if method != base and (base, bits) in found
    }  # fmt: skip
    return {key: values for key, values in pairs.items() if len(values) >= least}


def markdown(rows: Mapping[str, Mapping[str, str]], images: str = "test") -> str:
    """Return a Markdown table of mean and standard deviation over the seeds, in percent.

    A second table has the differences to `qat`, if both have several seeds.

    Parameters
    ----------
    rows : rows of study.csv by the cells' names
    images : the images that the accuracies are for, "test" or "validation"
    """
    lines = [] if images == "test" else [f"Top-1 of the {images} images:", ""]
    lines += _lines(accuracy_cells(rows))
    if (paired := difference_cells(rows))[1:]:
        lines += ["", f"{DIFFERENCES}:", ""]
        lines += _lines(paired)
    return "\n".join(lines) + "\n"


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return [rows[0], "|" + " --- |" * len(cells[0]), *rows[1:]]


DIFFERENCES = "Difference to `qat` with the same seed, mean ± standard error"
"""Caption of the second table."""


def accuracy_cells(rows: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Return the first table of `markdown`: a row of headings, then one for each method."""
    return _cells(summary(rows), "%", _mean)


def difference_cells(rows: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Return the second table of `markdown`; only headings if nothing can be compared."""
    return _cells(differences(rows), "points", _difference)


def _cells(
    found: Mapping[tuple[str, str], list[float]], unit: str, text: Callable[[list[float]], str]
) -> list[list[str]]:
    columns = sorted({bits for _, bits in found}, key=lambda b: (b != "float", b))
    return [
        ["method", *(f"{bits} [{unit}]" for bits in columns)],
        *([method, *(text(found.get((method, bits), [])) for bits in columns)]
          for method in dict.fromkeys(method for method, _ in found)),
    ]  # fmt: skip


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} ({len(values)})"


def _difference(values: list[float]) -> str:
    if not values:
        return ""
    return f"{statistics.mean(values):+.2f} ± {standard_error(values):.2f} ({len(values)})"


def plot(rows: Mapping[str, Mapping[str, str]], path: Path, images: str = "test") -> None:
    """Write the figure of `figure` to a file, in the format of its suffix."""
    import matplotlib.pyplot as plt

    drawn = figure(rows, images)
    drawn.savefig(path)
    plt.close(drawn)


def figure(rows: Mapping[str, Mapping[str, str]], images: str = "test") -> Any:
    """Return a matplotlib figure of a study.

    Above is the accuracy by bit width, with a line for each method; a variant of a method is drawn
    if it has several bit widths, each with several seeds. Dashed lines are the float networks', and
    those above the students are named in the title. Below, if the study has `qat` and others that
    train, are the differences to `qat` with the same seed, with their standard errors.

    Parameters
    ----------
    rows, images : as for `markdown`
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    found, untrained = summary(rows), _untrained()
    paired = {key: v for key, v in differences(rows, least=1).items() if key[0] not in untrained}
    if not paired:
        drawn, above = plt.subplots(figsize=(7, 4.5), layout="constrained")
    else:
        widths = _widths(paired)
        below = 1 + 0.22 * len({method for method, _ in paired})
        places: list[Any] = [["accuracies"] * len(widths), widths]
        drawn, axes = plt.subplot_mosaic(
            places, height_ratios=[4, below], figsize=(9, 4 + below), layout="constrained"
        )
        above = axes.pop("accuracies")
        _draw_differences(axes, paired)
    _draw_accuracies(above, found)
    above.set_ylabel(f"top-1, % of the {images} {'set' if images == 'test' else 'images'}")
    return drawn


def _widths(found: Mapping[tuple[str, str], list[float]]) -> list[str]:
    """Return the bit widths, the widest first."""
    return sorted({bits for _, bits in found if bits != "float"}, reverse=True)


def _draw_accuracies(axes: Any, found: Mapping[tuple[str, str], list[float]]) -> None:
    """Draw accuracies in percent by bit width, the widest on the left."""
    widths = _widths(found)
    methods = list(dict.fromkeys(method for method, bits in found if bits != "float"))
    if len(widths) > 1:  # the others are among the differences
        lines = [m for m in methods if sum((m, w) in found for w in widths) > 1]
        single = {method for (method, _), values in found.items() if len(values) == 1}
        methods = [m for m in lines if m in METHODS or m in STUDENT_KINDS or m not in single]
        methods = methods or lines
    low, high = _axis(
        {key: v for key, v in found.items() if key[1] == "float" or key[0] in methods}
    )
    axes.set_ylim(low, high)
    for number, method in enumerate(methods):
        points = [(i, found[method, w]) for i, w in enumerate(widths) if (method, w) in found]
        means = [statistics.mean(values) for _, values in points]
        spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for _, v in points]
        at = [i + 0.05 * (number - len(methods) / 2) for i, _ in points]  # side by side
        line = axes.errorbar(at, means, spreads, marker="o", capsize=3, linewidth=0.8, label=method)
        for x, mean in zip(at, means, strict=True):
            if mean < low:  # as text at the edge, so that it does not compress the others' range
                axes.annotate(f"{method} {mean:.1f} ↓", (x, low), color=line[0].get_color(),
                              fontsize=8, va="bottom")  # fmt: skip
    above = []
    for (method, bits), values in found.items():
        mean = statistics.mean(values)
        if bits == "float" and mean > high:
            above.append(f"{method} {mean:.1f} ↑")
        elif bits == "float":
            axes.axhline(mean, linestyle="--", linewidth=0.8, color="grey")
            axes.annotate(method, (0.99, mean), fontsize=7, color="grey", ha="right", va="bottom",
                          xycoords=("axes fraction", "data"))  # fmt: skip
    axes.set_title(", ".join(above), fontsize=7, color="grey", loc="right")
    axes.set_xticks(range(len(widths)), widths)
    if methods:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)


def _draw_differences(
    axes: Mapping[str, Any], paired: Mapping[tuple[str, str], list[float]]
) -> None:
    """Draw differences to `qat` in points, with a row for each method; hollow: of one seed.

    Parameters
    ----------
    axes : of each bit width, since differences are larger with fewer bits
    paired : differences by (method, bits)
    """
    methods = list(dict.fromkeys(method for method, _ in paired))
    for number, (bits, panel) in enumerate(axes.items()):
        for row, method in enumerate(methods):
            if values := paired.get((method, bits)):
                one = len(values) == 1
                panel.errorbar(statistics.mean(values), row, fmt="o", color="C0", markersize=4,
                               xerr=None if one else standard_error(values), capsize=2,
                               linewidth=0.8, fillstyle="none" if one else "full")  # fmt: skip
        panel.axvline(0, linewidth=0.8, color="grey")
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.set_yticks(range(len(methods)), methods if number == 0 else [], fontsize=8)
        panel.grid(axis="y", linewidth=0.3)
        panel.set_title(bits, fontsize=8)
    panel.figure.supxlabel("difference to qat, points; hollow: one seed", fontsize=9)


def standard_error(values: list[float]) -> float:
    """Return the standard error of the mean of two or more values."""
    return statistics.stdev(values) / math.sqrt(len(values))


def _untrained() -> set[str]:
    """Return the methods without training, whose accuracies can be far below the others'."""
    return {name for name, method in METHODS.items() if not method.phases}


def _axis(found: Mapping[tuple[str, str], list[float]]) -> tuple[float, float]:
    """Return limits for the students of methods that train, and for others not far below."""
    untrained = _untrained()
    trained, others = [], []
    for (method, _), values in found.items():
        if method in untrained:
            others += values
        elif not method.startswith("float-teacher"):
            trained += values
    values = trained or others or [value for values in found.values() for value in values]
    low, high = min(values), max(values)
    low = min([low, *(value for value in others if value > low - (high - low) / 5)])
    return low - 0.5, high + 0.5
