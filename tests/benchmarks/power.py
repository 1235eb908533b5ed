"""Cost of the power sampler: CPU time of its process at 50 Hz, by source.

Each source runs in a separate process without other work, since other imported modules change the
time of a sampler that wakes 50 times a second to cold caches. `sleep` is a
thread that only sleeps at the same rate, the lower bound on this machine. The real pynq is measured
as root with artificial sensors, in the Python that TUTELAGE_PYNQ_PYTHON names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.extent import FULL, Extent
from tutelage.core.board_profile import load_profile
from tutelage.host.train.progress import stepped

ROOT = Path(__file__).resolve().parent.parent.parent
SENSORS = ROOT.parent / "shared" / "tools" / "fake_zcu104_sensors.sh"
RATE_HZ = 50
SECONDS = 5.0
ROUNDS = 3
_RAPL_ZONES = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}

MEASURE = """
import json, pathlib, sys, time
source, sysfs, rate, seconds = sys.argv[1], pathlib.Path(sys.argv[2]), *map(float, sys.argv[3:])
samples, power = None, None
if source != "sleep":
    from tutelage.board.power import open_power
    power = open_power(source, sysfs=sysfs, rate_hz=rate)
    power.start()
    time.sleep(0.5)
start, used = time.monotonic(), time.process_time()
if power is None:
    for tick in range(1, int(seconds * rate) + 1):
        time.sleep(max(0.0, start + tick / rate - time.monotonic()))
else:
    time.sleep(seconds)
end, used = time.monotonic(), time.process_time() - used
figures = {"cpu_percent_of_core": round(100 * used / (end - start), 3)}
if power is not None:
    report = power.report(start, end, 1)
    tries = 2000
    power.stop()
    hot = time.process_time()
    for _ in range(tries):
        power._sample(time.monotonic(), everything=False)
    power.latest()
    figures["us_per_sample_back_to_back"] = round((time.process_time() - hot) / tries * 1e6, 1)
    figures["rails"] = len(power.rails)
    figures["rate_hz"] = round(report["rate_hz"], 3)
    figures["missed"] = report["missed"]
    figures["jitter_ms"] = {k: round(v, 3) for k, v in report["jitter_ms"].items()}
print(json.dumps(figures))
"""


def _hwmon_tree(root: Path) -> None:
    """Create the board's chips as in class/hwmon, with ordinary files."""
    for rail in load_profile("zcu104").rails:
        chip = root / "class" / "hwmon" / f"hwmon{rail.address}"
        device = root / "devices" / f"4-{rail.address:04x}"
        if not chip.exists():
            chip.mkdir(parents=True)
            device.mkdir(parents=True)
            (chip / "device").symlink_to(device)
            (chip / "name").write_text(f"{rail.driver}\n")
        for kind, value in (("power", "1500000"), ("curr", "500"), ("in", "3000")):
            (chip / f"{kind}{rail.channel}_input").write_text(f"{value}\n")


def _rapl_tree(root: Path) -> None:
    for name, label in _RAPL_ZONES.items():
        zone = root / "class" / "powercap" / name
        zone.mkdir(parents=True)
        for file, text in (("name", label), ("energy_uj", "5"), ("max_energy_range_uj", "9")):
            (zone / file).write_text(f"{text}\n")


def _measured(
    source: str,
    sysfs: Path,
    seconds: float,
    prefix: tuple[str, ...] = (),
    python: str = sys.executable,
) -> dict[str, Any]:
    command = [*prefix, python, "-c", MEASURE, source, str(sysfs)]
    done = subprocess.run(
        [*command, str(RATE_HZ), str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        return {"not_measured": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _pmbus(seconds: float) -> dict[str, Any]:
    """Return the cost of the real pynq, and of only sleeping in the same Python."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not SENSORS.is_file():
        return {"pmbus": {"not_measured": f"needs root, unshare and {SENSORS.name}"}}
    python = os.environ.get("TUTELAGE_PYNQ_PYTHON", sys.executable)
    sources = {"sleep, pynq's Python": "sleep", "pmbus": "pmbus"}
    return {
        name: _measured(source, Path("/sys"), seconds, (str(SENSORS),), python)
        for name, source in sources.items()
    }


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the round with the median share of a core, with all rounds' shares."""
    failed = [figures for figures in rounds if "not_measured" in figures]
    if failed:
        return failed[0]
    ordered = sorted(rounds, key=lambda figures: figures["cpu_percent_of_core"])
    shares = [figures["cpu_percent_of_core"] for figures in rounds]
    return {**ordered[len(ordered) // 2], "cpu_percent_of_all_rounds": shares}


def report(extent: Extent = FULL) -> dict[str, Any]:
    """Return the CPU percent of a core at 50 Hz by source, or why it was not measured.

    Sources take turns, since the machine's load varies; the median round counts.
    """
    seconds = min(SECONDS, extent.seconds)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sysfs = Path(folder)
        _hwmon_tree(sysfs)
        _rapl_tree(sysfs)
        for _ in stepped("power sampling", range(min(ROUNDS, extent.repeats))):
            measured = {
                name: _measured(name, sysfs, seconds) for name in ("sleep", "hwmon", "rapl")
            }
            rounds.append({**measured, **_pmbus(seconds)})
    sources = {name: _median([figures[name] for figures in rounds]) for name in rounds[0]}
    return {"rate_hz": RATE_HZ, "sources": sources}


if __name__ == "__main__":
    print(json.dumps(report(), indent=2))
