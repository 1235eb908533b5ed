"""Hostile names in SSH, rsync, the shells at both ends, and tables.

No part of them is executed anywhere, and no output has anything that a terminal, a spreadsheet or
a page would interpret.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.hostile import ESCAPES, FILE_NAME, FORMULA, check, unprintable
from tests.hostile import HOSTILE as NAME
from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.__main__ import main
from tutelage.host.ssh.errors import RemoteUsageError
from tutelage.host.ssh.hosts import check_hosts
from tutelage.host.ssh.remote import Remote

HOSTILE = 'mo\'del "$(touch ~/pwned)" `touch ~/pwned`; touch ~/pwned & é %h $HOME *'
PROBE = "import json, os, sys; print(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4)
)
def test_arguments_arrive_as_they_are(words: list[str]) -> None:
    """Like sshd, pass the last words to the user's shell as one string."""
    import shlex

    command = Remote("board", None).ssh(shlex.join([sys.executable, "-IS", "-c", PROBE, *words]))
    assert command[:-2] == Remote("board", None).ssh("")[:-2] and command[-2] == "board"
    for shell in filter(None, map(shutil.which, ("dash", "bash"))):
        done = subprocess.run([shell, "-c", command[-1]], capture_output=True, check=True)
        assert json.loads(done.stdout) == [os.fsencode(word).hex() for word in words]


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch x", "-l", "", "a b", "a;b", "a$(b)", "a\nb", "@", "host:path"]
)
def test_an_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(RemoteUsageError, match="neither user@host"):
        check_hosts([host])


# -- output of a board -------------------------------------------------------------------------

# In place of ssh: runs the command here, in the home directory of a hostile board,
# after the requested line (host/ssh/answer_marker.py).
_SSH = """#!/bin/sh
while [ $# -gt 0 ]; do case "$1" in -o|-F|-p|-l) shift 2;; -*) shift;; *) break;; esac; done
shift; cd {home} || exit 1
test ! -e says || { cat says >&2; exit 1; }
mark=$(echo "$*" | grep -oE '[0-9a-f]{16} [0-9a-f]{16}' | head -n 1 | tr -d ' ')
test ! -e answer || { cat > /dev/null; echo "$mark"; exec cat answer; }
exec sh -c "$*"
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of a hostile board named evil."""
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync")
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (programs / "ssh").write_text(_SSH.replace("{home}", str(home)))
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return home


def _deploy(repo_root: Path) -> list[str]:
    return ["deploy", "evil", "--model", str(repo_root / "app" / "demo"), "--accept", "target"]


def test_error_output_of_a_board(
    board: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (board / "says").write_text(f"Welcome\n{ESCAPES.replace(chr(13), '')}{NAME * 99}")
    for command in (["measure", "evil", "--list"], ["rollback", "evil"], _deploy(repo_root)):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert out == ""
        check(err, own_lines=1)
        assert r"\x7f" in err


def test_answers_of_a_board(
    board: Path, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (board / "answer").write_text(f"20260101T000000Z-abcd {ESCAPES}\n")
    assert main(["measure", "evil", "--list"]) == 0
    assert capsys.readouterr().out == ""
    script = [sys.executable, str(repo_root / "board" / "check.py")]
    facts = json.loads(subprocess.run(script, capture_output=True, check=True).stdout)
    facts |= {"model": NAME, "image": NAME, "config": NAME, "home": NAME, "free_bytes": 0}
    (board / "answer").write_text(json.dumps(facts))
    assert main(_deploy(repo_root)) == 1
    check(capsys.readouterr().err)


def _measurement(board: Path, state: str) -> str:
    """A complete measurement on it, hostile in every text."""
    name = "20260101T000000Z-abcd"
    folder = board / "tutelage" / "measurements" / name
    folder.mkdir(parents=True)
    events = [
        {"event": "plan", "at": 0, "steps": [1], "seconds": 1},
        {"event": "phase", "at": 1, "name": NAME, "seconds": 1},
        {"event": "step", "at": 1, "fps": 1.0, "watts": None, "latency_ms": None,
         "concerns": [NAME]},
        {"event": "end", "at": 2, "state": NAME, "error": NAME},
    ]  # fmt: skip
    (folder / "progress.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "run.json").write_text(json.dumps({"state": state, "error": NAME}))
    (folder / "summary.md").write_text(f"# {NAME}\n" + NAME * 10_000)
    return name


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize("state", ["done", "failed", "refused"])
def test_a_measurement_of_a_board(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    name = _measurement(board, state)
    results = str(tmp_path / "results")
    command = ["measure", "evil", "--attach", "--id", name, "--output", results]
    for more in ([], ["--json"]):
        assert main([*command, *more]) == (0 if state == "done" else 1)
        out, err = capsys.readouterr()
        assert not unprintable(out)  # the lines of its summary.md are its own
        check(err)
        assert len(out) < 2_000_000


# -- tables ------------------------------------------------------------------------------------


def _run_json(checkpoint: str) -> dict[str, Any]:
    """A run of `tutelage measure` with hostile texts."""
    figure = {"value": 2.0, "low": 1.9, "high": 2.1, "coverage": 0.95, "n": 20}
    power = {"source": NAME, "reason": NAME, "total_rail": NAME, "watts": figure,
             "watts_above_idle": figure, "joules_per_frame": figure,
             "fps_per_watt": figure}  # fmt: skip
    step = {"name": NAME, "scenario": "offline", "threads": 1, "fps": figure, "power": power,
            "latency_ms": dict.fromkeys(("mean", "p50", "p90", "p99"), figure),
            "start_s": 0, "end_s": 1, "concerns": [{"name": NAME, "text": NAME}]}  # fmt: skip
    return {
        "state": "done", "error": None, "started": NAME, "provider": NAME, "emulation": False,
        "realtime": None, "machine": {"board": NAME, "machine": "x", "image": NAME},
        "model": {"name": FORMULA, "target": NAME, "dpu": FORMULA,
                  "provenance": {"checkpoint_sha256": checkpoint}},
        "power": {"total_rail": None, "reason": NAME}, "idle": {}, "steps": [step],
    }  # fmt: skip


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


@pytest.mark.slow
def test_bench_and_report(
    repo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="bench needs PyTorch, which is not installed")
    model, images = tmp_path / FILE_NAME, tmp_path / f"=1+{FILE_NAME}"[:200]
    shutil.copytree(repo_root / "app" / "demo", model, ignore=shutil.ignore_patterns("images"))
    shutil.copytree(repo_root / "app" / "demo" / "images" / "Bag", images)
    measured, bench = tmp_path / "measured", tmp_path / "bench"
    measured.mkdir()
    (measured / "run.json").write_text(json.dumps(_run_json("0" * 64)))
    command = ["bench", str(model), "--images", str(images), "--dpu", str(measured), "--seconds"]
    command += ["0.05", "--warm-up", "0", "--repetitions", "1", "--platform", "torch-eager"]
    assert main([*command, "--limit", "2", "--threads", "1", "--output", str(bench)]) == 0
    out, err = capsys.readouterr()
    for text in (out, err, *(path.read_text(encoding="utf-8") for path in bench.iterdir())):
        check(text)
    with (bench / "bench.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert not any((cell or "").startswith(("=", "+", "@")) for cell in row.values())
    tables = [line for line in out.split("\n") if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {10, 9, 8}
    command = ["report", "--results", str(tmp_path / "none"), "--run", str(measured)]
    command += ["--bench", str(bench), "--model", str(model / "model.xmodel")]
    assert main([*command, "--output", str(tmp_path / FILE_NAME / "report")]) == 0
    check(capsys.readouterr().out)
    for kind in ("md", "html"):
        text = (tmp_path / FILE_NAME / f"report.{kind}").read_text(encoding="utf-8")
        check(text)
        assert "<img" not in text and (kind == "html" or "[a](javascript" not in text)
    page = _Tags()
    page.feed((tmp_path / FILE_NAME / "report.html").read_text(encoding="utf-8"))
    assert "img" not in page.found and "table" in page.found


@pytest.mark.full_board
@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_model_and_a_service_with_hostile_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed, tried, measured and collected; no part of the names is executed anywhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / HOSTILE.replace("/", "")
    model = make_model(folder)
    image = next((model / "images").iterdir())
    image.rename(image.with_name("-rf $(touch pwned) 'x.png"))
    wheels = tmp_path / "wh eels; touch pwned"
    wheels.mkdir()
    make_wheel("psutil", wheels)
    with StandInBoard(tmp_path / "net") as board:
        config = ["--ssh-config", str(board.ssh_config), "--wheels", str(wheels)]
        assert main(["deploy", board.host, "--model", str(model), *config]) == 0
        board.set_power("12V", 16.0)
        results = tmp_path / "re sults; touch pwned"
        windows = ["--seconds", "0.5", "--warm-up", "0.2", "--idle", "0.3", "--cool-down", "0.1",
                   "--threads", "1", "--scenario", "offline", "--accept", "disturbed"]  # fmt: skip
        command = ["measure", board.host, "--model", str(model), *config, *windows]
        assert main([*command, "--output", str(results)]) == 0
        assert len(list(results.rglob("run.json"))) == 1
        pwned = [*board.root.glob("**/home/**/pwned"), *tmp_path.rglob("pwned"),
                 *Path.cwd().glob("pwned")]  # fmt: skip
        assert not pwned
