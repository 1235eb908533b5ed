"""Fit `tutelage.dpu.predict.latency` to AMD's published speed, and test the fit on other networks.

    python -m tutelage.host.latency.fit        # a few seconds; writes what the repository keeps

writes `dpu/predict/fitted/zcu104.toml` (the parameters and the error), `results/latency.csv` (every
network), `results/latency.json` (the errors) and `results/latency.svg`. The same table gives the
same files.

Fitted is the logarithm of predicted / published frames per second, one thread and many, each row
the same weight. Each family (all ResNets, all Inceptions, ...) is then left out in turn and
predicted by parameters that are fitted to the others. Least squares are Levenberg-Marquardt in
numpy: five parameters and 52 figures need no more, and SciPy would be a dependency for this alone.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.core.locations import RESULTS
from tutelage.core.toml_file import to_toml
from tutelage.dpu.predict import latency
from tutelage.dpu.predict.latency import Board, Parameters, Prediction, predict, read_board
from tutelage.host.latency.published import Published, published

BOARD = "zcu104"
"""The board that the published figures are of."""

FITTED = latency.FITTED / f"{BOARD}.toml"

START = Parameters(1.1, 20.0, 1000.0, 1.0, 200.0)
LOW = Parameters(1.0, 1.0, 1.0, 0.1, 1.0)
HIGH = Parameters(1.5, 200.0, 5000.0, 20.0, 2000.0)
"""Where the fit begins, and what it may not leave: what is physically plausible. The result lies
well inside."""

DIGITS = 4
"""Of a parameter that are kept; more would change nothing."""

HEADER = """\
# Written by `python -m tutelage.host.latency.fit` from host/latency/zcu104_published.csv (AMD's
# published figures, Vitis AI 2.5); dpu/predict/latency.py tells what the parameters are. left_out:
# networks whose family was left out of the fit; low and high: published time / predicted time;
# percent: of the frames per second, mean and worst. Each for one thread and for many.
"""


@dataclass(frozen=True)
class NetworkFit:
    """A published network with what the model says of it.

    Attributes
    ----------
    speed : published frames per second with one thread and with many
    fitted : by the parameters fitted to all rows
    left_out : by those fitted without its family; None for rows that are never fitted
    """

    published: Published
    fitted: tuple[float, float]
    left_out: tuple[float, float] | None

    @property
    def speed(self) -> tuple[float, float]:
        return self.published.one, self.published.many

    def deviation(self, thread: int) -> float:
        """Of the frames per second that its family's fit did not know, in percent."""
        predicted = self.left_out or self.fitted
        return 100 * (predicted[thread] / self.speed[thread] - 1)


def fit(rows: Sequence[tuple[Prediction, tuple[float, float]]]) -> Parameters:
    """The parameters with the least squared logarithmic error.

    Parameters
    ----------
    rows : networks, and their frames per second with one thread and with many
    """

    def errors(at: Array) -> Array:
        given = _parameters(at)
        return np.array(
            [math.log(a / b) for row, speed in rows
             for a, b in zip(_speed(row, given), speed, strict=True)]
        )  # fmt: skip

    return _parameters(_least_squares(errors, _position(START)))


def _speed(prediction: Prediction, given: Parameters) -> tuple[float, float]:
    """Frames per second with one thread and with many."""
    board = replace(prediction.board, parameters=given)
    known = Prediction(board, prediction.operations, prediction.works)
    known.__dict__["counts"] = prediction.counts  # they hold for all parameters
    return known.fps(1), known.fps()


def _position(given: Parameters) -> Array:
    """Parameters as numbers without bounds."""
    low, high, at = (np.array(astuple(p)) for p in (LOW, HIGH, given))
    return np.asarray(np.log((at - low) / (high - at)))


def _parameters(position: Array) -> Parameters:
    low, high = (np.array(astuple(p)) for p in (LOW, HIGH))
    values = (low + (high - low) / (1 + np.exp(-position))).tolist()
    return Parameters(*(float(f"{value:.{DIGITS + 4}g}") for value in values))


def _least_squares(errors: Callable[[Array], Array], at: Array, rounds: int = 60) -> Array:
    """Levenberg-Marquardt with differences in place of derivatives."""
    step, damping, found = 1e-4, 1e-2, errors(at)
    for _ in range(rounds):
        columns = [(errors(at + step * unit) - found) / step for unit in np.eye(len(at))]
        slope = np.stack(columns, 1)
        better = None
        for _ in range(12):
            normal = slope.T @ slope + damping * np.eye(len(at))
            trial = at - np.linalg.solve(normal, slope.T @ found)
            result = errors(trial)
            if result @ result < found @ found:
                better = trial, result
                break
            damping *= 4
        if better is None:
            return at
        gained = float(found @ found - better[1] @ better[1])
        (at, found), damping = better, damping / 3
        if gained < 1e-9:
            return at
    return at


def evaluate(table: Sequence[Published], board: Board) -> tuple[Parameters, list[NetworkFit]]:
    """Fit to all rows, and to all but each family; returns the parameters and every row."""
    known = [(predict(row.build(), board), (row.one, row.many)) for row in table]
    used = [place for place, row in enumerate(table) if not row.why_not]
    families = dict.fromkeys(table[place].family for place in used)
    whole = _rounded(fit([known[place] for place in used]))
    without = {
        family: fit([known[place] for place in used if table[place].family != family])
        for family in families
    }
    rows = []
    for row, (prediction, _) in zip(table, known, strict=True):
        left_out = None if row.why_not else _speed(prediction, without[row.family])
        rows.append(NetworkFit(row, _speed(prediction, whole), left_out))
    return whole, rows


def _rounded(given: Parameters) -> Parameters:
    return Parameters(*(float(f"{value:.{DIGITS}g}") for value in astuple(given)))


def errors_of(rows: Sequence[NetworkFit]) -> dict[str, object]:
    """Mean and worst deviation of the rows, in percent, for one thread and many."""
    columns = [np.array([row.deviation(thread) for row in rows]) for thread in (0, 1)]
    return {
        "networks": len(rows),
        "mean": [round(float(np.abs(column).mean()), 1) for column in columns],
        "worst": [round(float(column[np.abs(column).argmax()]), 1) for column in columns],
    }


def summary(rows: Sequence[NetworkFit]) -> dict[str, object]:
    """The errors of what was left out, whole and by family, and of what is never fitted."""
    left_out = [row for row in rows if row.left_out]
    families = dict.fromkeys(row.published.family for row in left_out)
    by_family = {
        family: errors_of([row for row in left_out if row.published.family == family])
        for family in families
    }
    reasons = dict.fromkeys(row.published.why_not for row in rows if row.published.why_not)
    never = [
        {"why": reason, **errors_of([row for row in rows if row.published.why_not == reason])}
        for reason in reasons
    ]
    return {"left_out": errors_of(left_out), "families": by_family, "never_fitted": never}


def write_parameters(given: Parameters, rows: Sequence[NetworkFit], path: Path) -> None:
    """The file that `tutelage.dpu.predict.latency.read_board` reads."""
    left_out = [row for row in rows if row.left_out]
    found = errors_of(left_out)
    ratios = [
        [row.left_out[thread] / row.speed[thread] for row in left_out if row.left_out]
        for thread in (0, 1)
    ]  # published time / predicted time
    table = {
        "parameters": {field.name: getattr(given, field.name) for field in fields(given)},
        "left_out": {
            "networks": found["networks"],
            "low": [round(min(column), 3) for column in ratios],
            "high": [round(max(column), 3) for column in ratios],
            "mean_percent": found["mean"],
            "worst_percent": found["worst"],
        },
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + to_toml(table), encoding="utf-8")


COLUMNS = (
    "network", "release", "family", "work_GOP", "built_GOP", "one_published_fps", "one_fitted_fps",
    "one_left_out_fps", "many_published_fps", "many_fitted_fps", "many_left_out_fps",
    "not_fitted_because",
)  # fmt: skip


def write_table(rows: Sequence[NetworkFit], path: Path) -> None:
    """Every network's frames per second: published, fitted, and with its family left out."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            at = row.published
            speeds = [
                text
                for thread in (0, 1)
                for text in (
                    row.speed[thread],
                    round(row.fitted[thread], 2),
                    round(row.left_out[thread], 2) if row.left_out else "",
                )
            ]
            writer.writerow([at.name, at.release, at.family, at.gops, round(at.gops_built, 3),
                             *speeds, at.why_not])  # fmt: skip


def plot(rows: Sequence[NetworkFit], path: Path) -> None:
    """Predicted over published frames per second, each family's as predicted without it."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "latency"  # the same figures give the same file
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    families = dict.fromkeys(row.published.family for row in rows if row.left_out)
    groups = {family: [r for r in rows if r.left_out and r.published.family == family]
              for family in families}  # fmt: skip
    groups["not fitted"] = [row for row in rows if not row.left_out]
    for thread, (axis, title) in enumerate(zip(axes, ("one thread", "many threads"), strict=True)):
        ends = np.array([10.0, 6000.0])
        axis.fill_between(ends, ends * 0.9, ends * 1.1, color="0.9", label="± 10 %")
        axis.plot(ends, ends, color="0.6", linewidth=0.8)
        for name, group in groups.items():
            published = [row.speed[thread] for row in group]
            predicted = [(row.left_out or row.fitted)[thread] for row in group]
            marker = "x" if name == "not fitted" else "o"
            axis.plot(published, predicted, marker, markersize=5, label=name)
        axis.set(title=title, xscale="log", yscale="log", xlim=ends, ylim=ends,
                 xlabel="published, frames/s", ylabel="predicted, frames/s")  # fmt: skip
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Fit, and write what the repository keeps."""
    given, rows = evaluate(published(), read_board(BOARD, fitted=False))
    found = summary(rows)
    write_parameters(given, rows, FITTED)
    write_table(rows, RESULTS / "latency.csv")
    text = json.dumps(found, indent=1)
    (RESULTS / "latency.json").write_text(text + "\n", encoding="utf-8")
    plot(rows, RESULTS / "latency.svg")
    print(text)


if __name__ == "__main__":
    main()
