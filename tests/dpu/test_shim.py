"""Scripts written for the board run unmodified on the emulation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpu.engine import load_engine

SCRIPT = Path(__file__).with_name("board_script.py")


def _shim(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpu", "shim", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_board_script(repo_root: Path, demo_model: Path, tmp_path: Path, threads: int) -> None:
    rng = np.random.default_rng(4)
    images = rng.uniform(-1, 1, (100, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    done = _shim(repo_root, SCRIPT, demo_model, tmp_path / "in.npy", tmp_path / "out.npy", threads)
    assert (done.returncode, done.stdout) == (0, "done 100\n"), done.stderr
    wanted = load_engine(demo_model, "reference").run(images)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)


def test_a_first_use_from_several_threads_does_not_lock_up(
    repo_root: Path, demo_model: Path, tmp_path: Path
) -> None:
    """It once did in one run of six: OpenVINO's binding met numpy in two threads at once."""
    np.save(tmp_path / "in.npy", np.zeros((6, 28, 28, 1), np.float32))
    for _ in range(8):
        done = _shim(repo_root, SCRIPT, demo_model, tmp_path / "in.npy", tmp_path / "out.npy")
        assert done.returncode == 0, done.stderr


def test_exit_status_and_errors_are_the_scripts_own(repo_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import sys; sys.exit(7)")
    assert _shim(repo_root, script).returncode == 7
    script.write_text("import vart; vart.Runner.create_runner(None, 'run')")
    done = _shim(repo_root, script)
    assert done.returncode == 1 and "made from an xir.Subgraph" in done.stderr
    done = _shim(repo_root, tmp_path / "none.py")
    assert done.returncode == 2 and done.stderr == f"dpu: {tmp_path}/none.py: no such script\n"


def test_a_script_gets_its_arguments_and_its_neighbours(repo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("WORD = 'hello'")
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, neighbour, xir, vart\n"
        "if __name__ == '__main__': print(neighbour.WORD, sys.argv[1:], xir.__name__)"
    )
    done = _shim(repo_root, script, "--json", "-x", "1")
    assert done.stdout == "hello ['--json', '-x', '1'] dpu.xir\n", done.stderr


def test_cpu_parts_run_with_a_plugin(shared_dir: Path, repo_root: Path, tmp_path: Path) -> None:
    """VART makes runners for CPU subgraphs too; the plugin stands for a registered CPU op."""
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, numpy as np, vart, xir\n"
        "graph = xir.Graph.deserialize(sys.argv[1])\n"
        "x = np.load(sys.argv[2])\n"
        "for part in graph.get_root_subgraph().toposort_child_subgraph():\n"
        "    if part.get_attr('device') == 'USER': continue\n"
        "    runner = vart.Runner.create_runner(part, 'run')\n"
        "    t = runner.get_output_tensors()[0]\n"
        "    out = np.empty(t.dims, np.int8 if t.dtype == 'xint8' else np.float32)\n"
        "    runner.wait(runner.execute_async([x], [out])); x = out\n"
        "print(x.argmax())\n"
    )
    digits = np.load(shared_dir / "data" / "mnist_digits.npz")
    np.save(tmp_path / "x.npy", digits["images"][:1].reshape(1, 28, 28, 1).astype(np.float32))
    model = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel"
    plugin = Path(__file__).with_name("plugins.py")
    done = _shim(repo_root, "--plugin", plugin, script, model, tmp_path / "x.npy")
    assert done.stdout == f"{digits['labels'][0]}\n", done.stderr
