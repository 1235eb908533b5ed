"""Damaged .xmodels: the reader, every tool of `tutelage`, the loader and the compiler."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from tests.fuzz import models, xmodel_edits
from tests.fuzz.byte_edits import EDITS, edited
from tests.fuzz.harness import fuzz, one_line, run_main, scratch
from tutelage.__main__ import main
from tutelage.app.model import load_classifier
from tutelage.board import runner as board_dpu
from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.compile.target import CompileError, CompileUsageError

pytestmark = pytest.mark.filterwarnings("ignore::tutelage.core.errors.UnsortedWarning")

_TOOLS = (
    "inspect",
    "draw",
    "diff",
    "layers",
    "predict",
    "reference",
    "fast",
    "classify",
    "compile",
    "disasm",
    "instructions",
)

_SMALL = 1 << 20
"""Most elements of an input that is made for a damaged model."""


@fuzz(st.tuples(st.sampled_from(models.bases()), EDITS, st.sampled_from(_TOOLS)), 60)
def test_xmodel_bytes(case: Any) -> None:
    """Real files with changed bytes."""
    name, edits, tool = case
    _use(edited(models.base(name), edits), name, tool)


@pytest.mark.slow
@fuzz(st.tuples(xmodel_edits.CASES, st.sampled_from(_TOOLS)), 150)
def test_xmodel_structure(case: Any) -> None:
    """Files that parse with changed fields."""
    model, tool = case
    _use(xmodel_edits.build(model), model[0], tool)


def _use(data: bytes, name: str, tool: str) -> None:
    path = scratch() / "damaged.xmodel"
    path.write_bytes(data)
    if tool == "inspect":
        run_main(main, "inspect", path, "--ops")
    elif tool == "draw":
        run_main(
            main,
            "inspect",
            path,
            "--json",
            "--svg",
            scratch() / "a.svg",
            "--html",
            scratch() / "a.html",
        )
    elif tool in ("diff", "layers"):
        whole = scratch() / "whole.xmodel"
        whole.write_bytes(models.base(name))
        run_main(main, "diff", path, whole, *(["--layers"] if tool == "layers" else []))
    elif tool == "predict":
        run_main(main, "predict", path)
    elif tool == "disasm":
        run_main(main, "disasm", path, "--summary", "--svg", scratch() / "a.svg")
    elif tool in ("reference", "fast", "instructions"):
        _run(path, tool)
    elif tool == "classify":
        _classify(path)
    else:
        _compile(path)


def _run(path: Path, engine: str) -> None:
    inputs = []
    with contextlib.suppress(DpuError):
        graph = Graph.deserialize(path)
        for number, op in enumerate(o for o in graph.toposort() if o.get_type().startswith("data")):
            dims = op.get_output_tensor().dims
            if math.prod(dims) <= _SMALL:
                np.save(scratch() / f"in{number}.npy", np.ones(dims, np.int8))
                inputs += ["--input", f"{op.get_name()}={scratch() / f'in{number}.npy'}"]
    np.save(scratch() / "plain.npy", np.ones([1, 4, 4, 2], np.int8))
    inputs = inputs or ["--input", str(scratch() / "plain.npy")]
    run_main(main, "run", path, *inputs, "--output", scratch() / "out.npy", "--engine", engine)


def _classify(path: Path) -> None:
    try:
        classifier = load_classifier(path)
        if math.prod(classifier.network.input.dims) <= _SMALL:
            runner = classifier.network.runner()
            runner.run(np.ones(classifier.network.input.dims[1:], np.int8))
    except (board_dpu.ModelError, DpuError) as error:
        one_line(error)


def _compile(path: Path) -> None:
    try:
        for target in ("emulator", "zcu104"):
            plan = plan_compile(path, scratch() / target, CompileOptions(target))
            compile_model(plan, lambda text: None)
    except (CompileError, CompileUsageError, DpuError) as error:
        one_line(error)
