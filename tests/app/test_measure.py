"""`python -m tutelage.app.measure` as a whole, with all events that can end it.

On the emulation if requested, or else on tests/fake_board, which also runs with a board's
versions of all packages.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.stand_in_board.deployable import make_model
from tests.stand_in_board.sensors import INA226_FORMS, Sensors, write_sensors
from tutelage.app.measure import measurement as measure_run
from tutelage.app.measure.measurement import Measurement
from tutelage.app.measure.plan import MeasurementSettings, Phases, make_steps
from tutelage.app.measure.store import Store, StoreError
from tutelage.app.model import load_classifier
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.frames import Frame
from tutelage.app.sources.load_patterns import decoded_frames
from tutelage.board import system
from tutelage.board.condition import ConditionWatch
from tutelage.board.power import Power, open_power
from tutelage.board.power.sources.source import PowerSource, Rail
from tutelage.core.board_profile import load_profile
from tutelage.core.errors import MeasureError
from tutelage.core.locations import DEMO_MODEL
from tutelage.core.results.run_json import read_run

ROOT = Path(__file__).resolve().parent.parent.parent
FAKE_BOARD = ROOT / "tests/fake_board"
SHORT = ("--seconds", "1", "--warm-up", "0.3", "--idle", "0.5", "--cool-down", "0.2",
         "--threads", "1,2", "--power", "none", "--accept", "disturbed", "--accept", "hot",
         "--accept", "throttled")  # fmt: skip
COMPILER = shutil.which("cc") or shutil.which("gcc")


def _start(
    folder: Path, *more: str, emulated: bool = False, **environment: str
) -> subprocess.Popen[str]:
    model = () if emulated else ("--model", str(_model(folder.parent)))
    variables = {**os.environ, **({} if emulated else {"PYTHONPATH": str(FAKE_BOARD)})}
    return subprocess.Popen(
        [sys.executable, "-m", "tutelage.app.measure", "--output", str(folder), *SHORT, *model,
         *more],
        cwd=ROOT, env={**variables, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _model(folder: Path) -> Path:
    """Return the model directory in `folder` that tests/fake_board runs, creating it if missing."""
    model = folder / "mine"
    return model if model.exists() else make_model(model)


def _wait_for(process: subprocess.Popen[str], folder: Path, text: str) -> None:
    """Wait until the progress has an event."""
    path, end = folder / "progress.jsonl", time.monotonic() + 60
    while not path.exists() or text not in path.read_text():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def _run(folder: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def _sums_hold(folder: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
def test_a_whole_run_on_the_emulation(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    scenarios = "--scenario", "single-stream", "--scenario", "offline", "--threads", "2"
    out, err = _start(folder, "--realtime", "zcu104", *scenarios, emulated=True).communicate(
        timeout=100
    )
    run = _run(folder)
    assert run["state"] == "done" and run["emulation"] and run["realtime"] == "zcu104", err
    assert (folder / "summary.md").read_text() == out
    pace = "at the pace predicted for a ZCU104 (dpu/predict/latency.py)"
    assert run["pace"] == {"measured": False, "text": pace}
    assert f"This is the emulation, {pace}: no figure here was measured on a DPU." in out
    names = ["single-stream, 1 thread", "offline, 2 threads"]
    assert [step["name"] for step in run["steps"]] == names
    with (folder / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    for number, step in enumerate(run["steps"]):
        done = [float(row["done_s"]) for row in rows if row["step"] == str(number)]
        assert step["frames"]["classified"] == sum(
            step["start_s"] <= t < step["end_s"] for t in done)  # fmt: skip
        assert max(done) >= step["end_s"]  # the DPU was busy to the end
        assert step["end_s"] - step["start_s"] == pytest.approx(1.0)
    single = run["steps"][0]
    assert single["fps"]["value"] * single["latency_ms"]["mean"]["value"] < 1100
    _sums_hold(folder)


def test_the_summary_is_printed_in_an_encoding_without_its_letters(tmp_path: Path) -> None:
    process = _start(tmp_path / "a", "--scenario", "offline", PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "\\xb1 is half of the 95 % interval" in out


# The event, its phase, and the number of complete windows then. The last phases come first, so that
# the others run while the test waits for them.
ENDS = [
    (signal.SIGINT, "idle after", 2),
    (signal.SIGKILL, '"step": 1', 1),
    (signal.SIGTERM, '"step": 1', 1),
    (signal.SIGINT, '"step": 0', 0),
    (signal.SIGTERM, "idle before", 0),
    (signal.SIGINT, "check", 0),
]


@pytest.mark.slow
def test_a_signal_ends_it_with_whole_files(tmp_path: Path) -> None:
    """Send the signal in each phase; the runs are parallel, since a run mostly waits."""
    folders = [tmp_path / str(number) / "a" for number in range(len(ENDS))]
    processes = [_start(folder, "--scenario", "offline") for folder in folders]
    waiting = set(range(len(ENDS)))
    end = time.monotonic() + 100
    while waiting:
        for k in sorted(waiting):
            assert processes[k].poll() is None, processes[k].communicate()
            number, phase, _ = ENDS[k]
            path = folders[k] / "progress.jsonl"
            if path.exists() and phase in path.read_text():
                processes[k].send_signal(number)
                waiting.remove(k)
        assert time.monotonic() < end
        time.sleep(0.02)
    for (number, _, steps), folder, process in zip(ENDS, folders, processes, strict=True):
        _, err = process.communicate(timeout=60)
        if number == signal.SIGKILL:
            _was_killed(folder, steps)
            continue
        run = _run(folder)
        assert process.returncode == 1 and "Traceback" not in err and "stopped" in err
        assert run["state"] == "stopped" and run["error"] == "stopped"
        assert len(run["steps"]) == steps
        _sums_hold(folder)


def _was_killed(folder: Path, steps: int) -> None:
    """The figures are those of the last complete window, and the lock is released."""
    run = _run(folder)
    assert run["state"] == "running" and len(run["steps"]) == steps
    assert not (folder / "SHA256SUMS").exists()
    frames = (folder / "frames.csv").read_text()
    assert frames.endswith("\n") and {line[0] for line in frames.splitlines()[1:]} == {"0"}
    with pytest.raises(StoreError, match="has a measurement already"):
        Store(folder)
    Store(folder.parent / "b").close()


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_windows_before(tmp_path: Path) -> None:
    """Use a real tmpfs, in a separate mount namespace, which is full in the second window."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces (unshare -rm)")
    script = """set -e; mkdir full; mount -t tmpfs -o size=3m tmpfs full; mkdir full/a
        (until grep -q '"step": 1' full/a/progress.jsonl; do kill -0 $$; sleep 0.05; done
         cat /dev/zero > full/rest) 2> /dev/null &
        cd "$1"; shift; status=0
        "$@" --output "$OLDPWD/full/a" --accept disk > "$OLDPWD/full/a/log" 2>&1 || status=$?
        cp -r "$OLDPWD/full/a" "$OLDPWD/a"; exit $status"""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(ROOT), sys.executable, "-m",
         "tutelage.app.measure", *SHORT, "--model", str(_model(tmp_path))],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(FAKE_BOARD)}, text=True,
        capture_output=True, timeout=100,
    )  # fmt: skip
    run = _run(tmp_path / "a")
    log = done.stderr + (tmp_path / "a/log").read_text()
    assert done.returncode == 1 and "Traceback" not in log and "No space left" in run["error"]
    assert run["state"] == "failed" and len(run["steps"]) >= 1
    for name in ("frames.csv", "condition.csv"):
        lines = (tmp_path / "a" / name).read_text().split("\n")
        assert lines[-1] == "" and len({line.count(",") for line in lines[:-1]}) == 1
    _sums_hold(tmp_path / "a")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--scenario", "burst"), 2, "not a load pattern"),
        (("--threads", "0"), 2, "whole number"),
        (("--threads", "1,x"), 2, "whole number"),
        (("--seconds", "0"), 2, "not a number"),
        (("--seconds", "nan"), 2, "not a number"),
        (("--model", "/nowhere"), 2, "/nowhere"),
        (("--source", "/nowhere"), 2, "/nowhere"),
        (("--accept", "everything"), 2, "invalid choice"),
        (("--board", "none"), 2, "invalid choice"),
        (("--output", "/proc/a"), 1, "/proc"),
        (("--power", "rapl"), 2, "rapl"),
        (("--scenario", "offline", "--scenario", "offline"), 2, "twice"),
        (("--threads", "1,1", "--scenario", "offline"), 2, "twice"),
        (("--warm-up", "-1"), 2, "not a number"),
        (("--power-rate", "1e9"), 2, "not a number"),
        (("--in-flight", "65"), 2, "whole number"),
        (("--source", "{bad}"), 2, "no image can be decoded"),
        (("--model", "{bad}"), 2, "bad"),
        (("--model", "{bad}/0.png"), 2, "0.png"),
        (("--model", "{bad}/cut.xmodel"), 2, "cut.xmodel"),
        (("--output", "{bad}/file/a"), 1, "file"),
        (("--output", "{bad}/full"), 1, "has a measurement already"),
    ],
)
@pytest.mark.usefixtures("emulation")
def test_wrong_use_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, text: str
) -> None:
    if arguments == ("--power", "rapl") and Path("/sys/class/powercap/intel-rapl:0").exists():
        pytest.skip("this machine has RAPL")
    bad = tmp_path / "bad"
    (bad / "full").mkdir(parents=True)
    (bad / "full/frames.csv").write_text("step\n0\n")
    (bad / "file").write_text("")
    (bad / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (bad / "cut.xmodel").write_bytes((DEMO_MODEL / "model.xmodel").read_bytes()[:5000])
    more = [text.format(bad=bad) for text in arguments]
    process = _start(tmp_path / "a", *more, emulated=True)
    _, err = process.communicate(timeout=60)
    assert not (bad / "full/progress.jsonl").exists()
    assert process.returncode == status and text in err.splitlines()[-1], err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
def test_a_clock_that_is_set_changes_no_figure(tmp_path: Path) -> None:
    folder, offset, library = tmp_path / "a", tmp_path / "offset", tmp_path / "clock.so"
    source = ROOT / "tests/fake_clock/clock.c"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    offset.write_text("0")
    process = _start(folder, "--scenario", "single-stream", "--seconds", "4",
                     LD_PRELOAD=str(library), FAKE_CLOCK_FILE=str(offset))  # fmt: skip
    _wait_for(process, folder, '"step": 0')
    time.sleep(1.0)
    offset.write_text("3600")
    time.sleep(2.3)  # the clock is checked once per second
    offset.write_text("0")
    _, err = process.communicate(timeout=60)
    run = _run(folder)
    assert run["state"] == "done", err
    (step,) = run["steps"]
    assert "clock" in [concern["name"] for concern in step["concerns"]]
    assert step["end_s"] - step["start_s"] == pytest.approx(4.0)
    assert run["seconds"] < 60 and step["latency_ms"]["max"]["value"] < 10_000
    assert step["frames"]["classified"] / 4.0 == pytest.approx(step["fps"]["value"])
    assert any("+3600.0 s" in note for note in run["notes"])
    with (folder / "frames.csv").open() as file:
        done = [float(row["done_s"]) for row in csv.DictReader(file)]
    assert all(0 <= b - a < 2 for a, b in pairwise(done))


# -- in this process, where the sensors are a tree of files of the test -------------------------


@pytest.fixture(autouse=True)
def short_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_run, "_CHECK_SECONDS", 0.5)


@pytest.fixture
def samples(fake_board: Path, tmp_path: Path) -> list[Frame]:
    """Frames for the model of these tests, which runs on fake_board."""
    return decoded_frames(open_source(str(_model(tmp_path) / "images")))[0]


def _measurement(
    folder: Path,
    samples: list[Frame],
    power: Power | Path | None,
    *scenarios: str,
    threads: Sequence[int] = (1,),
    accepted: Sequence[str] = ("disturbed", "hot", "throttled"),
    files: type[Store] = Store,
    seconds: float = 1.0,
) -> Measurement:
    steps = make_steps(list(scenarios), list(threads), 1)
    settings = MeasurementSettings(steps, Phases(0.5, 0.3, seconds, 0.2), 1, tuple(accepted), None,
                                   "images")  # fmt: skip
    if not isinstance(power, Power):
        power = open_power("hwmon", sysfs=power) if power else open_power("none")
    return Measurement(settings, load_classifier(_model(folder.parent)), samples, power,
                       load_profile(), files(folder), lambda _: None)  # fmt: skip


@pytest.fixture
def sysfs(tmp_path: Path) -> Iterator[Path]:
    write_sensors(tmp_path / "sys")
    yield tmp_path / "sys"


class _Reacting(PowerSource):
    """A rail with 20 W while frames are issued, and otherwise 14 W."""

    name = "reacting"

    def __init__(self) -> None:
        super().__init__("a test's rail", [Rail("12V", 0.025, 60.0)], "12V")
        self.measurement: Measurement | None = None

    def read(self) -> list[float]:
        return [20.0 if self.measurement and self.measurement.measuring else 14.0]


@pytest.mark.slow
def test_watts_of_each_window_and_of_rest(tmp_path: Path, samples: list[Frame]) -> None:
    source = _Reacting()
    measurement = _measurement(tmp_path / "a", samples, Power(source), "offline")
    source.measurement = measurement
    measurement.go()
    run = measurement.run
    (step,) = run.steps
    assert run.idle["before"] and run.idle["before"].watts.value == pytest.approx(14.0)
    assert step.power.watts.value == pytest.approx(20.0)
    assert step.power.watts_above_idle.value == pytest.approx(6.0)
    assert read_run(tmp_path / "a").steps[0].power.watts.value == pytest.approx(20.0)
    with (tmp_path / "a" / "power.csv").open() as file:
        table = csv.DictReader(file)
        rows = list(table)
    assert table.fieldnames == ["time_s", "12V_W"]
    assert {row["12V_W"] for row in rows} == {"14", "20"}
    times = [float(row["time_s"]) for row in rows]
    assert all(a < b for a, b in pairwise(times)) and len(times) > 100


@pytest.mark.slow
@pytest.mark.parametrize("form", INA226_FORMS)
def test_a_power_of_zero_gives_no_joules(tmp_path: Path, samples: list[Frame], form: str) -> None:
    """Volts times amperes are used, and the table reports it once."""
    write_sensors(tmp_path / "sys", form)
    Sensors(tmp_path / "sys").set_reading("12V", "power", 0)
    measurement = _measurement(tmp_path / "a", samples, tmp_path / "sys", "single-stream")
    measurement.go()
    (step,) = measurement.run.steps
    assert step.power.watts.value == pytest.approx(12.113 * 1.159)
    assert "sensor" in [concern.name for concern in step.concerns]
    (warning,) = _run(tmp_path / "a")["power"]["doubts"]
    text = (tmp_path / "a/summary.md").read_text()
    assert text.count("reads 0 W (12.11 V x 1.159 A is 14.04 W)") == 1
    assert warning["rail"] == "12V" and "[sensor]" in text
    assert "- sensor: 12V: ina226 at 0x40 (" in text and "-0" not in _table(text)


@pytest.mark.slow
def test_amperes_of_zero_are_not_a_measurement(
    tmp_path: Path, samples: list[Frame], sysfs: Path
) -> None:
    for kind in ("curr", "power"):
        Sensors(sysfs).set_reading("12V", kind, 0)
    measurement = _measurement(tmp_path / "a", samples, sysfs, "single-stream")
    measurement.go()
    (step,) = measurement.run.steps
    for name in ("watts", "joules_per_frame", "fps_per_watt"):
        assert getattr(step.power, name).value is None
    assert {"sensor", "power"} <= {concern.name for concern in step.concerns}
    text = (tmp_path / "a/summary.md").read_text()
    assert "at least 8.4 W are expected (14.05 W at rest, as published)" in text


@pytest.mark.slow
def test_a_missing_total_rail_is_reported_with_a_remedy(
    tmp_path: Path, samples: list[Frame]
) -> None:
    sysfs = tmp_path / "sys"
    write_sensors(sysfs, "iio-hwmon")
    (sysfs / "class/hwmon/hwmon2").unlink()
    measurement = _measurement(tmp_path / "a", samples, sysfs, "single-stream")
    measurement.go()
    text = (tmp_path / "a/summary.md").read_text()
    assert "No watts of the whole board: 9 rails of the ZCU104" in text
    assert "12V: ina2xx_adc, an IIO driver" in text and "rail None" not in text


def _table(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("| "))


@pytest.mark.slow
def test_sensors_that_vanish_end_the_watts_only(
    tmp_path: Path, samples: list[Frame], sysfs: Path
) -> None:
    measurement = _measurement(tmp_path / "a", samples, sysfs, "single-stream", "offline")
    timer = threading.Thread(target=_when_measuring, args=(measurement, Sensors(sysfs).remove))
    timer.start()
    measurement.go()
    timer.join()
    first, second = measurement.run.steps
    assert measurement.run.state == "done"
    for step in (first, second):
        assert step.power.watts.value is None and (step.fps.value or 0) > 10
        assert "power" in [concern.name for concern in step.concerns]


def _when_measuring(measurement: Measurement, act: Any) -> None:
    while not measurement.measuring:
        time.sleep(0.01)
    act()


@pytest.mark.slow
def test_a_runner_that_fails_ends_it(tmp_path: Path) -> None:
    """tests/fake_board fails on images with a black corner."""
    image = np.full((8, 8, 3), 50, np.uint8)
    image[0, 0] = 0
    (tmp_path / "bad").mkdir()
    cv2.imwrite(str(tmp_path / "bad/0.png"), image)
    process = _start(tmp_path / "a", "--source", str(tmp_path / "bad"))
    _, err = process.communicate(timeout=60)
    run = _run(tmp_path / "a")
    assert process.returncode == 1 and run["state"] == "failed" and "Traceback" not in err
    assert "the DPU timed out" in run["error"] and run["steps"] == []


class _SecondRunner:
    """Makes the runner of the second lane fail, or not answer, in a measurement's threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: Callable[[], bool] = lambda: False
        self.hangs: Callable[[], bool] = lambda: False
        self.released = threading.Event()
        vart = importlib.import_module("vart")
        wait = vart.Runner.wait

        def faulty_wait(runner: Any, job: Any) -> Any:
            if threading.current_thread().name == "lane-1":
                if self.hangs():
                    self.released.wait(60)
                if self.fails():
                    raise RuntimeError("DPU timeout")
            return wait(runner, job)

        monkeypatch.setattr(vart.Runner, "wait", faulty_wait)


@pytest.fixture
def second_runner(fake_board: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_SecondRunner]:
    second = _SecondRunner(monkeypatch)
    yield second
    second.released.set()


def _once_after(seconds: float) -> Callable[[], bool]:
    """Return a function that is true once, this long after its first call."""
    first: list[float] = []
    left = [True]

    def now() -> bool:
        first.append(time.monotonic())
        del first[1:]
        return time.monotonic() >= first[0] + seconds and bool(left) and left.pop()

    return now


@pytest.mark.slow
def test_a_thread_that_is_given_up_ends_it(
    tmp_path: Path, samples: list[Frame], second_runner: _SecondRunner
) -> None:
    """With one thread left, the figures would not be those of two."""
    second_runner.fails = lambda: True
    measurement = _measurement(tmp_path / "a", samples, None, "offline", threads=(1, 2))
    with pytest.raises(MeasureError, match="offline, 2 threads: 1 thread given up"):
        measurement.go()
    run = measurement.run
    assert run.state == "failed" and "DPU timeout" in (run.error or "")
    assert [step.name for step in run.steps] == ["offline, 1 thread"]
    assert "runners" not in [concern.name for concern in run.steps[0].concerns]


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_runner_that_was_replaced_marks_the_window(
    tmp_path: Path, samples: list[Frame], second_runner: _SecondRunner, hangs: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """All frames have a result, but the board stood still for the time limit."""
    if hangs:
        monkeypatch.setattr(measure_run, "time_limit_of", lambda _: 0.5)
        second_runner.hangs = _once_after(0.5)
    else:
        second_runner.fails = _once_after(0.7)
    measurement = _measurement(tmp_path / "a", samples, None, "offline", threads=(2,), seconds=2)
    measurement.go()
    (step,) = measurement.run.steps
    (concern,) = (each for each in step.concerns if each.name == "runners")
    assert step.frames.failed == 0
    if hangs:
        assert ", 0 of them" not in concern.text
    else:
        assert concern.text == "1 replaced, 0 of them did not answer; 1 frame tried once more"
    assert "[runners]" in (tmp_path / "a/summary.md").read_text()


def test_a_broken_image_among_others_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"broken")
    cv2.imwrite(str(folder / "1.png"), np.full((32, 32, 3), 50, np.uint8))
    frames, left_out = decoded_frames(open_source(str(folder)))
    assert [frame.name for frame in frames] == ["1.png"]
    assert left_out == f"{folder}: left out 1 broken image: 0.png: not an image OpenCV can read"


@pytest.mark.slow
def test_a_rate_beyond_all_is_not_worked_off_behind_the_window(
    tmp_path: Path, samples: list[Frame]
) -> None:
    """20,000 frames per second arrive: all of them would take minutes."""
    measurement = _measurement(tmp_path / "a", samples, None, "server:20000")
    start = time.monotonic()
    measurement.go()
    (step,) = measurement.run.steps
    assert time.monotonic() - start < 120
    assert "overload" in [concern.name for concern in step.concerns]
    assert step.fps.value is not None and step.fps.value < 20_000


class _StopsAtAStep(Store):
    """Stops the measurement after a step is announced and before it has a pipeline."""

    stop: Callable[[], None]

    def event(self, kind: str, /, **details: Any) -> None:
        super().event(kind, **details)
        if "step" in details:
            self.stop()


def test_a_stop_between_two_phases_is_not_lost(tmp_path: Path, samples: list[Frame]) -> None:
    measurement = _measurement(tmp_path / "a", samples, None, "offline", files=_StopsAtAStep,
                               seconds=600)  # fmt: skip
    _StopsAtAStep.stop = staticmethod(measurement.stop)
    start = time.monotonic()
    with pytest.raises(MeasureError, match="stopped"):
        measurement.go()
    assert measurement.run.state == "stopped" and measurement.run.steps == []
    assert time.monotonic() - start < 300
    _sums_hold(tmp_path / "a")


@pytest.mark.parametrize("accepted", [(), ("brown-out",)])
def test_steps_that_may_reset_the_board_are_left_out(
    tmp_path: Path, samples: list[Frame], accepted: tuple[str, ...]
) -> None:
    measurement = _measurement(tmp_path / "a", samples, None, "single-stream", "offline",
                               threads=(1, 2), accepted=accepted)  # fmt: skip
    measurement.run.emulation = False
    measurement.run.machine.board = "ZynqMP ZCU104 RevC"
    measurement._leave_out_hazards()
    names = [step.name for step in measurement._steps]
    assert ("offline, 2 threads" in names) == bool(accepted) and "offline, 1 thread" in names
    assert any("brown-out" in note for note in measurement.run.notes) != bool(accepted)


@pytest.mark.parametrize(("emulation", "board"), [(True, "ZCU104"), (False, "Ultra96")])
def test_another_machine_has_no_such_hazard(
    tmp_path: Path, samples: list[Frame], emulation: bool, board: str
) -> None:
    measurement = _measurement(tmp_path / "a", samples, None, "single-stream", "offline",
                               threads=(1, 2))  # fmt: skip
    measurement.run.emulation, measurement.run.machine.board = emulation, board
    measurement._leave_out_hazards()
    assert len(measurement._steps) == 3


def test_a_machine_that_is_too_hot_is_refused(
    tmp_path: Path, samples: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text("95000\n")
    monkeypatch.setattr(system, "_psutil_temperatures", dict)
    measurement = _measurement(tmp_path / "a", samples, None, "offline", accepted=("disturbed",))
    measurement._readings._watch = ConditionWatch(tmp_path / "sys")
    measurement.run.machine.board = "ZynqMP ZCU104 RevC"  # a board whose chip's limit is known
    with pytest.raises(MeasureError, match="hot: up to 95 C"):
        measurement.go()
    run = _run(tmp_path / "a")
    assert run["state"] == "refused" and "hot" in run["error"] and run["steps"] == []
    assert "Broken off: hot" in (tmp_path / "a/summary.md").read_text()
    _sums_hold(tmp_path / "a")
