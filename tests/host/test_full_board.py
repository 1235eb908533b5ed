"""A deployed release at work on a stand-in board: real models, sensors, pynq, arm64.

The DPU is this repository's emulation under the names vart and xir, paced as a ZCU104; the sensors
are files in the form of Linux's drivers. No real board was used. Each test runs twice: on this
machine's own root, and on an arm64 one under qemu if `make test-board` has built it.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.host.stand_ins import vai_c_xir
from tests.stand_in_board import HOME, StandInBoard, arm64_root, why_not
from tests.stand_in_board.deployable import make_wheel
from tests.stand_in_board.image import PYNQ_VENV, why_no_pynq
from tutelage.core.board_profile import load_profile
from tutelage.host.deploy import Plan, Report, deploy, rollback

ROOT = Path(__file__).resolve().parent.parent.parent
_REASON = why_not()
pytestmark = [
    pytest.mark.full_board,
    pytest.mark.skipif(_REASON is not None, reason=_REASON or ""),
]

# Read before other tests change the location of caches.
ARM64_ROOT = arm64_root.root_path()
ON_DPU = "DPU (vart from /usr/lib/python3/site-packages)"
FRAMES = 12


@dataclass
class Deployed:
    """A board with a release, and the deployment's messages."""

    board: StandInBoard
    model: Path
    plan: Plan
    first: Report
    machine: str

    def python(self, *arguments: str) -> str:
        """Run the release's Python in the release; return its output."""
        return self.board.run("cd", "tutelage/current;", ".venv/bin/python", *arguments)


def _say(text: str) -> None:
    """Collects the messages to the user."""


def _make_model(folder: Path) -> Path:
    """The demo's model with a name as from AMD's compiler, and its images."""
    folder.mkdir()
    demo = ROOT / "app" / "demo"
    vai_c_xir.write(demo / "quantised.xmodel", folder / "model.xmodel", "")
    described = (demo / "model.toml").read_text()
    (folder / "model.toml").write_text(described[: described.index("[provenance]")])
    images = sorted((demo / "images").rglob("*.png"))[:: 300 // FRAMES]
    for path in images[:FRAMES]:
        target = folder / "images" / path.relative_to(demo / "images")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


@pytest.fixture(scope="module", params=["own", "arm64"])
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    arm64 = request.param == "arm64"
    if arm64:
        reason = arm64_root.why_not(ARM64_ROOT)
        if reason:
            pytest.skip(reason)
    folder = tmp_path_factory.mktemp(request.param)
    model = _make_model(folder / "mine")
    (folder / "wheels").mkdir()
    make_wheel("psutil", folder / "wheels")
    wheels = ARM64_ROOT / arm64_root.WHEELS if arm64 else folder / "wheels"
    root = ARM64_ROOT if arm64 else Path("/")
    with (
        pytest.MonkeyPatch.context() as patch,
        StandInBoard(folder, dpu="emulation", root=root) as board,
    ):
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        plan = Plan("zcu104", model, wheels, board.ssh_config)
        first = deploy([board.host], plan, _say)[0]
        assert (first.state, first.error) == ("deployed", "")
        yield Deployed(board, model, plan, first, "aarch64" if arm64 else "x86_64")


def _table(text: str) -> list[tuple[str, str, float]]:
    """Name, label and confidence of each frame in a result's CSV.

    Logits are equal in every bit; softmax is the processor's own floating point, hence rounded.
    """
    rows = csv.DictReader(text.splitlines())
    return [(row["name"], row["label"], round(float(row["confidence"]), 5)) for row in rows]


def _here(*arguments: str) -> None:
    subprocess.run([sys.executable, "app/classify.py", "--quiet", *arguments], cwd=ROOT,
                   check=True, capture_output=True)  # fmt: skip


def test_a_release_runs_a_model_for_the_zcu104(deployed: Deployed) -> None:
    outputs = "outputs of 8 inputs (40 jobs) equal to the emulation's"
    assert deployed.first.smoke == f"{outputs}, 3 frames classified on {ON_DPU}"
    assert deployed.first.facts["machine"] == deployed.machine
    assert "no hardware" in deployed.first.facts["image"]
    names = [warning.split(":")[0] for warning in deployed.first.warnings]
    assert names[-2:] == ["brown-out", "limit-busy"]  # the irps5401 driver is bound
    code = "import psutil; p = psutil.Process(); print(p.memory_info().rss, psutil.__file__)"
    memory, path = deployed.python("-c", f"'{code}'").split()
    assert int(memory) > 1 << 20 and "/packages/psutil/" in path


def test_a_second_release_and_back(deployed: Deployed) -> None:
    (deployed.model / "notes.txt").write_text("new")  # another release: its files differ
    second = deploy([deployed.board.host], deployed.plan, _say)[0]
    assert (second.state, second.previous) == ("deployed", deployed.first.release), second.error
    back = rollback([deployed.board.host], deployed.board.ssh_config, _say)[0]
    assert (back.state, back.release) == ("rolled back", deployed.first.release)


def test_the_boards_results_are_the_emulations(deployed: Deployed, tmp_path: Path) -> None:
    printed = deployed.python("app/classify.py --model model --source model/images --quiet",
                              "--output seen.csv --json - && cat seen.csv")  # fmt: skip
    figures, end = json.JSONDecoder().raw_decode(printed)
    assert figures["provider"] == ON_DPU and figures["frames"]["classified"] == FRAMES
    assert figures["model"]["target"] == "ZCU104, Vitis AI 2.x"
    _here("--model", str(deployed.model), "--source", str(deployed.model / "images"),
          "--output", str(tmp_path / "seen.csv"))  # fmt: skip
    assert _table(printed[end:].lstrip()) == _table((tmp_path / "seen.csv").read_text())


_ONE_JOB = """
from tutelage.board.runner import load
from tutelage.board.provider import find_provider
runner = load("model/model.xmodel").runner(slots=1)
runner.input(0)[...] = 0
runner.submit(0)
runner.collect(0)
print(find_provider().vart.pace_report()["jobs"])
"""


def test_the_emulated_dpu_keeps_the_zcu104s_pace(deployed: Deployed) -> None:
    assert deployed.python("-c", f"'{_ONE_JOB}'") == "1\n"  # a job that was paced


def test_amds_compiled_model_with_a_plugin(
    deployed: Deployed, shared_dir: Path, tmp_path: Path
) -> None:
    """AMD's own file, compiled for the ZCU104, with a custom operator."""
    source = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel"
    plugin = ROOT / "tests" / "dpu" / "plugins.py"
    for path, name in ((source, "amd.xmodel"), (plugin, "plugins.py")):
        shutil.copy(path, deployed.board.root / HOME / name)
    printed = deployed.python("app/classify.py --model ~/amd.xmodel --plugin ~/plugins.py --quiet",
                              "--source model/images --frames 3 --output seen.csv --json -",
                              "&& cat seen.csv")  # fmt: skip
    figures, end = json.JSONDecoder().raw_decode(printed)
    assert figures["frames"]["classified"] == 3 and figures["provider"] == ON_DPU
    _here("--model", str(source), "--plugin", str(plugin), "--frames", "3",
          "--source", str(deployed.model / "images"),
          "--output", str(tmp_path / "seen.csv"))  # fmt: skip
    assert _table(printed[end:].lstrip()) == _table((tmp_path / "seen.csv").read_text())


def test_power_and_temperature_of_a_run(deployed: Deployed) -> None:
    deployed.board.set_power("12V", 16.5)
    deployed.board.set_temperature(51.5)
    printed = deployed.python("app/classify.py --model model --source model/images --quiet",
                              "--scenario offline --duration 1 --power hwmon --json -")  # fmt: skip
    figures = json.loads(printed)
    power = figures["power"]
    assert set(power["rails"]) == {rail.name for rail in load_profile().rails}
    assert math.isclose(power["watts"], 16.5) and power["total_rail"] == "12V"
    assert figures["system"]["temperature_max_c"] == 51.5
    if deployed.machine != "aarch64":  # qemu-user's own /proc/self/stat has no times
        assert figures["system"]["cpu_seconds"] > 0


def test_watts_follow_the_dpus_load(deployed: Deployed) -> None:
    deployed.board.free_power("12V")
    printed = deployed.python("app/classify.py --model model --source model/images --quiet",
                              "--scenario offline --duration 1 --power hwmon --json -")  # fmt: skip
    figures = json.loads(printed)
    assert 14.2 < figures["power"]["watts"] <= 14.05 + 2 * 1.55
    assert (
        figures["pace"]["measured"] is False and "predicted for zcu104" in figures["pace"]["text"]
    )


# Prints the readings of the board's own readers, once per input line.
_WATCH = """
import json, sys
from pathlib import Path
from tutelage.board.power.sources.hwmon import open_hwmon
from tutelage.core.board_profile import load_profile
from tutelage.board.system import SystemMonitor
source, monitor = open_hwmon(load_profile(), Path("/sys")), SystemMonitor()
names = [rail.name for rail in source.rails]
for line in sys.stdin:
    index = names.index("INT")
    print(json.dumps([source.read()[index], source.inspect(index),
                      monitor.read()["temperature_c"]]), flush=True)
"""


@pytest.fixture
def spare(tmp_path: Path, deployed: Deployed) -> Iterator[Deployed]:
    """Another board with the same release, whose sensors may be taken away."""
    root = ARM64_ROOT if deployed.machine == "aarch64" else Path("/")
    with StandInBoard(tmp_path, 1, root=root) as board:
        for package in ("tutelage", "board", "core", "dpu"):
            shutil.copytree(
                ROOT / package, board.root / HOME / "tutelage/current" / package, symlinks=True
            )
        yield Deployed(board, deployed.model, deployed.plan, deployed.first, deployed.machine)


def test_sensors_change_and_vanish_under_a_reader(spare: Deployed) -> None:
    board = spare.board
    (board.tutelage / "current/watch.py").write_text(_WATCH)
    command = ["ssh", "-F", str(board.ssh_config), board.host,
               f"cd tutelage/current; PYTHONPATH=. /{PYNQ_VENV}/bin/python3 watch.py"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin and reader.stdout

        def reading() -> list[Any]:
            assert reader.stdin and reader.stdout
            reader.stdin.write(b"\n")
            reader.stdin.flush()
            values: list[Any] = json.loads(reader.stdout.readline())
            return values

        assert reading()[:2] == [3.5, 4.375]
        board.set_power("INT", 7.25)
        watts, amps, _ = reading()
        assert watts == 7.25 and math.isclose(amps, 7.25 / 0.851, abs_tol=1e-3)
        board.remove_sensors()
        assert all(value is None or math.isnan(value) for value in reading())
        reader.stdin.close()
    assert not (board.root / "sys/bus/i2c/drivers/irps5401/4-0043").is_symlink()


def test_the_processors_clock(deployed: Deployed) -> None:
    code = "import psutil; f = psutil.cpu_freq(); print(f.current, f.max, psutil.cpu_count())"
    current, most, cores = deployed.python("-c", f"'{code}'").split()
    assert (float(current), float(most)) == (1200.0, 1200.0) and int(cores) >= 1
    path = deployed.board.root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    assert path.read_text() == "performance\n"


def test_the_real_pynq_reads_the_rails(deployed: Deployed) -> None:
    reason = why_no_pynq()
    if reason or deployed.machine == "aarch64":
        pytest.skip(reason or "the real pynq is there on this machine's own root only")
    deployed.board.set_power("12V", 16.5)
    code = ("import json, pynq.pmbus as p; "
            "print(json.dumps({n: r.power.value for n, r in p.get_rails().items()}))")  # fmt: skip
    rails = json.loads(deployed.python("-c", f"'{code}'"))
    assert set(rails) == {rail.name for rail in load_profile().rails}
    assert (rails["12V"], rails["3V3"]) == (16.5, 2.0)
    printed = deployed.python("app/classify.py --model model --source model/images --quiet",
                              "--scenario offline --duration 1 --power pmbus --json -")  # fmt: skip
    power = json.loads(printed)["power"]
    assert power["source"] == "pmbus" and math.isclose(power["watts"], 16.5)
