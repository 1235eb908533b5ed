"""The benchmarks run completely: their short form has every section and usable figures."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmarks need the host packages")
pytest.importorskip("onnxruntime", reason="the benchmarks need the host packages")

from tests.benchmarks.figures import leaves
from tests.benchmarks.parts import PARTS

SECTIONS: dict[str, set[str]] = {
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
    "instructions": {"x86_64"},
}
MAY_BE_ZERO = {"dropped", "missed", "jitter_ms"}
ANY_SIGN = {"growth_mb"}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks", "--short", *arguments]


@pytest.mark.slow
def test_every_section_has_figures(repo_root: Path) -> None:
    done = subprocess.run(_command("--json"), cwd=repo_root, capture_output=True, text=True,
                          timeout=500)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"cpu", "cpus", "flags"} == set(report["about"]["machine"])
    (run,) = report["runs"]
    assert {"instructions"} >= set(run["left_out"]), run["left_out"]  # it needs qemu and cc
    figures = run["figures"]
    assert set(figures) | set(run["left_out"]) == set(SECTIONS) == {part.name for part in PARTS}
    for section in figures:
        assert SECTIONS[section] <= set(figures[section]), section
    sources = figures["power"]["sources"]
    assert all("cpu_percent_of_core" in sources[name] for name in ("sleep", "hwmon", "rapl"))
    for path, figure in leaves(figures):
        if isinstance(figure, str):
            continue
        assert math.isfinite(figure), path
        if not ANY_SIGN & set(path.split("/")):
            assert figure >= 0 if MAY_BE_ZERO & set(path.split("/")) else figure > 0, path


@pytest.mark.slow
def test_ctrl_c_prints_finished_results(repo_root: Path) -> None:
    command = _command("--json", "power", "application")
    with subprocess.Popen(command, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True) as process:  # fmt: skip
        assert process.stdout and process.stderr
        lines: list[str] = []
        while not (lines and lines[-1].startswith("2/2 application: ")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(signal.SIGINT)
        printed, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert lines[0].startswith("1/2 power: ") and lines[1].startswith("1/2 power: done in ")
    (run,) = json.loads(printed)["runs"]
    assert set(run["figures"]) == {"power"} and run["interrupted"]


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
