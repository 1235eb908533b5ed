"""Post-training quantisation from Python: the network that is saved is the one that was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch
from torch import nn

from tutelage.core.images.input_form import FormError
from tutelage.core.model_package import PackageError, read_description
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.export.model_directory import ExportError
from tutelage.host.export.quantised_network import QuantisedNetwork, quantise, read_pictures
from tutelage.host.quantise.walker import UnsupportedOp
from tutelage.host.train.data import DataError, DataSet
from tutelage.host.train.data.data_set import make_form

SHAPE = (3, 12, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()


@pytest.fixture(scope="module")
def quantised(network: nn.Module, repo_root: Path) -> QuantisedNetwork:
    images = repo_root / "app" / "demo" / "images"
    return quantise(network, images, SHAPE, mean=[0.5, 0.4, 0.3], std=[0.5])


def test_it_is_near_the_float_network(network: nn.Module, quantised: QuantisedNetwork) -> None:
    images = torch.rand(16, *SHAPE) * 2 - 1
    with torch.no_grad():
        wanted = network(images)
    assert (quantised(images) - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_the_saved_files_are_the_network(quantised: QuantisedNetwork, tmp_path: Path) -> None:
    for labels in ((), ("a", "b", "c", "d")):  # the second in place of the first
        quantised.save(tmp_path / "mine", labels)
        description = read_description(tmp_path / "mine" / "model.toml")
        assert description.labels == (labels or ("0", "1", "2", "3"))
    assert description.form == quantised.form
    assert description.form.crop == "center" and description.form.mean[2] == 255 * 0.3
    images = torch.rand(8, *SHAPE) * 2 - 1
    wanted, rows = quantised(images).numpy(), images.permute(0, 2, 3, 1).numpy()
    for name in ("quantised.xmodel", "model.xmodel"):
        found = load_engine(tmp_path / "mine" / name).run(rows)
        np.testing.assert_array_equal(found, wanted)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "model.toml", "model.xmodel", "quantised.xmodel",
    }  # fmt: skip


def test_its_accuracy(quantised: QuantisedNetwork) -> None:
    images = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8)
    form = make_form(SHAPE, [0.5, 0.4, 0.3], [0.5])
    data = DataSet(images, torch.zeros(20, dtype=torch.int64), ("a", "b", "c", "d"), form)
    labels = quantised(data.inputs()).argmax(1)
    assert quantised.accuracy(DataSet(images, labels, data.classes, form)) == 100


def test_pixels_instead_of_files(network: nn.Module, repo_root: Path) -> None:
    form = make_form(SHAPE, crop="center")
    pixels = read_pictures(repo_root / "app" / "demo" / "images", form, most=7)
    assert pixels.shape == (7, *SHAPE) and pixels.dtype == torch.uint8
    assert torch.equal(quantise(network, pixels, SHAPE).student.log2_t,
                       quantise(network, pixels, SHAPE).student.log2_t)  # fmt: skip
    with pytest.raises(DataError, match="not uint8"):
        quantise(network, pixels.float(), SHAPE)
    with pytest.raises(DataError, match="not uint8"):
        quantise(network, pixels[..., 1:], SHAPE)


def test_wrong_use(
    network: nn.Module, quantised: QuantisedNetwork, tmp_path: Path, repo_root: Path
) -> None:
    images = repo_root / "app" / "demo" / "images"
    with pytest.raises(DataError, match="no images"):
        quantise(network, tmp_path, SHAPE)
    with pytest.raises(DataError, match="No such file"):
        quantise(network, tmp_path / "none", SHAPE)
    with pytest.raises(FormError, match="1 or 3 channels"):
        quantise(network, images, (12, 16, 3))
    with pytest.raises(FormError, match="mean and std go together"):
        quantise(network, images, SHAPE, mean=[0.5])
    with pytest.raises(UnsupportedOp, match=r"(?i)gelu"):
        quantise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU()), images, SHAPE)
    with pytest.raises(ValueError, match="3 labels, the network has 4 outputs"):
        quantised.save(tmp_path / "mine", ["a", "b", "c"])
    with pytest.raises(PackageError, match="empty label"):
        quantised.save(tmp_path / "mine", ["a", "b", "c", ""])
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file"):
        quantised.save(tmp_path / "file")
    assert not (tmp_path / "mine").exists()
