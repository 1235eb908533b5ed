"""Scripts for boards, with a program in place of ssh that runs them on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tutelage.host.deploy import scripts
from tutelage.host.ssh import lock as locking
from tutelage.host.ssh.errors import ConnectionLost, RemoteError
from tutelage.host.ssh.lock import lock
from tutelage.host.ssh.remote import Remote

_SSH = """#!/bin/sh
case "$*" in *" -G "*) exit ;; esac
for command; do :; done
cd "$BOARD" && exec sh -c "$command"
"""


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A board whose home directory is `tmp_path`."""
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(_SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("BOARD", str(tmp_path))
    return Remote("board", None)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The Python of the release "new", to be written by the test as a shell script."""
    path = tmp_path / "tutelage/releases/new/.venv/bin/python"
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    return path


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_after_a_pause_that_loses_the_lock_nothing_is_changed(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this machine had been suspended: no sign of life, and then the next command."""

    def silent(_pipe: Any, released: threading.Event) -> None:
        released.wait()

    monkeypatch.setattr(locking, "_LEASE_SECONDS", 1.0)
    monkeypatch.setattr(locking, "_beat", silent)
    with lock(remote, "releases", lambda: None, make=True):
        remote.sh("touch before")
        subprocess.run(["flock", "-w", "60", tmp_path / "releases", "true"], check=True)
        with pytest.raises(ConnectionLost, match="the lock on releases was lost: "):
            remote.sh("touch after")
    assert (tmp_path / "before").exists() and not (tmp_path / "after").exists()
    assert remote.sh("echo no lock is needed any more") == "no lock is needed any more\n"


def test_a_smoke_test_that_hangs_is_killed(
    remote: Remote, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application stops on SIGTERM once its current job has ended, which may be never."""
    monkeypatch.setattr(scripts, "_SMOKE_SECONDS", 1)
    monkeypatch.setattr(scripts, "_KILL_SECONDS", 1)
    python.write_text("#!/bin/sh\ntrap '' TERM\necho loading >&2\nsleep 1000\n")
    with pytest.raises(RemoteError, match=r"^smoke test: no result within 1 s$"):
        remote.sh(scripts.smoke_script("new", "model", True), seconds=60)
    python.write_text("#!/bin/sh\necho loading >&2; echo the reason >&2; exit 3\n")
    with pytest.raises(RemoteError, match=r"^the reason$"):
        remote.sh(scripts.smoke_script("new", "model", True))
