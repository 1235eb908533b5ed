"""`inspect --images`: what int8 values do on sample inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.__main__ import main
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.inspect.statistics import Values

PLUGINS = Path(__file__).with_name("plugins.py")


def _inspect(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    assert main(["inspect", "--json", *map(str, arguments)]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    facts["by_name"] = {layer["name"]: layer for layer in facts["layers"]}
    return facts


def test_values_are_counted_as_numpy_counts_them() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.integers(-20, 30, (3, 5, 4), np.int8) for _ in range(3)]
    values = Values()
    for part in parts:
        part[..., 2] = 0
        values.add(part)
    every = np.concatenate(parts)
    facts = values.facts(one_sided=False)
    assert (facts["min"], facts["max"]) == (every.min(), every.max())
    assert facts["zeros"] == np.mean(every == 0) and facts["saturated"] == 0
    assert (facts["dead_channels"], facts["channels"]) == (1, 4)


@pytest.mark.parametrize(
    "values, dead", [([127], 0), ([-128], 0), ([-65, 3], 0), ([64], 0), ([63], 1), ([-64], 1),
                     ([-1], 7), ([0], 7), ([1], 6), ([5, -9], 3)],
)  # fmt: skip
def test_dead_bits(values: list[int], dead: int) -> None:
    counted = Values()
    counted.add(np.array(values, np.int8))
    assert counted.dead_bits() == dead


def _model(path: Path) -> Path:
    """One layer that saturates, one that leaves bits unused, one channel that is always zero."""
    model = CompiledModel("net")
    x = model.input("image", (1, 4, 4, 2), 4)
    loud = np.full((3, 1, 1, 2), 64, np.int8)
    loud[2] = -64
    model.output(model.conv2d("loud", x, loud, 4, None, 0, 5, nonlinear="RELU"))
    quiet = np.full((2, 1, 1, 2), 5, np.int8)
    model.output(model.conv2d("quiet", x, quiet, 7, None, 0, 4))
    model.save(path)
    return path


def test_layers_that_look_wrong_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, images = _model(tmp_path / "net.xmodel"), tmp_path / "in.npy"
    np.save(images, np.full((70, 4, 4, 2), 100, np.int8))
    facts = _inspect(capsys, path, "--images", images)
    assert facts["images"] == 70
    loud, quiet = facts["by_name"]["loud"], facts["by_name"]["quiet"]
    assert loud["values"]["saturated"] == pytest.approx(2 / 3)
    assert loud["values"]["zeros"] == pytest.approx(1 / 3) and loud["values"]["dead_channels"] == 1
    assert loud["advice"] == ["66.7% saturated: fix point 5 -> 4"]
    # 100 * 5 * 2 / 2^7 = 7.8, rounded: 8 needs four bits and a sign.
    assert (quiet["values"]["max"], quiet["values"]["dead_bits"]) == (8, 3)
    assert quiet["advice"][0] == "3 of 8 bits unused: fix point 4 -> 5"
    assert quiet["weight_values"]["dead_bits"] == 4
    assert "weights leave 4 of 8 bits unused: their fix point 7 -> 11," in quiet["advice"][1]
    assert main(["inspect", str(path), "--images", str(images)]) == 0
    text = capsys.readouterr().out
    assert "int8 values on 70 images" in text and "! #1 loud: 66.7% saturated" in text


def test_an_input_is_saturated_where_it_was_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, images = _model(tmp_path / "net.xmodel"), tmp_path / "in.npy"
    array = np.full((1, 4, 4, 2), -8, np.float32)  # -128 exactly: nothing is lost
    array[0, 0] = 8  # 128, which int8 lacks
    np.save(images, array)
    image = _inspect(capsys, path, "--images", images)["by_name"]["image"]
    assert image["values"]["saturated"] == 0.25 and image["advice"]


def test_images_as_model_toml_says(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = demo_model.parent / "images" / "Bag"
    facts = _inspect(capsys, demo_model, "--images", folder)
    assert facts["images"] == len(list(folder.iterdir()))
    image = facts["by_name"]["densenet_small__input"]["values"]
    assert (image["min"], image["saturated"]) == (-128, 0)
    other = _inspect(capsys, demo_model, "--images", folder, "--mean", "0", "--scale", "0.0078125")
    # Pixels 0..255 times 2^-7 at fix point 7 are 0..255: values above 127 are clipped.
    assert other["by_name"]["densenet_small__input"]["values"]["min"] == 0
    assert other["by_name"]["densenet_small__input"]["values"]["saturated"] > 0.1


def test_a_quantised_file_has_the_compiled_ones_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.dpu.test_layers import small_network
    from tutelage.dpu.compiler.emulation import compile_graph

    graph, images = small_network(), tmp_path / "in.npy"
    np.save(images, np.random.default_rng(2).normal(0, 1, (5, 8, 12, 3)).astype(np.float32))
    graph.serialize(tmp_path / "q.xmodel")
    compile_graph(graph).serialize(tmp_path / "c.xmodel")
    found = [
        {
            name: (layer["values"], layer["weight_values"])
            for name, layer in _inspect(capsys, tmp_path / file, "--images", images)[
                "by_name"
            ].items()
            if file == "c.xmodel" or layer["values"]
        }
        for file in ("q.xmodel", "c.xmodel")
    ]
    assert len(found[0]) >= 4
    assert all(found[1][name] == values for name, values in found[0].items())


def test_amds_model_on_digits(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = np.load(shared_dir / "data" / "mnist_digits.npz")["images"][:50]
    np.save(tmp_path / "in.npy", digits.reshape(-1, 28, 28, 1).astype(np.float32))
    path = shared_dir / "models" / "mnist_prelu_zcu104_vai25.xmodel"
    facts = _inspect(capsys, path, "--images", tmp_path / "in.npy", "--plugin", PLUGINS)
    assert facts["by_name"]["custom_layer"]["values"]["channels"] == 64
    assert not any(layer["advice"] for layer in facts["layers"])


DESCRIBED = '[output]\nlabels = ["a"]\n[input]\nwidth = 28\nheight = 28\ncolour = "grey"\n'


@pytest.mark.parametrize(
    "toml, words",
    [
        ("[input", "not a TOML file"),
        ("input = 3", "input must be a table"),
        ('[input]\ncolour = "grey"', "width is missing in [input]"),
        (DESCRIBED.replace("grey", "red"), "colour is 'red'; it must be one of grey, rgb"),
        (f'{DESCRIBED}mean = ["a"]', "mean must be numbers"),
        (DESCRIBED.replace("grey", "rgb"), "rgb has 3 channels, the model 1"),
        (f"{DESCRIBED}scale = [1, 2]", "scale has 2 numbers for 1 channel"),
    ],
)
def test_bad_descriptions(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, words: str
) -> None:
    path = tmp_path / "model.xmodel"
    path.write_bytes(demo_model.read_bytes())
    (tmp_path / "model.toml").write_text(toml)
    assert main(["inspect", str(path), "--images", str(demo_model.parent / "images")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_how_images_are_read_goes_with_images(
    demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(demo_model), "--mean", "127"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "need --images" in captured.err


def test_bad_images(demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8, 3), np.int8))
    for name, words in (
        ("none", "no such file"),
        ("empty", "no images in"),
        ("a.png", "not an image"),
        ("x.npy", "has shape [1, 8, 8, 3]"),
    ):
        assert main(["inspect", str(demo_model), "--images", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
