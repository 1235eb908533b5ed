"""The DPU of a file is determined by its fingerprint, not by its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.__main__ import main
from tutelage.core.errors import DpuError, UnsupportedError
from tutelage.core.fingerprint import (
    ARRAYS,
    FAMILIES,
    OWN,
    array_named,
    array_of,
    dpu_name,
    fingerprints_of,
)
from tutelage.dpu.engine.reference import ENGINES, load_engine
from tutelage.dpu.runtime import vart
from tutelage.dpu.xmodel.graph import Graph

OTHERS = {
    "cifar_resnet_board": "DPUCVDX8G",
    "mnist_cnn_u50": "DPUCAHX8H",
    "mnist_cnn_vck190": "DPUCVDX8G",
    "mnist_prelu_vck190_vai14": "DPUCVDX8G",
    "mnist_prelu_vck190_vai25": "DPUCVDX8G",
    "mnist_prelu_vck5000": "DPUCVDX8H",
    "mnist_prelu_vek280": "DPUCV2DX8G",
    "ssd_pedestrian_u50": "DPUCAHX8H",
}
"""Files for other DPUs, and which."""

OWN_FILES = {
    "densebox_kv260": "ISA1_B3136",
    "googlenet_hash_b1152": "ISA0_B1152",
    "mnist_cnn_zcu104": "ISA1_B4096",
    "mnist_prelu_zcu104_vai14": "ISA0_B4096",
    "mnist_prelu_zcu104_vai30": "ISA1_B4096",
    "squeezenet_dpu_pynq": "ISA1_B4096",
}


def _path(shared_dir: Path, name: str) -> Path:
    return shared_dir / "models" / "corpus" / f"{name}.xmodel"


@pytest.mark.parametrize("name", [*OTHERS, *OWN_FILES])
def test_fingerprints_of_the_files(shared_dir: Path, name: str) -> None:
    (number,) = fingerprints_of(Graph.deserialize(_path(shared_dir, name)))
    wanted = OTHERS.get(name) or f"{OWN}_{OWN_FILES[name]}"
    assert dpu_name(number) == wanted
    if name in OTHERS:
        with pytest.raises(UnsupportedError, match=f"the array of {wanted} "):
            array_of(number)
    else:
        assert array_of(number) == array_named(wanted)


def test_the_name_in_the_file_can_be_wrong(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _path(shared_dir, "googlenet_hash_b1152")
    assert main(["inspect", str(path)]) == 0
    assert (
        ", for DPUCZDX8G_ISA0_B1152 (its name in the file, "
        "'DPUCVDX8G_ISA0_B1152_01000020F6012203', is wrong) 0x1000020f6012203"
    ) in capsys.readouterr().out
    graph = Graph.deserialize(path)
    (part,) = (p for p in graph.get_root_subgraph().get_children() if p.has_attr("mc_code"))
    assert part.get_attr("dpu_name").startswith("DPUCVDX8G_ISA0_B1152")
    assert dpu_name(part.get_attr("dpu_fingerprint")) == "DPUCZDX8G_ISA0_B1152"


def test_the_arrays_are_as_large_as_their_names() -> None:
    assert [f"B{array.operations}" for array in ARRAYS] == [array.name for array in ARRAYS]


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_any_number_has_a_name(number: int) -> None:
    name = dpu_name(number)
    assert name == "an unknown DPU" or name.split("_")[0] == FAMILIES[number >> 56]
    if name.startswith(f"{OWN}_"):
        assert array_of(number) == array_named(name)
    else:
        with pytest.raises(UnsupportedError):
            array_of(number)


@pytest.mark.parametrize("name", ["", "B4096", "DPUCVDX8G_ISA0_B1152", "DPUCZDX8G_ISA1_B42"])
def test_names_of_no_array(name: str) -> None:
    with pytest.raises(DpuError, match="is not the name of a DPUCZDX8G"):
        array_named(name)


@pytest.mark.parametrize("name", OTHERS)
def test_files_for_other_dpus_do_not_run(shared_dir: Path, name: str) -> None:
    path = _path(shared_dir, name)
    for engine in ENGINES:
        with pytest.raises(DpuError, match=f"{name}.xmodel: compiled for {OTHERS[name]} ") as stop:
            load_engine(path, engine)
        assert "\n" not in str(stop.value)
    graph = Graph.deserialize(path)
    for part in graph.get_root_subgraph().toposort_child_subgraph():
        if part.get_attr("device") in ("DPU", "CPU"):
            for runner in (vart.Runner, vart.RunnerExt):
                with pytest.raises(RuntimeError, match=f"compiled for {OTHERS[name]} "):
                    runner.create_runner(part, "run")


@pytest.mark.parametrize("name", OTHERS)
def test_the_command_line_refuses_them_in_one_line(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, out = str(_path(shared_dir, name)), str(tmp_path / "out.npy")
    np.save(tmp_path / "in.npy", np.zeros((1, 28, 28, 1), np.int8))
    given = str(tmp_path / "in.npy")
    for command in (
        ["run", path, "--input", given, "--output", out],
        ["predict", path],
        ["inspect", path, "--images", given],
    ):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert captured.err.startswith(f"tutelage: {path}: compiled for {OTHERS[name]} (")


@pytest.mark.parametrize("name", OTHERS)
def test_inspect_shows_them_with_a_note(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, page = str(_path(shared_dir, name)), tmp_path / "page.html"
    assert main(["inspect", path, "--ops", "--html", str(page)]) == 0
    out, err = capsys.readouterr()
    assert f"note: compiled for {OTHERS[name]} (" in out and "conv" in out and err == ""
    assert f"compiled for {OTHERS[name]} (" in page.read_text()
    (total,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["total"])
    assert total[-3:] == ["?", "?", "?"]
    for text in (out, page.read_text()):
        assert "lower bounds" not in text and "(0% used)" not in text
    assert main(["inspect", path, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(layer["cycles"] is None for layer in facts["layers"])
    assert facts["layers"] and len(facts["notes"]) == 1
    # The oldest file has nonlinearities as numbers with an unknown meaning.
    numbered = {layer["nonlinear"] for layer in facts["layers"]} & {"NUMBER 1"}
    assert bool(numbered) == (name == "ssd_pedestrian_u50")


@pytest.fixture
def of_unknown_size(shared_dir: Path, tmp_path: Path) -> Path:
    """A file for a DPUCZDX8G whose fingerprint has a size that no array has."""
    graph, path = Graph.deserialize(_path(shared_dir, "mnist_cnn_zcu104")), tmp_path / "8.xmodel"
    for part in graph.get_root_subgraph().get_children():
        if part.has_attr("dpu_fingerprint"):
            part.set_attr("dpu_fingerprint", part.get_attr("dpu_fingerprint") & ~0xF | 8)
    graph.serialize(path)
    return path


def test_an_array_of_unknown_size_has_no_cycles(
    of_unknown_size: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engines that compute the graph do not need the array's size."""
    path, image = str(of_unknown_size), str(tmp_path / "in.npy")
    words = "the array of DPUCZDX8G (fingerprint 0x101000056010408) is not known"
    np.save(image, np.zeros((1, 28, 28, 1), np.int8))
    for options in ([], ["--images", image]):
        assert main(["inspect", path, *options]) == 0
        out, err = capsys.readouterr()
        assert f"note: {words}: cycles are omitted\n" in out and "lower bounds" not in out
        assert err == ""
        (total,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["total"])
        assert total[-3:] == ["?", "?", "?"]
    out_file = str(tmp_path / "out.npy")
    assert main(["run", path, "--input", image, "--output", out_file]) == 0
    capsys.readouterr()
    assert main(["predict", path]) == 2
    assert capsys.readouterr().err == f"tutelage: {path}: {words}\n"


def test_work_that_the_file_does_not_say_is_not_shown(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(_path(shared_dir, "googlenet_hash_b1152"))]) == 0
    out = capsys.readouterr().out
    assert "  workload 533,784,064 operations\n" in out and "used)" not in out


@pytest.mark.parametrize("name", OTHERS)
def test_predict_reads_the_file_before_the_board(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """An Ultra96 cannot be predicted, but an unusable file is reported first."""
    path = str(_path(shared_dir, name))
    for board in ("ultra96v2", "none"):
        assert main(["predict", path, "--board", board]) == 2
        assert capsys.readouterr().err.startswith(
            f"tutelage: {path}: compiled for {OTHERS[name]} ("
        )
        assert main(["predict", str(tmp_path / "none.xmodel"), "--board", board]) == 2
        assert capsys.readouterr().err.startswith(f"tutelage: {tmp_path}/none.xmodel: ")
    own = str(_path(shared_dir, "mnist_cnn_zcu104"))
    assert main(["predict", own, "--board", "ultra96v2"]) == 2
    assert "ultra96v2.toml: lacks dpu.clock_mhz" in capsys.readouterr().err


def test_layers_that_cannot_be_made_out_are_noted(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = Graph.deserialize(_path(shared_dir, "mnist_cnn_vck190"))
    op = next(op for op in graph.toposort() if op.get_type() == "conv2d-fix")
    op.set_attr("nonlinear", "NEW")
    path = tmp_path / "new.xmodel"
    graph.serialize(path)
    why = f"op {op.get_name()!r}: nonlinear 'NEW' is not implemented"
    assert main(["inspect", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"note: the layers are not shown: {why}\n" in out and err == ""
    assert "100.0%" not in out and "lower bounds" not in out
    assert main(["diff", str(path), str(_path(shared_dir, "mnist_cnn_quantised"))]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"tutelage: {path}, for DPUCVDX8G (VCK190") and err.endswith(f"{why}\n")


@pytest.mark.parametrize(
    "name", ["googlenet_hash_b1152", "mnist_prelu_zcu104_vai30", "squeezenet_dpu_pynq"]
)
def test_files_for_all_sizes_of_the_own_dpu_run(shared_dir: Path, name: str) -> None:
    model = load_engine(
        _path(shared_dir, name), plugins={"Mylayer": lambda inputs, attrs: inputs["input"][0]}
    )
    image = np.zeros(model.program.inputs[0].get_output_tensor().dims, np.int8)
    assert np.isfinite(model.run(image)).all()


@pytest.mark.parametrize("target, right", [("zcu104", 0.99), ("vck190", None)])
def test_a_twin_for_another_dpu_no_longer_gives_wrong_answers(
    shared_dir: Path, target: str, right: float | None
) -> None:
    """It used to classify 10 % of MNIST's digits instead of 99 %, without a warning."""
    path = _path(shared_dir, f"mnist_cnn_{target}")
    if right is None:
        with pytest.raises(UnsupportedError, match="VCK190"):
            load_engine(path)
        return
    digits = np.load(shared_dir / "data" / "mnist_digits.npz")
    images = digits["images"].reshape(-1, 28, 28, 1).astype(np.float32) / 255
    scores = load_engine(path).run(images)
    share = np.mean(scores.reshape(len(images), -1).argmax(1) == digits["labels"])
    print(f"{share:.2%} of {len(images)} digits")
    assert share > right - 0.02
