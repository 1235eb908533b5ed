"""Search for DenseNets that fit a budget of latency, speed or energy on a board, before training.

    found = explore(read_spec(Path("explore.toml")), Budget(latency_ms=0.6), "zcu104", Path("out"))

host/explore/space.py describes the specification.

Every combination is predicted (`tutelage.dpu.predict.latency`). The front contains the candidates
that no other candidate beats in both cost and capacity. Capacity is the number of MACs or of
parameters, not the accuracy, which is known only after training. For each candidate of the front
that fits the budget, configurations of `tutelage train` are written. A quantised method starts from
a float run of the same network, which has a separate configuration.
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
from tutelage.core.text import counted
from tutelage.core.toml_file import to_toml
from tutelage.dpu.inspect.listing import columns
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import read_board
from tutelage.dpu.predict.prediction import BASIS, power_facts
from tutelage.host.explore.drawing import CAPACITY_TEXTS, draw, judged_by
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
"""Most candidates that are all predicted, in half a minute; of more, Optuna samples some."""


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes
    ----------
    spec, budget, board, capacity : as given to `explore`
    power : the board's power; None if it is not known
    forecasts : one for each candidate that the DPU can run
    front : the forecasts that no other one beats in both cost and capacity, in order of latency
    skipped : number of candidates whose maps vanish or that exceed the DPU's limits; 0 if the
        candidates were sampled
    sampling : how candidates were sampled; None if all were predicted
    written : name of a candidate of the front that fits -> its training configurations
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
    """Predict candidates; write explore.csv, explore.svg and training configurations.

    Parameters
    ----------
    spec : the search space
    budget : limits of the costs
    board : file name of the board's profile
    output : directory of the files that are written, created if missing
    capacity : quantity that the front maximises: "macs", "parameters" or "accuracy"
    sampling : how Optuna samples candidates; None: all are predicted
    report : called with a line of text for each candidate trained, with capacity "accuracy"

    Raises
    ------
    ExploreError
        The capacity is unknown, the budget cannot be checked, the DPU can run no candidate, or
        without `sampling` there are too many candidates or the capacity is "accuracy".
    MissingPackage, StorageError
        With `sampling`, Optuna is not installed, or its storage cannot be used.
    DpuError
        The board is unknown, or the latency model is not fitted to it.
    """
    if capacity not in CAPACITIES:
        raise ExploreError(f"capacity {capacity!r} is not one of {', '.join(CAPACITIES)}")
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
    """Raise ExploreError if the candidates can only be sampled."""
    if capacity == "accuracy":
        raise ExploreError("capacity 'accuracy' needs --trials N, the number of networks to train")
    if spec.size > MAX_CANDIDATES:
        raise ExploreError(
            f"[explore] has {spec.size:,} candidates, but at most {MAX_CANDIDATES:,} can all be "
            "predicted; use --trials N to let Optuna sample N of them"
        )


def _nothing(capacity: str, sampling: Sampling | None) -> str:
    if sampling is not None and capacity == "accuracy":
        return "no candidate was trained: none that Optuna sampled fits the budget, or all failed"
    which = "no candidate" if sampling is None else f"none of {sampling.trials} sampled candidates"
    return f"[explore]: the DPU can run {which}: their maps vanish, or they exceed its limits"


def _write_configurations(spec: Spec, candidate: Candidate, output: Path) -> list[Path]:
    paths = []
    for name, table in configurations(spec, candidate, output).items():
        path = output / f"{name}.toml"
        path.write_text(to_toml(table), encoding="utf-8")
        paths.append(path)
    return paths


def row(each: Forecast) -> dict[str, Any]:
    """Return a forecast as a row of explore.csv: times in ms, energies in mJ per frame."""
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
    """Return the result of a search, ready for JSON."""
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
    """Return the lines for a terminal: the front as a table, notes on it, and the next commands."""
    done = "predicted" if found.capacity != "accuracy" else "trained, their times predicted"
    text = [
        f"{counted(len(found.forecasts), 'DenseNet')} {done} on {found.board}; "
        f"{len(found.front)} that no other beats in both cost and "
        f"{CAPACITY_TEXTS[found.capacity]}:",
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
        return [*text, "no network on the front is predicted to fit the budget"]
    best = max((e for e in found.front if e.candidate.name in found.written),
               key=lambda each: getattr(each, found.capacity))  # fmt: skip
    commands = [
        f"  tutelage train {path} --output {path.parent / path.stem}"
        for path in found.written[best.candidate.name]
    ]
    return [
        *text,
        _NEXT[found.capacity],
        *commands,
    ]


_NEXT = {
    "macs": "next, for the network with the most MACs that fits:",
    "parameters": "next, for the network with the most parameters that fits:",
    "accuracy": "next, for the most accurate network that fits:",
}


def _front_table(found: Found) -> list[str]:
    threads = found.budget.threads
    varied = [k for k in ("compression", "bottleneck") if len(found.spec.space[k]) > 1]
    speed = f"fps, {counted(threads, 'thread')}" if threads else "fps, many threads"
    trained = ["top-1 [%]"] * (found.capacity == "accuracy")
    head = ["growth", "blocks", "stem", "input", *varied, "MACs", "parameters", *trained,
            "ms, 1 thread", speed, "mJ/frame", "fits"]  # fmt: skip
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
    """Return notes on what the figures mean and do not mean."""
    power = found.power
    said = [
        _capacity_note(found),
        f"Times are {BASIS.replace(chr(10), ' ')} No DenseNet was among them.",
    ]
    if found.sampling is not None:
        said.append(
            f"Optuna sampled some of {found.spec.size:,} combinations; the others may be better."
        )
    if _budgeted(found.budget):
        said.append(
            'fits: "sure" even at the pessimistic end of the range, "predicted" at the predicted '
            'value, "maybe" only at the optimistic end. The errors above apply to "sure" too.'
        )
    if any(each.extrapolated for each in found.front):
        said.append(
            f"* less than {SHORTEST_MS} ms on the DPU, faster than any network in the fit: an "
            'extrapolation whose error is unknown, even if it says "sure".'
        )
    if power is not None:
        threads = found.budget.threads
        watts = with_range(*power.watts(threads).ends)
        said.append(f"Energy: from the board's {watts} W, {power.source_with(threads)}.")
    if found.skipped:
        said.append(
            f"{found.skipped:,} candidates left out: their maps vanish, or exceed the DPU's limits."
        )
    return said


def _capacity_note(found: Found) -> str:
    if found.capacity == "accuracy":
        return (
            f"top-1 is the float network's on the {judged_by(found.spec)} after a short training. "
            "Longer training may rank the networks differently."
            + ("" if found.spec.config.data.validates else _TEST_SET_NOTE)
        )
    return (
        f"{CAPACITY_TEXTS[found.capacity]} are not an accuracy: they only show how much a "
        "network computes or stores. Only training shows which network is best. Counted in MACs, "
        "wide and shallow networks win, since they use the DPU best; `--capacity parameters` "
        "gives another front."
    )


_TEST_SET_NOTE = (
    " A network chosen by the test set looks better on it than it is; [data] validation = 0.1 "
    "reserves other images for the choice."
)


def _budgeted(budget: Budget) -> bool:
    return any(x is not None for x in (budget.latency_ms, budget.fps, budget.energy_mj))


def bits_lines(spec: Spec, table: Path = RESULTS / "study.csv") -> list[str]:
    """Return lines on the cost of bit widths: no time, and the accuracy lost in the study.

    Parameters
    ----------
    table : study.csv of `tutelage study`, whose network and data are not those of `spec`
    """
    if not spec.bits:
        return []
    said = [
        "Bit widths affect training only: the DPU computes in 8 bits and takes the same time.",
        "(`export --clip`, for narrow activations, adds layers that are not in the prediction.)",
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
                f"  {name}, {method}: {mean:.2f} %, float {start:.2f} % "
                f"({mean - start:+.2f} points), for the study's network and data, not for these"
            )
        else:
            said.append(f"  {name}, {method}: not in the study")
    return said
