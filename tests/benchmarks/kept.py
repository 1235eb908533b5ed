"""Kept results of releases, and comparisons with them.

A file in `kept/` has the figures of several runs with their ranges. Ratios are compared between
any machines; times only on the same processor.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tutelage
from tests.benchmarks.figures import Measured, kind_of
from tutelage.core.errors import TutelageError
from tutelage.core.files import write_file

FOLDER = Path(__file__).resolve().parent / "kept"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "brevitas")
LEAST_SPREAD, LEAST_SPREAD_OF_ONE = 0.03, 0.1
"""Shares of a figure that it may differ by in any case; the second where a single run was kept."""

_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp")
_SIGNIFICANT = 6


class KeptError(TutelageError):
    """There is no such kept result; the message is one line."""


@dataclass(frozen=True)
class Kept:
    """Figures of a release.

    Attributes
    ----------
    about : as `about` returns it, with `name`, `extent` and `runs`
    figures : by name
    """

    about: dict[str, Any]
    figures: dict[str, Measured]

    @property
    def title(self) -> str:
        """Name, date and processor."""
        return f"{self.about['name']} ({self.about['date'][:10]}, {self.about['machine']['cpu']})"


def about() -> dict[str, Any]:
    """Return the circumstances of figures: date, code, packages, machine."""
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=10"],
                         cwd=FOLDER.parent, capture_output=True, text=True)  # fmt: skip
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "release": tutelage.__version__,
        "commit": git.stdout.strip(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "machine": machine(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def machine() -> dict[str, Any]:
    """Return the processor, with Linux's identifying numbers, and its CPUs."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    said = dict(re.findall(r"(?m)^(\S[^\t:]*?)\s*: (.*)$", text))
    numbers = [said[key] for key in ("cpu family", "model", "stepping") if key in said]
    name = said.get("model name", "").strip() or platform.processor() or platform.machine()
    flags = (said.get("flags") or said.get("Features", "")).split()
    return {
        "cpu": f"{name} {'/'.join(numbers)}".strip(),
        "cpus": len(os.sched_getaffinity(0)),
        "flags": [each for each in _INSTRUCTION_SETS if each in flags],
    }


def keep(kept: Kept) -> Path:
    """Write a file in `FOLDER`; return its path."""
    figures = {
        name: [float(f"{number:.{_SIGNIFICANT}g}") for number in asdict(found).values()]
        for name, found in kept.figures.items()
    }
    lines = ",\n".join(f"    {json.dumps(name)}: {row}" for name, row in figures.items())
    head = json.dumps(kept.about, indent=2).removesuffix("\n}")
    path = FOLDER / f"{kept.about['name']}.json"
    FOLDER.mkdir(exist_ok=True)
    write_file(path, f'{head},\n  "figures": {{\n{lines}\n  }}\n}}\n')
    return path


def read(name: str = "") -> Kept | None:
    """Return a kept result, by default the newest; None if there are none.

    Raises
    ------
    KeptError
        There is no result of that name.
    """
    found = {path.stem: _read(path) for path in FOLDER.glob("*.json")}
    if name and name not in found:
        raise KeptError(f"no results {name!r} in {FOLDER}: {', '.join(sorted(found)) or 'none'}")
    return found[name] if name else max(found.values(), key=_age, default=None)


def _age(kept: Kept) -> tuple[str, str]:
    return kept.about["date"], kept.about["name"]


def _read(path: Path) -> Kept:
    content = json.loads(path.read_text(encoding="utf-8"))
    figures = {name: Measured(*row) for name, row in content.pop("figures").items()}
    return Kept(content, figures)


@dataclass(frozen=True)
class Change:
    """A figure now and then.

    Attributes
    ----------
    change : (now - then) / then
    verdict : "worse" or "better" if it differs by more than the spread, or else ""
    """

    then: float
    change: float
    verdict: str


def compare(now: dict[str, Measured], here: dict[str, Any], kept: Kept) -> dict[str, Change]:
    """Return the comparable figures, by name.

    Parameters
    ----------
    here : the machine, as `machine` returns it
    """
    same = here == kept.about["machine"]
    least = LEAST_SPREAD if kept.about["runs"] > 1 else LEAST_SPREAD_OF_ONE
    found = {}
    for name, new in now.items():
        kind, old = kind_of(name), kept.figures.get(name)
        if old is None or kind is None or not (kind.anywhere or same):
            continue
        if old.value <= 0:  # memory that shrank: a ratio is meaningless
            continue
        change = new.value / old.value - 1
        spread = max(least, (old.high - old.low) / old.value)
        better = (change > 0) == kind.higher_is_better
        verdict = ("better" if better else "worse") if abs(change) > spread else ""
        found[name] = Change(old.value, change, verdict)
    return found
