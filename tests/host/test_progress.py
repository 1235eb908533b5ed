"""Progress of benchmarks: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="host/ needs Rich, which is not installed")

from rich.console import Console

from tutelage.host.train.progress import Steps, Terminal

_BENCHMARK = """
from tutelage.host.train.progress import stepped
print(sum(stepped("emulation, batch 1", range(3))))
"""


def _on_a_terminal(command: list[str], root: Path) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; return standard output and error."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=follower
    ) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                seen += (part := os.read(leader, 65536))
            except OSError:  # the terminal's last writer is gone
                break
            if not part:
                break
        out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0, seen
    return out.decode(), seen.decode()


def test_a_benchmark_shows_its_rounds(repo_root: Path) -> None:
    command = [sys.executable, "-c", _BENCHMARK]
    out, err = _on_a_terminal(command, repo_root)
    assert out == "3\n"
    for part in ("emulation, batch 1", "0/3", "1/3", "2/3"):
        assert part in err
    done = subprocess.run(command, cwd=repo_root, capture_output=True, check=True)
    assert done.stdout == b"3\n" and done.stderr == b""


@pytest.mark.slow
def test_a_comparison_shows_its_platforms(repo_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="bench needs PyTorch, which is not installed")
    command = [sys.executable, "-m", "tutelage", "bench", "app/demo", "--platform", "torch-eager"]
    command += ["--seconds", "0.05", "--warm-up", "0", "--repetitions", "2", "--limit", "2"]
    out, err = _on_a_terminal([*command, "-o", str(tmp_path / "out"), "--json"], repo_root)
    assert out.startswith("{") and "torch-eager" in err and "1/2" in err
    assert "preparing PyTorch" in err and "repetition 2 of 2" in err


def test_the_cursor_is_shown_again_once() -> None:
    text = io.StringIO()
    terminal = Terminal(Console(file=text, force_terminal=True, width=100))
    terminal.begin("float", 2, 0)
    assert "\x1b[?25l" in text.getvalue() and "\x1b[?25h" not in text.getvalue()
    terminal.end()
    ended = text.getvalue()
    assert ended.count("\x1b[?25h") == 1
    terminal.end()
    assert text.getvalue() == ended


def test_without_a_terminal_a_display_that_ends_twice_writes_nothing() -> None:
    text = io.StringIO()
    display = Terminal(Console(file=text, width=100))
    display.begin("float", 2, 0)
    display.end()
    display.end()
    assert not text.getvalue()


def test_the_bar_is_drawn_between_steps_only() -> None:
    text = io.StringIO()
    with Steps(2, Console(file=text, force_terminal=True, width=100)) as steps:
        steps.begin("first \x1b[2J")
        before = text.tell()
        assert text.tell() == before
        steps.begin("second")
        assert text.tell() > before
    assert "\x1b[2J" not in text.getvalue() and "second" in text.getvalue()
