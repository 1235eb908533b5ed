"""`make bench` as a command: parts that cannot run, the time, kept results and comparisons."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the benchmarks need Rich")

from rich.console import Console

from tests.benchmarks import __main__ as command
from tests.benchmarks import kept
from tests.benchmarks.extent import CannotRun, Extent
from tests.benchmarks.figures import Measured, kind_of, measured
from tests.benchmarks.kept import Kept, compare
from tests.benchmarks.parts import DEFAULT, PARTS, TOTAL_SECONDS, Part, Progress, Run, run_parts
from tutelage.core.commands import installation


class _Made(Part):
    """A part with given figures, or a given error."""

    def __init__(self, name: str, outcome: Any, seconds: float = 1) -> None:
        super().__init__(name, seconds, seconds, Extent())
        object.__setattr__(self, "outcome", outcome)

    def report(self, extent: str) -> dict[str, Any]:
        outcome = self.outcome  # type: ignore[attr-defined]
        if isinstance(outcome, BaseException):
            raise outcome
        found: dict[str, Any] = outcome
        return found


def _run(*parts: Part, limit: float = 100) -> tuple[Run, list[str]]:
    text = io.StringIO()
    progress = Progress(parts, DEFAULT, Console(file=text))
    return run_parts(parts, DEFAULT, limit, progress), text.getvalue().splitlines()


def test_a_failed_part_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    run, lines = _run(
        _Made("one", CannotRun("needs qemu")),
        _Made("two", ValueError("a fault")),
        _Made("three", {"a": 1}),
        _Made("four", {"a": 2}, seconds=101),
        _Made("five", KeyboardInterrupt()),
        _Made("six", {"a": 3}),
    )
    assert run.figures == {"three": {"a": 1}} and run.failed == {"two": "a fault"}
    assert run.left_out["one"] == "needs qemu" and "ARGS=four" in run.left_out["four"]
    assert run.interrupted and "ValueError: a fault" in capsys.readouterr().err
    assert lines[0] == "1/6 one: about 0:01; 0:00 gone, about 1:46 left"
    assert lines[1:4] == [
        "1/6 one: left out: needs qemu",
        "2/6 two: about 0:01; 0:00 gone, about 1:45 left",
        "2/6 two: failed: a fault",
    ]
    assert lines[5] == "3/6 three: done in 0:00" and lines[-1].startswith("5/6 five: about ")


_WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from tests.benchmarks.__main__ import main
sys.exit(main(["--short", "--json", "training", "power"]))
"""


@pytest.mark.slow
def test_a_missing_package_is_named_and_the_rest_runs(repo_root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH], cwd=repo_root,
                          capture_output=True, text=True)  # fmt: skip
    reason = f"the Python package 'torch' is not installed; {installation('host')} "
    assert f"1/2 training: left out: {reason}" in done.stderr and done.returncode == 1
    (run,) = json.loads(done.stdout)["runs"]
    assert set(run["figures"]) == {"power"} and run["left_out"]["training"].startswith(reason)


def test_the_parts_fit_into_the_time() -> None:
    assert sum(part.seconds for part in PARTS) <= TOTAL_SECONDS


HERE = {"cpu": "A", "cpus": 2, "flags": []}


def _kept(figures: dict[str, Measured], runs: int = 3) -> Kept:
    about = {"name": "0.1", "date": "2026-01-02", "machine": HERE, "runs": runs}
    return Kept({**about, "extent": DEFAULT}, figures)


def _now(**figures: float) -> dict[str, Measured]:
    return {name: Measured(value, value, value) for name, value in figures.items()}


def test_kinds_by_name() -> None:
    ways = {
        "emulation/batch_32/openvino_speed_against_float32": (True, True),
        "application/64x64/cpu_ratio_to_best_plain_loop": (False, True),
        "application/64x64/dpu_that_needs_no_cpu/cpu_ratio_to_plain_loop_1_threads": (False, True),
        "application/64x64/share_of_bound": (True, True),
        "instructions/aarch64/64x64/app": (False, True),
        "training/speed_ratio": (True, True),
        "training/tutelage_images_per_second": (True, False),
        "application/start_to_result_s": (False, False),
        "application/64x64/camera_0.97/p99_over_ms": (False, False),
        "emulation/footprint/openvino/peak_mib": (False, False),
    }
    for name, (higher_is_better, anywhere) in ways.items():
        kind = kind_of(name)
        assert kind and (kind.higher_is_better, kind.anywhere) == (higher_is_better, anywhere), name
    for name in ("training/threads", "power/rate_hz", "application/bound_fps", "training/student",
                 "application/soak/frames", "application/64x64/camera_0.97/dropped"):  # fmt: skip
        assert kind_of(name) is None, name


def test_worse_and_better_beyond_the_spread() -> None:
    then = _kept({
        "a/speed_ratio": Measured(2.0, 1.9, 2.1),  # differs by 10 % by itself
        "b/speed_ratio": Measured(2.0, 2.0, 2.0),
        "cpu_ratio_to_loop": Measured(1.0, 1.0, 1.0),
        "x_ms": Measured(10.0, 10.0, 10.0),
        "growth_mb": Measured(-1.0, -1.0, -1.0),
    })  # fmt: skip
    now = _now(**{"a/speed_ratio": 1.85, "b/speed_ratio": 1.85, "cpu_ratio_to_loop": 0.9,
                  "x_ms": 10.2, "growth_mb": 5, "new_ms": 1})  # fmt: skip
    changes = compare(now, HERE, then)
    assert {name: change.verdict for name, change in changes.items()} == {
        "a/speed_ratio": "", "b/speed_ratio": "worse", "cpu_ratio_to_loop": "better", "x_ms": "",
    }  # fmt: skip
    assert changes["x_ms"].change == pytest.approx(0.02) and changes["x_ms"].then == 10
    # A single run has no range, and another machine has other times.
    assert compare(now, HERE, _kept(then.figures, runs=1))["b/speed_ratio"].verdict == ""
    assert set(compare(now, {**HERE, "cpu": "B"}, then)) == set(changes) - {"x_ms"}


def test_kept_figures_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    assert kept.read() is None
    runs = [{"a": {"b_ms": value, "name": "text"}} for value in (1.0, 1 / 3, 2.0)]
    figures = measured(runs)
    assert figures == {"a/b_ms": Measured(1.0, 1 / 3, 2.0)}
    path = kept.keep(_kept(figures))
    assert json.loads(path.read_text())["figures"] == {"a/b_ms": [1.0, 0.333333, 2.0]}
    kept.keep(Kept({**_kept({}).about, "name": "0.2", "date": "2026-02-01"}, {}))
    newest, older = kept.read(), kept.read("0.1")
    assert newest and newest.about["name"] == "0.2"
    assert older and older.figures["a/b_ms"].low == 0.333333
    with pytest.raises(kept.KeptError, match=r"0\.1, 0\.2"):
        kept.read("0.3")


def test_the_kept_results_can_be_compared_with() -> None:
    for path in kept.FOLDER.glob("*.json"):
        found = kept.read(path.stem)
        assert found and found.about["name"] == path.stem and found.title
        changes = compare(found.figures, found.about["machine"], found)
        assert {change.verdict for change in changes.values()} == {""}
        assert changes


def test_the_command_prints_compares_and_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "PARTS", (_Made("one", {"speed_ratio": 2.0, "net": "small"}),))
    assert command.main(["--keep", "0.1"]) == 0  # nothing to compare with yet
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "one/speed_ratio           2",
        "one/net               small",
    ]
    assert str(tmp_path / "0.1.json") in printed.err and "3/3 one: done" in printed.err
    monkeypatch.setattr(command, "PARTS", (_Made("one", {"speed_ratio": 1.5}),))
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("then: 0.1 (20") and lines[1].split() == ["now", "then", "change"]
    assert lines[2].split() == ["one/speed_ratio", "1.5", "2", "-25.0", "%", "worse"]
    assert lines[3:] == ["1 of 1 are worse by more than their spread", "  one/speed_ratio"]
    assert command.main(["--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert compared["with"]["name"] == "0.1"
    assert compared["figures"]["one/speed_ratio"]["verdict"] == "worse"
    assert command.main(["--against", "0.3"]) == 2
    for wrong in (["nothing"], ["--keep", "../a"], ["--keep", "0.2", "--short"]):
        with pytest.raises(SystemExit) as stop:
            command.main(wrong)
        assert stop.value.code == 2


def test_statuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"one": CannotRun("needs qemu"), "two": ValueError("a fault"), "three": {"a_ms": 1}}
    monkeypatch.setattr(command, "PARTS", tuple(_Made(*each) for each in made.items()))
    assert command.main(["three", "--short"]) == 0
    assert command.main(["one", "--short"]) == 1  # it was requested
    assert command.main(["two", "three", "--short"]) == 1
    assert "a_ms" in capsys.readouterr().out
    monkeypatch.setattr(command, "PARTS", (_Made("one", CannotRun("needs qemu")),))
    assert command.main(["--short"]) == 0
    monkeypatch.setattr(command, "PARTS", (_Made("one", KeyboardInterrupt()),))
    assert command.main(["--short"]) == 130
