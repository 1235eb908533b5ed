"""Fit of `tutelage.dpu.predict.latency` to AMD's published speed, with tests on left-out networks.

    python -m tutelage.host.latency.fit        # takes some seconds

writes `dpu/isa/costs.toml` (the costs of a core), `dpu/predict/fitted/<board>.toml` for each
published board (its parameters and the error), `results/latency.csv` (every network),
`results/latency.json` (the errors) and `results/latency.svg`. The same tables give the same files.

The fit minimises the logarithm of predicted / published frames per second, for one thread and for
many, over all boards: cores and how they slow each other down are the same on each board; only the
ZCU102 has a third core. Errors larger than `HUBER` count linearly instead of quadratically, so that
outliers do not dominate. Each family (all ResNets, all Inceptions, ...) is then left out in turn,
on all boards, and predicted by parameters that are fitted to the others. Networks in Python
applications (DenseNetX among them) are never fitted; the two costs of Python come from the rows of
MNIST. The minimum is found by Levenberg-Marquardt in numpy, since nothing else needs SciPy.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.board_profile import load_profile
from tutelage.core.fixed_point import Array
from tutelage.core.locations import RESULTS
from tutelage.core.toml_file import to_toml
from tutelage.dpu.isa.costs import FITTED_COSTS, FITTED_FIELDS, Costs
from tutelage.dpu.predict import latency
from tutelage.dpu.predict.latency import (
    BOARD_PARAMETERS,
    Board,
    PythonCost,
    input_values,
    predict,
    speeds,
)
from tutelage.dpu.predict.stage_times import Counts, Parameters
from tutelage.dpu.predict.traffic import stages
from tutelage.host.latency.published import (
    BOARDS,
    MNIST,
    Published,
    PublishedPython,
    published,
    published_python,
)

HUBER = 0.02
"""Logarithmic error up to which errors count quadratically; about the typical error."""

REFERENCE_GHZ = 1.2
"""Clock of the A53 for `PIXEL_NS` and `FRAME_US`, GHz."""

DIGITS = 4
"""Significant digits of the parameters; more do not change predictions."""

THREADS = (1, None)
"""Numbers of threads in the model zoo: one, and as many as increase the speed (None)."""

_SOURCE = """\
# Written by `python -m tutelage.host.latency.fit` from host/latency/published.csv (AMD's published
"""

COSTS_HEADER = f"""\
{_SOURCE}\
# figures, Vitis AI 2.5); dpu/isa/costs.py documents the costs.
"""

HEADER = f"""\
{_SOURCE}\
# figures, Vitis AI 2.5, for the DPU and processor in `published`); dpu/predict/stage_times.py and
# latency.py document the parameters, dpu/isa/costs.toml has those of a core. left_out: networks
# whose family was left out of the fit; low and high: published time / predicted time, the range
# that predictions state; percent: mean and worst error of the frames per second. Each for one
# thread and for many.
"""


PIXEL_NS, FRAME_US = 1.5, 200.0
"""Time of the A53 at `REFERENCE_GHZ` (`Parameters.pixel_ns`, `frame_us`): assumed, not fitted. Few
published networks depend on them: if one or both are fitted, the mean error of left-out networks on
the ZCU104 is 2.6 to 2.8 % instead of 2.3 % with one thread, and 2.8 % in both cases with many."""


@dataclass(frozen=True)
class Fit:
    """The fitted parameters, see `tutelage.dpu.predict.stage_times.Parameters`."""

    array_slack: float
    load_bytes: float
    load_cycles: float
    stage_cycles: float
    shared: float
    third: float

    def parameters(self, board: str) -> Parameters:
        """Return the parameters of a board; the times of the A53 are scaled by its clock."""
        cpu = REFERENCE_GHZ / BOARDS[board].cpu_ghz
        return Parameters(
            self.costs, self.shared, self.third, _rounded(cpu * PIXEL_NS), _rounded(cpu * FRAME_US)
        )

    @property
    def costs(self) -> Costs:
        """Costs of a core, which are the same on each board."""
        return Costs(self.array_slack, self.load_bytes, self.load_cycles, self.stage_cycles)

    def rounded(self) -> Fit:
        """Return the parameters rounded to `DIGITS` digits."""
        return Fit(*map(_rounded, astuple(self)))


START = Fit(1.05, 26.0, 30.0, 1000.0, 0.4, 1.5)
LOW = Fit(1.0, 10.0, 1.0, 1.0, 0.01, 1.0)
HIGH = Fit(1.3, 32.0, 100.0, 5000.0, 1.0, 8.0)
"""Start of the fit, and its bounds, which are physically plausible values. The result is well
within them."""


@dataclass(frozen=True)
class NetworkFit:
    """A published network and the model's predictions for it.

    Attributes
    ----------
    published : the network and its published speed
    fitted : frames per second with one thread and with many, by the parameters fitted to all rows
    left_out : by the parameters fitted without its family; None for rows that are never fitted
    """

    published: Published
    fitted: tuple[float, float]
    left_out: tuple[float, float] | None

    @property
    def predicted(self) -> tuple[float, float]:
        """Frames per second from a fit that did not include the network's family."""
        return self.left_out or self.fitted

    def ratio(self, thread: int) -> float:
        """Return published time / predicted time, for one thread (0) or many (1)."""
        return self.predicted[thread] / self.published.speed[thread]

    def deviation(self, thread: int) -> float:
        """Return the error of the predicted frames per second, in percent."""
        return 100 * (self.ratio(thread) - 1)


@dataclass(frozen=True)
class Evaluation:
    """The fit and its predictions for every published row.

    Attributes
    ----------
    whole : parameters fitted to all rows
    python : costs of Python at `REFERENCE_GHZ`
    rows : rows of the model zoo
    python_rows : published speed of Python applications, and the predicted fps
    """

    whole: Fit
    python: PythonCost
    rows: list[NetworkFit]
    python_rows: list[tuple[PublishedPython, float]]

    @property
    def left_out(self) -> list[NetworkFit]:
        """Rows whose family was left out in turn."""
        return [row for row in self.rows if row.left_out]

    def board(self, name: str) -> Board:
        """Return a board with its fitted parameters."""
        return board_of(name, self.whole.parameters(name), self.python)


def board_of(name: str, given: Parameters, python: PythonCost) -> Board:
    """Return a published board with given parameters."""
    at = BOARDS[name]
    cpu = REFERENCE_GHZ / at.cpu_ghz
    scaled = PythonCost(_rounded(cpu * python.frame_us), _rounded(cpu * python.lock_us))
    profile = load_profile(name)
    return Board(name, at.clock_mhz, at.cores, at.cpus, given, scaled, {}, profile.dpu_name)


class Problem:
    """Rows to fit to, and their networks as arrays."""

    def __init__(self, table: Sequence[Published]) -> None:
        self.table = table
        networks = {row.name: row.build for row in table}
        built = [build() for build in networks.values()]
        self.counts = Counts(stages(network) for network in built)
        self.values = np.array([input_values(network) for network in built], np.float64)
        self.place = {name: place for place, name in enumerate(networks)}

    @cached_property
    def boards(self) -> list[str]:
        """Boards that have rows."""
        return list(dict.fromkeys(row.board for row in self.table))

    def speeds(self, given: Fit, rows: Sequence[Published]) -> Array:
        """Return the predicted frames per second with one thread and with many, (rows, 2)."""
        found = {}
        for name in self.boards:
            board = board_of(name, given.parameters(name), _NO_PYTHON)
            found[name] = [speeds(self.counts, self.values, board, n) for n in THREADS]
        at = [(found[row.board], self.place[row.name]) for row in rows]
        return np.array([[speed[place] for speed in both] for both, place in at])

    def fit(self, rows: Sequence[Published], start: Fit = START) -> Fit:
        """Return the parameters with the smallest loss over these rows."""
        wanted = np.log([row.speed for row in rows])

        def residuals(at: Array) -> Array:
            errors = (np.log(self.speeds(_fit_at(at), rows)) - wanted).ravel()
            # The square of this is the pseudo-Huber loss.
            huber = np.sqrt(2 * (np.sqrt(1 + (errors / HUBER) ** 2) - 1))
            return np.asarray(np.sign(errors) * HUBER * huber)

        return _fit_at(_least_squares(residuals, _position(start)))


_NO_PYTHON = PythonCost(1.0, 1.0)


def _position(given: Fit) -> Array:
    """Return bounded parameters as unbounded numbers, by the logit function."""
    low, high, at = (np.array(astuple(p)) for p in (LOW, HIGH, given))
    return np.asarray(np.log((at - low) / (high - at)))


def _fit_at(position: Array) -> Fit:
    low, high = (np.array(astuple(p)) for p in (LOW, HIGH))
    return Fit(*(low + (high - low) / (1 + np.exp(-position))).tolist())


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _least_squares(errors: Callable[[Array], Array], at: Array, rounds: int = 60) -> Array:
    """Minimise the sum of squared errors by Levenberg-Marquardt with finite differences."""
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


def evaluate(table: Sequence[Published]) -> tuple[Fit, list[NetworkFit]]:
    """Fit to all rows, and to all but each family; return the parameters and every row."""
    problem = Problem(table)
    used = [row for row in table if not row.why_not]
    whole = problem.fit(used).rounded()
    fitted = problem.speeds(whole, table)
    left_out: dict[Published, tuple[float, float]] = {}
    for family in dict.fromkeys(row.family for row in used):
        of = [row for row in used if row.family == family]
        given = problem.fit([row for row in used if row.family != family], whole)
        left_out |= zip(of, map(_pair, problem.speeds(given, of)), strict=True)
    rows = [
        NetworkFit(row, _pair(speed), left_out.get(row))
        for row, speed in zip(table, fitted, strict=True)
    ]
    return whole, rows


def _pair(speed: Array) -> tuple[float, float]:
    one, many = speed.tolist()
    return one, many


def python_cost(whole: Fit, rows: Iterable[PublishedPython]) -> PythonCost:
    """Return the costs of Python, the mean over the rows of MNIST, whose releases differ by 10 %.

    With one thread it is the time of a frame beside the job, with many the interpreter's lock is
    the bottleneck.
    """
    costs: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        if row.name != MNIST:
            continue
        board = board_of(row.board, whole.parameters(row.board), _NO_PYTHON)
        one = row.threads == 1
        job = predict(row.build(), board).job_seconds if one else 0.0
        clock = BOARDS[row.board].cpu_ghz / REFERENCE_GHZ
        costs[one].append(1e6 * (1 / row.fps - job) * clock)
    means = [float(np.exp(np.mean(np.log(costs[one])))) for one in (True, False)]
    return PythonCost(*map(_rounded, means))


def evaluate_all() -> Evaluation:
    """Evaluate all published rows; needs PyTorch for DenseNetX."""
    whole, rows = evaluate(published())
    table = published_python()
    python = python_cost(whole, table)
    found = Evaluation(whole, python, rows, [])
    for row in table:
        prediction = predict(row.build(), found.board(row.board))
        found.python_rows.append((row, prediction.python_fps(row.threads)))
    return found


# -- errors -----------------------------------------------------------------------------------


def errors_of(rows: Sequence[NetworkFit]) -> dict[str, Any]:
    """Return mean and worst error of the rows, in percent, for one thread and for many."""
    columns = [np.array([row.deviation(thread) for row in rows]) for thread in (0, 1)]
    return {
        "networks": len(rows),
        "mean": [round(float(np.abs(column).mean()), 1) for column in columns],
        "worst": [round(float(column[np.abs(column).argmax()]), 1) for column in columns],
    }


def percent_inside(
    rows: Sequence[NetworkFit], others: Callable[[Published, Published], bool]
) -> float:
    """Return the percentage of published values in the range of the other rows' errors.

    That is the range that predictions would state without the row.

    Parameters
    ----------
    rows : rows whose family was left out in turn
    others : function that returns whether the second row is among the other rows of the first
    """
    inside = 0
    for row in rows:
        for thread in (0, 1):
            known = [o.ratio(thread) for o in rows if others(row.published, o.published)]
            inside += min(known) <= row.ratio(thread) <= max(known)
    return round(100 * inside / (2 * len(rows)), 1)


def _other_network(row: Published, other: Published) -> bool:
    return other.board == row.board and other.name != row.name


def _other_family(row: Published, other: Published) -> bool:
    return other.board == row.board and other.family != row.family


def summary(found: Evaluation) -> dict[str, Any]:
    """Return the errors of left-out rows by board and family, and of rows that are never fitted."""
    left_out = found.left_out
    boards = {
        name: _board_summary([row for row in left_out if row.published.board == name])
        for name in BOARDS
    }
    reasons = dict.fromkeys(row.published.why_not for row in found.rows if row.published.why_not)
    never = [
        {"why": why, **errors_of([row for row in found.rows if row.published.why_not == why])}
        for why in reasons
    ]
    python = [
        {
            "network": row.name, "board": row.board, "release": row.release,
            "threads": row.threads, "published_fps": row.fps, "predicted_fps": round(fps, 1),
            "percent": round(100 * (fps / row.fps - 1), 1),
        }
        for row, fps in found.python_rows
    ]  # fmt: skip
    return {
        "left_out": errors_of(left_out),
        "inside_percent": _inside(left_out),
        "boards": boards,
        "never_fitted": never,
        "python": python,
    }


def _board_summary(rows: Sequence[NetworkFit]) -> dict[str, Any]:
    families = dict.fromkeys(row.published.family for row in rows)
    return {
        "left_out": errors_of(rows),
        "inside_percent": _inside(rows),
        "families": {
            family: errors_of([row for row in rows if row.published.family == family])
            for family in families
        },
    }


def _inside(rows: Sequence[NetworkFit]) -> dict[str, float]:
    """Return `percent_inside` for the range of the other networks, and of the other families."""
    return {
        "other_networks": percent_inside(rows, _other_network),
        "other_families": percent_inside(rows, _other_family),
    }


# -- files of the repository ------------------------------------------------------------------


def write_costs(found: Evaluation, path: Path) -> None:
    """Write the file that `tutelage.dpu.isa.costs.fitted_costs` reads."""
    table = {name: getattr(found.whole.costs, name) for name in FITTED_FIELDS}
    path.write_text(COSTS_HEADER + to_toml(table), encoding="utf-8")


def write_parameters(found: Evaluation, name: str, folder: Path) -> None:
    """Write the file of a board that `tutelage.dpu.predict.latency.read_board` reads."""
    board, at = found.board(name), BOARDS[name]
    rows = [row for row in found.left_out if row.published.board == name]
    errors = errors_of(rows)
    ratios = [[row.ratio(thread) for row in rows] for thread in (0, 1)]
    table = {
        "published": {"clock_mhz": at.clock_mhz, "cores": at.cores, "cpus": at.cpus},
        "parameters": {name: getattr(board.parameters, name) for name in BOARD_PARAMETERS},
        "python": asdict(board.python),
        "left_out": {
            "networks": errors["networks"],
            "low": [round(min(column), 3) for column in ratios],
            "high": [round(max(column), 3) for column in ratios],
            "mean_percent": errors["mean"],
            "worst_percent": errors["worst"],
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(HEADER + to_toml(table), encoding="utf-8")


COLUMNS = (
    "board", "network", "release", "family", "work_GOP", "built_GOP", "one_published_fps",
    "one_fitted_fps", "one_left_out_fps", "many_published_fps", "many_fitted_fps",
    "many_left_out_fps", "not_fitted_because",
)  # fmt: skip


def write_table(rows: Sequence[NetworkFit], path: Path) -> None:
    """Write every network's frames per second: published, fitted, and with its family left out."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            at = row.published
            speeds = [
                text
                for thread in (0, 1)
                for text in (
                    at.speed[thread],
                    round(row.fitted[thread], 2),
                    round(row.left_out[thread], 2) if row.left_out else "",
                )
            ]
            writer.writerow([at.board, at.name, at.release, at.family, at.gops,
                             round(at.gops_built, 3), *speeds, at.why_not])  # fmt: skip


def plot(rows: Sequence[NetworkFit], path: Path) -> None:
    """Plot predicted over published frames per second; each family is predicted without it."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "latency"  # so that the same figures give the same file
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
            published = [row.published.speed[thread] for row in group]
            predicted = [row.predicted[thread] for row in group]
            marker = "x" if name == "not fitted" else "o"
            axis.plot(published, predicted, marker, markersize=5, label=name)
        axis.set(title=title, xscale="log", yscale="log", xlim=ends, ylim=ends,
                 xlabel="published, frames/s", ylabel="predicted, frames/s")  # fmt: skip
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Fit, and write the files that the repository has."""
    found = evaluate_all()
    write_costs(found, FITTED_COSTS)
    for board in BOARDS:
        write_parameters(found, board, latency.FITTED)
    write_table(found.rows, RESULTS / "latency.csv")
    text = json.dumps(summary(found), indent=1)
    (RESULTS / "latency.json").write_text(text + "\n", encoding="utf-8")
    plot(found.rows, RESULTS / "latency.svg")
    print(text)


if __name__ == "__main__":
    main()
