"""The plot of `tutelage explore`: capacity over cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.host.explore.forecast import FITS, costs

if TYPE_CHECKING:
    from tutelage.host.explore.exploration import Found
    from tutelage.host.explore.space import Spec

CAPACITY_TEXTS = {"macs": "MACs", "parameters": "parameters", "accuracy": "accuracy"}


def judged_by(spec: Spec) -> str:
    """Return the name of the images on which trained candidates are compared."""
    return "validation images" if spec.config.data.validates else "test set"


def draw(found: Found, path: Path) -> None:
    """Plot the capacity of all candidates over their cost, with the front and the budget.

    Parameters
    ----------
    found : the result of a search
    path : of the SVG file to write
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    budget, colours = found.budget, {"sure": "C2", "predicted": "C0", "maybe": "C1", "no": "0.7"}
    drawn, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for fits in [each for each in (*FITS, "") if any(f.fits == each for f in found.forecasts)]:
        these = [each for each in found.forecasts if each.fits == fits]
        axes.scatter(
            [costs(each, budget)[0] for each in these],
            [getattr(each, found.capacity) for each in these],
            s=9, color=colours.get(fits, "0.6"), linewidths=0, rasterized=len(these) > 2000,
            label={"": "candidates", "no": "over the budget"}.get(fits, f"fits: {fits}"),
        )  # fmt: skip
    front = sorted((costs(each, budget)[0], getattr(each, found.capacity)) for each in found.front)
    # With two costs the front is a surface; its projection is drawn as points.
    line = "-" if len(costs(found.front[0], budget)) == 1 else ""
    x, y = zip(*front, strict=True)
    axes.plot(x, y, f"o{line}", color="black", linewidth=0.9, markersize=4,
              markerfacecolor="none", label="front")  # fmt: skip
    label, limit = _axis(found)
    if limit is not None:
        axes.axvline(limit, color="C3", linestyle="--", linewidth=1, label="budget")
    axes.set(
        xscale="log", xlabel=label, yscale="linear" if found.capacity == "accuracy" else "log",
        ylabel=_capacity_label(found),
    )  # fmt: skip
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "1235" else "")  # plain numbers
    axes.grid(which="both", linewidth=0.3)
    axes.legend(fontsize=8, loc="lower right")
    drawn.savefig(path)
    plt.close(drawn)


def _axis(found: Found) -> tuple[str, float | None]:
    """Return the label of the cost that is drawn, the first of `costs`, and its limit."""
    budget = found.budget
    if budget.latency_ms is not None or (budget.fps is None and budget.energy_mj is None):
        return f"predicted latency on {found.board} with one thread, ms", budget.latency_ms
    if budget.fps is not None:
        return f"predicted ms per frame at full throughput on {found.board}", 1e3 / budget.fps
    return "estimated energy of the whole board, mJ per frame", budget.energy_mj


def _capacity_label(found: Found) -> str:
    if found.capacity == "accuracy":
        return f"top-1 after a short float training, % of the {judged_by(found.spec)}"
    return f"{CAPACITY_TEXTS[found.capacity]} (not an accuracy)"
