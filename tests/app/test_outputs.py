from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.outputs import OutputError, Terminal, fit, open_output
from app.pipeline import Result
from app.sources import Frame


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


def test_terminal_lines_are_aligned_and_show_what_is_wrong() -> None:
    text = io.StringIO()
    terminal = Terminal(label_width=3, file=text)
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


def test_csv(tmp_path: Path) -> None:
    _write(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["3", "5", ""]
    assert rows[0]["total_ms"] == "1.25" and rows[2]["error"] == "image file is cut off"


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video_is_enlarged_and_annotated(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path / f"r{suffix}")
    video = cv2.VideoCapture(str(tmp_path / f"r{suffix}"))
    assert video.get(cv2.CAP_PROP_FPS) == 12.0
    ok, first = video.read()
    assert ok and first.shape == (336, 336, 3)
    assert first[:250].mean() > 190 and first[-12:].mean() < 120  # a dark bar at the bottom
    assert video.read()[0] and not video.read()[0]  # the frame without image is left out


def test_fit_keeps_the_aspect() -> None:
    fitted = fit(np.full((10, 40, 3), 255, np.uint8), 80, 80)
    assert fitted.shape == (80, 80, 3)
    assert (fitted[30:50] == 255).all() and not fitted[:30].any() and not fitted[50:].any()


@pytest.mark.parametrize(
    "name, message",
    [
        ("r.txt", "known are .jsonl .csv .mp4 .avi"),
        ("none/r.csv", "No such file or directory"),
        ("none/r.mp4", "No such file or directory"),
    ],
)
def test_wrong_outputs_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        open_output(str(tmp_path / name))
