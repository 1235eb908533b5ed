"""The emulated `vart`: buffers, jobs, misuse."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from dpu import vart, xir
from dpu.engine import load_engine


@pytest.fixture(scope="module")
def graph(demo_model: Path) -> xir.Graph:
    return xir.Graph.deserialize(demo_model)


@pytest.fixture(scope="module")
def part(graph: xir.Graph) -> xir.Subgraph:
    children = graph.get_root_subgraph().toposort_child_subgraph()
    return next(child for child in children if child.get_attr("device") == "DPU")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (24, 28, 28, 1), dtype=np.int8)


@pytest.fixture(scope="module")
def scale(part: xir.Subgraph) -> float:
    """Integers per unit of the output."""
    (tensor,) = part.get_output_tensors()
    return float(2.0 ** tensor.get_attr("fix_point"))


@pytest.fixture(scope="module")
def wanted(demo_model: Path, images: np.ndarray, scale: float) -> np.ndarray:
    """The logits in int8."""
    return (load_engine(demo_model, "reference").run(images) * scale).astype(np.int8)


def test_tensors(part: xir.Subgraph) -> None:
    runner = vart.Runner.create_runner(part, "run")
    (source,), (result,) = runner.get_input_tensors(), runner.get_output_tensors()
    assert (source.dims, source.dtype, source.get_attr("fix_point")) == ([1, 28, 28, 1], "xint8", 7)
    assert (result.dims, result.dtype, result.get_data_size()) == ([1, 10], "xint8", 10)


def test_many_jobs_in_any_order(part: xir.Subgraph, images: np.ndarray, wanted: np.ndarray) -> None:
    runner = vart.Runner.create_runner(part, "run")
    outs = [np.empty((1, 10), np.int8) for _ in images]
    jobs = [runner.execute_async([images[i : i + 1]], [outs[i]]) for i in range(len(images))]
    assert len({number for number, _ in jobs}) == len(images)
    assert all(status == 0 for _, status in jobs)
    for job in reversed(jobs):
        assert runner.wait(job) == 0
    np.testing.assert_array_equal(np.concatenate(outs), wanted)


def test_a_runner_shared_by_threads(
    part: xir.Subgraph, images: np.ndarray, wanted: np.ndarray
) -> None:
    runner, outs = vart.Runner.create_runner(part), np.empty((24, 1, 10), np.int8)

    def work(first: int) -> None:
        for i in range(first, 24, 4):
            runner.wait(runner.execute_async([images[i : i + 1]], [outs[i]]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(outs[:, 0], wanted)


def test_float_buffers_are_converted_by_the_fix_points(
    part: xir.Subgraph, images: np.ndarray, wanted: np.ndarray, scale: float
) -> None:
    runner, out = vart.Runner.create_runner(part, "run"), np.empty((1, 10), np.float32)
    runner.wait(runner.execute_async([images[:1].astype(np.float32) / 128], [out]))
    np.testing.assert_array_equal(out, wanted[:1] / np.float32(scale))


def test_dynamic_batches(part: xir.Subgraph, images: np.ndarray, wanted: np.ndarray) -> None:
    runner, out = vart.Runner.create_runner(part, "run"), np.empty((24, 10), np.int8)
    with pytest.raises(ValueError, match=r"has shape \[24, 28, 28, 1\], wanted"):
        runner.execute_async([images], [out])
    runner.wait(runner.execute_async([images], [out], enable_dynamic_array=True))
    np.testing.assert_array_equal(out, wanted)
    with pytest.raises(ValueError, match="batch sizes"):
        runner.execute_async([images], [out[:3]], True)


def test_runner_ext_has_buffers_of_its_own(
    part: xir.Subgraph, images: np.ndarray, wanted: np.ndarray
) -> None:
    runner = vart.RunnerExt.create_runner(part, "run")
    (source,), (result,) = runner.get_inputs(), runner.get_outputs()
    assert source.get_tensor().dims == [1, 28, 28, 1] and result.get_tensor().ndim == 2
    view = np.array(source, copy=False)
    assert np.shares_memory(view, memoryview(source))  # type: ignore[arg-type]
    view[...] = images[3]
    runner.wait(runner.execute_async([source], [result]))
    np.testing.assert_array_equal(np.array(result, copy=False), wanted[3:4])
    assert runner.get_inputs()[0] is source


def _execute(part: xir.Subgraph, inputs: object, outputs: object) -> None:
    vart.Runner.create_runner(part, "run").execute_async(inputs, outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "inputs, outputs, words",
    [
        ([], [np.empty((1, 10), np.int8)], "0 input buffers for 1"),
        (np.zeros((1, 28, 28, 1), np.int8), [], "must be a list"),
        ([np.zeros((1, 28, 28, 1), np.uint8)], [np.empty((1, 10), np.int8)], "is uint8, wanted"),
        ([np.zeros((28, 28, 1), np.int8)], [np.empty((1, 10), np.int8)], "has shape"),
        ([np.zeros((1, 28, 28, 2), np.int8)[..., :1]], [np.empty((1, 10), np.int8)], "not C-cont"),
        ([np.zeros((1, 28, 28, 1), np.int8)], [np.frombuffer(bytes(10), np.int8)[None]], "read-o"),
        ([[[0]]], [np.empty((1, 10), np.int8)], "memory"),
    ],
)
def test_wrong_buffers(part: xir.Subgraph, inputs: object, outputs: object, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        _execute(part, inputs, outputs)


def test_jobs_that_do_not_exist(part: xir.Subgraph) -> None:
    runner = vart.Runner.create_runner(part, "run")
    with pytest.raises(RuntimeError, match="job 5 is unknown"):
        runner.wait((5, 0))
    job = runner.execute_async([np.zeros((1, 28, 28, 1), np.int8)], [np.empty((1, 10), np.int8)])
    runner.wait(job)
    with pytest.raises(RuntimeError, match="waited for already"):
        runner.wait(job)


def test_what_a_runner_is_not_made_from(graph: xir.Graph) -> None:
    with pytest.raises(RuntimeError, match="not NoneType"):
        vart.Runner.create_runner(None, "run")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="device none"):
        vart.Runner.create_runner(graph.get_root_subgraph(), "run")
    user = graph.get_root_subgraph().toposort_child_subgraph()[0]
    with pytest.raises(RuntimeError, match="device USER"):
        vart.Runner.create_runner(user, "run")


def test_what_is_left_out_is_named(part: xir.Subgraph) -> None:
    runner = vart.Runner.create_runner(part, "run")
    with pytest.raises(NotImplementedError, match=r"vart\.Runner\.get_tensor_format"):
        _ = runner.get_tensor_format
    with pytest.raises(NotImplementedError, match=r"vart\.BatchRunner"):
        _ = vart.BatchRunner
    with pytest.raises(NotImplementedError, match=r"mode\.debug"):
        vart.Runner.create_runner(part, "debug")
    with pytest.raises(NotImplementedError, match=r"xir\.Subgraph\.get_workload"):
        _ = part.get_workload
    assert not hasattr(vart, "BatchRunner")
