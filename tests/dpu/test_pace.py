"""Jobs take the time of the pace, never less, and two run at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tutelage.core import board_profile
from tutelage.core.errors import DpuError
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.predict import cycles, latency
from tutelage.dpu.runtime import device, vart, xir

SCRIPT = Path(__file__).with_name("board_script.py")


def _network(name: str) -> xir.Graph:
    """A convolution, after which the CPU converts the result to floats."""
    model, rng = CompiledModel(name), np.random.default_rng(3)
    image = model.input("image", [1, 6, 6, 3], 5)
    weights = rng.integers(-128, 128, (4, 3, 3, 3), dtype=np.int8)
    model.output(model.conv2d("conv", image, weights, 5, None, 0, 3))
    return model.finish()


def _part(graph: xir.Graph, device: str = "DPU") -> xir.Subgraph:
    children = graph.get_root_subgraph().toposort_child_subgraph()
    return next(child for child in children if child.get_attr("device") == device)


@pytest.fixture(scope="module")
def graphs() -> tuple[xir.Graph, xir.Graph]:
    """Two networks that differ only in their names, which a test paces differently."""
    made = _network("slow"), _network("fast")
    for graph in made:  # builds everything, so that the tests do not time it
        vart.Runner.create_runner(_part(graph), "run")
    return made


@pytest.fixture(scope="module")
def slow(graphs: tuple[xir.Graph, xir.Graph]) -> xir.Subgraph:
    return _part(graphs[0])


@pytest.fixture(scope="module")
def fast(graphs: tuple[xir.Graph, xir.Graph]) -> xir.Subgraph:
    return _part(graphs[1])


@pytest.fixture
def asynchronous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a thread have jobs on several cores."""
    monkeypatch.setenv(device.EXECUTION_VARIABLE, "asynchronous")


@pytest.fixture(autouse=True)
def _no_pace_afterwards() -> Iterator[None]:
    yield
    vart.set_pace(None)
    vart.set_plugins({})


class _Jobs:
    """A runner with buffers for many jobs of random images."""

    def __init__(self, part: xir.Subgraph, count: int = 1, batch: int = 1) -> None:
        self.runner = vart.Runner.create_runner(part, "run")
        (source,), (result,) = self.runner.get_input_tensors(), self.runner.get_output_tensors()
        shape = (count, batch, *source.dims[1:])
        self.images = np.random.default_rng(0).integers(-128, 128, shape, dtype=np.int8)
        self.results = np.zeros((count, batch, *result.dims[1:]), np.int8)
        self._pending: list[tuple[int, int]] = []

    def start(self) -> None:
        """Submit them all."""
        for image, result in zip(self.images, self.results, strict=True):
            dynamic = len(image) > 1
            self._pending.append(self.runner.execute_async([image], [result], dynamic))

    def ends(self) -> list[float]:
        """Wait for all jobs in order; return the time when each was done."""
        found = []
        for job in self._pending:
            self.runner.wait(job)
            found.append(time.monotonic())
        self._pending = []
        return found


HELD = 3600.0
"""A pace whose sleeps `_Held` makes last until a test lets them end, s."""


class _Held:
    """Stand-in for the module `time` whose long sleeps last until `released`."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.sleeping, self.released = threading.Event(), threading.Event()
        self.long_sleeps = 0

    def sleep(self, seconds: float) -> None:
        if seconds < HELD / 2:
            time.sleep(seconds)
            return
        self.long_sleeps += 1
        self.sleeping.set()
        self.released.wait()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Held]:
    """Held sleeps, on cores that no other test uses, since they count as busy for hours."""
    clock = _Held()
    monkeypatch.setattr(device, "_device", device.Device())
    monkeypatch.setattr(device, "time", clock)
    yield clock
    clock.released.set()


def _in_a_minute(call: Callable[[], object]) -> None:
    """Fail, rather than hang, if `call` waits for a held sleep."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_execute_async_takes_the_pace_of_its_job(
    graphs: tuple[xir.Graph, xir.Graph], slow: xir.Subgraph
) -> None:
    vart.set_pace(lambda part: 0.04)
    jobs = _Jobs(slow, 3)
    began = time.monotonic()
    jobs.start()
    assert time.monotonic() - began >= 3 * 0.04
    assert jobs.ends()[-1] >= began + 3 * 0.04
    np.testing.assert_array_equal(jobs.results[:, 0], _wanted(graphs[0], slow, jobs.images[:, 0]))
    assert vart.pace_report()["jobs"] == 3


def test_threads_share_two_cores(fast: xir.Subgraph) -> None:
    vart.set_pace(lambda part: 0.02)
    runners = [_Jobs(fast, 4) for _ in range(4)]
    threads = [threading.Thread(target=jobs.start) for jobs in runners]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 16 / 2 * 0.02
    assert vart.pace_report()["jobs"] == 16


def test_a_job_leaves_the_other_core_to_another_thread(
    slow: xir.Subgraph, fast: xir.Subgraph, held: _Held
) -> None:
    """After a paced job has begun on one core, jobs on the other one run and end before it."""
    vart.set_pace(lambda part: HELD if part is slow else 0.001)
    first, beside = _Jobs(slow), _Jobs(fast, 5)
    thread = threading.Thread(target=first.start)
    thread.start()
    held.sleeping.wait()
    _in_a_minute(beside.start)
    assert thread.is_alive()
    held.released.set()
    thread.join()


def test_a_whole_graph_takes_the_pace_of_its_dpu_parts(
    graphs: tuple[xir.Graph, xir.Graph],
) -> None:
    vart.set_pace(lambda part: 0.03)
    runner = vart.graph_runner(graphs[0])
    inputs, outputs = runner.get_inputs(), runner.get_outputs()
    began = time.monotonic()
    assert runner.wait(runner.execute_async(inputs, outputs)) == 0
    assert time.monotonic() - began >= 0.03
    assert vart.pace_report()["jobs"] == 1


def _wanted(graph: xir.Graph, part: xir.Subgraph, images: np.ndarray) -> np.ndarray:
    (tensor,) = part.get_output_tensors()
    found = load_engine(graph, "reference").run(images)
    return found * np.float32(2.0 ** tensor.get_attr("fix_point"))


@pytest.mark.usefixtures("asynchronous")
def test_a_job_takes_its_pace_and_gives_the_same(
    graphs: tuple[xir.Graph, xir.Graph], slow: xir.Subgraph
) -> None:
    vart.set_pace(lambda part: 0.04)
    jobs = _Jobs(slow, 3)
    began = time.monotonic()
    jobs.start()
    for number, end in enumerate(jobs.ends(), 1):
        assert end - began >= 0.04 * number  # one runner has one core
    np.testing.assert_array_equal(jobs.results[:, 0], _wanted(graphs[0], slow, jobs.images[:, 0]))
    assert vart.pace_report()["jobs"] == 3


@pytest.mark.usefixtures("asynchronous")
def test_several_runners_have_two_cores(fast: xir.Subgraph) -> None:
    vart.set_pace(lambda part: 0.02)
    runners = [_Jobs(fast, 4) for _ in range(4)]
    began = time.monotonic()
    for jobs in runners:
        jobs.start()
    assert max(end for jobs in runners for end in jobs.ends()) - began >= 16 / 2 * 0.02
    assert vart.pace_report()["jobs"] == 16


@pytest.mark.usefixtures("asynchronous")
def test_each_core_has_a_clock_of_its_own(
    slow: xir.Subgraph, fast: xir.Subgraph, held: _Held
) -> None:
    vart.set_pace(lambda part: HELD if part is slow else 0.01)
    first, beside, behind = _Jobs(slow), _Jobs(fast), _Jobs(fast)
    for jobs in (first, beside, behind):
        jobs.start()
    _in_a_minute(beside.ends)
    held.released.set()
    behind.ends()
    assert held.long_sleeps == 2  # one core's: `first`, and `behind` after it


@pytest.mark.usefixtures("asynchronous")
def test_cpu_parts_take_no_core_of_the_dpu(
    graphs: tuple[xir.Graph, xir.Graph], slow: xir.Subgraph, fast: xir.Subgraph, held: _Held
) -> None:
    """A script's thread has a runner for each subgraph; both DPU subgraphs used to share
    a core, and the other core was left to the CPU subgraphs."""
    vart.set_pace(lambda part: HELD if part is slow else 0.01)
    first = _Jobs(slow)
    cpu = vart.Runner.create_runner(_part(graphs[0], "CPU"), "run")
    second = _Jobs(fast)
    first.start()
    second.start()
    _in_a_minute(second.ends)
    (source,), (result,) = cpu.get_input_tensors(), cpu.get_output_tensors()
    buffers = [np.zeros(source.dims, np.int8)], [np.zeros(result.dims, np.float32)]
    _in_a_minute(lambda: cpu.wait(cpu.execute_async(*buffers)))
    held.released.set()
    first.ends()
    assert vart.pace_report()["jobs"] == 2  # CPU subgraphs are not paced


@pytest.mark.usefixtures("asynchronous")
def test_a_board_with_another_number_of_cores(slow: xir.Subgraph, fast: xir.Subgraph) -> None:
    class OneCore:
        cores = 1

        def __call__(self, part: xir.Subgraph) -> float:
            return 0.1 if part is slow else 0.01

    vart.set_pace(OneCore())
    first, second = _Jobs(slow), _Jobs(fast)
    began = time.monotonic()
    first.start()
    second.start()
    assert second.ends()[0] - began >= 0.11


def test_a_batch_takes_as_many_times_as_long(fast: xir.Subgraph) -> None:
    vart.set_pace(lambda part: 0.02)
    jobs = _Jobs(fast, count=1, batch=5)
    began = time.monotonic()
    jobs.start()
    assert jobs.ends()[0] - began >= 5 * 0.02


class _Clock:
    """Stand-in for the module `time` in which only sleeping takes time, `overshoot` too long."""

    def __init__(self, overshoot: float) -> None:
        self.now, self._overshoot = 0.0, overshoot

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self._overshoot


def test_the_lateness_of_sleeps_does_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, core, tally = _Clock(overshoot=0.003), device.Core("test"), device.Tally()
    monkeypatch.setattr(device, "time", clock)
    for _ in range(100):
        core._keep_pace(submitted=0, seconds=0.005, tally=tally)
    assert clock.now == pytest.approx(100 * 0.005 + 0.003)
    assert (tally.jobs, tally.late) == (100, 0)


def test_a_late_core_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, core, tally = _Clock(overshoot=0), device.Core("test"), device.Tally()
    monkeypatch.setattr(device, "time", clock)
    clock.now = 0.007  # so long the first job computed
    core._keep_pace(submitted=0, seconds=0.005, tally=tally)
    assert (clock.now, tally.jobs, tally.late) == (0.007, 1, 1)
    assert tally.late_seconds_max == pytest.approx(0.002)
    clock.now = 0.008
    core._keep_pace(submitted=0, seconds=0.005, tally=tally)
    assert clock.now == pytest.approx(0.012)
    assert (tally.jobs, tally.late) == (2, 1)


def test_a_new_pace_counts_from_nothing(fast: xir.Subgraph) -> None:
    vart.set_pace(lambda part: 0.0)
    jobs = _Jobs(fast, 2)
    jobs.start()
    jobs.ends()
    report = vart.pace_report()
    assert (report["jobs"], report["late"]) == (2, 2) and report["late_seconds_max"] > 0
    vart.set_pace(None)
    assert vart.pace_report() == {"jobs": 0, "late": 0, "late_seconds_max": 0}
    unpaced = _Jobs(fast)
    unpaced.start()
    unpaced.ends()
    assert vart.pace_report()["jobs"] == 0


def test_errors_still_reach_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(inputs: object, attrs: object) -> np.ndarray:
        raise ValueError("broken on purpose")

    vart.set_plugins({"conv2d-fix": broken})
    vart.set_pace(lambda part: 0.01)
    part = _part(_network("broken"))
    with pytest.raises(RuntimeError, match="broken on purpose"):
        _Jobs(part).start()
    monkeypatch.setenv(device.EXECUTION_VARIABLE, "asynchronous")
    jobs = _Jobs(part)
    jobs.start()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        jobs.ends()


def test_a_pace_that_is_none(fast: xir.Subgraph) -> None:
    for wrong in (float("nan"), float("inf"), -1.0):
        vart.set_pace(lambda part, seconds=wrong: seconds)  # type: ignore[misc]
        with pytest.raises(DpuError, match=r"the pace of .* is "):
            vart.Runner.create_runner(fast, "run")


def test_a_job_takes_the_predicted_time(demo_model: Path) -> None:
    graph, board = xir.Graph.deserialize(demo_model), latency.read_board("zcu104")
    found = cycles.bounds(latency.operations_of_graph(graph))
    least = sum(bound.cycles for bound in found if bound) / 300e6
    predicted = latency.predict(latency.operations_of_graph(graph), board)
    assert latency.job_seconds(_part(graph), board) == predicted.job_seconds > least > 9e-6
    assert latency.job_seconds(_part(graph, "CPU"), board) == 0


def test_boards_are_known_by_their_profiles(demo_model: Path) -> None:
    pace = latency.board_pace("zcu104")
    assert (pace.board.clock_mhz, pace.cores) == (300, 2)
    part = _part(xir.Graph.deserialize(demo_model))
    assert pace(part) == latency.job_seconds(part, pace.board)
    for name in ("zcu105", "", "../profiles/zcu104"):
        with pytest.raises(DpuError, match=r"no board .*; choose from kv260, .*zcu104$"):
            latency.board_pace(name)


CPU = "\n[cpu]\ncores = 4"


@pytest.mark.parametrize(
    "text", ["", "dpu = 1", "[dpu]\ncores = 2" + CPU,
             '[dpu]\nclock_mhz = "x"\ncores = 2' + CPU, "[dpu]\nx",
             "[dpu]\nclock_mhz = 0\ncores = 2" + CPU, "[dpu]\nclock_mhz = 300\ncores = 0" + CPU,
             "[dpu]\nclock_mhz = 300\ncores = 2"],
)  # fmt: skip
def test_an_incomplete_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setattr(board_profile, "PROFILES", tmp_path)
    board_profile.load_profile.cache_clear()
    with pytest.raises(DpuError, match=r"mine\.toml: ") as caught:
        latency.board_pace("mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "x", "[parameters]\narray_slack = 1.0"])
def test_a_board_that_nothing_is_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "zcu104.toml").write_text(text)
    monkeypatch.setattr(latency, "FITTED", tmp_path)
    with pytest.raises(DpuError, match=r"zcu104\.toml") as caught:
        latency.board_pace("zcu104")
    assert "\n" not in str(caught.value)


def _shim(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tutelage", "shim", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_a_script_in_real_time(repo_root: Path, demo_model: Path, tmp_path: Path) -> None:
    """The demo takes 206 us on a board, which the emulation hardly reaches; this is reported."""
    images = np.random.default_rng(4).uniform(-1, 1, (20, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    files = tmp_path / "in.npy", tmp_path / "out.npy"
    done = _shim(repo_root, "--realtime", "zcu104", SCRIPT, demo_model, *files)
    assert (done.returncode, done.stdout) == (0, "done 20\n"), done.stderr
    assert done.stderr.startswith("tutelage: the emulation could not keep pace in ")
    assert " of 20 jobs, which ended up to " in done.stderr and done.stderr.count("\n") == 1
    np.testing.assert_array_equal(np.load(files[1]), load_engine(demo_model).run(images))


def test_a_script_on_a_board_that_nobody_knows(repo_root: Path) -> None:
    done = _shim(repo_root, "--realtime", "zcu105", SCRIPT)
    assert done.returncode == 2
    assert (
        done.stderr == "tutelage: no board 'zcu105'; choose from kv260, ultra96v2, zcu102, zcu104\n"
    )
