"""Report a board's state as JSON before anything is installed: `python3 -m tutelage.board.check`.

`tutelage deploy` pipes this file to the board's Python over SSH, so it imports only the standard
library (and `tutelage.board.runner` for --model, which needs a release). It changes nothing and
evaluates nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

# Each is imported in its own process, since a broken native library may end the process.
_IMPORTED = ("numpy", "cv2", "vart", "xir", "pynq")
# Only searched for; a release brings those that are missing.
_LOOKED_FOR = ("psutil", "tomli", "starlette", "uvicorn", "rich")
# The directory of vart and xir in AMD's images; the same as in board/provider.py.
_IMAGE_SITE_PACKAGES = "/usr/lib/python3/site-packages"
_IMPORT_SECONDS = 120
_QUERY_SECONDS = 20


def facts(config: Path, firmware: str, paths: Sequence[Path]) -> dict[str, Any]:
    """Return the facts about this machine.

    Parameters
    ----------
    config, firmware : VART's configuration file, and the xclbin that it must name
    paths : files whose existence is reported, such as those that indicate a hazard

    Returns
    -------
    model, image : names in the device tree and in /etc/os-release; None without one
    python, machine, glibc : versions and architecture
    executable, extra_path : the Python interpreter, and the packages' directory of a venv
    modules : name -> version, "" if unknown, None if it cannot be imported
    rsync : whether it is installed
    home, free_bytes : the home directory and the free space in it
    time : seconds since 1970
    config, fingerprint : text of vart.conf and fingerprint of the DPU; None if unknown
    paths : path -> whether it exists
    """
    home, text = Path.home(), _text(config)
    return {
        "model": _text(Path("/sys/firmware/devicetree/base/model"))
        or _text(Path("/proc/device-tree/model")),
        "image": _image(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "executable": sys.executable,
        "extra_path": sysconfig.get_path("purelib") if sys.prefix != sys.base_prefix else None,
        "modules": _modules(),
        "rsync": shutil.which("rsync") is not None,
        "home": str(home),
        "free_bytes": shutil.disk_usage(home).free,
        "time": time.time(),
        "config": text,
        "fingerprint": _fingerprint() if text == f"firmware: {firmware}" else None,
        "paths": {str(path): path.exists() for path in paths},
    }


def model_facts(path: Path) -> dict[str, Any]:
    """Return the DPU that a model was compiled for. Needs an installed release.

    Returns
    -------
    dpu_name, fingerprint : the DPU; the fingerprint is None if the model has none
    provider : the DPU or emulation that would run it
    """
    model = import_module("tutelage.board.runner").load(path)
    return {
        "dpu_name": model.dpu_name,
        "fingerprint": model.fingerprint,
        "provider": model.provider,
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").rstrip("\0\n ") or None
    except OSError:
        return None


def _image() -> str | None:
    text = _text(Path("/etc/os-release")) or ""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return found[1] if found else None


def _modules() -> dict[str, str | None]:
    code = (
        "import sys; sys.path.append({!r}); import {} as m;"
        "print('version', getattr(m, '__version__', ''))"
    )
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", code.format(_IMAGE_SITE_PACKAGES, name)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for name in _IMPORTED
    }  # fmt: skip
    modules = {name: _version(process) for name, process in running.items()}
    for name in _LOOKED_FOR:
        modules[name] = "" if importlib.util.find_spec(name) else None
    return modules


def _version(process: subprocess.Popen[str]) -> str | None:
    try:
        output, _ = process.communicate(timeout=_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    found = re.search(r"^version ?(.*)$", output, re.MULTILINE)
    return found[1] if found and process.returncode == 0 else None


def _fingerprint() -> int | None:
    """Query AMD's xdputil (UG1414) if the FPGA is configured. Its output format is unverified."""
    states = [_text(path) for path in Path("/sys/class/fpga_manager").glob("*/state")]
    if "operating" not in states or not shutil.which("xdputil"):
        return None
    try:
        done = subprocess.run(["xdputil", "query"], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=_QUERY_SECONDS)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode(errors="replace")
    found = re.search(r"fingerprint\W{0,8}?0x([0-9a-f]{1,16})\b", text, re.IGNORECASE)
    return int(found[1], 16) if found and done.returncode == 0 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the facts as JSON; return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tutelage.board.check", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("/etc/vart.conf"))
    parser.add_argument("--firmware", default="/usr/lib/dpu.xclbin", help="xclbin it must name")
    parser.add_argument(
        "--path", type=Path, action="append", default=[], help="report whether this file exists"
    )
    parser.add_argument("--model", type=Path, help="only print the target DPU of this .xmodel")
    options = parser.parse_args(arguments)
    if options.model:
        found = model_facts(options.model)
    else:
        found = facts(options.config, options.firmware, options.path)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
