"""The service's unit under a real systemd, the first process of namespaces of its own.

It is this machine's systemd on an overlay of this machine's files, hence no board's. What the unit
starts in place of the application writes down what it may do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from host.deploy.service import TOKEN_FILE, UNIT, Account, unit_text

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
    """Make the home directory of a user with a release, whose Python writes down what it sees."""
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


@pytest.mark.full_board
@pytest.mark.skipif(_why_not() != "", reason=_why_not())
def test_the_unit_runs_as_its_user_within_its_bounds(tmp_path: Path) -> None:
    given = ["--web", "0.0.0.0:80", 'a "b" \\ %h $HOME é', ";", ""]
    unit = unit_text("/home/xilinx", Account("xilinx", ("video",)), given)
    (tmp_path / "machine").mkdir()
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
               "--kill-child", "--cgroup", "--ipc", "--uts", "--net", "sh", "-c", _START, "sh",
               str(tmp_path / "machine"), str(_home(tmp_path, unit))]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        seen = _wait_for_seen(machine)
    finally:
        machine.kill()
        machine.wait()
    words = ["app/classify.py", "--model", "model/net.xmodel", "--plugin", "plugin.py", *given]
    assert [line[6:] for line in seen if line.startswith("word: ")] == words
    for line in ("user: xilinx", "token: abcdefghijklmnop", "NoNewPrivs:\t1", "writes: /tmp",
                 "writes: /home/xilinx", "CapEff:\t0000000000000400"):  # fmt: skip
        assert line in seen, (line, seen)
    assert f"groups: {UID} {VIDEO}" in seen
    assert not {"writes: /etc", "writes: /usr", "reads the token file"} & set(seen)


def _wait_for_seen(machine: subprocess.Popen[bytes]) -> list[str]:
    """Return what the application has written, as soon as it has written everything."""
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        for child in children.read_text().split():
            path = Path(f"/proc/{child}/root/home/xilinx/seen")
            if path.exists():
                return path.read_text().splitlines()
        assert machine.poll() is None and time.monotonic() < end, "no service was started"
        time.sleep(0.1)
