"""The benchmarks run from end to end: their short form has every section and usable figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for package in ("torch", "rich", "onnxruntime"):
    pytest.importorskip(package, reason="the benchmarks need the host packages")

SECTIONS: dict[str, set[str]] = {
    "machine": {"cpu", "cpus", "flags"},
    "emulation": {
        "network",
        "threads",
        "batch_1",
        "batch_32",
        "start_of_run",
        "against_reference",
        "footprint",
    },
    "training": {"step", "student", "tutelage_images_per_second", "threads"},
    "application": {"bound_fps", "64x64", "640x480", "start_to_result_s", "soak"},
    "power": {"rate_hz", "sources"},
}
MAY_BE_ZERO = {"dropped", "missed", "jitter_ms"}
ANY_SIGN = {"growth_mb"}


def _figures(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield every number with the keys that lead to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _figures(each, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from _figures(each, path)
    elif isinstance(value, int | float):
        yield path, value


@pytest.mark.slow
def test_every_section_has_figures(repo_root: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--short"]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == set(SECTIONS)
    for section, keys in SECTIONS.items():
        assert keys <= set(report[section]), section
    sources = report["power"]["sources"]
    assert all("cpu_percent_of_core" in sources[name] for name in ("sleep", "hwmon", "rapl"))
    for path, figure in _figures(report):
        assert math.isfinite(figure), path
        if not ANY_SIGN & set(path):
            assert figure >= 0 if MAY_BE_ZERO & set(path) else figure > 0, path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_streaming_has_its_figures(repo_root: Path, tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.streaming", "--images", "4000", "--kind",
               kind, "--folder", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["images"], report["images_tested"], report["processes"]) == (4000, 200, 3)
    assert 0 < report["most_pss_mib"] < report["most_rss_mib"]
