"""Hostile labels, folders, files and models in all outputs of the application."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.hostile import ESCAPES, FILE_NAME, FORMULA, HOSTILE, check, unprintable
from tutelage.core.text import csv_text, from_csv

LABELS = [HOSTILE, FORMULA, "-1+1", "@SUM(A1)", "+1", "'quoted", "\0nul", "é 犬", "x" * 3000]


def _toml(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


@pytest.fixture
def place(tmp_path: Path, demo_model: Path) -> Path:
    """A model directory and pictures with hostile names, below a folder with one."""
    model = tmp_path / FILE_NAME
    model.mkdir()
    shutil.copy(demo_model, model / "model.xmodel")
    labels = [*LABELS, "ten"]
    (model / "model.toml").write_text(
        '[input]\nwidth = 28\nheight = 28\ncolour = "grey"\n[output]\n'
        f"labels = [{', '.join(map(_toml, labels))}]\n[provenance]\nby = {_toml(HOSTILE)}\n",
        encoding="utf-8",
    )
    for folder in (FILE_NAME, FORMULA.replace("/", "_"), "@SUM(A1)"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        path = tmp_path / "photos" / folder / f"=1+{FILE_NAME[:50]}.png"
        _, data = cv2.imencode(".png", np.full((28, 28, 1), 99, np.uint8))
        path.write_bytes(data.tobytes())
    (tmp_path / "photos" / f"-torn{ESCAPES}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "photos" / os.fsdecode(b"\xff\x9b.png")).write_bytes(b"")
    return tmp_path


def _command(root: Path, *arguments: str) -> list[str]:
    script = [sys.executable, str(root / "app" / "classify.py"), "--source", "photos"]
    return [*script, "--model", FILE_NAME, *arguments]


def test_everything_that_classify_writes(place: Path, repo_root: Path, emulation: None) -> None:
    outputs = ["--output", "r.csv", "--output", "r.jsonl", "--output", "out/", "--json", "f.json"]
    command = _command(repo_root, *outputs)
    done = subprocess.run(command, cwd=place, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        check(text.decode("utf-8"))
    for name in ("r.csv", "r.jsonl", "f.json"):
        check((place / name).read_text(encoding="utf-8").replace("\r\n", "\n"))
    assert not any(unprintable(path.name) for path in (place / "out").iterdir())
    records = [json.loads(line) for line in (place / "r.jsonl").read_text().splitlines()]
    with (place / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records) == 5
    for row, record in zip(rows, records, strict=True):
        for key in ("name", "label", "true_label", "error"):
            assert row[key] == csv_text(record[key] or "")
            assert not row[key].startswith(("=", "+", "-", "@", "\t", "\r"))
        if record["label"] is not None:
            assert float(row["confidence"]) == record["confidence"]
            assert record["label"] in [*LABELS, "ten"]
    assert {from_csv(row["name"]) for row in rows} >= {f"=1+{csv_text(FILE_NAME[:50])}.png"} or rows
    assert json.loads((place / "f.json").read_text())["model"]["provenance"] == {"by": HOSTILE}


@pytest.mark.parametrize("words", [["--json", "-"], ["--output", "-"]])
def test_records_on_standard_output(
    place: Path, repo_root: Path, emulation: None, words: list[str]
) -> None:
    command = _command(repo_root, *words, "--quiet")
    done = subprocess.run(command, cwd=place, capture_output=True, check=True, timeout=60)
    check(done.stdout.decode("utf-8"))
    check(done.stderr.decode("utf-8"))


@pytest.mark.slow
def test_errors_are_one_printable_line(place: Path, repo_root: Path, emulation: None) -> None:
    for words in (
        ["--source", HOSTILE],
        ["--source", f"{ESCAPES}://x"],
        ["--model", HOSTILE],
        ["--model", "photos"],
        ["--output", f"{HOSTILE}.txt"],
        ["--labels", f"photos/-torn{ESCAPES}.png"],
    ):
        command = _command(repo_root, *words)
        done = subprocess.run(command, cwd=place, capture_output=True, timeout=60)
        assert done.returncode == 2 and not done.stdout
        check(done.stderr.decode("utf-8"), own_lines=1)


def test_the_live_table(place: Path, repo_root: Path, emulation: None) -> None:
    """All output on a terminal is printable, except for Rich's own sequences."""
    pytest.importorskip("rich")
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    with subprocess.Popen(
        _command(repo_root), cwd=place, env=environment, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
        assert process.wait(60) == 0
    os.close(leader)
    text = seen.decode("utf-8")
    for sequence in ("\x1b[2J", "\x1b]0", "\x9b", "\u202e", "\u2066", "\x07", "\0", "\x7f"):
        assert sequence not in text
