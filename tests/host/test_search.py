"""Shared storages: opening, claiming of trials, and trials of dead workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("optuna", reason="searches over machines need Optuna, which is not installed")

from optuna.trial import TrialState

from tutelage.core.commands import MissingPackage
from tutelage.core.toml_file import to_toml
from tutelage.host.search import leases
from tutelage.host.search.leases import Leases
from tutelage.host.search.storage import (
    Shared,
    StorageError,
    StorageUsageError,
    number_in,
    open_study,
    storage_errors,
    trials_of,
    without_password,
)
from tutelage.host.search.worker import RunFailed, work
from tutelage.host.train.training_process import TrainingProcesses

LEASE = 0.6


def _journal(folder: Path) -> str:
    return f"journal:{folder / 'journal'}"


def _study(url: str, trials: int = 1) -> Any:
    study = open_study(url, "x", ["maximize"])
    for _ in range(trials - len(study.trials)):
        study.enqueue_trial({})
    return study


def _no_end() -> None:
    raise AssertionError("a trial that was not revoked was ended")


def _wait(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set the lease of workers, s."""
    seconds = [0.0]
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


@pytest.mark.parametrize("scheme", ["journal:", "sqlite:///"])
def test_a_silent_workers_trial_is_taken_back_and_its_result_refused(
    scheme: str, tmp_path: Path, clock: list[float]
) -> None:
    url = f"{scheme}{tmp_path / 'storage'}"
    dead, alive = (Leases(_study(url), LEASE) for _ in range(2))  # the first one is silent
    study = _study(url)
    trial = study.trials[0]._trial_id
    assert dead.take(trial, _no_end)
    for clock[0], taken in ((0.0, []), (LEASE, []), (1.01 * LEASE, [0])):
        assert [each.number for each in alive.take_back(trials_of(study))] == taken
    assert not dead.end(trial, TrialState.COMPLETE, [1.0])
    assert study.trials[0].state == TrialState.FAIL and study.trials[0].value is None
    assert not dead.take(trial, _no_end)


def test_a_worker_that_lives_keeps_its_trial_and_leaves_it_when_it_ends(
    tmp_path: Path, clock: list[float]
) -> None:
    study, other = _study(_journal(tmp_path), 2), _study(_journal(tmp_path))
    watching, beats = Leases(other, LEASE), [None]
    with Leases(study, LEASE) as held:
        assert held.take(0, _no_end) and held.take(1, _no_end)
        assert not watching.take(0, _no_end)
        for _ in range(4):
            assert not watching.take_back(trials_of(other))
            beats.append(trials_of(other)[1].user_attrs.get(leases.BEAT))
            _wait(lambda: trials_of(other)[1].user_attrs.get(leases.BEAT) != beats[-1])
            clock[0] += 0.9 * LEASE
        assert held.end(1, TrialState.COMPLETE, [2.0], seconds=3.0)
    left, done = trials_of(other)
    assert left.state == TrialState.FAIL and left.user_attrs["released"] is True
    assert done.value == 2.0 and done.user_attrs["seconds"] == 3.0


def test_a_worker_is_notified_of_a_revoked_trial(tmp_path: Path) -> None:
    study, calls = _study(_journal(tmp_path)), list[str]()
    with Leases(study, LEASE) as held:
        held.take(0, lambda: calls.append("lost"))
        _study(_journal(tmp_path))._storage.set_trial_state_values(0, TrialState.FAIL)
        _wait(lambda: calls)
    assert calls == ["lost"] and "released" not in study.trials[0].user_attrs


_TAKER = """
import sys, time
from pathlib import Path
from tutelage.host.search.leases import Leases
from tutelage.host.search.storage import open_study, trials_of
study = open_study(sys.argv[1], "x", ["maximize"])
leases, trials = Leases(study, 60), trials_of(study)
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
print(*(trial.number for trial in trials if leases.take(trial._trial_id, print)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["journal:", "sqlite:///"])
def test_processes_that_want_the_same_trials_share_them(
    scheme: str, repo_root: Path, tmp_path: Path
) -> None:
    url, go = f"{scheme}{tmp_path / 'storage'}", tmp_path / "go"
    _study(url, 40)
    command = [sys.executable, "-c", _TAKER, url]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([*command, tmp_path / name, go], cwd=repo_root, text=True, stdout=pipe)
        for name in "abc"
    ]
    _wait(lambda: all((tmp_path / name).exists() for name in "abc"), 60)
    go.touch()
    taken = [int(word) for each in processes for word in each.communicate()[0].split()]
    assert sorted(taken) == list(range(40))


def test_a_journal_is_lines_of_json(tmp_path: Path) -> None:
    _study(_journal(tmp_path), 3)
    lines = (tmp_path / "journal").read_bytes().splitlines()
    assert len(lines) == 4 and all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    "line",
    [b"x", b"3", b"[]", b'{"op_code": 99}', b'{"op_code": 4, "study_id": 0}', b"\xff", b"[" * 9000,
     b'{"op_code": 0, "study_name": "y", "directions": [7]}',
     b'{"op_code": 8, "trial_id": 0, "user_attr": {}}'],
)  # fmt: skip
def test_a_damaged_journal_is_one_line(line: bytes, tmp_path: Path) -> None:
    study = _study(_journal(tmp_path))
    with (tmp_path / "journal").open("ab") as file:
        file.write(line + b"\n" + b"{}\n")
    for use in (lambda: open_study(_journal(tmp_path), "x", ["maximize"]), lambda: study.trials):
        with pytest.raises(StorageError, match="damaged") as raised:
            use()
        assert "\n" not in str(raised.value)


def test_a_line_that_a_dead_writer_left_incomplete_is_dropped(tmp_path: Path) -> None:
    running = _study(_journal(tmp_path), 2)
    path = tmp_path / "journal"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(_study(_journal(tmp_path), 0).trials) == 1  # who starts
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "stu')
    running.enqueue_trial({})  # and workers that already run
    assert [json.loads(line)["op_code"] for line in path.read_bytes().splitlines()][-1] == 4
    assert len(open_study(_journal(tmp_path), "x", ["maximize"]).trials) == 2


@pytest.mark.parametrize("content", [b"notes", b"notes\n", b"3\n", b"x" * 100_000])
def test_a_file_without_lines_is_kept(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(content)
    with pytest.raises(StorageError, match="not a journal"):
        open_study(_journal(tmp_path), "x", ["maximize"])
    assert (tmp_path / "journal").read_bytes() == content


def test_attributes_that_are_none(tmp_path: Path) -> None:
    study = _study(_journal(tmp_path))
    line = {"op_code": 4, "study_id": 0, "worker_id": "", "datetime_start": None, "user_attrs": 5}
    with (tmp_path / "journal").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(StorageError, match="trial 1 of x: damaged"):
        trials_of(study)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost:6379", "unpickles"),
        ("search.db", "is not a storage"),
        ("journal:/nowhere/at/all", "no such directory"),
        ("mysql+nodriver://me:secret@host/db", "the storage failed"),
        ("mssql+pymssql://me:secret@host/db", "driver is not installed"),
        ("nothing://me:secret@host/db", "the storage failed"),
    ],
)
def test_invalid_storages(url: str, words: str) -> None:
    with pytest.raises(StorageError, match=words) as raised, storage_errors(url):
        open_study(url, "x", ["maximize"])
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    (tmp_path / "x.db").write_bytes(b"text " * 1000)
    with pytest.raises(StorageError, match=r"the storage failed: .*not a database"):
        open_study(f"sqlite:///{tmp_path / 'x.db'}", "x", ["maximize"])


def test_passwords_and_leases() -> None:
    assert without_password("mysql://me:p@ss@host/db") == "mysql://me:***@host/db"
    assert without_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(StorageUsageError, match="lease"):
            Shared("journal:x", seconds)


def test_without_optuna_the_install_command_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackage, match=r"'optuna'.*pip install '.*\[search\]'"):
        open_study("", "x", ["maximize"])


class _Numbers:
    """A queue of numbers, of which one fails and one is taken over by another worker."""

    poll_seconds: float | None = 0.01

    def __init__(self) -> None:
        self.left, self.asked = list(range(6)), 0

    def take(self) -> int | None:
        return self.left.pop(0) if self.left else None

    def is_open(self) -> bool:
        self.asked += 1
        return self.asked < 3

    def finish(self, item: int, result: dict[str, Any]) -> bool:
        return item != 4

    def fail(self, item: int, text: str) -> bool:
        return True


def _run(item: int) -> dict[str, Any]:
    if item == 2:
        raise RunFailed("two")
    return {"accuracy": item}


def test_a_worker_runs_ready_cells_and_waits_for_others() -> None:
    queue, stopped = _Numbers(), list[int]()
    found = dict(work(queue, _run, 2, 0, lambda: stopped.append(1)))
    assert found.pop(2) == "two"
    assert found == {n: {"accuracy": n} for n in (0, 1, 3, 5)}
    assert queue.asked == 3 and stopped == [1]
    assert len(list(work(_Numbers(), _run, 3, 2, lambda: None))) == 2


_PARENT = """
import os, sys
from pathlib import Path
from tutelage.host.train.training_process import TrainingProcesses
config = {"method": "float", "data": {"kind": "folder", "path": sys.argv[1]},
          "student": {"network": "densenet-tiny"}, "training": {"epochs": 10000, "batch_size": 60}}
TrainingProcesses().run("long", config, Path(sys.argv[2]))
"""


def _children(folder: Path) -> list[int]:
    """Processes with a folder in their command line, by their ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and b"--resume" in words:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_run_ends_with_the_worker_that_started_it(repo_root: Path, tmp_path: Path) -> None:
    folder, images = tmp_path / "run", repo_root / "app" / "demo" / "images"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PARENT, str(images), str(folder)]
    parent = subprocess.Popen(command, cwd=repo_root, env=environment)
    _wait(lambda: _children(folder), 60)
    parent.kill()
    parent.wait()
    _wait(lambda: not _children(folder))


def test_no_run_starts_after_the_end(tmp_path: Path) -> None:
    runs = TrainingProcesses()
    runs.end_all()
    with pytest.raises(RunFailed, match="interrupted"):
        runs.run("late", {}, tmp_path)


@pytest.mark.parametrize(
    "change, goes_on",
    [
        (lambda _: None, True),
        (lambda config: config["student"].update(weights="/moved/float/student.safetensors"), True),
        (lambda config: config["student"].update(weights="other/student.safetensors"), False),
        (lambda config: config.update(seed=1), False),
    ],
)
def test_a_changed_run_starts_from_the_beginning(
    change: Any, goes_on: bool, tmp_path: Path
) -> None:
    config: dict[str, Any] = {
        "method": "qat",
        "student": {"network": "densenet-tiny", "weights": "float/student.safetensors"},
    }
    files = [tmp_path / "checkpoint.safetensors", tmp_path / "best.safetensors"]
    for file in files:
        file.touch()
    (tmp_path / "config.toml").write_text(to_toml(config))
    change(config)
    _do_not_start(config, tmp_path)
    assert [file.exists() for file in files] == [goes_on, goes_on]


def test_a_run_whose_start_was_trained_again_starts_from_the_beginning(tmp_path: Path) -> None:
    weights, checkpoint = tmp_path / "float" / "student.safetensors", "checkpoint.safetensors"
    weights.parent.mkdir()
    config = {"method": "qat", "student": {"network": "densenet-tiny", "weights": str(weights)}}
    (tmp_path / "config.toml").write_text(to_toml(config))
    for file in (weights, tmp_path / checkpoint):
        file.touch()
    os.utime(weights, (0, 0))
    _do_not_start(config, tmp_path)
    assert (tmp_path / checkpoint).exists()
    os.utime(weights)
    os.utime(tmp_path / checkpoint, (0, 0))
    _do_not_start(config, tmp_path)
    assert not (tmp_path / checkpoint).exists()


def _do_not_start(config: dict[str, Any], folder: Path) -> None:
    """Prepare a folder for a run, which is ended before its process starts."""
    runs = TrainingProcesses()
    runs.end_all()
    with pytest.raises(RunFailed, match="interrupted"):
        runs.run("changed", config, folder)


def test_what_a_network_prints_is_not_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the study and all of its cells with a traceback."""
    accuracies = {"accuracy": 1.0, "validation_accuracy": None, "teacher_accuracy": None}
    result = json.dumps({"classes": [{"top": 1.0}], **accuracies}, indent=2)
    printed = ["", ""]

    def start(_: TrainingProcesses, *_arguments: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["printf", "%s", f"{printed[0]}{result}\n{printed[-1]}"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    monkeypatch.setattr(TrainingProcesses, "_start", start)
    for printed in (["", ""], ["{1: 2}\nlayers: {\n}\n", ""], ["{\n", ""]):
        found = TrainingProcesses().run("cell", {}, tmp_path / f"run{len(printed[0])}")
        assert found.items() >= accuracies.items()
    printed = ["", "Bye!\n"]
    with pytest.raises(RunFailed, match="cell: no result at the end of its output: Extra data"):
        TrainingProcesses().run("cell", {}, tmp_path / "run")


def test_numbers_of_a_damaged_storage() -> None:
    """Python's JSON has NaN, Infinity and integers of any length."""
    stored = json.loads(f'{{"a": 2, "b": NaN, "c": Infinity, "d": -1{"0" * 400}, "e": "1"}}')
    assert [number_in(stored, key) for key in "abcdef"] == [2.0, *[None] * 5]
