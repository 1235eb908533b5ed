"""The emulation under load, forked, and at the interpreter's end, each in a separate process.

By default 3,000 jobs; `TUTELAGE_JOBS=100000` (make load) is the long run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.dpu.load import RUNNERS
from tutelage.dpu.engine.runtimes import RUNTIME_VARIABLE
from tutelage.dpu.runtime.device import EXECUTION_VARIABLE

JOBS = int(os.environ.get("TUTELAGE_JOBS", "3000"))
GROWTH_MIB = 24
"""Largest growth of memory over the second half: fragmentation, but nothing kept per job."""

MODELS = min(400, JOBS // 30)
"""How many times a model is read, run once and released."""

RUNTIMES = ["openvino", "onnxruntime"]
EXECUTIONS = ["synchronous", "asynchronous"]
SHUTDOWN = "the interpreter is shutting down; the job will not be done\n"
SETUP = """
import os, signal, sys, threading, time
import numpy as np
from tutelage.dpu.runtime import vart
from tutelage.dpu.runtime import xir
graph = xir.Graph.deserialize(sys.argv[1])
part = [c for c in graph.get_root_subgraph().toposort_child_subgraph()
        if c.get_attr("device") == "DPU"][0]
image = np.ones((1, 28, 28, 1), np.int8)
def make(): return vart.Runner.create_runner(part, "run")
def start(runner, count=1):
    return [runner.execute_async([image], [np.zeros((1, 10), np.int8)]) for _ in range(count)]
def answer(runner):
    out = np.zeros((1, 10), np.int8)
    runner.wait(runner.execute_async([image], [out]))
    return out.tolist()
runner = make()
"""


def _run(
    script: str, demo_model: Path, root: Path, runtime: str, setup: str = SETUP, seconds: int = 60,
    execution: str = "asynchronous",
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a script after `SETUP`; its children share its process group, and end with it."""
    text = setup + textwrap.dedent(script)
    with subprocess.Popen([sys.executable, "-c", text, str(demo_model)], cwd=root, text=True,
                          env={**os.environ, RUNTIME_VARIABLE: runtime,
                               EXECUTION_VARIABLE: execution}, start_new_session=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"it hangs: {out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason=f"needs {request.param}, which is not installed")
    return str(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_output_is_right_and_nothing_grows(
    repo_root: Path, runtime: str, execution: str
) -> None:
    env = {**os.environ, RUNTIME_VARIABLE: runtime, EXECUTION_VARIABLE: execution}
    done = subprocess.run([sys.executable, "-m", "tests.dpu.load", str(JOBS)], cwd=repo_root,
                          env=env, capture_output=True, text=True,
                          timeout=60 + JOBS / 100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads(done.stdout)
    assert found["wrong"] == 0 and found["started"] == JOBS // 2 * 2
    assert found["compared"] + found["forgotten"] == found["started"]
    assert found["refused"] > JOBS / 40 and found["runners"] >= RUNNERS
    half, end = found["half_way"], found["end"]
    assert end["memory_mib"] - half["memory_mib"] < GROWTH_MIB
    assert (end["threads"], end["files"]) == (half["threads"], half["files"])


FORGET = """
import gc, json
from pathlib import Path
def resident():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
def once():
    graph = xir.Graph.deserialize(sys.argv[1])
    (part,) = [c for c in graph.get_root_subgraph().toposort_child_subgraph()
               if c.get_attr("device") == "DPU"]
    return answer(vart.Runner.create_runner(part, "run"))
wanted, memory = once(), []
for number in range(1, {models} + 1):
    assert once() == wanted
    if number in ({models} // 4, {models}): memory.append(resident())
print(json.dumps([memory, len(os.listdir("/proc/self/fd")), threading.active_count()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_forgotten_model_leaves_nothing_and_nothing_grows(
    demo_model: Path, repo_root: Path, runtime: str, execution: str
) -> None:
    """A table of built models used to keep 3.6 MiB of each: its values referenced its weak keys."""
    script = FORGET.format(models=MODELS)
    done = _run(script, demo_model, repo_root, runtime, seconds=300, execution=execution)
    assert done.returncode == 0, done.stderr
    print(runtime, execution, done.stdout)
    memory, files, threads = json.loads(done.stdout)
    assert memory[1] - memory[0] < GROWTH_MIB
    assert files < 20 and threads == 3


ENDS = {
    "it falls off the end": ("start(runner, 3000)", 0),
    "sys.exit": ("start(runner, 3000); sys.exit(3)", 3),
    "a wait in an exit handler": (
        "import atexit; jobs = start(runner, 200); atexit.register(lambda: runner.wait(jobs[-1]))",
        0,
    ),
    "daemon threads go on": (
        "def go():\n    while True: start(runner, 20)\n"
        "for _ in range(3): threading.Thread(target=go, daemon=True).start()\ntime.sleep(0.2)",
        0,
    ),
    "SIGTERM": ("start(runner, 3000); os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "os._exit": ("start(runner, 3000); os._exit(4)", 4),
    "jobs that take an hour each": (
        "vart.set_pace(lambda subgraph: 3600.0); paced = make(); start(paced, 5)",
        0,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_with_jobs_in_flight(
    end: str, demo_model: Path, repo_root: Path, runtime: str
) -> None:
    script, status = ENDS[end]
    done = _run(script, demo_model, repo_root, runtime)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


BUSY = """
def go():
    while True: start(make(), 20)
for _ in range(3): threading.Thread(target=go, daemon=True).start()
time.sleep(0.2)
"""
SYNCHRONOUS_ENDS = {
    "it falls off the end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "a job in an exit handler from before": ("", 0),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "a job that takes an hour": (
        "vart.set_pace(lambda subgraph: 3600.0); paced = make()\n"
        "threading.Thread(target=start, args=(paced,), daemon=True).start(); time.sleep(0.2)",
        0,
    ),
}


@pytest.mark.parametrize("end", SYNCHRONOUS_ENDS)
def test_the_interpreter_ends_while_daemons_compute(
    end: str, demo_model: Path, repo_root: Path, runtime: str
) -> None:
    script, status = SYNCHRONOUS_ENDS[end]
    setup = SETUP
    if "handler" in end:  # runs after the emulation's own handler, when nothing is computed
        setup = "import atexit\natexit.register(lambda: last())\n" + SETUP
        script = """
def last():
    try: start(runner)
    except RuntimeError as error: print(error)
"""
    done = _run(BUSY + script, demo_model, repo_root, runtime, setup, execution="synchronous")
    said = SHUTDOWN if "handler" in end else ""
    assert (done.returncode, done.stdout, done.stderr) == (status, said, "")


def test_an_error_ends_it_with_nothing_but_its_traceback(demo_model: Path, repo_root: Path) -> None:
    done = _run("start(runner, 3000); raise KeyError('mine')", demo_model, repo_root, "openvino")
    assert done.returncode == 1 and done.stderr.startswith("Traceback")
    assert done.stderr.endswith("KeyError: 'mine'\n")


def test_jobs_that_did_not_run_are_reported(demo_model: Path, repo_root: Path) -> None:
    """An exit handler registered before the emulation runs after its cores have ended."""
    setup = "import atexit\natexit.register(lambda: last())\n" + SETUP
    script = """
        jobs = start(runner, 5000)
        def last():
            try:
                runner.wait(jobs[-1])
            except RuntimeError as error: print(error)
    """
    done = _run(script, demo_model, repo_root, "onnxruntime", setup)
    assert done.stdout == SHUTDOWN, done.stderr


CTRL_C = """
from tutelage.dpu.runtime import device
sleeping, released = threading.Event(), threading.Event()
class Held:
    monotonic = time.monotonic
    def sleep(self, seconds):
        sleeping.set()
        released.wait()
def interrupt():
    sleeping.wait()
    os.kill(os.getpid(), signal.SIGINT)
wanted = answer(runner)
device.time = Held()
vart.set_pace(lambda subgraph: 3600.0)
paced = make()
"""
"""Script after `SETUP`: a runner whose jobs end when they are released, and an interruption."""


def test_ctrl_c_in_a_wait_leaves_the_job(demo_model: Path, repo_root: Path) -> None:
    script = """
        (job,) = start(paced)
        try:
            threading.Thread(target=interrupt).start()
            paced.wait(job)
        except KeyboardInterrupt:
            released.set()
            print("interrupted", paced.wait(job))
    """
    done = _run(CTRL_C + textwrap.dedent(script), demo_model, repo_root, "openvino")
    assert (done.stdout, done.stderr) == ("interrupted 0\n", "")


def test_ctrl_c_in_a_paced_job_leaves_the_runner(demo_model: Path, repo_root: Path) -> None:
    script = """
        threading.Thread(target=interrupt).start()
        try:
            start(paced)
        except KeyboardInterrupt:
            released.set()
            print("interrupted", answer(paced) == wanted)
    """
    done = _run(
        CTRL_C + textwrap.dedent(script), demo_model, repo_root, "openvino", execution="synchronous"
    )
    assert (done.stdout, done.stderr) == ("interrupted True\n", "")


def test_a_forked_child_starts_fresh(demo_model: Path, repo_root: Path, runtime: str) -> None:
    """Fork with jobs in flight, and with other threads that hold every lock."""
    script = """
        wanted = answer(runner)
        def go():
            while True: runner.wait(start(runner)[0])
        for _ in range(3): threading.Thread(target=go, daemon=True).start()
        for _ in range(8):
            jobs = start(runner, 100)
            child = os.fork()
            if not child:
                try: runner.wait(jobs[-1])
                except RuntimeError as error: print(error, flush=True)
                same = answer(runner) == answer(make()) == wanted
                start(runner, 50)
                os._exit(7 if same else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            for job in jobs: runner.wait(job)
        assert answer(runner) == wanted
    """
    done = _run(script, demo_model, repo_root, runtime, "import warnings\n"
                "warnings.simplefilter('ignore', DeprecationWarning)\n" + SETUP)  # fmt: skip
    message = "the job was started before the fork; only the parent can wait for it\n7\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, message * 8, "")


def test_a_child_by_fork_computes_beside_its_parents_threads(
    demo_model: Path, repo_root: Path, runtime: str
) -> None:
    """Synchronous jobs: the parent's other threads hold the cores when it forks."""
    script = """
        wanted = answer(runner)
        def go():
            while True: start(make())
        for _ in range(3): threading.Thread(target=go, daemon=True).start()
        for _ in range(8):
            child = os.fork()
            if not child: os._exit(7 if answer(runner) == answer(make()) == wanted else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        assert answer(runner) == wanted
    """
    setup = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + SETUP
    done = _run(script, demo_model, repo_root, runtime, setup, execution="synchronous")
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n" * 8, "")


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_child_by_fork_ends_as_processes_do(
    demo_model: Path, repo_root: Path, runtime: str, execution: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """End by `sys.exit`, with all exit code of native libraries, as in a daemon."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("CI", raising=False)
    script = """
        wanted = answer(runner)
        child = os.fork()
        if not child: sys.exit(7 if answer(runner) == wanted else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
    done = _run(script, demo_model, repo_root, runtime, execution=execution)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


POOL = """
import multiprocessing, sys, warnings
import numpy as np
from tutelage.dpu.runtime import vart
from tutelage.dpu.runtime import xir
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, of a fork beside threads
def classify(path):
    graph = xir.Graph.deserialize(path)
    part = [c for c in graph.get_root_subgraph().toposort_child_subgraph()
            if c.get_attr("device") == "DPU"][0]
    runner, out = vart.Runner.create_runner(part, "run"), np.zeros((9, 10), np.int8)
    runner.wait(runner.execute_async([np.ones((9, 28, 28, 1), np.int8)], [out], True))
    return out.tolist()
if __name__ == "__main__":
    path, method = sys.argv[1:]
    wanted = classify(path)
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(pool.map(classify, [path] * 6) == [wanted] * 6, classify(path) == wanted)
"""


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))],
)
def test_a_pool_of_processes(
    method: str, demo_model: Path, repo_root: Path, tmp_path: Path, runtime: str
) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    env = {**os.environ, RUNTIME_VARIABLE: runtime, "PYTHONPATH": str(repo_root)}
    done = subprocess.run([sys.executable, str(script), str(demo_model), method], env=env,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.stdout, done.stderr) == ("True True\n", "")
