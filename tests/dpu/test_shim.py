"""Scripts written for the board run unmodified on the emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.core.errors import UNSORTED
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.runtime.device import ENGINE_VARIABLE, EXECUTION_VARIABLE

SCRIPT = Path(__file__).with_name("board_script.py")


def _shim(cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tutelage", "shim", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("options", [[], ["--asynchronous"]])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_board_script(
    repo_root: Path, demo_model: Path, tmp_path: Path, threads: int, options: list[str]
) -> None:
    rng = np.random.default_rng(4)
    images = rng.uniform(-1, 1, (100, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    files = tmp_path / "in.npy", tmp_path / "out.npy"
    done = _shim(repo_root, *options, SCRIPT, demo_model, *files, threads)
    assert (done.returncode, done.stdout) == (0, "done 100\n"), done.stderr
    wanted = load_engine(demo_model, "reference").run(images)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)


@pytest.mark.slow
def test_a_first_use_from_several_threads_does_not_lock_up(
    repo_root: Path, demo_model: Path, tmp_path: Path
) -> None:
    """It used to fail in one run of six: OpenVINO's binding used numpy in two threads."""
    np.save(tmp_path / "in.npy", np.zeros((6, 28, 28, 1), np.float32))
    for _ in range(8):
        done = _shim(repo_root, SCRIPT, demo_model, tmp_path / "in.npy", tmp_path / "out.npy")
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exit_status_and_errors_are_the_scripts_own(repo_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import sys; sys.exit(7)")
    assert _shim(repo_root, script).returncode == 7
    script.write_text("import sys; sys.exit(True)")
    done = _shim(repo_root, script)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    script.write_text("import sys; sys.exit('message')")
    done = _shim(repo_root, script)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "message\n")
    script.write_text("raise KeyboardInterrupt")
    done = _shim(repo_root, script)
    assert done.returncode == 130 and done.stderr.endswith("\nKeyboardInterrupt\n")
    script.write_text("import vart; vart.Runner.create_runner(None, 'run')")
    done = _shim(repo_root, script)
    assert done.returncode == 1 and "created from an xir.Subgraph" in done.stderr
    done = _shim(repo_root, tmp_path / "none.py")
    assert done.returncode == 2 and done.stderr == f"tutelage: {tmp_path}/none.py: no such script\n"


def test_a_script_gets_its_arguments_and_its_neighbours(repo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("WORD = 'hello'")
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, neighbour, xir, vart\n"
        "if __name__ == '__main__': print(neighbour.WORD, sys.argv[1:], xir.__name__)"
    )
    done = _shim(repo_root, script, "--json", "-x", "1")
    assert done.stdout == "hello ['--json', '-x', '1'] xir\n", done.stderr


STAND_INS = ["runner", "vart", "xir", "pynq_dpu", "vitis_ai_library", "pynq"]


@pytest.mark.parametrize("name", [*STAND_INS, "app", "board", "dpu", "host"])
def test_a_module_of_the_scripts_own_wins(repo_root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("WORD = 'mine'")
    script = tmp_path / "s.py"
    script.write_text(f"import {name}; print({name}.WORD)")
    done = _shim(repo_root, script)
    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_modules_with_the_names_of_the_emulations_packages(
    repo_root: Path, demo_model: Path, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, engine)
    for name in ("app", "board", "dpu", "host"):
        (tmp_path / f"{name}.py").write_text(f"WORD = 'my {name}'")
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, warnings, numpy as np\n"
        "import pynq, vart, vitis_ai_library, xir, pynq_dpu, runner\n"
        "import app, board, dpu, host\n"
        "warnings.simplefilter('ignore')  # of a machine that measures no power\n"
        "print(isinstance(pynq.get_rails(), dict))\n"
        "graph = xir.Graph('made')\n"
        "data = {'shape': [1, 2], 'data_type': 'FLOAT32'}\n"
        "graph.create_op('y', 'relu', {}, {'input': [graph.create_op('x', 'data', data)]})\n"
        "graph = xir.Graph.deserialize(sys.argv[1])\n"
        "whole = vitis_ai_library.GraphRunner.create_graph_runner(graph)\n"
        "whole.wait(whole.execute_async(whole.get_inputs(), whole.get_outputs()))\n"
        "print(app.WORD, board.WORD, dpu.WORD, host.WORD)\n"
    )
    done = _shim(repo_root, script, demo_model)
    assert done.stdout == "True\nmy app my board my dpu my host\n", done.stderr


def test_a_package_beside_a_script_may_be_called_as_one_of_ours(
    repo_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "dpu").mkdir()
    (tmp_path / "dpu" / "__init__.py").write_text("WORD = 'mine'")
    script = tmp_path / "s.py"
    script.write_text("import dpu, vart; print(dpu.WORD)")
    done = _shim(repo_root, script)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr


def test_a_file_that_is_not_sorted_is_reported_once(
    repo_root: Path, unsorted_model: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "in.npy", np.zeros((6, 28, 28, 1), np.float32))
    done = _shim(repo_root, SCRIPT, unsorted_model, tmp_path / "in.npy", tmp_path / "out.npy")
    assert (done.returncode, done.stdout) == (0, "done 6\n"), done.stderr
    assert done.stderr == f"tutelage: {unsorted_model}: {UNSORTED}\n"


def test_xir_takes_file_names_as_str(repo_root: Path, demo_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(
        "import pathlib, sys, xir\n"
        "graph = xir.Graph.deserialize(fname=sys.argv[1])\n"
        "assert type(graph) is xir.Graph and isinstance(graph.get_root_subgraph(), xir.Subgraph)\n"
        "here = pathlib.Path(sys.argv[2])\n"
        "graph.serialize(str(here / 'a.xmodel')); graph.save_as_dot(str(here / 'a.dot'))\n"
        "for call in (xir.Graph.deserialize, graph.serialize, graph.save_as_dot,\n"
        "             lambda path: graph.save_as_image(path, 'png')):\n"
        "    try: call(here / 'a.xmodel')\n"
        "    except TypeError as error: print(error)\n"
    )
    done = _shim(repo_root, script, demo_model, tmp_path)
    message = f"xir takes file names as str, not {type(tmp_path).__name__}\n"
    assert done.stdout == message * 4, done.stderr
    assert (tmp_path / "a.dot").exists()


def test_missing_parts_of_a_stand_in_are_named(repo_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(
        "import pynq, pynq_dpu, vart, vitis_ai_library, xir\n"
        "for module in (pynq, pynq_dpu, vart, vitis_ai_library, xir):\n"
        "    try: module.Something\n"
        "    except AttributeError as error: print(error)\n"
    )
    done = _shim(repo_root, script)
    first, *others = done.stdout.splitlines()
    assert first == "pynq.Something: only get_rails and DataRecorder are emulated"
    names = ("pynq_dpu", "vart", "vitis_ai_library", "xir")
    assert others == [f"{name}.Something is not emulated" for name in names]


OTHER_WAYS = {
    "a graph runner": (
        "from vitis_ai_library import GraphRunner\n"
        "runner = GraphRunner.create_graph_runner(xir.Graph.deserialize(sys.argv[1]))\n"
        "(source,), (result,) = inputs, outputs = runner.get_inputs(), runner.get_outputs()\n"
        "assert source.get_tensor().dtype == 'xint8' and result.get_tensor().dtype == 'float32'\n"
        "for image in images:\n"
        "    np.asarray(source)[...] = image\n"
        "    job = runner.execute_async(inputs, outputs); assert runner.wait(job) == 0\n"
        "    found.append(np.array(result, copy=True))\n"
    ),
    "VART's old module": (
        "import runner\n"
        "graph = xir.Graph.deserialize(sys.argv[1])\n"
        "parts = graph.get_root_subgraph().toposort_child_subgraph()\n"
        "dpu = runner.Runner([p for p in parts if p.get_attr('device') == 'DPU'][0], 'run')\n"
        "for image in images:\n"
        "    out = np.zeros((1, 10), np.float32)\n"
        "    dpu.wait(dpu.execute_async([image], [out])); found.append(out)\n"
    ),
    "DPU-PYNQ's overlay": (
        "from pynq_dpu import DpuOverlay\n"
        "overlay = DpuOverlay('dpu.bit'); overlay.load_model(sys.argv[1])\n"
        "assert overlay.graph.get_name() == 'densenet_small'\n"
        "for image in images:\n"
        "    out = np.zeros((1, 10), np.float32)\n"
        "    overlay.runner.wait(overlay.runner.execute_async([image], [out]))\n"
        "    found.append(out)\n"
    ),
}


@pytest.mark.parametrize("execution", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("way", OTHER_WAYS)
def test_other_ways_to_a_runner(
    repo_root: Path, demo_model: Path, tmp_path: Path, way: str, execution: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(EXECUTION_VARIABLE, execution)
    images = np.random.default_rng(5).integers(-128, 128, (6, 1, 28, 28, 1), dtype=np.int8)
    np.save(tmp_path / "in.npy", images)
    script = tmp_path / "s.py"
    script.write_text(
        "import sys, numpy as np, xir\n"
        "images, found = np.load(sys.argv[2]), []\n"
        f"{OTHER_WAYS[way]}"
        "np.save(sys.argv[3], np.concatenate(found))\n"
    )
    done = _shim(repo_root, script, demo_model, tmp_path / "in.npy", tmp_path / "out.npy")
    assert (done.returncode, done.stderr) == (0, "")
    wanted = load_engine(demo_model, "reference").run(images[:, 0])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)


def test_files_that_an_overlay_does_not_load(
    repo_root: Path, demo_model: Path, tmp_path: Path
) -> None:
    quantised = demo_model.with_name("quantised.xmodel")
    shutil.copy(demo_model, tmp_path / "beside.xmodel")
    script = tmp_path / "s.py"
    script.write_text(
        "import sys\n"
        "from pynq_dpu import DpuOverlay\n"
        f"overlay = DpuOverlay({str(tmp_path / 'dpu.bit')!r})\n"
        "overlay.load_model('beside.xmodel'); assert overlay.runner is not None\n"
        "for name in ('none.xmodel', sys.argv[0], sys.argv[1]):\n"
        "    try: overlay.load_model(name)\n"
        "    except (ValueError, RuntimeError) as error: print(error)\n"
    )
    done = _shim(repo_root, script, quantised)
    assert done.stdout.splitlines() == [
        "File none.xmodel does not exist.",
        f"{script}: only xmodel files can be loaded",
        f"{quantised}: has 0 DPU subgraphs; DpuOverlay runs exactly one",
    ], done.stderr


CELLS = [
    "from tutelage.dpu.runtime import shim; shim.install()",
    "from pynq_dpu import DpuOverlay\noverlay = DpuOverlay('dpu.bit')",
    "overlay.load_model('digits.xmodel')\n"
    "import numpy as np, pynq, warnings, labels, runner\n"
    "dpu = overlay.runner\n"
    "shape_in = tuple(dpu.get_input_tensors()[0].dims)\n"
    "shape_out = tuple(dpu.get_output_tensors()[0].dims)\n"
    "output_data = [np.empty(shape_out, dtype=np.float32, order='C')]\n"
    "input_data = [np.empty(shape_in, dtype=np.float32, order='C')]\n"
    "image = input_data[0]",
    "with warnings.catch_warnings():\n"
    "    warnings.simplefilter('ignore')  # of a machine that measures no power\n"
    "    sensors = [rail.power for rail in pynq.get_rails().values()]\n"
    "recorder = pynq.DataRecorder(*sensors)\n"
    "with recorder.record(0.01):\n"
    "    for sample in np.load('in.npy'):\n"
    "        image[0, ...] = sample\n"
    "        job_id = dpu.execute_async(input_data, output_data)\n"
    "        dpu.wait(job_id)\n"
    "        print(output_data[0][0].tolist())",
    "assert list(recorder.frame.columns) == ['Mark', *(sensor.name for sensor in sensors)]\n"
    "assert len(recorder.frame)\n"
    "del overlay, dpu\n"
    "print(labels.WORD, runner.WORD)",
]
"""A notebook like DPU-PYNQ's."""


@pytest.mark.slow
def test_a_notebook(
    repo_root: Path, demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nbclient", "nbformat", "ipykernel", "pandas"):
        pytest.importorskip(name, reason=f"needs {name}, which is not installed")
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repo_root), *sys.path]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    shutil.copy(demo_model, tmp_path / "digits.xmodel")
    (tmp_path / "labels.py").write_text("WORD = 'a neighbour'")
    (tmp_path / "runner.py").write_text("WORD = 'and another'")
    (tmp_path / "board.py").touch()
    images = np.random.default_rng(6).uniform(-1, 0.99, (4, 28, 28, 1)).astype(np.float32)
    np.save(tmp_path / "in.npy", images)
    notebook = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    printed = [
        "".join(out["text"] for out in cell["outputs"] if out["output_type"] == "stream")
        for cell in notebook["cells"]
    ]
    words = "a neighbour and another\n"
    logits = load_engine(demo_model, "reference").run(np.trunc(images * 128).astype(np.int8))
    assert printed == ["", "", "", "".join(f"{row.tolist()}\n" for row in logits), words]


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
