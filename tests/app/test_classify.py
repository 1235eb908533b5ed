from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from tests.app.waiting import LONG, soon


class App:
    """Runs app/classify.py as a program, with the stand-in board or without."""

    def __init__(self, root: Path, folder: Path, fake: bool) -> None:
        self._command = [sys.executable, str(root / "app" / "classify.py")]
        self._folder = folder
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DISPLAY")}
        self._environment = kept
        if fake:
            self._environment["PYTHONPATH"] = str(root / "tests" / "fake_board")

    def start(
        self, *arguments: str, pipe: bool = False, inside: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start the program; `inside` is a command before it whose last word is a shell line."""
        command = [*self._command, *arguments]
        if inside:
            command = [*inside[:-1], f'{inside[-1]} && exec "$@"', "sh", *command]
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, inside: Sequence[str] = ()) -> tuple[int, str, str]:
        with self.start(*arguments, inside=inside) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def app(repo_root: Path, fake_model: Path, tmp_path: Path) -> App:
    """The application with the stand-in board, in a folder with net.xmodel and images of 0 to 9."""
    for digit in range(10):
        _write(tmp_path / "images" / str(digit) / "a.png", _uniform(digit))
    return App(repo_root, tmp_path, fake=True)


def _uniform(digit: int) -> np.ndarray:
    return np.full((8, 8, 3), 20 * digit + 10, np.uint8)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def _video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for number in range(frames):
        writer.write(cv2.resize(_uniform(number % 10), (64, 64)))
    writer.release()


def test_a_directory(app: App, tmp_path: Path) -> None:
    (tmp_path / "images" / "3" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    status, out, err = app(
        *"--source images --model net.xmodel --threads 3 --json f.json".split(),
        *"--output r.csv --output r.jsonl --output r.avi".split(),
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["0/a.png", "0", "100.00%"]
    assert lines[4] == "3/b.png  failed: image file is cut off"
    assert "frames     11 in, 10 classified, 1 failed" in lines
    assert "accuracy   100.00%: 10 of 10 frames with a known label" in lines
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["provider"].startswith("DPU (vart from ")
    assert figures["model"]["target"] == "ZCU104, Vitis AI 2.x"
    assert figures["frames"] == {
        "in": 11,
        "classified": 10,
        "failed": 1,
        "dropped": 0,
    }
    assert figures["accuracy"]["top1"] == 1.0 and figures["threads"] == 3
    assert set(figures["latency_ms"]) >= {"preprocess", "infer", "total"}
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == list("0123") + [""] + list(
            "456789"
        )
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 11
    assert int(cv2.VideoCapture(str(tmp_path / "r.avi")).get(cv2.CAP_PROP_FRAME_COUNT)) == 10


def test_a_folder_named_like_two_classes_counts_as_neither(app: App, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("0\n0\n" + "\n".join("23456789") + "\n")
    status, out, err = app(*"--source images --model net.xmodel --labels labels.txt".split())
    assert status == 0 and err == (
        "classify: net.xmodel: 2 classes share their labels with others and are shown with the "
        "class number: 0 (0), 0 (1)\n"
    )
    assert out.splitlines()[0].split() == ["0/a.png", "0", "(0)", "100.00%"]
    assert "accuracy   100.00%: 8 of 8 frames with a known label" in out.splitlines()
    (tmp_path / "labels.txt").write_text("0\n\n" + "\n".join("23456789") + "\n")
    status, out, err = app(*"--source images --model net.xmodel --labels labels.txt".split())
    assert (status, out) == (2, "")
    assert "net.xmodel: labels: class 1 (from 0) has an empty label; give it a name" in err


def test_labels_of_a_text_editor_are_those_of_the_folders(app: App, tmp_path: Path) -> None:
    """Some editors begin a file in UTF-8 with a mark, and end lines with \\r\\n or spaces."""
    lines = b"\xef\xbb\xbf" + b"".join(b"%d \r\n" % digit for digit in range(10)) + b"\r\n"
    (tmp_path / "labels.txt").write_bytes(lines)
    status, out, err = app(*"--source images --model net.xmodel --labels labels.txt".split())
    assert (status, err) == (0, "")
    assert "accuracy   100.00%: 10 of 10 frames with a known label" in out.splitlines()


def test_a_full_disk_is_reported_with_the_file_of_the_figures(app: App) -> None:
    status, out, err = app(*"--source images --model net.xmodel --quiet --json /dev/full".split())
    assert status == 1 and "classified, 0 failed" in out
    assert err.splitlines()[-1] == "classify: /dev/full: No space left on device"


def test_a_folder_from_a_telephone(app: App, tmp_path: Path) -> None:
    """The label is that of the class folder, also for sub-folders; skipped files are counted."""
    _write(tmp_path / "images" / "3" / "more" / "b.png", _uniform(3))
    _write(tmp_path / "images" / "4" / "3" / "c.png", _uniform(4))
    for name in ("3/._a.png", "__MACOSX/3/a.png", "3/.ipynb_checkpoints/a-checkpoint.png"):
        _write(tmp_path / "images" / name, _uniform(5))
    for name in ("5/1.HEIC", "5/2.HEIC", "6/walk.mov"):
        (tmp_path / "images" / name).write_bytes(b"\0\0\0\x18ftypheic")
    status, out, err = app(*"--source images --model net.xmodel --json f.json".split())
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "frames     12 in, 12 classified, 0 failed" in lines
    assert "accuracy   100.00%: 12 of 12 frames with a known label" in lines
    skipped = (
        "images: skipped 4 files: 2 .heic (not read; convert to JPEG), 1 .mov (a video), 1 hidden"
    )
    assert f"note       {skipped}" in lines
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["warnings"][-1] == skipped  # after the warnings about the model
    assert figures["source_figures"] == {"skipped": {".heic": 2, ".mov": 1, "hidden": 1}}


def test_a_pattern_and_a_single_file_report_skipped_files(app: App, tmp_path: Path) -> None:
    (tmp_path / "images" / "3" / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    status, out, _ = app("--source", "images/*/*", "--model", "net.xmodel")
    assert status == 0 and "frames     10 in, 10 classified, 0 failed" in out
    assert "skipped 1 file: 1 .heic (not read; convert to JPEG)" in out
    status, _, err = app("--source", "images/3/b.HEIC", "--model", "net.xmodel")
    assert status == 2 and err.endswith("; .HEIC is not read; convert to JPEG\n")


def test_a_stream_of_headers_without_pixels_takes_no_memory(
    app: App, shared_dir: Path, tmp_path: Path
) -> None:
    """13,882 bytes of headers that claim 8000x8000 pixels 21 times."""
    stream = shared_dir / "cases" / "16_hostile" / "bomb.mjpg"
    status, out, _ = app(
        *"--source - --model net.xmodel --json f.json".split(),
        inside=("sh", "-c", f"exec < {shlex.quote(str(stream))}"),
    )
    assert status == 0 and "frames     22 in, 1 classified, 21 failed" in out.splitlines()
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["system"]["memory_peak_bytes"] < 400e6


def test_records_are_alone_on_standard_output(app: App) -> None:
    status, out, err = app(*"--source images --model net.xmodel --output -".split())
    assert status == 0 and [json.loads(line)["index"] for line in out.splitlines()] == [*range(10)]
    assert "frames     10 in, 10 classified, 0 failed" in err


def test_jpegs_on_standard_input(app: App, tmp_path: Path) -> None:
    jpegs = [cv2.imencode(".jpg", _uniform(n % 10))[1].tobytes() for n in range(30)]
    jpegs[7] = jpegs[7][:-20]
    process = app.start(
        *"--source - --model net.xmodel --output r.jsonl --quiet".split(), pipe=True
    )
    assert process.stdin is not None
    process.stdin.buffer.write(b"".join(jpegs))  # type: ignore[attr-defined]
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "") and "30 in, 29 classified, 1 failed" in out
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [None if n == 7 else str(n % 10) for n in range(30)]


def test_the_scenarios(app: App, tmp_path: Path) -> None:
    shared = "--source images --model net.xmodel --quiet --duration 0.5 --json f.json".split()
    found = {}
    for name in ("single-stream", "offline", "server"):
        more = "--qps 100 --latency-bound 500".split() if name == "server" else []
        status, out, err = app(*shared, "--scenario", name, *more)
        assert (status, err) == (0, "") and f"scenario   {name}: " in out
        found[name] = json.loads((tmp_path / "f.json").read_text())
        assert found[name]["accuracy"]["top1"] == 1.0
    single, server = found["single-stream"], found["server"]
    assert single["scenario"]["value"] == single["latency_ms"]["total"]["p90"]
    assert single["queues"]["in_flight"]["max"] <= 1
    # One frame at a time, so the sum of latencies cannot exceed the whole run.
    latency_s = 1e-3 * single["latency_ms"]["total"]["mean"] * single["frames"]["in"]
    assert latency_s <= single["seconds"] * 1.001
    assert found["offline"]["queues"]["in_flight"]["max"] > 1
    assert 20 <= server["frames"]["in"] <= 90 and server["scenario"]["bound_kept"] is True


def test_a_scenario_reports_omitted_images(app: App, tmp_path: Path) -> None:
    (tmp_path / "images" / "0" / "0.png").write_bytes(b"broken")
    (tmp_path / "images" / "0" / "a.heic").write_bytes(b"")
    arguments = "--source images --model net.xmodel --quiet --scenario offline --duration 0.2"
    status, out, _ = app(*arguments.split())
    assert status == 0 and "images: skipped 1 file: 1 .heic" in out
    assert "images: left out 1 broken image: 0/0.png: not an image OpenCV can read" in out


def test_a_full_disk_ends_an_output_and_not_the_run(app: App, tmp_path: Path) -> None:
    """Use a real tmpfs of 64 KiB, in a separate mount namespace."""
    mount = "mkdir full && mount -t tmpfs -o size=64k tmpfs full"
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces (unshare -rm)")
    _video(tmp_path / "long.avi", 1500)
    arguments = (
        "--source long.avi --model net.xmodel --json f.json --quiet --output full/r.jsonl "
        "--output all.jsonl --output full/pictures/ --output full/seen.avi"
    )
    status, out, err = app(*arguments.split(), inside=["unshare", "-rm", "sh", "-c", mount])
    assert status == 1 and "1500 in, 1500 classified" in out and "Traceback" not in err
    assert err.count("No space left on device") == 3
    by_uri = {
        output["uri"]: output for output in json.loads((tmp_path / "f.json").read_text())["outputs"]
    }
    assert by_uri["all.jsonl"]["error"] is None and by_uri["all.jsonl"]["results"] == 1500
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 1500
    assert all(by_uri[uri]["error"] for uri in by_uri if uri.startswith("full"))


def test_an_empty_output_is_rejected(app: App, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    status, _, err = app("--source", "images", "--model", "net.xmodel", "--output", "")
    assert status == 2 and "is empty" in err and sorted(tmp_path.iterdir()) == before


def test_names_of_any_bytes_reach_every_output(app: App, tmp_path: Path) -> None:
    odd = tmp_path / "odd" / os.fsdecode(b"b\xe9\x1b[2J.png")
    _write(tmp_path / "odd" / "a.png", _uniform(4))
    (tmp_path / "odd" / "a.png").rename(odd)
    (tmp_path / "odd").rename(tmp_path / os.fsdecode(b"d\xe9"))
    status, out, err = app(
        *("--source", os.fsdecode(b"d\xe9"), "--model", "net.xmodel", "--json", "f.json"),
        *"--output r.jsonl --output r.csv --output seen/".split(),
    )
    assert (status, err) == (0, "") and "\x1b" not in out
    assert json.loads((tmp_path / "r.jsonl").read_text())["label"] == "4"
    assert json.loads((tmp_path / "f.json").read_text())["source"].startswith("d\ufffd")
    assert len(list((tmp_path / "seen").iterdir())) == 1


def _is_idle(pid: int) -> bool:
    """Return whether a process needs next to no CPU time for half a second."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(0.5)
    return sum(process.cpu_times()[:2]) - before <= 0.03


def test_a_second_signal_ends_a_run_whose_output_hangs(app: App, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    _video(tmp_path / "long.avi", 5000)
    process = app.start(*"--source long.avi --model net.xmodel --quiet --output pipe.jsonl".split())
    reader = os.open(tmp_path / "pipe.jsonl", os.O_RDONLY)
    os.read(reader, 100)  # then it reads no more
    writer = os.open(tmp_path / "pipe.jsonl", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):  # fill the pipe
        while True:
            os.write(writer, b"\n")
    os.close(writer)
    # Until no thread works any more: a run without frames in flight would end without a write.
    assert soon(lambda: _is_idle(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.poll() is None

    def ends_by_another_one() -> bool:  # two signals in quick succession count as one
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    assert soon(ends_by_another_one)
    os.close(reader)
    out = process.communicate()
    assert process.wait() == 130, out


def test_a_reader_of_one_output_that_leaves_ends_that_output_only(app: App, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    _video(tmp_path / "long.avi", 1500)
    arguments = "--source long.avi --model net.xmodel --quiet --output pipe.jsonl --output r.csv"
    process = app.start(*arguments.split())
    reader = os.open(tmp_path / "pipe.jsonl", os.O_RDONLY)
    os.read(reader, 100)
    os.close(reader)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "1500 in, 1500 classified" in out
    assert "pipe.jsonl: Broken pipe" in err and "Traceback" not in err
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1501


def test_without_standard_output(app: App, tmp_path: Path) -> None:
    arguments = "--source images --model net.xmodel --output r.csv"
    closed = ["sh", "-c", "exec >&- 2>&-"]
    status, _, _ = app(*arguments.split(), inside=closed)
    assert status == 0 and len((tmp_path / "r.csv").read_text().splitlines()) == 11


def test_json_is_alone_on_standard_output(app: App) -> None:
    status, out, err = app(*"--source images --model net.xmodel --json - --frames 4".split())
    assert status == 0 and json.loads(out)["frames"]["in"] == 4
    assert "frames     4 in, 4 classified, 0 failed" in err


def test_a_video_and_a_single_image(app: App, tmp_path: Path) -> None:
    _video(tmp_path / "v.avi", 40)
    status, out, _ = app(*"--source v.avi --model net.xmodel --top 2".split())
    labels = [line.split()[1] for line in out.splitlines()[:40]]
    assert status == 0 and labels == [str(n % 10) for n in range(40)]
    status, out, _ = app(*"--source images/7/a.png --model net.xmodel --quiet".split())
    assert status == 0 and out.startswith("runs on ") and "frames     1 in" in out


def test_a_refused_output_leaves_the_files_of_others(app: App, tmp_path: Path) -> None:
    (tmp_path / "kept.csv").write_text("of an earlier run")
    outputs = "--output kept.csv --output x.txt"
    code, _, err = app(*f"--source images --model net.xmodel {outputs}".split())
    assert code == 2 and "x.txt: unknown kind of output" in err
    assert (tmp_path / "kept.csv").read_text() == "of an earlier run"


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        ("", 2, "no source; give --camera or --source\ntry: classify.py --camera"),
        ("--sorce images", 2, "unrecognized arguments: --sorce images"),
        ("--source images --camera", 2, "not allowed with"),
        ("--source images --threads 0", 2, "0 is not a whole number of at least 1"),
        ("--source nowhere --model net.xmodel", 2, "nowhere: no such file or directory"),
        ("--source images --model no.xmodel", 2, "no.xmodel: no such file or directory"),
        ("--source images --model bad.xmodel", 2, "bad.xmodel: cannot parse this file"),
        ("--source images --model images/3/a.png", 2, "a.png: is not an .xmodel"),
        ("--source images --model net.xmodel --output x.txt", 2, "x.txt: unknown kind of output"),
        ("--source images --model net.xmodel --labels no.txt", 2, "no.txt: No such file"),
        ("--source images --model net.xmodel --labels /dev/zero", 2, "labels of more than 1 MiB"),
        ("--source images --model net.xmodel --colour grey", 2, "takes 3 channels, grey has 1"),
        ("--source broken --model net.xmodel", 1, ""),
        ("--source images --model net.xmodel --json none/x.json", 2, "none/x.json"),
        ("--camera 87 --model net.xmodel", 1, "camera /dev/video87 cannot be opened"),
        ("--camera front --model net.xmodel", 2, "front is not a camera number"),
        ("--camera 0,size=big --model net.xmodel", 2, "size=1280x720, fps=30, format=MJPG"),
        ("--source ftp://host/a.mp4 --model net.xmodel", 2, "ftp:// is not a known kind of source"),
        ("--source images --scenario server", 2, "--qps 100"),
        ("--source v.avi --model net.xmodel --output v.avi", 2, "would be overwritten"),
        ("--source images --model net.xmodel --json images/3/a.png", 2, "would be overwritten"),
        ("--source images --model net.xmodel --output a.csv --output ./a.csv", 2, "written twice"),
        ("--source http://[bad --model net.xmodel", 2, "http://...: not a URL"),
        ("--source images --model net.xmodel --web a..b:80", 2, "--web a..b:80: "),
        ("--camera \u00b2 --model net.xmodel", 2, "is not a camera number"),
        ("--camera 99999999999999999999 --model net.xmodel", 2, "a camera is a number"),
        ("--source images --threads 100000", 2, "64 at most"),
        ("--source images --qps 100", 2, "need --scenario server"),
        ("--source images --duration 3", 2, "--frames N ends any run"),
        ("--source images --json - --output -", 2, "would share standard output"),
        ("--source images --model net.xmodel --web here:there", 2, "--web here:there"),
        ("--source images --model net.xmodel --output window", 2, "try --web and a browser"),
        (
            "--source images --model net.xmodel --realtime zcu104",
            2,
            "--realtime is for the emulation",
        ),
        ("--source images --model net.xmodel --power nvml", 2, "nvml"),
    ],
)
def test_failures_have_an_exit_status_and_one_line(
    app: App, tmp_path: Path, arguments: str, status: int, message: str
) -> None:
    (tmp_path / "bad.xmodel").write_bytes((tmp_path / "net.xmodel").read_bytes())
    _video(tmp_path / "v.avi", 3)
    before = {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    before[tmp_path / "v.avi"] = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    code, _, err = app(*arguments.split())
    assert code == status
    assert message in err and "Traceback" not in err
    assert before == {path: path.read_bytes() for path in before}
    if message:
        assert err.startswith("classify: ")
        lines = err.splitlines()
        assert len(lines) == 1 or lines[1].startswith("try: ") or "known" in lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_with_everything_accounted_for(
    app: App, tmp_path: Path, number: signal.Signals
) -> None:
    _video(tmp_path / "long.avi", 6000)
    process = app.start(
        *"--source long.avi --model net.xmodel --output r.jsonl --json f.json".split()
    )
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "stopped on request" in out
    figures = json.loads((tmp_path / "f.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert figures["interrupted"] and 50 <= figures["frames"]["in"] < 6000
    assert [row["index"] for row in rows] == list(range(figures["frames"]["in"]))


_SLOW_FFMPEG = """#!/bin/sh
case "$*" in *-encoders*) echo " V....D libx264 "; exit;; esac
cat >/dev/null
touch closing
while [ ! -e go-on ]; do sleep 0.05; done
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_outputs_are_completed_loses_nothing(
    app: App, tmp_path: Path, number: signal.Signals
) -> None:
    """A long .mp4 takes seconds to complete, since its index is moved to the start."""
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text(_SLOW_FFMPEG)
    program.chmod(0o755)
    app._environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    process = app.start(
        *"--source images --model net.xmodel --quiet --json f.json".split(),
        *"--output r.mp4 --output r.jsonl".split(),
    )
    assert soon((tmp_path / "closing").exists)
    process.send_signal(number)
    time.sleep(0.3)
    (tmp_path / "go-on").touch()
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 1 and "r.mp4: has 0 of 10 frames" in err  # it wrote no video
    assert "frames     10 in, 10 classified, 0 failed" in out
    assert json.loads((tmp_path / "f.json").read_text())["frames"]["classified"] == 10
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 10


def test_a_reader_that_leaves_causes_no_traceback(app: App, tmp_path: Path) -> None:
    _video(tmp_path / "long.avi", 3000)
    process = app.start(*"--source long.avi --model net.xmodel".split())
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


def test_the_figures_are_written_though_the_reader_goes_away(app: App, tmp_path: Path) -> None:
    _video(tmp_path / "long.avi", 3000)
    model = "--model net.xmodel --json f.json"
    commands = {
        "records": f"--source long.avi {model} --output -",
        "lines": f"--source long.avi {model}",
        "summary": f"--source images {model} --quiet",
    }
    for name, arguments in commands.items():
        (tmp_path / "f.json").unlink(missing_ok=True)
        process = app.start(*arguments.split())
        assert process.stdout is not None
        if name != "summary":
            process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 1
        assert json.loads((tmp_path / "f.json").read_text())["frames"]["classified"] > 0, name


def test_a_run_that_cannot_start_leaves_the_json_file_as_it_was(app: App, tmp_path: Path) -> None:
    arguments = "--source images --model no.xmodel --json f.json".split()
    assert app(*arguments)[0] == 2 and not (tmp_path / "f.json").exists()
    (tmp_path / "f.json").write_text("before")
    assert app(*arguments)[0] == 2 and (tmp_path / "f.json").read_text() == "before"


def test_runs_as_a_module_and_from_anywhere(app: App, repo_root: Path, tmp_path: Path) -> None:
    images = str(tmp_path / "images")
    model = str(tmp_path / "net.xmodel")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tutelage.app.classify",
            "--source",
            images,
            "--model",
            model,
            "--quiet",
        ],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root / "tests" / "fake_board")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "accuracy   100.00%" in done.stdout, done.stderr


def _digits(shared: Path, folder: Path, count: int) -> None:
    with np.load(shared / "data" / "mnist_digits.npz") as data:
        for number, (image, label) in enumerate(
            zip(data["images"][:count], data["labels"][:count], strict=True)
        ):
            _write(folder / str(label) / f"{number:04d}.png", image)


@pytest.mark.usefixtures("emulation")
@pytest.mark.parametrize(
    "execution, in_flight", [("", 1), ("synchronous", 3), ("asynchronous", 1), ("asynchronous", 3)]
)
def test_the_demo_is_as_good_as_it_says(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: str, in_flight: int
) -> None:
    """Also on a device that computes after `execute_async` returns, as accelerator cards do."""
    monkeypatch.setenv("TUTELAGE_EXECUTION", execution)
    demo = repo_root / "app" / "demo"
    app = App(repo_root, tmp_path, fake=False)
    arguments = ["--source", str(demo / "images"), "--in-flight", str(in_flight), "--json", "-"]
    status, out, err = app(*arguments)
    assert status == 0, err
    figures: dict[str, Any] = json.loads(out)
    accuracy = figures["accuracy"]
    assert accuracy["labelled"] == figures["model"]["provenance"]["images"] == 300
    stated = figures["model"]["provenance"]["accuracy_images"]
    assert round(100 * accuracy["top1"], 2) == stated
    assert figures["model"]["target"] == "ZCU104, Vitis AI 2.x"


@pytest.mark.usefixtures("emulation")
def test_amds_model_reads_real_digits(repo_root: Path, shared_dir: Path, tmp_path: Path) -> None:
    """A model that AMD's compiler made for the ZCU104, with a custom CPU operator."""
    _digits(shared_dir, tmp_path / "digits", 500)
    plugin = str(repo_root / "tests" / "dpu" / "plugins.py")
    model = str(shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel")
    app = App(repo_root, tmp_path, fake=False)
    arguments = ["--source", "digits", "--model", model, "--plugin", plugin, "--json", "-"]
    status, out, err = app(*arguments)
    assert status == 0, err
    figures: dict[str, Any] = json.loads(out)
    assert figures["provider"].startswith("emulation")
    assert figures["frames"] == {"in": 500, "classified": 500, "failed": 0, "dropped": 0}
    assert figures["accuracy"]["top1"] >= 0.99


@pytest.mark.slow
@pytest.mark.usefixtures("emulation")
def test_the_pace_of_a_board(repo_root: Path, tmp_path: Path) -> None:
    app = App(repo_root, tmp_path, fake=False)
    images = str(repo_root / "app" / "demo" / "images")
    status, out, err = app(
        "--source", images, "--realtime", "zcu104", "--json", "f.json", "--quiet"
    )
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "f.json").read_text())
    pace = report["realtime"]
    assert report["pace"]["measured"] is False and "predicted" in report["pace"]["text"]
    assert "not a measurement of a DPU" in out
    assert pace["board"] == "zcu104" and 0 < pace["job_ms"] < 1
    # 300 frames and the lanes' first runs; a PC is slower than a DPU for this model.
    assert pace["jobs"] >= 300 and pace["late"] > 0 and "the emulation took longer in" in out
    status, _, err = app("--source", images, "--realtime", "zcu999")
    assert status == 2 and "no board 'zcu999'; choose from kv260, ultra96v2, zcu102, zcu104" in err


@pytest.mark.usefixtures("emulation")
def test_an_operator_that_nobody_knows_is_named(
    repo_root: Path, shared_dir: Path, tmp_path: Path
) -> None:
    _digits(shared_dir, tmp_path / "digits", 2)
    model = str(shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel")
    status, _, err = App(repo_root, tmp_path, fake=False)("--source", "digits", "--model", model)
    assert status == 2 and "Mylayer" in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("program", ["classify", "measure"])
def test_a_model_that_is_not_sorted_is_reported_in_one_line(
    app: App, repo_root: Path, tmp_path: Path, unsorted_model: Path, program: str
) -> None:
    """The emulation reads it; AMD's library crashes on it."""
    from tutelage.core.errors import UNSORTED

    if program == "classify":
        plain = App(repo_root, tmp_path, fake=False)
        status, _, err = plain("--source", "images", "--model", str(unsorted_model), "--quiet")
    else:
        command: list[str | Path] = [sys.executable, "-m", "tutelage.app.measure", "--output",
                   tmp_path / "out", "--model",
                   unsorted_model, "--source", tmp_path / "images", "--scenario", "single-stream",
                   *"--seconds 0.2 --warm-up 0.1 --idle 0.1 --cool-down 0.1".split()]  # fmt: skip
        command += ["--accept", "disturbed"]
        done = subprocess.run(
            command, cwd=repo_root, capture_output=True, text=True, timeout=60, check=False
        )
        status, err = done.returncode, done.stderr
    found = [line for line in err.splitlines() if "topological" in line]
    assert found == [f"{program}: {unsorted_model}: {UNSORTED}"], err
    assert "UnsortedWarning" not in err and status == 0, err
