"""Section of the headline figures: accuracy, size, latency, speed, power and energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tutelage.core.digits import digits, with_range
from tutelage.core.results.bench_json import DPU, BenchRow
from tutelage.core.results.figure import MEASURED, PREDICTED, Figure
from tutelage.core.results.run_json import RunResults
from tutelage.core.text import counted
from tutelage.dpu.predict.prediction import fps_figure, latency_figure
from tutelage.host.bench.dpu_rows import take_steps
from tutelage.host.report.content import Fact, Facts, Section
from tutelage.host.report.cost_section import Cost
from tutelage.host.report.subject import Subject

_MANY = "as many threads as help"


def headline_section(subject: Subject, cost: Cost | None, runs: Sequence[RunResults]) -> Section:
    """Return the first section.

    Parameters
    ----------
    cost : prediction for the model, None without a model
    runs : measured runs of this model; the figures are those of the newest one on a DPU
    """
    on_dpu = [run for run in runs if run.on_dpu]
    measured = max(on_dpu, key=lambda run: run.started, default=None)
    facts = [*_of_network(subject, cost), *_of_board(cost, measured)]
    return Section("headline", "At a glance", [_origin(cost, runs, measured), Facts(facts)])


def _origin(cost: Cost | None, runs: Sequence[RunResults], measured: RunResults | None) -> str:
    """Return a sentence about the origin of times and watts."""
    if measured is not None:
        return (f"Figures measured on a DPU are from the run of {measured.started} on "
                f"{measured.machine.place}; those that it lacks are predicted.")  # fmt: skip
    if cost is None:
        return "The run has not been exported yet, so there is no model to predict the cost of."
    text = (
        f"Latency, speed and power are predicted for the {cost.board}: no measurement of this "
        "model on a DPU was found."
    )
    if runs:
        text += " The emulated run below says nothing about a board's times."
    return text


# -- the network ----------------------------------------------------------------------------------


def _of_network(subject: Subject, cost: Cost | None) -> Iterator[Fact]:
    accuracy = _accuracy(subject)
    if accuracy is not None:
        yield accuracy
    parameters = _number(subject.provenance.get("parameters"))
    if parameters is None and cost is not None:
        parameters = sum(operation.parameters for operation in cost.found.operations)
    if parameters is None:
        return
    note = []
    if cost is not None:
        macs = sum(operation.macs for operation in cost.found.operations)
        note = [f"{_scaled(macs)} MACs per image", f"{_bytes(cost.model.stat().st_size)} file"]
    yield Fact("Parameters", _scaled(parameters), note=", ".join(note))


def _accuracy(subject: Subject) -> Fact | None:
    """Return the accuracy on the test set, preceded by the float network's if it is known."""
    known, run = subject.provenance, subject.training
    is_labelled = run.is_labelled if run else "agreement" not in known
    found = _first_number(
        run and run.accuracy, known.get("accuracy" if is_labelled else "agreement")
    )
    if found is None:
        return None
    before = _first_number(known.get("accuracy_float"), run and run.float_accuracy)
    results = run.results if run else None
    images = _first_number(results and results.images, known.get("test_images"))
    bits = _bits(subject)
    notes = [f"of {images:,.0f} test images" if images else "of the test set"]
    notes.append(f"float, then {bits or 'quantised'}" if before is not None else bits)
    if results and results.top5_accuracy is not None:
        notes.append(f"top-5 {results.top5_accuracy:.2f} %")
    start = "" if before is None else f"{before:.2f} → "
    label = "Accuracy, top-1" if is_labelled else "Agreement with the float network"
    return Fact(label, f"{start}{found:.2f} %", note="; ".join(filter(None, notes)))


def _bits(subject: Subject) -> str:
    """Return the bit widths, such as "W8A8", or "float"; "" if unknown."""
    run = subject.training
    if run and run.config:
        return run.config.quantisation.bits().label if run.config.quantises else "float"
    return str(subject.provenance.get("bits") or "")


def _first_number(*values: object) -> float | None:
    """Return the first value that is a number; a description is unchecked."""
    found = (_number(value) for value in values)
    return next((number for number in found if number is not None), None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def _scaled(value: float) -> str:
    """Return a count with three digits, such as "31.8 k"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{digits(value / size, 3)} {unit}"
    return digits(value)


def _bytes(size: int) -> str:
    """Return a size such as "41.2 KiB"."""
    for unit, whole in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= whole:
            return f"{digits(size / whole, 3)} {unit}"
    return f"{digits(size / 1024, 3)} KiB"


# -- the board ------------------------------------------------------------------------------------


def _of_board(cost: Cost | None, measured: RunResults | None) -> list[Fact]:
    """Return each figure as `tutelage bench` takes it from the run, or else as predicted."""
    run = BenchRow("", "", DPU)
    if measured is not None:
        take_steps(run, measured.steps)
    predicted = [Figure()] * 4
    if cost is not None:
        predicted = [latency_figure(cost.found), fps_figure(cost.found), cost.watts,
                     cost.millijoules()]  # fmt: skip
    facts = []
    for (label, figure, unit, what), instead in zip(
        (
            ("Latency", run.latency_ms.p50, "ms", "one image at a time"),
            ("Speed", run.fps, "fps", "{}"),
            ("Power", run.watts, "W", "the whole board, {}"),
            ("Energy", run.joules_per_frame.scaled(1e3, "mJ"), "mJ", "per frame, whole board, {}"),
        ),
        predicted,
        strict=True,
    ):
        load = counted(run.threads or 0, "thread")
        if figure.value is None:
            # Its watts may be those of other models' runs: not measured for this one.
            figure, load = replace(instead, kind=PREDICTED), _MANY
        if figure.value is not None:
            facts.append(_board_fact(label, replace(figure, unit=unit), what.format(load)))
    return facts


def _board_fact(label: str, figure: Figure, what: str) -> Fact:
    interval = with_range(*figure.ends)
    shown, _, ends = interval.partition(" (")
    note = f"{ends.rstrip(')')} {figure.unit}; {what}" if ends else what
    kind = figure.kind if figure.kind != MEASURED else f"{MEASURED} on a DPU"
    return Fact(label, f"{shown} {figure.unit}", kind, note)
