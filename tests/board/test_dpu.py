from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.board import runner as dpu
from tutelage.board.model_parts import ModelError
from tutelage.board.provider import find_provider
from tutelage.core.board_profile import describe_target, load_profile


def _image(digit: int) -> np.ndarray:
    return np.full((8, 8, 3), (20 * digit + 10) // 2, np.int8)


def test_runs_through_the_boards_own_modules(fake_board: Path, fake_model: Path) -> None:
    model = dpu.load(fake_model)
    assert model.provider == f"DPU (vart from {fake_board})"
    assert model.input == dpu.TensorInfo("image_tensor", (1, 8, 8, 3), -1)
    assert (model.output.dims, model.output.fix_point) == ((1, 10), None)
    assert model.last_op == "conv2d-fix"
    assert model.target == "ZCU104, Vitis AI 2.x"
    logits = model.runner().run(_image(3))
    assert logits.dtype == np.float32 and logits.shape == (10,)
    assert logits[3] == 10.0 and logits[4] == -5.0  # 40 and -20 at fix point 2


def test_float_images_are_quantised_by_the_dpus_rule(fake_board: Path, fake_model: Path) -> None:
    runner = dpu.load(fake_model).runner()
    assert runner.run(np.full((1, 8, 8, 3), 70.0)).argmax() == 3
    assert runner.input(0)[0, 0, 0] == 35


def test_jobs_in_flight_keep_their_own_buffers(fake_board: Path, fake_model: Path) -> None:
    runner = dpu.load(fake_model).runner(slots=4)
    for slot in range(4):
        runner.input(slot)[...] = _image(slot + 2)
        runner.submit(slot)
    kept = [runner.collect(slot) for slot in reversed(range(4))]
    assert [int(logits.argmax()) for logits in kept] == [5, 4, 3, 2]


def test_the_output_is_converted_from_the_dpus_integers(fake_board: Path, fake_model: Path) -> None:
    model = dpu.load(fake_model)
    assert model.integers == dpu.TensorInfo("down_tensor", (1, 10), 2)
    runner = model.runner()
    runner.input(0)[...] = _image(3)
    runner.submit(0)
    integers = runner.collect_integers(0).copy()
    assert integers.dtype == np.int8 and integers.shape == (10,)
    np.testing.assert_array_equal(integers / np.float32(4), runner.run(_image(3)))


def test_without_integers_where_more_is_computed(fake_board: Path, fake_model: Path) -> None:
    model = dpu.load(fake_model.rename(fake_model.with_name("cpu.xmodel")))
    assert model.integers is None
    with pytest.raises(ValueError, match="computed on the CPU"):
        model.runner().collect_integers(0)


def test_a_slot_is_usable_again_after_a_failed_job(fake_board: Path, fake_model: Path) -> None:
    runner = dpu.load(fake_model).runner()
    broken = _image(3)
    broken[0, 0, 0] = 0
    with pytest.raises(RuntimeError, match="timed out"):
        runner.run(broken)
    assert runner.run(_image(3)).argmax() == 3


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 1), np.int8), np.zeros((8, 8, 3), np.uint8), np.zeros(3, np.int8)]
)
def test_wrong_images_are_refused(fake_board: Path, fake_model: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the model takes"):
        dpu.load(fake_model).runner().run(image)


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.xmodel", "missing.xmodel: no such file"),
        ("bad.xmodel", "bad.xmodel: cannot parse this file"),
        ("uncompiled.xmodel", "not compiled for a DPU; compile it first"),
        ("for-emulator.xmodel", "compile it for the board: tutelage compile"),
    ],
)
def test_errors_are_one_clear_line(
    fake_board: Path, fake_model: Path, name: str, message: str
) -> None:
    path = fake_model.parent / name
    if "missing" not in name:
        path.write_bytes(fake_model.read_bytes())
    with pytest.raises(ModelError) as caught:
        dpu.load(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_other_operators_at_the_end_run_on_the_cpu(fake_board: Path, fake_model: Path) -> None:
    model = dpu.load(fake_model.rename(fake_model.with_name("cpu.xmodel")))
    assert model.last_op == "softmax"
    confidences = model.runner().run(_image(6))
    assert confidences.argmax() == 6 and abs(confidences.sum() - 1) < 1e-6


def test_a_float_input_is_fed_behind_its_quantisation(fake_board: Path, fake_model: Path) -> None:
    model = dpu.load(fake_model.rename(fake_model.with_name("float.xmodel")))
    assert model.input == dpu.TensorInfo("quantised_tensor", (1, 8, 8, 3), -1)
    assert model.runner().run(_image(6)).argmax() == 6


_ON_THE_BOARD = """
import sys
import numpy as np
import tutelage.board.runner
runner = tutelage.board.runner.load(sys.argv[1]).runner()
print(runner.run(np.full((8, 8, 3), 35, np.int8)).argmax())
print(sorted(n for n in sys.modules if n.startswith(("tutelage.dpu.", "tutelage.host"))))
"""


def test_nothing_of_the_emulation_is_imported_on_the_board(
    repo_root: Path, fake_model: Path
) -> None:
    fake_board = repo_root / "tests" / "fake_board"
    done = subprocess.run(
        [sys.executable, "-c", _ON_THE_BOARD, str(fake_model)],
        env={"PYTHONPATH": f"{fake_board}:{repo_root}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Nothing of dpu/ is imported if the model has no CPU operators.
    assert done.stdout.split("\n")[:2] == ["3", "[]"], done.stderr


@pytest.mark.usefixtures("emulation")
def test_modules_that_do_not_load_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xir.py").write_text("raise ImportError('libxir.so.2: cannot open')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    find_provider.cache_clear()
    try:
        provider = find_provider()
    finally:
        find_provider.cache_clear()
    assert provider.is_emulation
    assert provider.text == "emulation (vart/xir do not load: libxir.so.2: cannot open)"


@pytest.mark.usefixtures("emulation")
def test_without_a_board_the_emulation_runs() -> None:
    find_provider.cache_clear()
    provider = find_provider()
    assert provider.text == "emulation (no vart/xir on this machine)"


def test_the_profile_knows_its_fingerprints() -> None:
    profile = load_profile("zcu104")
    assert (profile.dpu_cores, profile.dpu_clock_mhz) == (2, 300)
    assert describe_target("DPUCZDX8G", 0x101000056010407) == "ZCU104, Vitis AI 3.0"
    assert describe_target("DPUCZDX8G", 0x1234) == "an unknown DPU (fingerprint 0x1234)"
    assert describe_target("TUTELAGE_EMULATOR", None) == "TUTELAGE_EMULATOR"
    old, other = "DPUCZDX8G_ISA0_B4096", "DPUCVDX8G (VCK190, fingerprint 0x603000b56011861)"
    assert describe_target(f"{old}_MAX_BG2", 0x1000020F6014407).startswith(f"{old} (fingerprint ")
    assert describe_target("DPUCVDX8G_ISA3_C32B6", 0x603000B56011861) == other


@pytest.mark.usefixtures("emulation")
@pytest.mark.parametrize("name", ["mnist_cnn_vck190", "mnist_cnn_u50", "cifar_resnet_board"])
def test_a_model_for_another_dpu_is_refused(shared_dir: Path, name: str) -> None:
    """It used to give wrong classes without a warning."""
    path = shared_dir / "models" / "corpus" / f"{name}.xmodel"
    find_provider.cache_clear()
    with pytest.raises(
        ModelError, match=rf"{name}\.xmodel: compiled for DPUC[AV][HD]X8[GH] "
    ) as caught:
        dpu.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("emulation")
def test_a_model_whose_copies_copy_nothing(demo_model: Path, tmp_path: Path) -> None:
    """It used to end in a traceback (found by fuzzing)."""
    from tutelage.dpu.xmodel.schema import GraphProto

    graph = GraphProto()
    graph.ParseFromString(demo_model.read_bytes())
    for op in graph.op_node:
        if op.op_type == "download":
            del op.args[:]
    path = tmp_path / "net.xmodel"
    path.write_bytes(graph.SerializeToString())
    find_provider.cache_clear()
    with pytest.raises(dpu.ModelError, match=r"net\.xmodel: the model is inconsistent: ") as caught:
        dpu.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("emulation")
@pytest.mark.parametrize("name", ["mnist_prelu_zcu104_vai14", "zerodce_zcu104"])
def test_int8_ops_that_a_compiler_leaves_to_the_cpu(
    repo_root: Path, shared_dir: Path, name: str
) -> None:
    """A hard sigmoid after the last DPU subgraph; a bilinear upsampling between two subgraphs."""
    from tutelage.dpu.engine.reference import load_engine
    from tutelage.dpu.ops.reference import load_plugins

    path = shared_dir / "models" / "corpus" / f"{name}.xmodel"
    plugins = repo_root / "tests" / "dpu" / "plugins.py"
    find_provider.cache_clear()
    model = dpu.load(path, plugins)
    image = np.random.default_rng(4).integers(-128, 128, model.input.dims, dtype=np.int8)
    wanted = load_engine(path, "reference", load_plugins(plugins)).run(image)
    np.testing.assert_array_equal(model.runner().run(image), wanted[0])
