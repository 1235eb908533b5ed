"""The commands that inspect and run models, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.__main__ import main
from tutelage.core.errors import UNSORTED, UnsortedWarning
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.xmodel.graph import Graph


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "in.npy"
    rng = np.random.default_rng(3)
    np.save(path, rng.uniform(-1, 1, (40, 28, 28, 1)).astype(np.float32))
    return path


def test_inspect_for_a_reader(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(demo_model)]) == 0
    text = capsys.readouterr().out
    assert "densenet_small, compiled" in text and "subgraph 1: DPU" in text
    assert "1x28x28x1 xint8, fix point 7" in text
    assert "conv2d+relu  3x3/2   1x14x14x16" in text and "conv2d-fix" not in text
    assert main(["inspect", "--ops", str(demo_model)]) == 0
    assert "conv2d-fix" in capsys.readouterr().out


def test_inspect_for_a_program(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(demo_model)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "compiled" and facts["not_built_in"] == []
    assert facts["outputs"][0]["dims"] == [1, 10]
    stem = next(op for op in facts["ops"] if op["name"] == "densenet_small__features_conv0")
    assert stem["type"] == "conv2d-fix" and 0 <= stem["shift"] <= 16


def test_inspect_an_amd_model(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel"
    assert main(["inspect", "--json", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["not_built_in"] == ["Mylayer"]
    part = facts["subgraphs"][1]
    assert part["fingerprint"] == "0x101000016010407" and part["workload"] == 28_880_256
    assert {"register": "REG_0", "use": "CONST", "bytes": 103_072} in part["memory"]


@pytest.mark.parametrize(
    "command", ["inspect", "diff DEMO", "run --random 1", "disasm", "predict", "check"]
)
def test_a_model_directory_is_its_compiled_file(
    command: str, demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "check":
        pytest.importorskip("torch", reason="`check` needs PyTorch")
    name, *arguments = command.replace("DEMO", str(demo_model)).split()
    printed = []
    for path in (demo_model, demo_model.parent):
        assert main([name, *arguments, "--json", str(path)]) == 0
        facts = json.loads(capsys.readouterr().out)
        printed.append({k: v for k, v in facts.items() if k != "model" and "seconds" not in k})
    assert printed[0] == printed[1]


@pytest.mark.parametrize("command", ["inspect", "run --random 1", "predict", "check"])
def test_a_model_directory_that_is_not_compiled(
    command: str, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == "check":
        pytest.importorskip("torch", reason="`check` needs PyTorch")
    for name in ("quantised.xmodel", "model.toml"):
        (tmp_path / name).write_bytes(demo_model.with_name(name).read_bytes())
    assert main([*command.split(), str(tmp_path)]) == 2
    wanted = f"{tmp_path}: has no model.xmodel: first run tutelage compile {tmp_path}"
    assert wanted in capsys.readouterr().err


def test_both_engines_write_the_same_file(demo_model: Path, images: Path, tmp_path: Path) -> None:
    outs = []
    for engine in ("fast", "reference"):
        out = tmp_path / f"{engine}.npy"
        command = ["run", str(demo_model), "--input", str(images), "--output", str(out)]
        assert main([*command, "--engine", engine]) == 0
        outs.append(np.load(out))
    assert outs[0].dtype == np.float32 and outs[0].shape == (40, 10)
    np.testing.assert_array_equal(outs[0], outs[1])


def test_inputs_and_outputs_by_name(
    demo_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    names = ["--input", f"densenet_small__input={images}"]
    names += ["--output", f"densenet_small__logits_={out}"]
    assert main(["run", str(demo_model), *names, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == {str(out): [40, 10]}


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((1, 28, 28, 3), np.int8), "has shape [1, 28, 28, 3], expected [1, 28, 28, 1]"),
        (np.zeros((1, 28, 28, 1), np.uint8), "has uint8; give float32 or int8"),
        (np.zeros((0, 28, 28, 1), np.int8), "has shape [0, 28, 28, 1]"),
        (np.array(3.0), "has shape []"),
        (np.array(["text"]), "has <U4"),
    ],
)
def test_wrong_arrays(
    demo_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    array: np.ndarray,
    words: str,
) -> None:
    path = tmp_path / "in.npy"
    np.save(path, array)
    command = ["run", str(demo_model), "--input", str(path), "--output", str(tmp_path / "o.npy")]
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_files_that_are_not_arrays(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "in.npy", str(tmp_path / "o.npy")
    for content in (b"", b"text", b"\x93NUMPY\x01\x00", b"\x80\x04N."):
        path.write_bytes(content)
        assert main(["run", str(demo_model), "--input", str(path), "--output", out]) == 2
        assert "in.npy: " in capsys.readouterr().err
    assert main(["run", str(demo_model), "--input", "none.npy", "--output", out]) == 2
    assert "none.npy: No such file" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(
    demo_model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "no" / "such" / "out.npy"
    assert main(["run", str(demo_model), "--input", str(images), "--output", str(out)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_an_op_that_nobody_implements_is_named(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, image = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel", tmp_path / "in.npy"
    np.save(image, np.zeros((2, 28, 28, 1), np.float32))
    command = ["run", str(path), "--input", str(image), "--output", str(tmp_path / "out.npy")]
    assert main(command) == 2
    assert "op_Mylayer" in capsys.readouterr().err
    assert main([*command, "--plugin", str(Path(__file__).with_name("plugins.py"))]) == 0
    assert np.load(tmp_path / "out.npy").shape == (2, 10)


@pytest.mark.parametrize(
    "code, words",
    [
        ("def op_Other(inputs, attrs): pass", "op_Mylayer"),
        ("x = 1", "no function named op_<op_type>"),
        ("1 / 0", "ZeroDivisionError"),
        ("def op_Mylayer(inputs, attrs): return inputs['none']", "KeyError"),
        ("def op_Mylayer(inputs, attrs): return [1.0]", "custom_layer"),
    ],
)
def test_bad_plugins(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    path, image = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel", tmp_path / "in.npy"
    np.save(image, np.zeros((1, 28, 28, 1), np.float32))
    plugin = tmp_path / "ops.py"
    plugin.write_text(code)
    command = ["run", str(path), "--input", str(image), "--output", str(tmp_path / "out.npy")]
    assert main([*command, "--plugin", str(plugin)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["inspect"], ["diff", "a"], ["run"], ["shim"], ["fly"]])
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("tutelage: ") and err.count("\n") == 1
    assert " --help" in err


def test_a_reader_that_goes_away(demo_model: Path, repo_root: Path) -> None:
    command = f"{sys.executable} -m tutelage inspect {demo_model} --json | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=repo_root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{\n" and done.stderr == ""


def test_outputs_that_run_omits_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = QuantisedModel("two")
    x = model.input("image", (1, 2, 2, 2), 4)
    for name in ("left", "right"):
        model.output(model.conv2d(name, x, np.ones((2, 1, 1, 2), np.int8), 4, None, 0, 4))
    path, image, out = (str(tmp_path / name) for name in ("two.xmodel", "in.npy", "out.npy"))
    model.finish().serialize(path)
    np.save(image, np.zeros((1, 2, 2, 2), np.int8))
    command = ["run", path, "--input", image, "--output"]
    assert main([*command, out]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "not written: two__right_fix; give --output NAME=OUT.npy for each"
    assert main([*command, out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == ["two__right_fix"]
    assert main([*command, out, "--output", f"two__right_fix={out}"]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_file_that_is_not_sorted_runs_and_is_reported(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AMD's XIR crashes on it. Written files are sorted."""
    path, image = shared_dir / "models" / "corpus" / "reversed_ops.xmodel", tmp_path / "in.npy"
    words = f"{path}: {UNSORTED}"
    with pytest.warns(UnsortedWarning) as found:
        graph = Graph.deserialize(path)
    assert [str(warning.message) for warning in found] == [words]
    assert found[0].filename == __file__
    dims = next(op for op in graph.toposort() if op.get_type() == "data").get_output_tensor().dims
    np.save(image, np.zeros(dims, np.float32))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.count(f"note: {UNSORTED}\n") == 1 and shown.err == ""
    command = ["run", "--input", str(image), "--output", str(tmp_path / "out.npy")]
    for arguments in ([*command, str(path)], ["predict", str(path)], ["diff", str(path), str(path)],
                      ["inspect", str(path), "--images", str(image)]):  # fmt: skip
        assert main(arguments) == 0
        wanted = "" if arguments[0] == "inspect" else f"tutelage: {words}\n"
        assert capsys.readouterr().err == wanted
    first = np.load(tmp_path / "out.npy")
    graph.serialize(tmp_path / "sorted.xmodel")
    assert main(["inspect", str(tmp_path / "sorted.xmodel")]) == 0
    assert "topological" not in capsys.readouterr().out
    assert main([*command, str(tmp_path / "sorted.xmodel")]) == 0
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(first, np.load(tmp_path / "out.npy"))
