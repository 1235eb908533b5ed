"""A stand-in for a board on the network, with its own address and filesystem and a real sshd.

    with StandInBoard(tmp_path) as board:
        subprocess.run(["ssh", "-F", board.ssh_config, board.host, "true"])

It is a network namespace behind a veth pair, with a mount and a PID namespace that contain an
overlay of this machine's root, or of another one (arm64_root.py), whose changes go to a small tmpfs
(the board's disk). image.py installs Python, vart and xir, and sensors.py the ZCU104's sensors in
/sys. It reaches no other network, and its /etc/os-release says that it is not hardware.
Nothing remains after its processes: the namespaces end with the one that `unshare` started.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.stand_in_board.image import (
    PYNQ_SITE,
    ROOT,
    SITE,
    python_of,
    with_pynq,
    write_dpu,
    write_python,
)  # fmt: skip
from tests.stand_in_board.load import LoadFollower
from tests.stand_in_board.sensors import INA226_FORMS, Sensors, labels, write_sensors

HOME = "home/board"
IMAGE = "a stand-in for a board (tests/stand_in_board), no hardware"
DISK_MB = 160

_START = """\
set -e
mount -t tmpfs -o size={disk}m,mode=755 tmpfs "$1"
cd "$1"; mkdir upper work root
cp -a {seed}/. upper/
mount -t overlay -o lowerdir={root},upperdir=upper,workdir=work overlay root
cd root
{binds}
mount --rbind /dev dev; mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
for d in class bus devices firmware; do
  mount -t tmpfs tmpfs sys/$d; cp -a {seed}.sys/$d/. sys/$d/
done
mount -t tmpfs tmpfs run; mkdir run/sshd; mkdir -m 1777 run/dpu-load
mount -t tmpfs tmpfs tmp
test ! -d .{repo} || mount -t tmpfs tmpfs .{repo}
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/board_config
"""

_SSHD = """\
HostKey /etc/ssh/board_key
AuthorizedKeysFile /etc/ssh/board_authorised
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


def why_not() -> str | None:
    """Return why this machine cannot run a stand-in; None if it can."""
    if os.geteuid() != 0:
        return "a simulated board needs root, for its namespaces"
    for tool in ("ip", "unshare", "setpriv", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd"):
        if shutil.which(tool) is None:
            return f"a simulated board needs {tool} (openssh-server, rsync, iproute2)"
    name = f"tt{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    if made.returncode:
        return "no network namespace can be made here"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    for kind in ("tmpfs", "sysfs"):
        tried = subprocess.run(["unshare", "-m", "mount", "-t", kind, kind, "/mnt"],
                               capture_output=True)  # fmt: skip
        if tried.returncode:
            return f"no {kind} can be mounted in a mount namespace here"
    return None


class StandInBoard:
    """A board that runs in a `with` block.

    Parameters
    ----------
    folder : directory for keys, configuration and log
    number : number of the board, 0 to 9
    dpu : "fake" for the vart and xir of tests/fake_board, "emulation" for this repository's
        emulation under these names, paced as a ZCU104, which runs real compiled models and passes
        for a board's own; "admitted emulation" declares itself, and runs files compiled
        for the emulator
    root : base filesystem of the board; / for this machine's own
    ina226 : form of the 12V rail's monitor, one of `sensors.INA226_FORMS`

    The rails' watts follow the DPU's load, until `set_power`.

    pynq is an empty module, or the real one of the venv that `image.PYNQ_VARIABLE` names.

    Attributes
    ----------
    host : host name for ssh with `ssh_config`
    ssh_config, known_hosts, log : files
    """

    def __init__(
        self,
        folder: Path,
        number: int = 0,
        dpu: str = "fake",
        root: Path = Path("/"),
        ina226: str = INA226_FORMS[0],
    ) -> None:
        if dpu not in ("fake", "emulation", "admitted emulation"):
            raise ValueError(f"dpu is fake, emulation or admitted emulation, not {dpu!r}")
        self._folder = folder / f"board{number}"
        self._lower, self._emulation, self._admits = root, dpu != "fake", dpu.startswith("admitted")
        self._python = with_pynq(python_of(root))
        self._name = f"tt{os.getpid()}b{number}"
        third, block = os.getpid() % 250, os.getpid() // 250 % 63  # one network per process
        net = f"10.{100 + number}.{third}"
        self._near, self._address = f"{net}.{4 * block + 1}", f"{net}.{4 * block + 2}"
        self._process: subprocess.Popen[bytes] | None = None
        self._follower: LoadFollower | None = None
        self._ina226 = ina226
        self.host = f"board{number}"
        self.ssh_config = self._folder / "ssh_config"
        self.known_hosts = self._folder / "known_hosts"
        self.log = self._folder / "log"

    def __enter__(self) -> StandInBoard:
        try:
            self._write_files()
            self._make_network()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything. May be called more than once."""
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        if self._process is not None:
            self._process.kill()  # unshare --kill-child: the board's init dies with it
            self._process.wait()
            self._process = None
        subprocess.run(["ip", "link", "del", f"{self._name}h"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self._name], capture_output=True)

    @property
    def root(self) -> Path:
        """The board's filesystem as a local path. Its absolute links are broken."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return Path(f"/proc/{children[0]}/root")

    @property
    def tutelage(self) -> Path:
        """The directory that deploy creates in the home directory."""
        return self.root / HOME / "tutelage"

    def run(self, *command: str) -> str:
        """Run a command on the board over SSH; return its output."""
        done = subprocess.run(["ssh", "-F", str(self.ssh_config), self.host, *command],
                              capture_output=True, text=True, check=True, timeout=600)  # fmt: skip
        return done.stdout

    def cut(self) -> None:
        """Cut the network; open connections hang, as with an unplugged cable."""
        _run("ip", "-n", self._name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Plug the cable in again; return when the board answers."""
        _run("ip", "-n", self._name, "link", "set", "eth0", "up")
        self._wait_until_it_answers()

    def set_power(self, rail: str, watts: float) -> None:
        """Fix a rail's power, W, independent of the DPU."""
        assert self._follower is not None
        self._follower.fix(rail, watts)

    def free_power(self, rail: str) -> None:
        """Let a rail's power follow the DPU's load again."""
        assert self._follower is not None
        self._follower.free(rail)

    def set_temperature(self, celsius: float) -> None:
        """Set the processor's temperature, degrees Celsius."""
        Sensors(self.root / "sys").set_temperature(celsius)

    def remove_sensors(self) -> None:
        """Remove all sensors, as if their drivers were unbound."""
        Sensors(self.root / "sys").remove()

    def fill_disk(self) -> Path:
        """Fill the board's disk; return the file, to be removed."""
        path = self.root / "var" / "filler"
        with path.open("wb", buffering=0) as file:
            block = bytes(1 << 20)
            try:
                while True:
                    file.write(block)
            except OSError:
                return path

    def _write_files(self) -> None:
        seed = self._folder / "seed"
        for name in ("etc/ssh", "etc/sensors.d", HOME, SITE, PYNQ_SITE):
            (seed / name).mkdir(parents=True)
        tree = self._folder / "seed.sys" / "firmware/devicetree/base"
        tree.mkdir(parents=True)
        (tree / "model").write_text("ZynqMP ZCU104 RevC\0")
        write_sensors(self._folder / "seed.sys", self._ina226)
        (seed / "etc/sensors.d/zcu104.conf").write_text(labels())
        (seed / "etc/passwd").write_text(
            f"root:x:0:0:root:/{HOME}:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        (seed / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
        (seed / "etc/vart.conf").write_text("firmware: /usr/lib/dpu.xclbin\n")
        (seed / "etc/os-release").write_text(f'ID=stand-in\nPRETTY_NAME="{IMAGE}"\n')
        write_dpu(seed, "zcu104" if self._emulation else None, self._admits)
        write_python(seed, self._python, self._emulation)
        self._write_keys(seed / "etc/ssh")
        for path in (seed, *seed.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)

    def _write_keys(self, etc: Path) -> None:
        for path in (etc / "board_key", self._folder / "client_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        shutil.copy(self._folder / "client_key.pub", etc / "board_authorised")
        (etc / "board_config").write_text(_SSHD)
        self.known_hosts.write_text(f"{self._address} {(etc / 'board_key.pub').read_text()}")
        self.ssh_config.write_text(
            f"Host {self.host}\n  HostName {self._address}\n  User root\n"
            f"  IdentityFile {self._folder}/client_key\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        )

    def _make_network(self) -> None:
        _remove_stale_networks()
        name, near = self._name, f"{self._name}h"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "addr", "add", f"{self._near}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run("ip", "-n", name, "addr", "add", f"{self._address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", device, "up")

    def _start(self) -> None:
        (self._folder / "disk").mkdir()
        python = self._python
        mounts = {SITE: python.site if python.mounted else None, PYNQ_SITE: python.pynq}
        binds = [f"mount --bind {path} {place}" for place, path in mounts.items() if path]
        script = _START.format(disk=DISK_MB, seed=self._folder / "seed", repo=ROOT,
                               root=self._lower, binds="\n".join(binds))  # fmt: skip
        command = ["setpriv", "--pdeathsig", "KILL"]  # if this process itself is killed
        command += ["ip", "netns", "exec", self._name]
        command += ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["sh", "-c", script, "sh", str(self._folder / "disk")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log)  # fmt: skip
        self._wait_until_it_answers()
        self._follower = LoadFollower(self.root)

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((self._address, 22), timeout=1).close()
                return
            except OSError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"no board: {self.log.read_text()}") from error
                time.sleep(0.1)


def _remove_stale_networks() -> None:
    """Remove the remains of boards of killed processes."""
    for path in Path("/run/netns").glob("tt*b*"):
        found = re.fullmatch(r"tt(\d+)b\d", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True)


def _run(*command: str) -> Any:
    return subprocess.run(command, check=True, capture_output=True, text=True)
