"""Scripts for boards, with a program in place of ssh that runs them on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.board_profile import load_profile
from tutelage.host.deploy import DeployError, findings, measurement_scripts, rollback, scripts
from tutelage.host.deploy.installation import _copy
from tutelage.host.deploy.measurement import listing
from tutelage.host.deploy.packages import CARRIED
from tutelage.host.deploy.release import SUMS, seal
from tutelage.host.deploy.smoke import smoke
from tutelage.host.ssh import lock as locking
from tutelage.host.ssh.errors import ConnectionLost, RemoteError
from tutelage.host.ssh.lock import lock
from tutelage.host.ssh.remote import Remote

_SSH = """#!/bin/sh
case "$*" in *" -G "* | *" -N "* | *" -O "*) exit ;; esac
while [ "$1" != board ]; do shift; done; shift
cd "$BOARD" && exec sh -c "$*"
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


FACTS: dict[str, Any] = {
    "model": "ZynqMP ZCU104", "image": None, "config": None, "extra_path": None,
    "python": "3.10.4", "machine": "aarch64", "glibc": "2.35", "executable": "/usr/bin/python3",
    "home": "/home/xilinx", "paths": {}, "rsync": True, "free_bytes": 1 << 30, "time": 1.8e9,
    "fingerprint": None,
    "modules": dict.fromkeys(("numpy", "cv2", "vart", "xir", "pynq", "tomli", *CARRIED), ""),
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"time": 10**400}, {"time": float("nan")}, {"python": f"{'3' * 5000}.10"},
        {"machine": "a\0b"}, {"executable": "\ud800"}, {"extra_path": "\0"},
        {"home": "/home/x\nUser=root"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_facts_that_no_command_can_have_are_refused(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """They ended the deployment to all boards with a traceback."""
    monkeypatch.setattr(findings, "_PYNQ_PYTHON", str(tmp_path / "python"))
    answer = tmp_path / "answer"
    (tmp_path / "python").write_text(f"#!/bin/sh\ncat > /dev/null; cat {answer}\n")
    (tmp_path / "python").chmod(0o755)
    answer.write_text(json.dumps(FACTS))
    profile = load_profile("zcu104")
    assert findings.ask(remote, profile)["home"] == "/home/xilinx"
    answer.write_text(json.dumps({**FACTS, **changes}))
    with pytest.raises(DeployError, match=r"is not that of board/check\.py"):
        findings.ask(remote, profile)


@pytest.mark.parametrize(
    "answer",
    ["[", "[" * 100000, '{"frames": {"in": "x", "classified": 0, "failed": 1}, "provider": ""}',
     '{"frames": {"in": 1e400, "classified": 0, "failed": 1}, "provider": ""}'],
    ids=["short", "deep", "text", "infinite"],
)  # fmt: skip
def test_figures_of_a_smoke_test_that_are_none(remote: Remote, python: Path, answer: str) -> None:
    profile = load_profile("zcu104")
    assert profile.overlay is not None
    facts = {"modules": {"vart": "", "xir": ""}, "config": profile.overlay.config_line}
    (python.parent / "answer").write_text(answer)
    python.write_text('#!/bin/sh\ncat "${0%/*}/answer"\n')
    with pytest.raises(DeployError, match=r"^smoke test: returned no figures$"):
        smoke(remote, "new", "model", profile, facts, ("fingerprint",))


def test_lines_that_are_no_measurement_are_left_out(remote: Remote, tmp_path: Path) -> None:
    folder = tmp_path / "tutelage/measurements"
    for name in ("20260101T000000Z-abcd", "20260101T000000Z-abcd ; x", "20260101T000000Z-abcde"):
        (folder / name).mkdir(parents=True)
    assert listing("board", None) == [("20260101T000000Z-abcd", "ended")]


def test_a_damaged_release_is_not_rolled_back_to(remote: Remote, tmp_path: Path) -> None:
    for link, name in (("current", "0123456789abcdef"), ("previous", "fedcba9876543210")):
        (tmp_path / "tutelage/releases" / name).mkdir(parents=True)
        (tmp_path / "tutelage" / link).symlink_to(f"releases/{name}")
    (report,) = rollback(["board"], None, print)
    assert (report.state, report.release) == ("failed", "")
    assert report.error == "board: the release has no model, so it is damaged: deploy again"
    with pytest.raises(RemoteError, match="the release has no model"):
        scripts.release_and_model(remote, measurement_scripts.CURRENT)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_a_damaged_file_of_an_older_release_is_copied_again(remote: Remote, tmp_path: Path) -> None:
    """Every deployment linked it, found the wrong checksum and ended."""
    stage, old = tmp_path / "my stagé", tmp_path / "tutelage/releases/0123456789abcdef"
    stage.mkdir()
    for name in ("same", "damaged"):
        (stage / name).write_text(name)
    seal(stage)
    shutil.copytree(stage, old)
    (old / "damaged").write_text("DAMAGED")
    shutil.copystat(stage / "damaged", old / "damaged")
    _copy(remote, stage, ".new.partial", [old.name], 0)
    new = old.with_name(".new.partial")
    assert {path.name: path.read_text() for path in new.iterdir() if path.name != SUMS} == {
        "same": "same", "damaged": "damaged"}  # fmt: skip
    assert (new / "same").samefile(old / "same") and (old / "damaged").read_text() == "DAMAGED"
