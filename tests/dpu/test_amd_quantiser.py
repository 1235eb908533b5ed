"""Networks that AMD's PyTorch quantiser exported: both engines give its values, bit for bit."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from dpu.cpu_ops import Plugin
from dpu.engine import Model, load_engine
from dpu.errors import UnknownOpError
from dpu.fast import FastEngine

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "models" / "amd_quantiser"
NAMES = sorted(path.stem for path in FOLDER.glob("*.xmodel"))
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")

# The limits are not in the file: 0.2 and 1.5, each rounded by a fix with the output's fix point, 6.
PLUGINS: dict[str, dict[str, Plugin]] = {
    "clamp": {"nndct_clamp": lambda inputs, attrs: np.clip(inputs["input"][0], 13 / 64, 1.5)}
}


def _channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)


def _case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """What the network was fed and what AMD's quantised model computed, channels last."""
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
def test_what_is_proven_exact_runs_in_the_fast_graph(
    shared_dir: Path, name: str, kind: str
) -> None:
    engine = _load(name, "fast").engine
    assert isinstance(engine, FastEngine)
    lowered = {op.get_type() for stage in engine.stages if stage.lowered for op in stage.steps}
    assert kind in lowered


def test_a_clamp_without_limits_names_the_plugin_that_it_wants(shared_dir: Path) -> None:
    with pytest.raises(UnknownOpError, match=r"'L__L_Fn_mid__ret_9' .*function op_nndct_clamp"):
        load_engine(FOLDER / "clamp.xmodel")
