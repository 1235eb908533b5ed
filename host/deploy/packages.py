"""Python packages that a board lacks and a release therefore includes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tutelage.host.deploy.release import ReleaseError
from tutelage.host.ssh.bounded_process import Programs, ProgramsEnded, TooMuchOutput, run_bounded
from tutelage.host.ssh.errors import telling_line

# Package that the board may lack -> requirement to include then (the ranges of setup.py). pip
# evaluates markers for the Python that runs it, so dependencies for 3.10 are requested by name.
CARRIED = {
    "psutil": "psutil>=5.9",
    "starlette": "starlette>=0.40",
    "uvicorn": "uvicorn>=0.30",
    "rich": "rich>=13.0",
}
_MOST_OUTPUT = 1 << 20  # of pip, bytes
_FOR_OLD = ("tomli>=2.0", "exceptiongroup", "typing_extensions")  # below Python 3.11


class Packages:
    """Cache of Python packages that boards lack, unpacked for their Python and machine.

    Parameters
    ----------
    wheels : directory of wheels; None for the package index
    programs : group of programs to add pip to, which another thread may end
    """

    def __init__(self, wheels: Path | None, programs: Programs | None = None) -> None:
        self._wheels, self._programs = wheels, programs
        self._lock = threading.Lock()
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._cache = base / "tutelage" / "packages"

    def for_board(self, facts: dict[str, Any]) -> Path | None:
        """Return the directory of the packages that a board lacks; None if it lacks none.

        Parameters
        ----------
        facts : about the board, see `tutelage.host.deploy.findings.ask`

        Raises
        ------
        ReleaseError
            A package is not available for that board, or pip was ended.
        """
        wanted = [text for name, text in CARRIED.items() if facts["modules"][name] is None]
        version = ".".join(facts["python"].split(".")[:2])
        if tuple(map(int, version.split("."))) < (3, 11) and facts["modules"]["tomli"] is None:
            wanted += _FOR_OLD
        if not wanted:
            return None
        key = json.dumps([wanted, version, facts["machine"], facts["glibc"], self._listing()])
        folder = self._cache / hashlib.sha256(key.encode()).hexdigest()[:16]
        with self._lock:
            if not folder.is_dir():
                self._install(folder, wanted, facts)
        return folder

    def _listing(self) -> list[str]:
        return sorted(path.name for path in self._wheels.glob("*.whl")) if self._wheels else []

    def _install(self, folder: Path, wanted: list[str], facts: dict[str, Any]) -> None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        except OSError as error:
            raise ReleaseError(f"packages for the board: {folder.parent}: {error.strerror}; set "
                               "XDG_CACHE_HOME to a directory for them") from error  # fmt: skip
        # If pip is killed, its own temporary files are removed with `partial`.
        command = ["env", f"TMPDIR={partial}", sys.executable, "-m", "pip", "install", "--quiet",
                   "--no-compile", "--disable-pip-version-check", "--target", str(partial / "all"),
                   "--only-binary=:all:", "--implementation", "cp",
                   "--python-version", ".".join(facts["python"].split(".")[:2])]  # fmt: skip
        for platform in _platforms(facts["machine"], facts["glibc"]):
            command += ["--platform", platform]
        if self._wheels is not None:
            command += ["--no-index", "--find-links", str(self._wheels)]
        try:
            done = run_bounded([*command, *wanted], "", None, _MOST_OUTPUT, self._programs)
            if done.returncode:
                raise ReleaseError(f"packages for the board: {telling_line(done.stderr)}: give "
                                   "their wheels with --wheels DIR")  # fmt: skip
            shutil.rmtree(partial / "all" / "bin", ignore_errors=True)  # scripts for this machine
            try:
                (partial / "all").rename(folder)
            except OSError:
                # Another process may have been faster; its packages are the same.
                if not folder.is_dir():
                    raise
        except (ProgramsEnded, TooMuchOutput) as error:
            raise ReleaseError(f"packages for the board: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _platforms(machine: str, glibc: str) -> list[str]:
    """Return platform tags of wheels for a machine with this glibc (PEP 600), the newest first."""
    numbers = re.fullmatch(r"2\.(\d+)", glibc)
    newest = int(numbers[1]) if numbers else 17
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)]
    return [*tags, f"manylinux2014_{machine}"]
