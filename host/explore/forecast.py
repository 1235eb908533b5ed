"""What a candidate of `tutelage explore` is predicted to take, and how it keeps a budget."""

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
"""Shortest DPU time of the networks that the prediction was fitted to."""

FITS = ("sure", "predicted", "maybe", "no")
"""How a candidate keeps a budget: with the pessimistic end of the prediction's range, with the
prediction itself, with the optimistic end, or not at all."""

CAPACITIES = ("macs", "parameters", "accuracy")


@dataclass(frozen=True)
class Budget:
    """What a network may take on the board; None: no limit.

    Attributes
    ----------
    latency_ms : of one image, end to end, with one thread
    fps : at least, with `threads`
    energy_mj : mJ of the whole board per frame, with `threads`
    threads : None: as many as help
    """

    latency_ms: float | None = None
    fps: float | None = None
    energy_mj: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "fps", "energy_mj", "threads"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ExploreError(f"budget: {name} is {value}; it must be positive")


@dataclass(frozen=True)
class Forecast:
    """What a candidate is predicted to take, each figure with its range.

    Attributes
    ----------
    macs, parameters : of one image; weights and biases
    dpu_ms : of one core that works alone
    latency : of one image, end to end, one thread, ms
    fps : with the budget's threads
    energy : of the whole board per frame, mJ, measured watts or an estimate; None where nothing
        is known of its power
    fits : one of FITS; "" without a budget
    accuracy : in percent of the test set, where the candidate was trained
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
        """Whether it is quicker than anything in the fit."""
        return self.dpu_ms < SHORTEST_MS


def forecast(
    spec: Spec, candidate: Candidate, board: Board, power: BoardPower | None, budget: Budget
) -> Forecast | None:
    """Predict a candidate; None: its maps vanish, or a layer is beyond what the DPU takes."""
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
    """Whether a DenseNet's operation has no values, or exceeds `tutelage.dpu.ops.limits`."""
    if min(operation.output) < 1 or max(operation.output[2], operation.depth) > MAX_CHANNELS:
        return True
    if operation.depth:
        words = math.prod(operation.kernel) * -(-operation.depth // CHANNEL_PARALLEL)
        return words > BANK_DEPTH
    return max(operation.kernel) > MAX_POOL


def _fits(found: Forecast, budget: Budget) -> str:
    """Return one of FITS: the worst over all limits; "" without any."""
    verdicts = []
    if budget.latency_ms is not None:
        verdicts.append(_verdict(budget.latency_ms, *_ends(found.latency)))
    if budget.fps is not None:
        low, fps, high = _ends(found.fps)
        verdicts.append(_verdict(-budget.fps, -high, -fps, -low))
    if budget.energy_mj is not None:
        if found.energy is None:
            raise ExploreError("budget: nothing tells the board's power, so energy has no budget")
        verdicts.append(_verdict(budget.energy_mj, *_ends(found.energy)))
    return max(verdicts, key=FITS.index, default="")


def _ends(figure: Figure) -> tuple[float, float, float]:
    """Return a prediction's low end, its value and its high end; infinite where there is none."""
    low, value, high = figure.low, figure.value, figure.high
    return (math.inf if low is None else low, math.inf if value is None else value,
            math.inf if high is None else high)  # fmt: skip


def _verdict(limit: float, optimistic: float, central: float, pessimistic: float) -> str:
    for name, value in (("sure", pessimistic), ("predicted", central), ("maybe", optimistic)):
        if value <= limit:
            return name
    return "no"


def costs(found: Forecast, budget: Budget) -> list[float]:
    """Return what the front minimises: each cost that has a budget; latency where none has one."""
    values = []
    if budget.fps is not None:
        values.append(1e3 / _ends(found.fps)[1])
    if budget.energy_mj is not None and found.energy is not None:
        values.append(_ends(found.energy)[1])
    if budget.latency_ms is not None or not values:
        values.insert(0, _ends(found.latency)[1])
    return values


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other one is at most equal to in every coordinate.

    Parameters
    ----------
    points : [N, D], each coordinate the less the better; of equal points the first counts
    """
    if not points:
        return []
    table = np.asarray(points, np.float64)
    # In lexicographic order nothing is dominated by what comes after it (lexsort is stable).
    order = np.lexsort(table.T[::-1])
    front: list[int] = []
    kept: NDArray[np.float64] = np.empty_like(table)
    for position in order.tolist():
        if not (kept[: len(front)] <= table[position]).all(1).any():
            kept[len(front)] = table[position]
            front.append(position)
    return sorted(front)
