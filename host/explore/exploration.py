"""Which DenseNet fits a budget of latency, speed or energy on a board, before anything is trained.

    found = explore(read_spec(Path("explore.toml")), Budget(latency_ms=0.6), "zcu104", Path("out"))

host/explore/space.py tells the form of the specification.

Every combination is predicted (`tutelage.dpu.predict.latency`). The front holds what no other one
beats in both cost and capacity, and capacity is the number of MACs or of parameters: it is no
accuracy, which only training tells. What fits is written as configurations of `tutelage train`. A
quantised method starts from a float run of the same network, so there is one more file for that.
"""

from __future__ import annotations

import csv
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.digits import with_range
from tutelage.core.locations import RESULTS
from tutelage.core.results.figure import Figure
from tutelage.core.toml_file import to_toml
from tutelage.dpu.inspect.listing import columns
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import read_board
from tutelage.dpu.predict.prediction import BASIS, power_facts
from tutelage.host.explore.drawing import CAPACITY_TEXTS, draw
from tutelage.host.explore.forecast import (
    CAPACITIES,
    SHORTEST_MS,
    Budget,
    Forecast,
    costs,
    forecast,
    pareto,
)
from tutelage.host.explore.sampling import Report, Sampling, Search, sample
from tutelage.host.explore.space import Candidate, ExploreError, Spec, configurations
from tutelage.host.train.study_results import summary

TABLE, PLOT = "explore.csv", "explore.svg"
MAX_CANDIDATES = 20_000
"""Predicted one by one, in half a minute; of more, Optuna samples some."""


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes
    ----------
    forecasts : of all candidates that the DPU takes
    front : those that no other one beats, by latency
    skipped : candidates whose maps vanish or that exceed the DPU; 0 where some were sampled
    sampling : how candidates were sampled; None where all were predicted
    written : training configurations by the front's candidates that fit
    """

    spec: Spec
    budget: Budget
    board: str
    power: BoardPower | None
    capacity: str
    forecasts: list[Forecast]
    front: list[Forecast]
    skipped: int
    sampling: Sampling | None
    written: dict[str, list[Path]]


def explore(
    spec: Spec, budget: Budget, board: str, output: Path, capacity: str = "macs",
    sampling: Sampling | None = None, report: Report = print,
) -> Found:  # fmt: skip
    """Predict candidates and write explore.csv, explore.svg and what fits to `output`.

    Parameters
    ----------
    board : by its profile's file name
    capacity : "macs", "parameters" or "accuracy", what the front maximises
    sampling : of how many candidates Optuna chooses; None: every candidate
    report : called with a line for each candidate that was trained, for its accuracy

    Raises
    ------
    ExploreError
        Another capacity, a budget that cannot be judged, or no candidate that the DPU takes; too
        many candidates, or an accuracy, without `sampling`.
    MissingPackage, StorageError
        Of `sampling`: Optuna is not installed, or its storage cannot be used.
    DpuError
        The board is unknown, or nothing is fitted to it.
    """
    if capacity not in CAPACITIES:
        raise ExploreError(f"capacity {capacity!r} is none of {', '.join(CAPACITIES)}")
    if sampling is None:
        _check_size(spec, capacity)
    known, power = read_board(board), board_power(board)

    def predict(candidate: Candidate) -> Forecast | None:
        return forecast(spec, candidate, known, power, budget)

    if sampling is None:
        all_of_them = [predict(each) for each in spec.candidates()]
        forecasts = [each for each in all_of_them if each is not None]
        skipped = len(all_of_them) - len(forecasts)
    else:
        search = Search(spec, budget, predict, capacity, board)
        forecasts, skipped = sample(search, sampling, output, report), 0
    if not forecasts:
        raise ExploreError(_nothing(capacity, sampling))
    points = [[*costs(each, budget), -getattr(each, capacity)] for each in forecasts]
    front = [forecasts[position] for position in pareto(points)]
    front.sort(key=lambda each: each.latency.value or 0.0)
    output.mkdir(parents=True, exist_ok=True)
    written = {
        each.candidate.name: _write_configurations(spec, each.candidate, output)
        for each in front
        if each.fits in ("", "sure", "predicted")
    }
    found = Found(
        spec, budget, board, power, capacity, forecasts, front, skipped, sampling, written
    )
    _write_table(found, output / TABLE)
    draw(found, output / PLOT)
    return found


def _check_size(spec: Spec, capacity: str) -> None:
    """Raise ExploreError where candidates must be sampled."""
    if capacity == "accuracy":
        raise ExploreError("capacity 'accuracy' needs --trials: how many networks are trained")
    if spec.size > MAX_CANDIDATES:
        raise ExploreError(
            f"[explore] makes {spec.size:,} candidates, of which at most {MAX_CANDIDATES:,} are "
            "predicted one by one; --trials N lets Optuna choose N of them"
        )


def _nothing(capacity: str, sampling: Sampling | None) -> str:
    if sampling is not None and capacity == "accuracy":
        return "no candidate was trained: none that Optuna drew keeps the budget, or all failed"
    which = "every candidate" if sampling is None else f"all {sampling.trials} that Optuna drew"
    return f"[explore]: in {which} maps vanish or exceed the DPU"


def _write_configurations(spec: Spec, candidate: Candidate, output: Path) -> list[Path]:
    paths = []
    for name, table in configurations(spec, candidate, output).items():
        path = output / f"{name}.toml"
        path.write_text(to_toml(table), encoding="utf-8")
        paths.append(path)
    return paths


def row(each: Forecast) -> dict[str, Any]:
    """Return a forecast as a row of a table: times ms, energies mJ per frame, ranges apart."""
    candidate, energy = each.candidate, each.energy or Figure()
    return {
        "name": candidate.name,
        "growth_rate": candidate.growth_rate,
        "blocks": "x".join(map(str, candidate.block_config)),
        "stem": candidate.stem,
        "input": candidate.pixels,
        "compression": candidate.compression,
        "bottleneck": candidate.bottleneck,
        "macs": each.macs,
        "parameters": each.parameters,
        "dpu_ms": round(each.dpu_ms, 6),
        "latency_ms": _rounded(each.latency.value, 6),
        "latency_least_ms": _rounded(each.latency.low, 6),
        "latency_most_ms": _rounded(each.latency.high, 6),
        "fps": _rounded(each.fps.value, 3),
        "fps_least": _rounded(each.fps.low, 3),
        "fps_most": _rounded(each.fps.high, 3),
        "energy_mj": _rounded(energy.value, 6),
        "energy_least_mj": _rounded(energy.low, 6),
        "energy_most_mj": _rounded(energy.high, 6),
        "fits": each.fits,
        "extrapolated": each.extrapolated,
        **({} if each.accuracy is None else {"accuracy": each.accuracy}),
    }


def _rounded(value: float | None, places: int) -> float | None:
    return None if value is None else round(value, places)


def _write_table(found: Found, path: Path) -> None:
    front = {each.candidate.name for each in found.front}
    rows = [
        {**row(each), "front": each.candidate.name in front, "board": found.board}
        for each in found.forecasts
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def facts(found: Found) -> dict[str, Any]:
    """Return all figures, ready for JSON."""
    return {
        "board": found.board,
        "budget": vars(found.budget),
        "capacity": found.capacity,
        "candidates": len(found.forecasts),
        "trials": found.sampling and found.sampling.trials,
        "skipped": found.skipped,
        "power": found.power and power_facts(found.power),
        "front": [row(each) for each in found.front],
        "written": {name: list(map(str, paths)) for name, paths in found.written.items()},
        "bits": bits_lines(found.spec),
        "notes": notes(found),
    }


def lines(found: Found) -> list[str]:
    """What was found for a terminal: the front as a table, what it means, what comes next."""
    done = "predicted" if found.capacity != "accuracy" else "trained, their times predicted"
    text = [
        f"{len(found.forecasts):,} DenseNets {done} on {found.board}; {len(found.front)} that no"
        f" other one beats in both cost and {CAPACITY_TEXTS[found.capacity]}:",
        "",
        *_front_table(found),
        "",
        *bits_lines(found.spec),
        *(
            line
            for note in notes(found)
            for line in textwrap.wrap("- " + note, 100, subsequent_indent="  ")
        ),
    ]
    if not found.written:
        return [*text, "nothing on the front keeps the budget by the prediction"]
    best = max((e for e in found.front if e.candidate.name in found.written),
               key=lambda each: getattr(each, found.capacity))  # fmt: skip
    commands = [
        f"  tutelage train {path} --output {path.parent / path.stem}"
        for path in found.written[best.candidate.name]
    ]
    return [
        *text,
        f"next, for the one with most {CAPACITY_TEXTS[found.capacity]} that fits:",
        *commands,
    ]


def _front_table(found: Found) -> list[str]:
    threads = found.budget.threads
    varied = [k for k in ("compression", "bottleneck") if len(found.spec.space[k]) > 1]
    speed = f"fps, {threads} thread{'s' * (threads > 1)}" if threads else "fps, many threads"
    trained = ["top-1 [%]"] * (found.capacity == "accuracy")
    head = ["growth", "blocks", "stem", "input", *varied, "MACs", "parameters", *trained,
            "ms, 1 thread", speed, "mJ a frame", "fits"]  # fmt: skip
    rows = [head]
    for each in found.front:
        candidate = each.candidate
        energy = each.energy and with_range(*each.energy.ends)
        rows.append(
            [
                str(candidate.growth_rate),
                "x".join(map(str, candidate.block_config)),
                candidate.stem,
                candidate.pixels,
                *(f"{getattr(candidate, key):g}" for key in varied),
                f"{each.macs:,}",
                f"{each.parameters:,}",
                *([] if each.accuracy is None else [f"{each.accuracy:.2f}"]),
                f"{each.latency.value:.3f}" + ("*" if each.extrapolated else " "),
                f"{each.fps.value:,.0f}",
                energy or "unknown",
                (each.fits or "-") + "*" * (bool(each.fits) and each.extrapolated),
            ]
        )
    return columns(rows, left={1, 2})


def notes(found: Found) -> list[str]:
    """What the figures are and are not."""
    power = found.power
    said = [
        _capacity_note(found),
        f"Times are {BASIS.replace(chr(10), ' ')} No DenseNet was among them.",
    ]
    if found.sampling is not None:
        said.append(
            f"Optuna chose among {found.spec.size:,} combinations: what it left out may be better."
        )
    if _budgeted(found.budget):
        said.append(
            "fits: sure with the pessimistic end of the range, predicted with the prediction, "
            "maybe with the optimistic end only; sure is no more than those errors."
        )
    if any(each.extrapolated for each in found.front):
        said.append(
            f"* less than {SHORTEST_MS} ms of the DPU: quicker than any network in the fit, so an "
            "extrapolation whose error nothing tells, not even where it says sure."
        )
    if power is not None:
        watts = with_range(*power.watts(found.budget.threads).ends)
        said.append(f"Energy: the board's {watts} W, {power.source}.")
    if found.skipped:
        said.append(
            f"{found.skipped:,} candidates were left out: maps vanish, or they exceed the DPU."
        )
    return said


def _capacity_note(found: Found) -> str:
    if found.capacity == "accuracy":
        return (
            "top-1 is the float network's on the test set after a short training by which it was "
            "chosen: a longer one may order the networks in another way."
        )
    return (
        f"{CAPACITY_TEXTS[found.capacity]} are no accuracy: they only say how much a network "
        "computes or holds. Which one is best, training tells. By MACs wide and shallow networks "
        "win, since they keep the array busy; `--capacity parameters` asks for another front."
    )


def _budgeted(budget: Budget) -> bool:
    return any(x is not None for x in (budget.latency_ms, budget.fps, budget.energy_mj))


def bits_lines(spec: Spec, table: Path = RESULTS / "study.csv") -> list[str]:
    """What bits cost: no time on the DPU; in accuracy what the study measured on its own network.

    Parameters
    ----------
    table : study.csv of `tutelage study`
    """
    if not spec.bits:
        return []
    said = [
        "Bits change the training only: the DPU computes in 8 bits and takes the same time.",
        "(`export --clip`, for narrow activations, adds layers that are not predicted.)",
    ]
    try:
        with table.open(newline="", encoding="utf-8") as file:
            found = summary({row["cell"]: row for row in csv.DictReader(file)})
    except (OSError, LookupError, TypeError, ValueError):
        found = {}
    method, base = spec.config.method, found.get(("float-student", "float"))
    for weights, activations in spec.bits:
        name = f"W{weights}A{activations}"
        values = found.get((method, name))
        if values and base:
            mean, start = statistics.mean(values), statistics.mean(base)
            said.append(
                f"  {name}, {method}: {mean:.2f} % where float has {start:.2f} % "
                f"({mean - start:+.2f} points) for the study's network and data, not for these"
            )
        else:
            said.append(f"  {name}, {method}: not in the study")
    return said
