"""`tutelage measure` on a stand-in board, with all kinds of disturbances.

No real board was used: vart and xir are those of tests/fake_board, and the rails are files.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.__main__ import main
from tutelage.core.errors import MeasureError
from tutelage.host.deploy import measurement as measuring
from tutelage.host.deploy import measurement_results
from tutelage.host.ssh import remote as reaching
from tutelage.host.ssh.errors import ConnectionLost

ROOT = Path(__file__).resolve().parent.parent.parent
_REASON = why_not()
pytestmark = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")

SAFE = ("--seconds", "1.2", "--warm-up", "0.3", "--idle", "0.5", "--cool-down", "0.2",
         "--threads", "1,2", "--accept", "disturbed")  # fmt: skip
SHORT = (*SAFE, "--accept", "brown-out")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInBoard]:
    """A board with a release; all tests but the last leave it unchanged."""
    folder = tmp_path_factory.mktemp("board")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    with StandInBoard(folder, ina226="iio-hwmon") as board:
        make_model(folder / "mine")
        (folder / "wheels").mkdir()
        make_wheel("psutil", folder / "wheels")
        config = ["--ssh-config", str(board.ssh_config)]
        wheels = ["--wheels", str(folder / "wheels")]
        model = ["--model", str(folder / "mine")]
        assert main(["deploy", board.host, *model, *wheels, *config]) == 0
        board.set_power("12V", 16.0)
        yield board
    del os.environ["XDG_CACHE_HOME"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detect and retry a lost connection sooner."""
    options = tuple(o.replace("Interval=5", "Interval=1") for o in reaching.SSH_OPTIONS)
    monkeypatch.setattr(reaching, "SSH_OPTIONS", options)
    monkeypatch.setattr(measuring, "_RETRY_SECONDS", (0.5, 1.0))


def _arguments(board: StandInBoard, results: Path, *more: str) -> list[str]:
    return ["measure", board.host, "--ssh-config", str(board.ssh_config), "--output", str(results),
            *more]  # fmt: skip


def _run_of(results: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = (results / "zcu104").iterdir()
    return folder, json.loads((folder / "run.json").read_text())


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _wait_for(board: StandInBoard, name: str, event: str, count: int = 1) -> None:
    """Wait until a measurement has reported a number of events of a kind."""
    path = board.tutelage / "measurements" / name / "progress.jsonl"
    end = time.monotonic() + 40
    while not path.exists() or path.read_text().count(f'"event": "{event}"') < count:
        assert time.monotonic() < end, path.read_text() if path.exists() else "no progress"
        time.sleep(0.05)


def _start(board: StandInBoard, results: Path, *more: str) -> str:
    assert main(_arguments(board, results, *SHORT, "--detach", *more)) == 0
    return measuring.newest(board.host, board.ssh_config)


def _host_until(board: StandInBoard, results: Path, text: str, *more: str) -> subprocess.Popen[str]:
    """Start a measurement in a process of the host; return when it has printed `text`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *_arguments(board, results, *(more or SHORT))],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            break
    return process


def _attach(board: StandInBoard, results: Path, name: str) -> int:
    return main(_arguments(board, results, "--attach", "--id", name))


@pytest.mark.slow
def test_a_whole_measurement(board: StandInBoard, tmp_path: Path, capsys: Any) -> None:
    board.set_temperature(47.0)
    assert main(_arguments(board, tmp_path, *SHORT, "--scenario", "offline",
                           "--scenario", "server:100:50")) == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert "| offline, 1 thread [" in out and "[short]" in out and "±" in out and "idle 16" in out
    assert "1/4 offline, 1 thread" in err and "16.00 W" in err
    folder, run = _run_of(tmp_path)
    assert run["state"] == "done" and run["machine"]["board"].startswith("ZynqMP ZCU104")
    assert run["clocks"]["governor"] == "performance" and run["clocks"]["highest_mhz"] == 1200
    assert run["machine"]["release"] == (board.tutelage / "current").readlink().name
    step = run["steps"][0]
    assert step["conditions"]["temperature_c"]["max"] == 47.0
    assert len(step["power"]["rails"]) == 10
    joules = 1000 * step["power"]["joules_per_frame"]["value"]
    assert joules == pytest.approx(16e3 / step["fps"]["value"], rel=1e-3)
    assert step["fps"]["low"] < step["fps"]["high"] and step["power"]["watts"]["sensor_error"] > 0
    inside = [row for row in _rows(folder / "frames.csv") if row["step"] == "0"
              and step["start_s"] <= float(row["done_s"]) < step["end_s"]]  # fmt: skip
    assert len(inside) == step["frames"]["classified"]
    assert {row["12V_W"] for row in _rows(folder / "power.csv")} == {"16"}
    assert run["pace"]["measured"] is False and "no figure here was measured on a DPU" in out
    assert "at random times, with watts that a simulated board invents" in out
    server = run["steps"][2]
    assert server["fps"]["value"] == pytest.approx(100, rel=0.3)
    assert main(_arguments(board, tmp_path, "--list")) == 0
    assert f"{folder.name}  collected" in capsys.readouterr().out


@pytest.mark.slow
def test_watts_rise_while_the_board_works(board: StandInBoard, tmp_path: Path) -> None:
    board.free_power("12V")
    try:
        assert main(_arguments(board, tmp_path, *SHORT, "--scenario", "offline")) == 0
    finally:
        board.set_power("12V", 16.0)
    folder, run = _run_of(tmp_path)
    assert run["idle"]["before"]["watts"]["value"] == pytest.approx(14.05, abs=0.01)
    one, two = (step["power"] for step in run["steps"])
    assert one["joules_per_frame_above_idle"]["value"] > 0
    assert two["watts_above_idle"]["value"] > one["watts_above_idle"]["value"] > 0.1
    assert one["rails"]["INT"]["mean_w"] > 3.6
    assert one["doubts"] is None and run["power"]["doubts"] == []
    assert "not found" not in run["power"]["reason"]
    watts = [float(row["12V_W"]) for row in _rows(folder / "power.csv")]
    assert watts[-1] == pytest.approx(14.05) and max(watts) <= 14.05 + 2 * 1.55 + 1e-6


@pytest.mark.slow
def test_a_cut_network_loses_nothing(
    board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("tutelage.host.cli.boards.note", said.append)
    name = _start(board, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *_arguments(board, tmp_path, "--attach", "--id", name)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for(board, name, "step")
    board.cut()
    try:
        _wait_for(board, name, "step", 2)
    finally:
        board.mend()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    folder, run = _run_of(tmp_path)
    assert run["state"] == "done" and len(run["steps"]) == 3
    times = [float(row["time_s"]) for row in _rows(folder / "power.csv")]
    assert max(b - a for a, b in pairwise(times)) < 1.5  # the cut lasts longer
    assert err.count("1/3 ") == err.count("3/3 ") == 1  # no line is repeated or lost


def test_a_line_that_a_lost_connection_cuts_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a program in place of ssh that runs the commands here and breaks off once."""
    name = "20260101T000000Z-abcd"
    folder = tmp_path / "tutelage/measurements" / name
    folder.mkdir(parents=True)
    phases = [{"event": "phase", "at": n, "name": f"phase {n}", "seconds": 1} for n in range(3)]
    lines = [json.dumps(phase) + "\n" for phase in phases]
    (folder / "progress.jsonl").write_text("".join(lines))
    marker = 33  # bytes, see `tutelage.host.ssh.answer_marker`
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f"""#!/bin/sh
case "$*" in *" -G "*) exit ;; esac
for command; do :; done
cd {tmp_path}
test ! -e cut || exec sh -c "$command"
touch cut; sh -c "$command" | head -c {marker + len(lines[0]) + len(lines[1]) - 9}; exit 255
"""
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    said: list[str] = []
    measuring.follow("board", None, name, said.append)
    assert [text for text in said if "phase" in text] == [
        f"{n:7.0f} s  phase {n}, 1 s" for n in range(3)
    ]


@pytest.mark.slow
def test_a_killed_host_and_a_second_one(board: StandInBoard, tmp_path: Path, capsys: Any) -> None:
    process = _host_until(board, tmp_path, "1/3 ")
    process.kill()
    process.wait()
    assert main(_arguments(board, tmp_path, *SHORT)) == 1
    assert "a measurement is running: " in capsys.readouterr().err
    assert main(_arguments(board, tmp_path, "--attach")) == 0
    _, run = _run_of(tmp_path)
    assert run["state"] == "done" and len(run["steps"]) == 3


@pytest.mark.slow
def test_watchers_that_are_killed_at_either_end(board: StandInBoard, tmp_path: Path) -> None:
    """The end of the watcher on the board used to be taken for that of the measurement."""
    longer = (*SHORT, "--seconds", "5", "--scenario", "offline")  # two windows
    process = _host_until(board, tmp_path, "1/2 ", *longer)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "Traceback" not in err
    name = measuring.newest(board.host, board.ssh_config)
    hint = (
        f"to collect the results: tutelage measure {board.host} --attach --id {name} --ssh-config "
    )
    assert hint in err
    process = _host_until(board, tmp_path, "1/2 ", "--attach", "--id", name)
    board.run("pkill", "-KILL", "-x", "tail")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (
        "the process that follows the measurement was ended" in err and err.count("idle after") == 1
    )
    _, run = _run_of(tmp_path)
    assert run["state"] == "done" and len(run["steps"]) == 2


@pytest.mark.full_board
def test_ctrl_c_leaves_it_and_cancel_ends_it(board: StandInBoard, tmp_path: Path) -> None:
    process = _host_until(board, tmp_path, "2/3 ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "continues to measure" in err and "Traceback" not in err
    assert main(_arguments(board, tmp_path, "--cancel")) == 1
    _, run = _run_of(tmp_path)
    assert run["state"] == "stopped" and len(run["steps"]) in (1, 2)
    assert run["steps"][0]["frames"]["classified"] > 100


@pytest.mark.full_board
def test_a_process_that_is_killed_leaves_its_windows(board: StandInBoard, tmp_path: Path) -> None:
    name = _start(board, tmp_path)
    _wait_for(board, name, "step", 2)
    board.run("kill", "-9", (board.tutelage / "measurements" / name / "pid").read_text())
    assert _attach(board, tmp_path, name) == 1
    _, run = _run_of(tmp_path)
    assert run["state"] == "broken off" and len(run["steps"]) == 2


@pytest.mark.full_board
def test_a_full_disk_ends_it_and_keeps_the_old_file(board: StandInBoard, tmp_path: Path) -> None:
    name = _start(board, tmp_path)
    _wait_for(board, name, "step")
    filler = board.fill_disk()
    try:
        assert _attach(board, tmp_path, name) == 1
    finally:
        filler.unlink()
    folder, run = _run_of(tmp_path)
    assert len(run["steps"]) == 2 and run["state"] == "failed"
    assert "No space left" in run["error"] and "failed" in (folder / "summary.md").read_text()
    assert all(len(row) == 11 for row in _rows(folder / "frames.csv"))


@pytest.mark.slow
def test_refused_measurements(board: StandInBoard, tmp_path: Path, capsys: Any) -> None:
    board.set_temperature(93.0)
    try:
        assert main(_arguments(board, tmp_path, *SHORT)) == 1
        assert "hot: up to 93 C" in capsys.readouterr().err
    finally:
        board.set_temperature(45.0)
    assert main(_arguments(board, tmp_path, "--attach", "--id", "../..")) == 2
    assert main(_arguments(board, tmp_path, "--attach", "--id", "20200101T000000Z-abcd")) == 1
    assert main(_arguments(board, tmp_path, *SHORT, "--scenario", "x; reboot")) == 1
    assert "not a load pattern" in capsys.readouterr().err
    known = board.known_hosts.read_text()
    key = (board.ssh_config.parent / "client_key.pub").read_text()
    board.known_hosts.write_text(f"{known.split()[0]} {key}")
    try:
        with pytest.raises(ConnectionLost, match="Host key verification failed"):
            measuring.follow(board.host, board.ssh_config, "20200101T000000Z-abcd", print)
    finally:
        board.known_hosts.write_text(known)


@pytest.mark.full_board
def test_a_file_changed_in_transfer_is_reported(board: StandInBoard, tmp_path: Path) -> None:
    arguments = _arguments(board, tmp_path, *SAFE, "--detach", "--scenario", "offline")
    assert main(arguments) == 0
    name = measuring.newest(board.host, board.ssh_config)
    measuring.follow(board.host, board.ssh_config, name, print)
    path = board.tutelage / "measurements" / name / "frames.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(MeasureError, match=r"frames\.csv: does not have the board's checksum"):
        measuring.collect(board.host, board.ssh_config, name, tmp_path, print)
    path.write_bytes(whole)
    folder = measuring.collect(board.host, board.ssh_config, name, tmp_path, print)
    run = measurement_results.outcome(folder)
    assert run["state"] == "done"
    # Two threads keep both cores busy, which the board's supply may not sustain.
    assert [step["threads"] for step in run["steps"]] == [1]
    assert "left out: brown-out" in run["notes"][0]


@pytest.mark.full_board
def test_sensors_that_vanish_give_no_watts(board: StandInBoard, tmp_path: Path) -> None:
    """The last test: the sensors do not come back."""
    name = _start(board, tmp_path, "--scenario", "offline")
    _wait_for(board, name, "step")
    board.remove_sensors()
    assert _attach(board, tmp_path, name) == 0
    folder, run = _run_of(tmp_path)
    first, second = run["steps"]
    assert first["power"]["watts"]["value"] == pytest.approx(16.0)
    assert second["power"]["watts"]["value"] is None and second["fps"]["value"] > 100
    assert "power" in [concern["name"] for concern in second["concerns"]]
    assert "[power]" in (folder / "summary.md").read_text()
