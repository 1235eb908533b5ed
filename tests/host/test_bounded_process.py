"""Programs whose output is bounded."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tutelage.host.ssh.bounded_process import TooMuchOutput, limited_files, run_bounded

MOST = 1 << 20


def test_a_program_is_run_with_its_input_and_its_outputs() -> None:
    text = "line\n" * 100_000  # more than a pipe holds, in both directions
    done = run_bounded(["sh", "-c", "cat; echo why >&2; exit 3"], text, 60, MOST)
    assert (done.returncode, done.stdout, done.stderr) == (3, text, "why\n")
    assert run_bounded(["true"], text, 60, MOST).returncode == 0  # it reads nothing
    broken = run_bounded(["printf", "\\377"], "", 60, MOST)
    assert broken.stdout == "\ufffd"


def test_a_program_without_end_is_ended() -> None:
    with pytest.raises(TooMuchOutput, match=r"yes printed more than 1,048,576 bytes"):
        run_bounded(["yes"], "", None, MOST)
    loud = run_bounded(["sh", "-c", "head -c 3000000 /dev/zero >&2"], "", 60, MOST)
    assert len(loud.stderr) == MOST
    with pytest.raises(subprocess.TimeoutExpired):
        run_bounded(["sleep", "1000"], "", 0.1, MOST)


def test_background_processes_are_not_waited_for() -> None:
    """ssh with ControlPersist does this: some versions keep the error output open."""
    start = time.monotonic()
    done = run_bounded(["sh", "-c", "sleep 20 > /dev/null & echo done; echo why >&2"], "", 60, MOST)
    assert (done.stdout, done.stderr) == ("done\n", "why\n")
    assert time.monotonic() - start < 19


def test_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    command = limited_files(["dd", "if=/dev/zero", f"of={path}", "bs=5000", "count=1"], 2048)
    assert run_bounded(command, "", 60, MOST).returncode != 0
    assert path.stat().st_size <= 4096  # shells count in blocks of 512 or of 1,024 bytes
