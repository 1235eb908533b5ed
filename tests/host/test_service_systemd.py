"""The service's unit under a real systemd, as the first process of new namespaces.

It is this machine's systemd on an overlay of this machine's files, not a board's. The unit
starts the application, or a program that records its permissions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tutelage.core.locations import CODE as ROOT
from tutelage.host.deploy.service import unit_text
from tutelage.host.deploy.service_account import Account
from tutelage.host.deploy.service_scripts import MAKE_TOKEN, TOKEN_FILE, UNIT

SYSTEMD = Path("/lib/systemd/systemd")
UID, VIDEO = 54321, 44
SETTLE_SECONDS = 60

_START = f"""\
set -e
mount -t tmpfs tmpfs "$1"; cd "$1"; mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root; cd root
mount --rbind /dev dev; mount -t proc proc proc; mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
echo 0123456789abcdef0123456789abcdef > etc/machine-id
printf 'root:x:0:0::/root:/bin/sh\\nxilinx:x:{UID}:{UID}::/home/xilinx:/bin/sh\\n' > etc/passwd
printf 'root:x:0:\\nxilinx:x:{UID}:\\nvideo:x:{VIDEO}:\\n' > etc/group
mkdir -p home/xilinx etc/systemd/system/basic.target.wants
chmod a+x root  # this machine's Python may be there
ip link set lo up
sh -c "$3" &
cp -r "$2"/. home/xilinx; chown -R {UID}:{UID} home/xilinx
chown root: home/xilinx/{TOKEN_FILE}; chmod 600 home/xilinx/{TOKEN_FILE}
mv home/xilinx/unit .{UNIT}
ln -sf {UNIT} etc/systemd/system/basic.target.wants/tutelage.service
exec env -i "PATH=$PATH" container=oci chroot . {SYSTEMD} --system --unit=basic.target
"""

_APPLICATION = """\
#!/bin/sh
exec > "$HOME/partial" 2>&1
for word in "$@"; do echo "word: $word"; done
echo "user: $(id -un)"; echo "groups: $(id -G)"; echo "token: $TUTELAGE_WEB_TOKEN"
grep -E 'NoNewPrivs|CapEff|CapAmb' /proc/self/status
for place in /etc /usr /tmp "$HOME"; do
    if touch "$place/made" 2> /dev/null; then echo "writes: $place"; fi
done
cat "$HOME/tutelage/web.env" > /dev/null 2>&1 && echo reads the token file
mv "$HOME/partial" "$HOME/seen"
exec sleep 1000
"""


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root, for its namespaces"
    if not SYSTEMD.exists() or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "needs systemd, unshare and setpriv"
    mount = ["mount", "-t", "cgroup2", "cgroup2", "/mnt"]
    tried = subprocess.run(["unshare", "--mount", "--cgroup", *mount], capture_output=True)
    return "" if tried.returncode == 0 else "no cgroup2 can be mounted here"


def _home(folder: Path, unit: str) -> Path:
    """Create a user's home directory with a release whose Python records what it can access."""
    home = folder / "home"
    release = home / "tutelage/current"
    (release / ".venv/bin").mkdir(parents=True)
    (release / "model").mkdir()
    (release / "model/net.xmodel").touch()
    (release / "plugin.py").touch()
    python = release / ".venv/bin/python"
    python.write_text(_APPLICATION)
    python.chmod(0o755)
    (home / TOKEN_FILE).write_text("TUTELAGE_WEB_TOKEN=abcdefghijklmnop\n")
    (home / "unit").write_text(unit)
    return home


pytestmark = [
    pytest.mark.full_board,
    pytest.mark.skipif(_why_not() != "", reason=_why_not()),
]


@contextmanager
def _machine(folder: Path, home: Path, beside: str = "true") -> Iterator[list[str]]:
    """A machine with a user's home, where a shell command was run before systemd.

    Yields the beginning of the command line of what shall run on it.
    """
    (folder / "machine").mkdir()
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
               "--kill-child", "--cgroup", "--ipc", "--uts", "--net", "sh", "-c", _START, "sh",
               str(folder / "machine"), str(home), beside]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        end = time.monotonic() + SETTLE_SECONDS
        while not (found := children.read_text().split()):
            assert process.poll() is None and time.monotonic() < end, "no machine was started"
            time.sleep(0.02)
        yield ["nsenter", "--target", found[0], "--mount", "--pid", "--net", "--root", "--wd"]
    finally:
        process.kill()
        process.wait()


def _on(machine: list[str], *command: str) -> str:
    return subprocess.run([*machine, *command], capture_output=True, text=True).stdout


def _wait_for(machine: list[str], *command: str) -> str:
    """Return what a command on the machine prints, as soon as it prints something."""
    end = time.monotonic() + SETTLE_SECONDS
    while not (printed := _on(machine, *command)):
        journal = _on(machine, "journalctl", "--no-pager", "-u", "tutelage")
        assert time.monotonic() < end, journal
        time.sleep(0.1)
    return printed


def test_the_unit_runs_as_its_user_within_its_bounds(tmp_path: Path) -> None:
    given = ["--web", "0.0.0.0:80", 'a "b" \\ %h $HOME é', ";", ""]
    unit = unit_text("/home/xilinx", Account("xilinx", ("video",)), given)
    with _machine(tmp_path, _home(tmp_path, unit)) as machine:
        seen = _wait_for(machine, "cat", "/home/xilinx/seen").splitlines()
    words = ["app/classify.py", "--model", "model/net.xmodel", "--plugin", "plugin.py", *given]
    assert [line[6:] for line in seen if line.startswith("word: ")] == words
    for line in ("user: xilinx", "token: abcdefghijklmnop", "NoNewPrivs:\t1", "writes: /tmp",
                 "writes: /home/xilinx", "CapEff:\t0000000000000400"):  # fmt: skip
        assert line in seen, (line, seen)
    assert f"groups: {UID} {VIDEO}" in seen
    assert not {"writes: /etc", "writes: /usr", "reads the token file"} & set(seen)


# A camera with a password, and a reader of the live page, on the machine.
_CAMERA = f"""\
cd {ROOT} && exec {sys.executable} -c '
import threading
from tests.app.test_live import Server
server = Server(8000)
server.password, server.pause = "me:s3" + "cret", 0.05
threading.Event().wait()'
"""
_READER = """\
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:80/state.json")
except urllib.error.HTTPError as error:
    assert error.code == 401, error
    own = {"Authorization": "Bearer " + sys.stdin.readline().strip()}
    request = urllib.request.Request("http://127.0.0.1:80/state.json", headers=own)
    print(urllib.request.urlopen(request).read().decode())
"""
_EVERYTHING_SHOWN = """\
journalctl --no-pager; systemctl show tutelage.service; systemctl cat tutelage.service
tr '\\0' ' ' < /proc/self/cmdline; cat /proc/*/cmdline
for p in $(pgrep -x ffmpeg); do echo "ffmpeg: $p"; cat /proc/$p/environ; done
"""


def test_the_application_is_served_and_its_secrets_are_not_shown(tmp_path: Path) -> None:
    """The token that the deployment makes, and a source with a password beside it."""
    home = _real_home(tmp_path, ["--web", "0.0.0.0:80", "--output", "/home/xilinx/seen.mp4"])
    environment = dict(line.split("=", 1) for line in (home / TOKEN_FILE).read_text().splitlines())
    token = environment["TUTELAGE_WEB_TOKEN"]
    with _machine(tmp_path, home, _CAMERA) as machine:
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            reader = subprocess.run([*machine, sys.executable, "-c", _READER], input=token,
                                    capture_output=True, text=True)  # fmt: skip
            if reader.stdout:
                break
            journal = _on(machine, "journalctl", "--no-pager", "-u", "tutelage")
            assert time.monotonic() < end, (reader.stderr, journal)
            time.sleep(0.1)
        assert "http://127.0.0.1:8000/video" in reader.stdout
        if shutil.which("ffmpeg"):
            _wait_for(machine, "pgrep", "-x", "ffmpeg")
        shown = _on(machine, "sh", "-c", _EVERYTHING_SHOWN)
        owner = _on(machine, "sh", "-c", "ps -o user= -p $(pgrep -f 'app/classify[.]py')").split()
    assert owner == ["xilinx"]
    for part in ("the live page is at http://", "EnvironmentFile=", "app/classify.py"):
        assert part in shown
    assert shutil.which("ffmpeg") is None or re.search(r"ffmpeg: \d+\n\S", shown)
    for secret in (token, "s3cret"):
        lines = [line for line in re.split("[\\n\\0]", shown + reader.stdout) if secret in line]
        assert not lines


def _real_home(folder: Path, arguments: list[str]) -> Path:
    """Make a home whose release is this repository's application, on the emulation."""
    home = folder / "home"
    release = home / "tutelage/current"
    for name in ("tutelage", "app", "board", "core", "dpu"):
        shutil.copytree(ROOT / name, release / name, symlinks=True)
    shutil.copytree(ROOT / "app/demo", release / "model")
    python = release / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (home / TOKEN_FILE).write_text("TUTELAGE_SOURCE=http://me:s3cret@127.0.0.1:8000/video")
    subprocess.run(["sh", "-c", MAKE_TOKEN], cwd=home, check=True)
    (home / "unit").write_text(unit_text("/home/xilinx", Account("xilinx"), arguments))
    return home
