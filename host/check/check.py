"""Check a network, a training run or an .xmodel, and return the facts ready for JSON."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import dpu_parts, refuse_foreign
from tutelage.core.model_package import named_file
from tutelage.core.results.figure import as_json
from tutelage.dpu.predict.prediction import BASIS, fps_figure, latency_figure
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.check.accuracy import compare
from tutelage.host.check.advice import about_accuracy, remedies
from tutelage.host.check.fit import Fit, fit_board, silenced
from tutelage.host.check.refusals import Refused, refusals
from tutelage.host.check.subject import Request, Subject, load_subject
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import NotDeployable, to_quantised
from tutelage.host.quantise.trace import normalised_graph
from tutelage.host.train.students import make_student


def check(request: Request) -> dict[str, Any]:
    """Check whether the DPU can run a network, and what it costs, before training.

    Returns
    -------
    A dictionary with these keys:

    model, board, kind : the model and board of the request; kind is "network", or "quantised" or
        "compiled" for a file
    accepted : whether `tutelage export` and `tutelage compile` accept it unchanged
    refusals : list of the reasons against it, each with text, at, file, line and remedy
    input : [C, H, W]; None for a file
    parameters, macs : number of parameters, and of multiply-accumulates for one image
    on_cpu : op name -> {reason, remedy} of the ops that the DPU does not compute
    parts : number of DPU subgraphs
    memory : use -> bytes of the DPU's memory
    latency_ms, fps : predicted figures with their ranges (`tutelage.core.results.figure.Figure`),
        latency with one thread, fps with as many as increase it; without the ops on the CPU
    accuracy : see `tutelage.host.check.accuracy.Accuracy`; None without images
    notes, advice : lines of text for the user
    basis : what the predictions are based on

    Raises
    ------
    TutelageError
        The network, its data or the board cannot be used.
    """
    facts: dict[str, Any] = {
        "model": request.model, "board": request.board, "kind": "network", "accepted": False,
        "refusals": [], "input": None, "parameters": None, "macs": None, "on_cpu": {},
        "parts": 0, "memory": {}, "latency_ms": None, "fps": None, "accuracy": None,
        "notes": [], "advice": [], "basis": BASIS.replace("\n", " "),
    }  # fmt: skip
    if file := named_file(request.model):
        _check_file(facts, file, request.board)
    else:
        with silenced() as notes:
            _check_network(facts, load_subject(request), request)
        facts["notes"] += notes.lines()
    blocked = facts["on_cpu"] and facts["kind"] == "network" and not request.allow_cpu
    facts["accepted"] = not (facts["refusals"] or blocked)
    return facts


def _check_file(facts: dict[str, Any], path: Path, board: str) -> None:
    graph = Graph.deserialize(path)
    with contradictions(str(path)):
        refuse_foreign(graph)
        facts["kind"] = "compiled" if dpu_parts(graph) else "quantised"
        _add_fit(facts, graph, fit_board(graph, board))


def _check_network(facts: dict[str, Any], subject: Subject, request: Request) -> None:
    network = subject.network
    facts["input"] = list(subject.shape)
    facts["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    facts["notes"] += subject.notes
    facts["refusals"] = [
        _shown(found) for found in refusals(network, subject.shape, subject.replace)
    ]
    if facts["refusals"]:
        return
    student = _student(subject)
    try:
        graph = _quantised(facts, student)
    except DpuError as error:  # a kernel too large for the file format
        facts["refusals"] = [asdict(Refused(str(error)))]
        return
    _add_fit(facts, graph, fit_board(graph, request.board))
    if subject.data is not None and subject.config is not None:
        is_labelled = subject.config.data.is_labelled
        replaced = None
        if subject.replace:
            replaced = normalised_graph(network, subject.shape, subject.replace).module
        accuracy = compare(network, student, subject.data[1], is_labelled, replaced)
        facts["accuracy"] = asdict(accuracy)
        facts["advice"] += about_accuracy(accuracy)


def _student(subject: Subject) -> nn.Module:
    if subject.config is None or subject.data is None:
        return Student(subject.network, subject.shape, replace=subject.replace)
    return make_student(subject.config, subject.data[0])


def _quantised(facts: dict[str, Any], student: nn.Module) -> Graph:
    assert isinstance(student, Student)
    try:
        return to_quantised(student, "network")
    except NotDeployable as reason:
        facts["advice"].append(f"export it with --clip: {reason}")
        return to_quantised(student, "network", clip=True)


def _shown(refused: Refused) -> dict[str, Any]:
    """Return a refusal as a table, its file relative to the working directory if inside it."""
    file = refused.file
    with suppress(ValueError):  # on another drive
        inside = os.path.relpath(file) if file else ""
        file = file if inside.startswith("..") else inside
    return {**asdict(refused), "file": file}


def _add_fit(facts: dict[str, Any], graph: Graph, fit: Fit) -> None:
    if fit.refusal:
        facts["refusals"].append(asdict(Refused(fit.refusal)))
    operations = fit.prediction.operations
    facts["macs"] = sum(operation.macs for operation in operations)
    if facts["parameters"] is None:
        facts["parameters"] = sum(operation.parameters for operation in operations)
    what = remedies(graph, fit.on_cpu)
    facts["on_cpu"] = {
        name.removeprefix(f"{graph.get_name()}__"): {"reason": reason, "remedy": what.get(name, "")}
        for name, reason in fit.on_cpu.items()
    }
    facts["parts"], facts["memory"] = fit.parts, fit.memory
    if fit.parts:
        facts["latency_ms"] = as_json(latency_figure(fit.prediction))
        facts["fps"] = as_json(fps_figure(fit.prediction))
