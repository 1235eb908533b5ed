"""The predicted costs of a candidate of `tutelage explore`, and whether it fits a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.core.results.figure import Figure
from tutelage.dpu.ops.limits import BANK_DEPTH, CHANNEL_PARALLEL, MAX_CHANNELS, MAX_POOL
from tutelage.dpu.predict.energy import BoardPower
from tutelage.dpu.predict.latency import Board, predict
from tutelage.dpu.predict.operations import Operation
from tutelage.dpu.predict.prediction import fps_figure, latency_figure
from tutelage.host.explore.space import Candidate, ExploreError, Spec

SHORTEST_MS = 0.4
"""Shortest DPU time of the networks that the latency model was fitted to, ms."""

FITS = ("sure", "predicted", "maybe", "no")
"""Where a candidate fits a budget: at the pessimistic end of the prediction's range, at the
predicted value, only at the optimistic end, or nowhere."""

CAPACITIES = ("macs", "parameters", "accuracy")


@dataclass(frozen=True)
class Budget:
    """Limits for a network on a board; None: no limit.

    Attributes
    ----------
    latency_ms : most for one image, end to end, with one thread, ms
    fps : least frames per second with `threads`
    energy_mj : most energy of the whole board per frame with `threads`, mJ
    threads : number of threads; None: as many as increase the speed

    Raises
    ------
    ExploreError
        A value is not positive and finite.
    """

    latency_ms: float | None = None
    fps: float | None = None
    energy_mj: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "fps", "energy_mj", "threads"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ExploreError(f"budget: {name} is {value}; it must be positive and finite")


@dataclass(frozen=True)
class Forecast:
    """The predicted costs of a candidate, each figure with its range.

    Attributes
    ----------
    macs : multiply-accumulates for one image
    parameters : number of weights and biases
    dpu_ms : time of one DPU core for one image while no other core runs, ms
    latency : of one image, end to end, with one thread, ms
    fps : frames per second with the budget's threads
    energy : of the whole board per frame, from measured or estimated power, mJ; None if the power
        is not known
    fits : one of FITS; "" without a budget
    accuracy : of a trained candidate, % of the validation images, or of the test set if there are
        none; None if it was not trained
    """

    candidate: Candidate
    macs: int
    parameters: int
    dpu_ms: float
    latency: Figure
    fps: Figure
    energy: Figure | None
    fits: str = ""
    accuracy: float | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether the DPU time is shorter than that of every network in the fit."""
        return self.dpu_ms < SHORTEST_MS


def forecast(
    spec: Spec, candidate: Candidate, board: Board, power: BoardPower | None, budget: Budget
) -> Forecast | None:
    """Predict a candidate; return None if its maps vanish or a layer exceeds the DPU's limits."""
    operations = spec.operations(candidate)
    if any(_beyond_dpu(operation) for operation in operations):
        return None
    found = predict(operations, board)
    fps = fps_figure(found, budget.threads)
    result = Forecast(
        candidate,
        sum(operation.macs for operation in operations),
        sum(operation.parameters for operation in operations),
        1e3 * found.job_seconds,
        latency_figure(found),
        fps,
        None if power is None else power.joules_per_frame(found, budget.threads).scaled(1e3, "mJ"),
    )
    return replace(result, fits=_fits(result, budget))


def _beyond_dpu(operation: Operation) -> bool:
    """Return whether an operation has an empty output, or exceeds `tutelage.dpu.ops.limits`."""
    if min(operation.output) < 1 or max(operation.output[2], operation.depth) > MAX_CHANNELS:
        return True
    if operation.depth:
        words = math.prod(operation.kernel) * -(-operation.depth // CHANNEL_PARALLEL)
        return words > BANK_DEPTH
    return max(operation.kernel) > MAX_POOL


def _fits(found: Forecast, budget: Budget) -> str:
    """Return one of FITS, the worst over all limits; "" if there is no limit."""
    verdicts = []
    if budget.latency_ms is not None:
        verdicts.append(_verdict(budget.latency_ms, *_ends(found.latency)))
    if budget.fps is not None:
        low, fps, high = _ends(found.fps)
        verdicts.append(_verdict(-budget.fps, -high, -fps, -low))
    if budget.energy_mj is not None:
        if found.energy is None:
            raise ExploreError(
                "budget: the board's power is not known; leave out the limit of energy"
            )
        verdicts.append(_verdict(budget.energy_mj, *_ends(found.energy)))
    return max(verdicts, key=FITS.index, default="")


def _ends(figure: Figure) -> tuple[float, float, float]:
    """Return a prediction's low end, its value and its high end; inf for one that is unknown."""
    low, value, high = figure.low, figure.value, figure.high
    return (math.inf if low is None else low, math.inf if value is None else value,
            math.inf if high is None else high)  # fmt: skip


def _verdict(limit: float, optimistic: float, central: float, pessimistic: float) -> str:
    for name, value in (("sure", pessimistic), ("predicted", central), ("maybe", optimistic)):
        if value <= limit:
            return name
    return "no"


def costs(found: Forecast, budget: Budget) -> list[float]:
    """Return the costs that the front minimises: those with a limit, or latency if none has one."""
    values = []
    if budget.fps is not None:
        values.append(1e3 / _ends(found.fps)[1])
    if budget.energy_mj is not None and found.energy is not None:
        values.append(_ends(found.energy)[1])
    if budget.latency_ms is not None or not values:
        values.insert(0, _ends(found.latency)[1])
    return values


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other point dominates (the Pareto front).

    A point dominates another if none of its coordinates is larger; of equal points the first one
    is kept.

    Parameters
    ----------
    points : [N, D], of which each coordinate is to be minimised
    """
    if not points:
        return []
    table = np.asarray(points, np.float64)
    # In lexicographic order no point is dominated by a later one (lexsort is stable).
    order = np.lexsort(table.T[::-1])
    front: list[int] = []
    kept: NDArray[np.float64] = np.empty_like(table)
    for position in order.tolist():
        if not (kept[: len(front)] <= table[position]).all(1).any():
            kept[len(front)] = table[position]
            front.append(position)
    return sorted(front)
