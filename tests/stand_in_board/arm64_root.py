"""An arm64 root filesystem for the stand-in board, with a real aarch64 Python.

    python -m tests.stand_in_board.arm64_root      # builds it once, prints its path

It is Debian bookworm for arm64, made by debootstrap and run by qemu-user: the kernel starts
qemu-aarch64 for its programs, once that is registered in binfmt_misc with the flag F (the
interpreter is opened at registration, so it need not be in the root). Its Python is 3.11, while
a PYNQ 3.0.1 image has 3.10; Ubuntu jammy would have the same versions, with arm64 packages on
ports.ubuntu.com. numpy is the oldest one with wheels for that Python, OpenCV the image's 4.5.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.stand_in_board.image import SITE

RELEASE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PYTHON = "3.11"
# Without systemd: nothing starts it, and its set-up takes long under qemu.
_DEBIAN = "python3,python3-venv,openssh-server,rsync"
# The last three are for the stand-in's emulated DPU.
_INSTALLED = ("numpy==1.23.5", "opencv-python-headless==4.5.5.64", "rich==15.0.0",
              "starlette==1.7.0", "uvicorn==0.54.0",
              "onnx==1.23.2", "onnxruntime==1.32.0", "protobuf==7.36.2")  # fmt: skip
# Packages that the image lacks and a deployment brings, as wheels, so that tests need no index.
_CARRIED = ("psutil==7.2.2",)
WHEELS = "opt/wheels"

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_REGISTRATION = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # of qemu-user-static


class RootError(RuntimeError):
    """The root cannot be built or used on this machine; the message is one line."""


def root_path() -> Path:
    """Return the path of the root in the user's cache, with a name that depends on its contents."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    content = repr((RELEASE, _DEBIAN, _INSTALLED, _CARRIED))
    key = hashlib.sha256(content.encode()).hexdigest()[:8]
    return base / "tutelage" / f"arm64-root-{RELEASE}-{key}"


def why_not(root: Path) -> str | None:
    """Return why the root cannot be run here; None if it can."""
    if not root.is_dir():
        return "no arm64 root; make test-board builds it"
    try:
        register_qemu()
    except RootError as error:
        return str(error)
    return None


def register_qemu() -> None:
    """Let this machine's kernel run arm64 programs, until the next boot.

    Raises
    ------
    RootError
        There is no qemu-user-static, no root, or no binfmt_misc.
    """
    if platform.machine() == "aarch64":
        return
    if (_BINFMT / "qemu-aarch64").exists():
        if "F" not in _flags((_BINFMT / "qemu-aarch64").read_text()):
            raise RootError("qemu-aarch64 is registered in binfmt_misc without the flag F")
        return
    if os.geteuid() != 0:
        raise RootError("an arm64 board needs root, to register qemu in binfmt_misc")
    if not _REGISTRATION.is_file():
        raise RootError(f"an arm64 board needs qemu-user-static (no {_REGISTRATION})")
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(_BINFMT)], capture_output=True)
    try:
        (_BINFMT / "register").write_text(_REGISTRATION.read_text().strip())
    except OSError as error:
        raise RootError(f"qemu cannot be registered in binfmt_misc: {error.strerror}") from error


def _flags(text: str) -> str:
    """Return the flags in binfmt_misc's description of an interpreter."""
    found = re.search(r"(?m)^flags: *(\S*)$", text)
    return found[1] if found else ""


def build() -> Path:
    """Build the root if it is missing; return its path.

    Raises
    ------
    RootError
        Tools, root or network are missing.
    """
    root = root_path()
    if root.is_dir():
        return root
    register_qemu()
    if shutil.which("debootstrap") is None:
        raise RootError("an arm64 board needs debootstrap")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=root.parent, prefix=".arm64-root-"))
    try:
        partial.chmod(0o755)
        # In a separate namespace, so that its mounts (proc, sys) are not removed with it.
        _run("unshare", "--mount", "debootstrap", "--arch=arm64", "--variant=minbase",
             f"--include={_DEBIAN}", RELEASE, str(partial), MIRROR)  # fmt: skip
        _pip("install", "--no-compile", "--target", str(partial / SITE), *_INSTALLED)
        _pip("download", "--no-deps", "--dest", str(partial / WHEELS), *_CARRIED)
        shutil.rmtree(partial / "var/cache/apt", ignore_errors=True)
        if not root.is_dir():  # another process may have built it meanwhile
            partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _pip(action: str, *arguments: str) -> None:
    """Download wheels for the root's Python with this machine's pip."""
    command = [sys.executable, "-m", "pip", action, "--quiet", "--disable-pip-version-check",
               "--only-binary=:all:", "--implementation", "cp",
               "--python-version", PYTHON]  # fmt: skip
    for tag in ("2_28", "2_27", "2_17", "2014"):
        prefix = "manylinux" if tag == "2014" else "manylinux_"
        command += ["--platform", f"{prefix}{tag}_aarch64"]
    _run(*command, *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise RootError(f"{command[0]}: {lines[-1] if lines else done.returncode}")


def main() -> int:
    """Build the root; return the exit status."""
    start = time.monotonic()
    try:
        root = build()
    except RootError as error:
        print(f"arm64 root: {error}", file=sys.stderr)
        return 1
    print(f"{root} ({time.monotonic() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
