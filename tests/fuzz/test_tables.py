"""Damaged tables: model.toml, boards' profiles, training, study and exploring, runs, arrays,
journals."""

from __future__ import annotations

import functools
import io
import json
import re
import shutil
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tests.fuzz.byte_edits import EDITS, edited
from tests.fuzz.harness import fuzz, one_line, run_main, run_main_with_output, scratch
from tests.fuzz.models import DEMO, ROOT
from tutelage.__main__ import main
from tutelage.app.model import load_classifier
from tutelage.board.model_parts import ModelError
from tutelage.core import board_profile as profiles
from tutelage.core.expected_outputs import (
    RESULT,
    ExpectedError,
    ExpectedOutputs,
    read_expected,
    write_expected,
)
from tutelage.core.toml_file import TomlError
from tutelage.host.explore import space as explore_space
from tutelage.host.search.storage import Shared, StorageError, open_study
from tutelage.host.train import checkpoint, study, study_queue
from tutelage.host.train.config import ConfigError, make_config, read_toml
from tutelage.host.train.data import DataError
from tutelage.host.train.training_process import TrainingProcesses

_VALUES = [
    "-1", "0", "1", "2.5", "1e400", "nan", "-inf", "9223372036854775807", "9" * 40, "9" * 400,
    "true", '""', '"x"', f'"{"x" * 5000}"', '"\\u001b[31m"', '"../../etc/passwd"', "[]", "[[]]",
    "{}", '["a", 1]', "[1, 2, 3]", "[0.0, 0.0, 0.0]", "1979-05-27", "00:00:00",
    "[" * 3000 + "]" * 3000,
    "{a = {b = 1}}",
]  # fmt: skip
_PLACE = st.floats(0, 1, exclude_max=True)
_LINES = st.lists(
    st.tuples(st.sampled_from(["value", "drop", "double", "table"]), _PLACE,
              st.sampled_from(_VALUES)), min_size=1, max_size=3,
)  # fmt: skip
_MODEL = (DEMO / "model.toml").read_text()
_PROFILE = (ROOT / "core/profiles/zcu104.toml").read_text()
_STUDY = (ROOT / "host/train/study.toml").read_text()
_TRAINING = """\
method = "qkd"
seed = 0
[data]
kind = "folder"
path = "none"
size = [32, 48]
limit = 10
validation = 0.1
in_memory_mib = 8
workers = 0
[augmentation]
flip = true
shift = 2
random_resized_crop = 0.3
mixup = 0.2
[student]
network = "densenet-tiny"
weights = "none.safetensors"
options = { growth_rate = 4 }
[teacher]
network = "densenet-tiny"
weights = "none.safetensors"
[quantisation]
weights = 4
activations = 4
calibration = "mse"
[training]
epochs = 6
lr = 0.02
batch_size = 8
class_weights = [1.0, 2.0]
keep = "best"
[[phases]]
name = "a"
share = 1.0
teacher = "frozen"
labels = 1.0
distil = 1.0
[explore]
growth_rate = [4, 8]
depth = [2]
stem = ["small"]
bits = [[8, 8]]
"""


def damaged(text: str, lines: Any) -> str:
    """Replaced values, dropped and doubled lines, inserted tables."""
    rows = text.splitlines()
    for kind, place, value in lines:
        at = int(place * len(rows))
        if kind == "value":
            rows[at] = f"{rows[at].split('=')[0].strip() or 'a'} = {value}"
        elif kind == "drop":
            del rows[at]
        elif kind == "double":
            rows.insert(at, rows[at])
        else:
            rows.insert(at, "[input]")
        if not rows:
            break
    return "\n".join(rows) + "\n"


def _toml(text: str, case: Any) -> bytes:
    lines, edits = case
    return edited(damaged(text, lines).encode(), edits)


_CASES = st.tuples(_LINES, st.just([]) | EDITS)


@fuzz(_CASES, 60)
def test_model_toml(case: Any) -> None:
    """The application's description of a model."""
    folder = scratch() / "model"
    if not folder.exists():
        folder.mkdir()
        shutil.copy(DEMO / "model.xmodel", folder)
    (folder / "model.toml").write_bytes(_toml(_MODEL, case))
    try:
        load_classifier(folder)
    except ModelError as error:
        one_line(error)


@pytest.mark.slow
@fuzz(_CASES, 15)
def test_model_toml_of_samples(case: Any) -> None:
    """The same, as `inspect --images` reads it."""
    folder = scratch() / "inspected"
    if not folder.exists():
        folder.mkdir()
        shutil.copy(DEMO / "model.xmodel", folder)
        shutil.copytree(DEMO / "images/Bag", folder / "few")
        for path in sorted((folder / "few").iterdir())[2:]:
            path.unlink()
    (folder / "model.toml").write_bytes(_toml(_MODEL, case))
    run_main(main, "inspect", folder / "model.xmodel", "--images", folder / "few", "--json")


@fuzz(_CASES, 60)
def test_profile(case: Any) -> None:
    """A board's profile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "PROFILES", scratch())
        (scratch() / "mine.toml").write_bytes(_toml(_PROFILE, case))
        try:
            profiles.load_profile.__wrapped__("mine")
        except TomlError as error:
            one_line(error)


@fuzz(st.tuples(EDITS, st.sampled_from(["outputs.json", "1.bin"])), 60)
def test_expected_outputs(case: Any) -> None:
    """The outputs that the board compares with."""
    edits, name = case
    folder = scratch() / "expected"
    shutil.rmtree(folder, ignore_errors=True)
    outputs: dict[str, Any] = {
        "logits": np.ones((2, 3), np.int8),
        RESULT: np.ones((2, 3), np.float32),
    }
    inputs = np.ones((2, 4, 4, 1), np.int8)
    write_expected(folder, ExpectedOutputs("ab", "", ("ramp", "zeros"), inputs, outputs))
    (folder / name).write_bytes(edited((folder / name).read_bytes(), edits))
    try:
        read_expected(folder)
    except ExpectedError as error:
        one_line(error)


@fuzz(_CASES, 60)
def test_training(case: Any) -> None:
    """A run's file, also as read by `explore`."""
    path = scratch() / "run.toml"
    path.write_bytes(_toml(_TRAINING, case))
    try:
        table = read_toml(path)
        table.pop("explore", None)
        make_config(table, str(path))
    except ConfigError as error:
        one_line(error)


@fuzz(_CASES, 40)
def test_explore(case: Any) -> None:
    """The space of networks that a file spans, without predicting any."""
    path = scratch() / "run.toml"
    path.write_bytes(_toml(_TRAINING, case))
    try:
        explore_space.read_spec(path)
    except (explore_space.ExploreError, ConfigError, DataError) as error:
        one_line(error)


@fuzz(_CASES, 40)
def test_study(case: Any) -> None:
    """A study's file: its cells are listed, not run."""
    path = scratch() / "study.toml"
    path.write_bytes(_toml(_STUDY, case))
    try:
        study.read_study(path, scratch() / "study")
    except ConfigError as error:
        one_line(error)


@fuzz(EDITS, 60)
def test_journal(edits: Any) -> None:
    """A journal shared by workers on several machines: read, and its trials sorted."""
    pytest.importorskip("optuna", reason="needs Optuna, which is not installed")
    cells, journal = _shared_study()
    path = scratch() / "journal"
    path.write_bytes(edited(journal, edits))
    try:
        with study_queue.shared_cells(
            cells, set(), Shared(f"journal:{path}"), TrainingProcesses()
        ) as found:
            found.is_open()
    except StorageError as error:
        one_line(error)


@functools.cache
def _shared_study() -> tuple[study.Study, bytes]:
    """Return a study, and a journal with a cell done, one released and one waiting."""
    from optuna.trial import TrialState

    table = {**read_toml(ROOT / "host/train/study.toml"), "methods": ["ptq"], "bits": [[8, 8]]}
    cells = study.Study({**table, "ablation": {}}, scratch())
    path = scratch() / "whole"
    trials = open_study(f"journal:{path}", study_queue.NAME, ["maximize"])
    for cell, values, state in (
        (cells.cells[0], [50.0], TrialState.COMPLETE), (cells.cells[1], None, TrialState.FAIL),
    ):  # fmt: skip
        facts = {"cell": cell.name, "settings": cell.settings, "beat": 3, "seconds": 5.0}
        trials.enqueue_trial({}, facts)
        trials.tell(trials.ask(), values, state)
    return cells, path.read_bytes()


@pytest.mark.slow
@fuzz(st.tuples(EDITS, st.booleans()), 60)
def test_npy(case: Any) -> None:
    """An array for `run`, with any header."""
    edits, as_float = case
    file = io.BytesIO()
    np.save(file, np.ones([2, 28, 28, 1], np.float32 if as_float else np.int8))
    (scratch() / "in.npy").write_bytes(edited(file.getvalue(), edits))
    run_main(main, "run", DEMO / "model.xmodel", "--input", scratch() / "in.npy", "--output",
         scratch() / "out.npy")  # fmt: skip


@pytest.mark.slow
@fuzz(
    st.tuples(
        st.sampled_from(["shape", "descr", "fortran_order"]),
        st.sampled_from(
            [
                "(1, 28, 28, 1)",
                "(10**12, 28, 28, 1)",
                "(-1, 28, 28, 1)",
                "()",
                "(2**62,)",
                "'|O'",
                "'<f8'",
                "'<f4'",
                "'|i1'",
                "'|S1000000'",
                "'<U5'",
                "True",
                "[]",
                "(" * 500 + ")" * 500,
                "1e400",
            ]
        ),
    ),
    40,
)
def test_npy_header(case: Any) -> None:
    """The same with a well-formed but false header."""
    key, value = case
    header = {"descr": "'|i1'", "fortran_order": "False", "shape": "(1, 28, 28, 1)", key: value}
    text = "{" + ", ".join(f"'{k}': {v}" for k, v in header.items()) + "}"
    data = b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n"
    (scratch() / "in.npy").write_bytes(data + bytes(784))
    run_main(main, "run", DEMO / "model.xmodel", "--input", scratch() / "in.npy", "--output",
         scratch() / "out.npy")  # fmt: skip


@fuzz(EDITS, 40)
def test_checkpoint(edits: Any) -> None:
    """A checkpoint of a run, read by export."""
    data = (ROOT / "models/fashion-densenet/student.safetensors").read_bytes()
    (scratch() / "student.safetensors").write_bytes(edited(data, edits))
    path = scratch() / "student.safetensors"
    try:
        checkpoint.load(path)
    except checkpoint.CheckpointError as error:
        one_line(error)


_RUN = {
    "state": "done", "error": None, "started": "2026-01-01T00:00:00", "provider": "DPU",
    "emulation": False, "realtime": None, "machine": {"board": "ZCU104", "cpus": 4},
    "model": {"name": "demo", "dpu": "DPUCZDX8G", "target": "ZCU104", "sha256": "0" * 64},
    "steps": [{"name": "offline, 1 thread", "scenario": "offline", "threads": 1,
               "fps": {"value": 1.0, "low": 0.9, "high": 1.1}, "frames": {"classified": 1},
               "latency_ms": {"p50": {"value": 2.5}}, "power": {"watts": {"value": 14.5}},
               "start_s": 1.5, "end_s": 2.5}],
}  # fmt: skip


@pytest.mark.slow
@fuzz(EDITS, 8)
def test_run_json(edits: Any) -> None:
    """A measured run, read by the report."""
    folder = scratch() / "measured"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(edited(json.dumps(_RUN).encode(), edits))
    run_main_with_output(main, "report", "--run", folder, "--output", scratch() / "report")


def test_a_run_that_is_nested_deeply() -> None:
    """JSON's reader has only Python's recursion limit, which used to give a traceback."""
    folder = scratch() / "deep"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text("[" * 100_000)
    status, _, text = run_main_with_output(
        main, "report", "--run", folder, "--output", scratch() / "report"
    )
    assert status in (0, 2) and len(text) < 2000


@pytest.mark.slow
def test_a_run_of_numbers_that_no_float_holds() -> None:
    folder = scratch() / "large"
    folder.mkdir(exist_ok=True)
    for number in ("9" * 400, "-1e400", "9" * 5000):
        for place in re.finditer(r"(?<=: )[\d.]+", run := json.dumps(_RUN)):
            text = run[: place.start()] + number + run[place.end() :]
            (folder / "run.json").write_text(text)
            run_main_with_output(main, "report", "--run", folder, "--output", scratch() / "report")


def test_the_long_run_reports_its_figures(capfd: pytest.CaptureFixture[str]) -> None:
    """Including a fault: a run of a quarter of an hour used to end without results."""
    from tests.fuzz import __main__ as program
    from tests.fuzz.harness import FIGURES

    FIGURES["profile"].faults["profile: made up"] = 1
    try:
        assert program.main(0.01, ["profile"]) == 0
    finally:
        del FIGURES["profile"].faults["profile: made up"]
    found = json.loads(capfd.readouterr().out)["targets"]["profile"]
    assert found["examples"] >= program.ROUND and found["faults"] == {"profile: made up": 1}
