"""Networks that AMD's PyTorch quantiser exported: both engines give its values, bit for bit."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.core.errors import UnknownOpError
from tutelage.dpu.compiler.emulation import compile_graph, on_cpu
from tutelage.dpu.engine.fast import FastEngine
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.ops.reference import Plugin
from tutelage.dpu.xmodel.graph import Graph

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "models" / "amd_quantiser"
NAMES = sorted(path.stem for path in FOLDER.glob("*.xmodel"))
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")

# The limits, 0.2 and 1.5, are not in the file; a fix with the output's fix point, 6, rounds them.
PLUGINS: dict[str, dict[str, Plugin]] = {
    "clamp": {"nndct_clamp": lambda inputs, attrs: np.clip(inputs["input"][0], 13 / 64, 1.5)}
}


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)


def _case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of the network and the outputs of AMD's quantised model, channels last."""
    arrays = np.load(FOLDER / f"{name}.npz")
    if name != "densenet":
        return _channels_last(arrays["x"]), _channels_last(arrays["y"])
    if not FASHION.exists():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    pixels = np.frombuffer(gzip.decompress(FASHION.read_bytes()), np.uint8, offset=16)
    images = pixels.reshape(-1, 28, 28, 1)[: len(arrays["y"])]
    return (images.astype(np.float32) - 128) / 128, arrays["y"]


def _load(name: str, engine: str) -> Model:
    return load_engine(FOLDER / f"{name}.xmodel", engine, PLUGINS.get(name))


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("name", NAMES)
def test_the_values_are_amds(shared_dir: Path, name: str, engine: str) -> None:
    x, y = _case(name)
    np.testing.assert_array_equal(_load(name, engine).run(x.astype(np.float32)), y)


# The layers that stay on the CPU, by network, with the reason.
OFF_THE_DPU = {
    "bilin": "it does not repeat each pixel an integer number of times",
    "bnfree": "the DPU has no scale",
    "clamp": "the DPU has no nndct_clamp",
    "elu": "the DPU has no aten::elu",
    "gelu": "the DPU has no gelu",
    "meanhw": "the DPU has no aten::mean",
    "prelu": "the DPU has no prelu",
    "scaladd": "an operand is constant",
    "scalmul": "an operand is constant",
    "sigmoid": "the DPU has no sigmoid",
    "silu": "the DPU has no aten::silu",
    "softmax": "the DPU has no softmax",
    "tanh": "the DPU has no tanh",
}


@pytest.mark.parametrize("name", NAMES)
def test_compiled_they_are_amds_too(shared_dir: Path, name: str) -> None:
    """Everything for the DPU is in one DPU subgraph, as with AMD's compiler."""
    quantised = Graph.deserialize(FOLDER / f"{name}.xmodel")
    compiled = compile_graph(quantised)
    parts = compiled.get_root_subgraph().get_children()
    on_dpu = [part for part in parts if part.get_attr("device") == "DPU"]
    assert set(on_cpu(quantised).values()) - {"the DPU has no transpose"} == (
        {OFF_THE_DPU[name]} if name in OFF_THE_DPU else set()
    )
    assert len(on_dpu) == (2 if name in OFF_THE_DPU and name != "softmax" else 1)
    x, y = _case(name)
    for engine in ("reference", "fast"):
        found = load_engine(compiled, engine, PLUGINS.get(name)).run(x.astype(np.float32))
        np.testing.assert_array_equal(found, y, err_msg=engine)


def test_our_compiled_file_equals_amds(shared_dir: Path) -> None:
    """One network quantised by AMD's tools, compiled by them and by the emulator's compiler."""
    folder = shared_dir / "models" / "corpus"
    ours = load_engine(compile_graph(Graph.deserialize(folder / "mnist_cnn_quantised.xmodel")))
    amds = load_engine(folder / "mnist_cnn_zcu104.xmodel")
    pixels = np.frombuffer(
        gzip.decompress((shared_dir / "data" / "t10k-images-idx3-ubyte.gz").read_bytes()),
        np.uint8, offset=16,
    )  # fmt: skip
    images = pixels.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(ours.run(images), amds.run(images))


def _dpu_layers(graph: Graph) -> Counter[tuple[Any, ...]]:
    """Op type, shape and activation of all ops of the only DPU subgraph."""
    parts = graph.get_root_subgraph().get_children()
    (part,) = (part for part in parts if part.get_attr("device") == "DPU")
    return Counter(
        (
            op.get_type(),
            tuple(op.get_output_tensor().dims),
            op.get_attr("nonlinear") if op.has_attr("nonlinear") else None,
        )
        for op in part.get_ops()
    )


def test_a_resnet_has_the_layers_of_amds_compiled_one(shared_dir: Path) -> None:
    """ResNet-20 with a global pool and a dense layer: one DPU subgraph of 79 ops in both.

    AMD's file is for another DPU (a VCK190's) and another training: only structure is compared.
    """
    folder = shared_dir / "models" / "corpus"
    ours = compile_graph(Graph.deserialize(folder / "cifar_resnet_quantised.xmodel"))
    found = _dpu_layers(ours)
    assert found == _dpu_layers(Graph.deserialize(folder / "cifar_resnet_board.xmodel"))
    assert found.total() == 79


def test_a_batch_is_its_images_one_by_one(shared_dir: Path) -> None:
    """Reshapes, transposes and matrix products with AMD's [1, ...] in their constants."""
    for name in set(NAMES) & {"elu", "lin", "meanhw", "near", "softmax"}:
        x, _ = _case(name)
        for engine in ("reference", "fast"):
            model = _load(name, engine)
            single = np.concatenate([model.run(x[i : i + 1]) for i in range(len(x))])
            np.testing.assert_array_equal(model.run(x), single, err_msg=name)


@pytest.mark.parametrize(
    "name, kind",
    [("lin", "matmul"), ("lin", "mul"), ("near", "resize"),
     ("dwtconv", "transposed-depthwise-conv2d")],
)  # fmt: skip
def test_ops_proven_exact_run_in_the_fast_graph(shared_dir: Path, name: str, kind: str) -> None:
    engine = _load(name, "fast").engine
    assert isinstance(engine, FastEngine)
    lowered = {op.get_type() for stage in engine.stages if stage.lowered for op in stage.steps}
    assert kind in lowered


def test_a_clamp_without_limits_names_the_plugin_that_it_wants(shared_dir: Path) -> None:
    with pytest.raises(UnknownOpError, match=r"'L__L_Fn_mid__ret_9' .*function op_nndct_clamp"):
        load_engine(FOLDER / "clamp.xmodel")
