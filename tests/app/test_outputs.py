from __future__ import annotations

import csv
import io
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.browser import chromium
from tutelage.app.outputs import _video_writer as video_writer
from tutelage.app.outputs import video
from tutelage.app.outputs.annotation import fit
from tutelage.app.outputs.by_uri import open_output
from tutelage.app.outputs.fan_out import Outputs
from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext
from tutelage.app.outputs.terminal import Lines, LiveTable
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame


def _results() -> list[Result]:
    image = np.full((28, 28, 3), 200, np.uint8)
    return [
        Result(Frame(0, "3/a.png", image), [("3", 0.97), ("5", 0.02)], "3", None, {"total": 1.25}),
        Result(Frame(1, "3/longer.png", image[:14]), [("5", 0.6), ("3", 0.4)], "3"),
        Result(Frame(2, "b.png", None), error="image file is cut off"),
    ]


def _write(path: Path) -> None:
    output = open_output(str(path), fps=12.0)
    for result in _results():
        output.add(result)
    output.close()


def test_terminal_lines_are_aligned_and_mark_wrong_classes() -> None:
    text = io.StringIO()
    terminal = Lines(label_width=3, file=text)
    for result in [_results()[1], *_results()]:
        terminal.add(result)
    assert text.getvalue().splitlines() == [
        "3/longer.png  5    60.00%  3    40.00%  (is 3)",
        "3/a.png       3    97.00%  5     2.00%",
        "3/longer.png  5    60.00%  3    40.00%  (is 3)",
        "b.png         failed: image file is cut off",
    ]


def test_json_lines(tmp_path: Path) -> None:
    _write(tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "index": 0,
        "name": "3/a.png",
        "label": "3",
        "confidence": 0.97,
        "top": [["3", 0.97], ["5", 0.02]],
        "true_label": "3",
        "error": None,
        "milliseconds": {"total": 1.25},
    }
    assert rows[2]["label"] is None and rows[2]["error"] == "image file is cut off"


def test_confidences_have_the_digits_of_float32(tmp_path: Path) -> None:
    result = _results()[0]
    output = open_output(str(tmp_path / "r.csv"), fps=12.0)
    output.add(replace(result, top=[("3", 0.9699999690055847), ("5", 1.23456789e-9)]))
    output.close()
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["confidence"] for row in csv.DictReader(file)] == ["0.97"]


def test_csv(tmp_path: Path) -> None:
    _write(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["3", "5", ""]
    assert rows[0]["total_ms"] == "1.25" and rows[2]["error"] == "image file is cut off"


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_video_is_enlarged_and_annotated(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / f"r{suffix}")
    video = cv2.VideoCapture(str(tmp_path / f"r{suffix}"))
    assert video.get(cv2.CAP_PROP_FPS) == 12.0
    ok, first = video.read()
    assert ok and first.shape == (336, 336, 3)
    assert first[:250].mean() > 190 and first[-12:].mean() < 120  # a dark bar at the bottom
    assert video.read()[0] and not video.read()[0]  # the frame without image is left out


def _without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    video_writer.ffmpeg_has_h264.cache_clear()
    monkeypatch.setattr(video_writer, "ffmpeg_has_h264", lambda: False)


def _video(path: Path, messages: list[str]) -> None:
    output = open_output(str(path), context=OutputContext(say=messages.append))
    for index in range(12):
        image = np.full((48, 64, 3), 20 * index, np.uint8)
        output.add(Result(Frame(index, str(index), image), [("a", 0.5)]))
    output.close()


def test_a_browser_plays_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    if shutil.which("ffmpeg"):
        _video(tmp_path / "program.mp4", messages)
    _without_ffmpeg(monkeypatch)
    _video(tmp_path / "opencv.mp4", messages)
    if any("browsers do not play" in line for line in messages):  # as OpenCV is built
        pytest.skip(messages[0])
    monkeypatch.undo()
    with chromium() as browser:
        page = browser.new_page()
        for path in tmp_path.glob("*.mp4"):
            html = path.with_suffix(".html")
            html.write_text(f'<video src="{path.name}" muted></video>')
            page.goto(html.as_uri())
            assert page.evaluate(PLAYS) == [320, ""], path.name


PLAYS = """
() => new Promise((done) => {
  const video = document.querySelector("video");
  const report = () => done([video.videoWidth, video.error ? video.error.message : ""]);
  if (video.readyState >= 2 || video.error) report();
  video.onloadeddata = video.onerror = report;
})
"""


def test_a_video_that_no_browser_plays_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_ffmpeg(monkeypatch)
    monkeypatch.setitem(video.CODECS, ".mp4", ("none", "mp4v"))
    messages: list[str] = []
    _video(tmp_path / "r.mp4", messages)
    (line,) = messages
    assert "r.mp4: written as MPEG-4 Part 2, which browsers do not play; try: " in line
    assert cv2.VideoCapture(str(tmp_path / "r.mp4")).read()[0]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_an_ffmpeg_that_fails_says_why(tmp_path: Path) -> None:
    writer = video_writer.FfmpegWriter(tmp_path / "none" / "r.mp4", 25.0, (64, 48))
    with pytest.raises(OSError, match=r"ffmpeg: .*No such file or directory"):
        for _ in range(1000):  # until the pipe is full, or earlier
            writer.write(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("exec sleep 1000", "ffmpeg took no frame for 0.3 s"),
        ("kill -9 $$", "ffmpeg: Killed"),
        ("exit 3", "ffmpeg: ended with status 3"),
    ],
)
def test_an_ffmpeg_that_hangs_or_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, message: str
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(video_writer, "_HANGING_SECONDS", 0.3)
    writer = video_writer.FfmpegWriter(tmp_path / "r.mp4", 25.0, (640, 480))
    with pytest.raises(OSError, match=message):
        for _ in range(1000):
            writer.write(np.zeros((480, 640, 3), np.uint8))
    with suppress(OSError):
        writer.release()
    assert writer._process.returncode is not None


def test_a_codec_that_takes_long_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_ffmpeg(monkeypatch)
    monkeypatch.setitem(video.CODECS, ".mp4", ("none", "vp09"))
    messages: list[str] = []
    try:
        _video(tmp_path / "r.mp4", messages)
    except OutputError as error:  # as OpenCV is built
        pytest.skip(str(error))
    (line,) = messages
    assert "r.mp4: written as VP9, which takes " in line and line.endswith("install ffmpeg")


def test_fit_keeps_the_aspect() -> None:
    fitted = fit(np.full((10, 40, 3), 255, np.uint8), 80, 80)
    assert fitted.shape == (80, 80, 3)
    assert (fitted[30:50] == 255).all() and not fitted[:30].any() and not fitted[50:].any()


@pytest.mark.parametrize(
    "name, message",
    [
        ("r.txt", "--help lists the suffixes"),
        ("none/r.csv", "No such file or directory"),
        ("none/r.mp4", "No such file or directory"),
    ],
)
def test_wrong_outputs_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        open_output(str(tmp_path / name))


def test_a_directory_of_images(tmp_path: Path) -> None:
    output = open_output(f"{tmp_path / 'seen'}/")
    evil = Result(Frame(7, "../../up.png", _results()[0].frame.image), [("../label/x", 0.5)])
    for result in [*_results(), evil]:
        output.add(result)
    output.close()
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [
        "000000_a_3.jpg",
        "000001_longer_5.jpg",
        "000007_up_..-label-x.jpg",
    ]
    picture = cv2.imread(str(tmp_path / "seen" / "000000_a_3.jpg"))
    assert picture is not None and picture.shape == (336, 336, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_images_of_odd_shapes_and_long_names(tmp_path: Path) -> None:
    output = open_output(f"{tmp_path / 'seen'}/")
    for index, size in enumerate([(300, 1), (1, 9000), (9000, 1), (1, 1)]):
        image = np.full((*size, 3), 200, np.uint8)
        output.add(Result(Frame(index, "\u6f22" * 80, image), [("\u5b57" * 80, 1.0)]))
    output.close()
    pictures = [cv2.imread(str(path)) for path in sorted((tmp_path / "seen").iterdir())]
    assert len(pictures) == 4
    assert all(each is not None and max(each.shape) <= 8192 for each in pictures)


def test_an_old_video_stays_where_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_text("precious")
    output = open_output(str(tmp_path / "old.mp4"))
    output.add(_results()[2])
    output.close()
    assert (tmp_path / "old.mp4").read_text() == "precious"


def test_an_unwritable_place_is_reported_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Not a directory|File exists"):
        open_output(f"{tmp_path / 'file' / 'seen'}/")


class Failing(Output):
    """Output that takes a number of results and is then full."""

    def __init__(self, room: int, own_thread: bool) -> None:
        self.own_thread = own_thread
        self.room, self.taken, self.closed = room, 0, False

    def add(self, result: Result) -> None:
        if self.taken == self.room:
            raise OSError(28, "No space left on device")
        self.taken += 1

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("own_thread", [False, True])
def test_an_output_that_fails_leaves_the_others_alone(own_thread: bool) -> None:
    full, good = Failing(5, own_thread), Failing(1000, own_thread)
    messages: list[str] = []
    outputs = Outputs(messages.append)
    outputs.open("full", full)
    outputs.open("good", good)
    for index in range(100):
        outputs.add(Result(Frame(index, str(index)), [("a", 1.0)]))
    outputs.close()
    assert good.taken == 100 and full.taken == 5 and full.closed and good.closed
    assert messages == [
        "full: No space left on device; it has 5 results, nothing more is written there"
    ]
    assert outputs.report() == [
        {"uri": "full", "results": 5, "error": "No space left on device"},
        {"uri": "good", "results": 100, "error": None},
    ]


def test_the_live_table_shows_results_bar_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rich_console = pytest.importorskip("rich.console")
    table = LiveTable(12, lambda: {"dropped": 3, "dpu_utilisation": 0.5, "total_watts": 14.0})
    for result in [*_results(), Result(Frame(3, "\x1b[31mevil", None), [("[red]x[/]", 0.5)])]:
        table.add(result)
    table.look()
    text = io.StringIO()
    rich_console.Console(file=text, width=100).print(table._picture(table._began + 1))
    table.close()
    shown = text.getvalue()
    parts = ["3/a.png", "97.0%", "5 (is 3)", "failed: image file is cut off", "1 failed"]
    parts += ["4 of 12", "3 dropped", "50.0% correct", "DPU 50%", "14.00 W"]
    # Neither terminal escapes nor Rich's markup have an effect.
    parts += [r"\x1b[31mevil", "[red]x[/]"]
    for part in parts:
        assert part in shown, (part, shown)
    assert "\x1b" not in shown


def test_the_live_table_shows_as_many_classes_as_asked_for() -> None:
    rich_console = pytest.importorskip("rich.console")
    classes = [("three", 0.6), ("five", 0.3), ("eight", 0.05), ("nine", 0.01)]
    for top in (1, 3):
        table = LiveTable(None, dict, top)
        for index in range(30):
            table.add(Result(Frame(index, f"frame-{index}"), classes))
        text = io.StringIO()
        rich_console.Console(file=text, width=100).print(table._picture(table._began + 1))
        table.close()
        shown = text.getvalue()
        for place, (label, confidence) in enumerate(classes):
            assert (label in shown) is (place < top), (top, label)
            assert (f" {confidence:.1%}" in shown) is (place < top)
        assert "frame-29" in shown and len(shown.splitlines()) <= table._live.console.height


def test_lines_show_no_control_characters() -> None:
    text = io.StringIO()
    Lines(5, text).add(Result(Frame(0, "a\x1b[2J\nb", None), [("c\x07", 1.0)]))
    assert text.getvalue() == "a\\x1b[2J\\nb  c\\x07 100.00%\n"
