"""Public files made by AMD's tools for DPUs of this kind run completely."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest

from tutelage.core.errors import UnsortedWarning, XmodelError
from tutelage.core.fingerprint import foreign
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.xmodel.graph import Graph

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "models" / "corpus"
PLUGINS = load_plugins(Path(__file__).with_name("plugins.py"))


pytestmark = pytest.mark.filterwarnings(
    "ignore::tutelage.core.errors.UnsortedWarning"
)  # one is not sorted


def _is_for_this_kind(path: Path) -> bool:
    """Return whether a file is quantised, or compiled for a DPUCZDX8G."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsortedWarning)
            return foreign(Graph.deserialize(path)) is None
    except XmodelError:  # one is damaged
        return False


PATHS = [path for path in sorted(FOLDER.glob("*.xmodel")) if _is_for_this_kind(path)]


def _random_inputs(model: Model, batch: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    arrays = []
    for op in model.program.inputs:
        tensor = op.get_output_tensor()
        values = rng.integers(-128, 128, [batch, *tensor.dims[1:]])
        arrays.append(values.astype(np.int8) if tensor.is_int8 else values.astype(np.float32) / 64)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_both_engines_agree_in_every_tensor(shared_dir: Path, path: Path) -> None:
    fast, reference = (
        load_engine(path, engine, PLUGINS, trace=True) for engine in ("fast", "reference")
    )
    inputs = _random_inputs(fast)
    found, wanted = fast.trace(*inputs), reference.trace(*inputs)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    # As a user runs it: only the outputs, for more than one image.
    outputs = fast.run_all(*_random_inputs(fast, 2))
    assert all(len(values) == 2 for values in outputs.values())


def test_all_of_them_are_here(shared_dir: Path) -> None:
    """These do not include files for other DPUs."""
    assert len(PATHS) >= 13
    names = {path.stem for path in PATHS}
    assert {
        "densebox_kv260",
        "plate_detect_kv260",
        "ssd_adas_kv260",
        "zerodce_zcu104",
        "mnist_cnn_quantised",
        "cifar_resnet_quantised",
        "mnist_prelu_zcu104_vai14",
    } < names
    assert not {"mnist_cnn_vck190", "mnist_cnn_u50", "mnist_prelu_vek280"} & names


@pytest.mark.parametrize("name", ["mnist_cnn_quantised", "mnist_cnn_zcu104"])
def test_a_quantised_file_classifies_as_its_compiled_one(shared_dir: Path, name: str) -> None:
    """9,894 of MNIST's 10,000 test images, pixels in [0, 1]; in both engines."""

    def values(kind: str, offset: int) -> np.ndarray:
        packed = (shared_dir / "data" / f"t10k-{kind}-ubyte.gz").read_bytes()
        return np.frombuffer(gzip.decompress(packed), np.uint8, offset=offset)

    images = values("images-idx3", 16).reshape(-1, 28, 28, 1).astype(np.float32) / 255
    scores = load_engine(FOLDER / f"{name}.xmodel", "fast").run(images)
    assert (scores.argmax(1) == values("labels-idx1", 8)).sum() == 9894
    reference = load_engine(FOLDER / f"{name}.xmodel", "reference")
    np.testing.assert_array_equal(reference.run(images[:200]), scores[:200])
