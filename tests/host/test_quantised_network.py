"""Quantisation from Python: any calibration data, any training loop, and the exported files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.core.images.input_form import FormError, InputForm
from tutelage.core.model_package import PackageError, read_description
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.compile.target import CompileUsageError, compiled_for
from tutelage.host.export.calibration_images import input_names, inputs_of, read_pictures
from tutelage.host.export.model_directory import ExportError
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.walker import UnsupportedOp
from tutelage.host.train.data import DataError, DataSet
from tutelage.host.train.data.data_set import make_form, normalise
from tutelage.host.train.evaluation import accuracy

SHAPE = (3, 12, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def photos(repo_root: Path) -> Path:
    return repo_root / "app" / "demo" / "images"


@pytest.fixture(scope="module")
def quantised(network: nn.Module, photos: Path) -> Student:
    return tutelage.quantise(network, photos, SHAPE, mean=[0.5, 0.4, 0.3], std=[0.5])


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Normalised images."""
    return torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def logits(student: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = student(images)
    return found


# -- calibration --------------------------------------------------------------------------------


def test_it_is_near_the_float_network(
    network: nn.Module, quantised: Student, images: Tensor
) -> None:
    wanted = logits(network, images)
    assert (logits(quantised, images) - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_the_network_stays_as_it_is(network: nn.Module, images: Tensor) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    student = tutelage.quantise(network, images)
    assert network.training and not student.training
    network.eval()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


LOADERS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda images: images,
    "tensors": lambda images: images.split(5),
    "pairs": lambda images: DataLoader(TensorDataset(images, torch.arange(24)), 7),
    "generator": lambda images: ([part, "label"] for part in images.split(24)),
    "hugging face": lambda images: [
        {"pixel_values": part, "labels": torch.zeros(len(part))} for part in images.split(9)
    ],
    "argument": lambda images: [{"input": images, "other": images[..., 1:]}],
    "only map": lambda images: [{"image": images, "label": torch.zeros(24)}],
    "double": lambda images: images.double(),
    "more": lambda images: [images, images * 100],
}


@pytest.mark.parametrize("kind", LOADERS)
def test_calibration_from_any_batches(kind: str, network: nn.Module, images: Tensor) -> None:
    """The same images in any form give the same thresholds; `images` bounds their number."""
    wanted = tutelage.quantise(network, images).log2_t
    student = tutelage.quantise(network, LOADERS[kind](images), images=24)
    assert torch.equal(student.log2_t, wanted)


def test_a_loader_is_asked_for_no_more_than_is_used(network: nn.Module, images: Tensor) -> None:
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield images[:8]

    tutelage.quantise(network, endless(), images=20)
    assert len(taken) == 3


def test_pixels_in_place_of_inputs(network: nn.Module, photos: Path) -> None:
    """uint8 images of a loader are normalised by mean and std, like those of a directory."""
    form = make_form(SHAPE, [0.5], [0.25], crop="center")
    pixels = read_pictures(photos, form, most=7)
    assert pixels.shape == (7, *SHAPE) and pixels.dtype == torch.uint8
    labelled = DataLoader(TensorDataset(pixels, torch.arange(7)), 4)
    one = tutelage.quantise(network, labelled, mean=[0.5], std=[0.25])
    two = tutelage.quantise(network, normalise(pixels, form), mean=[0.5], std=[0.25])
    three = tutelage.quantise(network, photos, SHAPE, form=form, images=7)
    assert torch.equal(one.log2_t, two.log2_t) and torch.equal(one.log2_t, three.log2_t)
    assert one.form == two.form == three.form == form
    assert tutelage.quantise(network, pixels).form == make_form(SHAPE, crop="center")


def test_the_input_s_fix_point_is_measured_where_no_form_gives_it(network: nn.Module) -> None:
    wide = torch.rand(8, *SHAPE) * 5
    student = tutelage.quantise(network, wide)
    assert student.form is None and student.fix_points().activations["input"] == 4


def test_bit_widths(network: nn.Module, images: Tensor) -> None:
    assert tutelage.quantise(network, images, bits=4).bits == Bits(weights=4)
    assert tutelage.quantise(network, images, bits=Bits(4, 4)).bits == Bits(4, 4)
    with pytest.raises(ValueError, match="2 to 8"):
        tutelage.quantise(network, images, bits=9)


def test_activations_to_replace_and_at_the_end(images: Tensor, tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid()
    ).eval()
    with pytest.raises(UnsupportedOp, match="SiLU"):
        tutelage.quantise(network, images)
    student = tutelage.quantise(
        network, images, replace={"silu": "hardswish"}, mean=[0.5], std=[0.5]
    )
    tutelage.export(student, tmp_path, target=None)
    assert read_description(tmp_path / "model.toml").activation == "sigmoid"


class Two(nn.Module):
    """A network with two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, left: Tensor, right: Tensor, twice: bool = False) -> tuple[Tensor, Tensor]:
        y = self.conv(left + right)
        return torch.relu(y), y


def test_the_inputs_of_a_batch(network: nn.Module, images: Tensor) -> None:
    assert input_names(Two()) == ["left", "right"] and input_names(network) == ["input"]
    two, label = (images[:2], images[2:4]), torch.zeros(2)
    for batch in (two, [*two, label], (two, label), {"right": two[1], "left": two[0], "y": label}):
        found = inputs_of(Two(), batch)
        assert len(found) == 2 and found[0] is two[0] and found[1] is two[1]


def test_several_inputs_and_outputs(images: Tensor, tmp_path: Path) -> None:
    pairs = DataLoader(TensorDataset(images, images * 2, torch.zeros(24)), 8)
    network = Two().eval()
    student = tutelage.quantise(network, pairs)
    assert [x.shape for x in student(images, images)] == [(24, 4, 10, 14)] * 2
    again = tutelage.quantise(network, None, (SHAPE, SHAPE))
    again.load_state_dict(student.state_dict())
    assert torch.equal(again(images, images)[1], student(images, images)[1])
    with pytest.raises(ExportError, match=r"to write the \.xmodel only"):
        tutelage.export(student, tmp_path)
    with pytest.raises(DataError, match=r"must be float or uint8 .* of \(3, 12, 16\)"):
        tutelage.quantise(network, pairs, SHAPE)


# -- training in any loop, and saving -----------------------------------------------------------


def test_it_learns_in_a_loop_of_one_s_own(network: nn.Module, images: Tensor) -> None:
    labels = (images.mean((1, 2, 3)) > images.mean()).long() + 2 * (images[:, 0, 0, 0] > 0).long()
    student = tutelage.quantise(network, images)
    before = student.log2_t.detach().clone()
    groups = tutelage.parameter_groups(student, lr=1e-2, threshold_lr=3e-2, weight_decay=1e-4)
    optimiser = torch.optim.Adam(groups)
    assert sum(len(group["params"]) for group in groups) == len(list(student.parameters()))
    assert groups[-1]["params"] == [student.log2_t] and groups[-1]["weight_decay"] == 0
    losses = []
    for step in range(30):
        student.train()
        student.freeze_norms(step > 20)
        loss = F.cross_entropy(student(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] and not torch.equal(student.log2_t, before)
    # The images' own threshold is not trained.
    assert student.log2_t[student.images.index] == before[student.images.index]


def test_a_state_dict_makes_it_again(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    student = tutelage.quantise(network, images, mean=[0.5], std=[0.5])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    torch.save(student.state_dict(), tmp_path / "student.pt")
    again = tutelage.quantise(network, None, SHAPE, mean=[0.5], std=[0.5])
    again.load_state_dict(torch.load(tmp_path / "student.pt", weights_only=True))
    assert torch.equal(logits(again, images), logits(student, images))
    assert again.form == student.form


def test_it_moves_between_devices_and_types_of_mode(network: nn.Module, images: Tensor) -> None:
    student = tutelage.quantise(network, images)
    assert {p.device.type for p in student.to("meta").parameters()} == {"meta"}


# -- export -------------------------------------------------------------------------------------


def test_the_exported_files_are_the_network(
    quantised: Student, images: Tensor, tmp_path: Path
) -> None:
    quantised.train()  # an export does not depend on the mode
    for labels in ((), ("a", "b", "c", "d")):  # the second replaces the first
        tutelage.export(quantised, tmp_path / "mine", labels=labels)
        description = read_description(tmp_path / "mine" / "model.toml")
        assert description.labels == (labels or ("0", "1", "2", "3"))
    assert quantised.training
    quantised.eval()
    assert description.form == quantised.form
    assert description.form.crop == "center" and description.form.mean[2] == 255 * 0.3
    wanted, rows = logits(quantised, images).numpy(), images.permute(0, 2, 3, 1).numpy()
    for name in ("quantised.xmodel", "model.xmodel"):
        found = load_engine(tmp_path / "mine" / name).run(rows)
        np.testing.assert_array_equal(found, wanted)
    session = onnxruntime.InferenceSession(tmp_path / "mine" / "model.onnx")
    (found,) = session.run(None, {"images": images.numpy()})
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "model.onnx", "model.toml", "model.xmodel", "quantised.xmodel",
    }  # fmt: skip
    assert set(description.checksums) == {"model.onnx", "model.xmodel", "quantised.xmodel"}
    assert compiled_for(tmp_path / "mine" / "model.xmodel") == "DPUCZDX8G_ISA1_B4096"


@pytest.mark.parametrize("target", ["emulator", None, "zcu102"])
def test_the_target(target: str | None, quantised: Student, tmp_path: Path) -> None:
    tutelage.export(quantised, tmp_path, target=target)
    assert (tmp_path / "model.xmodel").exists() == (target is not None)
    if target is not None:
        made = compiled_for(tmp_path / "model.xmodel")
        assert (made == "TUTELAGE_EMULATOR") == (target == "emulator")


def test_the_form_of_an_export(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    student = tutelage.quantise(network, images)
    with pytest.raises(ExportError, match=r"give mean=\[...\] and std="):
        tutelage.export(student, tmp_path)
    with pytest.raises(ExportError, match="form is for images of 3x16x12, the network's are 3x12"):
        tutelage.export(student, tmp_path, form=InputForm(12, 16, "rgb"))
    tutelage.export(student, tmp_path, mean=[0.0], std=[1.0], target=None, activation="none")
    description = read_description(tmp_path / "model.toml")
    assert description.form.scale == (1 / 255,) * 3 and description.activation == "none"
    tutelage.export(student, tmp_path, form=InputForm(16, 12, "bgr", (1.0,)), target=None)
    assert read_description(tmp_path / "model.toml").form.colour == "bgr"


def test_its_accuracy(quantised: Student) -> None:
    images = torch.randint(0, 256, (20, *SHAPE), dtype=torch.uint8)
    form = make_form(SHAPE, [0.5, 0.4, 0.3], [0.5])
    data = DataSet(images, torch.zeros(20, dtype=torch.int64), ("a", "b", "c", "d"), form)
    labels = logits(quantised, data.inputs()).argmax(1)
    assert accuracy(quantised, DataSet(images, labels, data.classes, form)) == 100


# -- wrong use ----------------------------------------------------------------------------------


def test_calibration_that_does_not_fit(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    cases: list[tuple[Any, Any, str]] = [
        (tmp_path, SHAPE, "no images"),
        (tmp_path / "none", SHAPE, "No such file"),
        (tmp_path, None, "input_shape=.* is missing: pictures of a directory"),
        (None, None, "input_shape=.* is missing: without calibration"),
        ([], None, "the loader has no batch"),
        (
            images[..., 1:],
            SHAPE,
            r"float32 \[24, 3, 12, 15\]; they must be .* \(N, C, H, W\) of \(3, 12, 16",
        ),
        (images.long(), None, r"int64 \[24, 3, 12, 16\]; they must be float or uint8 \(N, C, H, W"),
        (images[0], None, "must be float or uint8"),
        ([{"a": images, "b": images}], None, r"\{a: float32 \[24, 3, 12, 16\], b: .*1 input tens"),
        ([["cat.png"]], None, r"\(str\); it must be"),
        ([3], None, "a calibration batch is int"),
        ([images, images[..., 1:]], None, r"batch is \(float32 \[24, 3, 12, 15\]\), the first"),
    ]
    for calibration, shape, message in cases:
        with pytest.raises(DataError, match=message):
            tutelage.quantise(network, calibration, shape)
    with pytest.raises(ValueError, match="not finite"):
        tutelage.quantise(network, images * torch.inf)


def test_broken_pictures_are_left_out(
    network: nn.Module, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = sorted(photos.rglob("*.png"))[:2]
    (tmp_path / "a.png").write_bytes(first.read_bytes()[:90])
    with pytest.raises(DataError, match=r"a\.png: image file is cut off; no image can be read"):
        tutelage.quantise(network, tmp_path, SHAPE)
    (tmp_path / "b.png").write_bytes(second.read_bytes())
    caplog.clear()
    found = tutelage.quantise(network, tmp_path, SHAPE)
    assert "left out 1 broken image: " in caplog.text and "a.png: image file is cut off" in (
        caplog.text
    )
    (tmp_path / "a.png").unlink()
    assert torch.equal(found.log2_t, tutelage.quantise(network, tmp_path, SHAPE).log2_t)


def test_images_of_another_size(quantised: Student, images: Tensor) -> None:
    with pytest.raises(
        ValueError,
        match=r"images are 24x3x12x15 \(NxCxHxW\), but this student was made for Nx3x12x16; ",
    ):
        quantised(images[..., 1:])
    with pytest.raises(ValueError, match=r"24x1x12x16 .* made for Nx3x12x16"):
        quantised(images[:, :1])
    with pytest.raises(TypeError, match="images are uint8; pass float tensors"):
        quantised(images.to(torch.uint8))


def test_networks_made_for_another_size(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 12 * 12, 5))
    with pytest.raises(
        UnsupportedOp,
        match="Sequential fails on an input of 3x12x16: Linear takes 576 values and gets 768 at 2; "
        "give the channels, height and width that it was made for",
    ):
        tutelage.quantise(network, images)


def test_wrong_use(
    network: nn.Module, quantised: Student, tmp_path: Path, photos: Path, images: Tensor
) -> None:
    with pytest.raises(FormError, match="1 or 3 channels"):
        tutelage.quantise(network, photos, (12, 16, 3))
    with pytest.raises(FormError, match="mean and std go together"):
        tutelage.quantise(network, photos, SHAPE, mean=[0.5])
    form = InputForm(16, 12, "rgb")
    with pytest.raises(FormError, match="not both"):
        tutelage.quantise(network, images, form=form, mean=[0.5], std=[0.5])
    with pytest.raises(FormError, match=r"form is for images of \(3, 12, 16\)"):
        tutelage.quantise(network, images[..., 1:], form=form)
    with pytest.raises(UnsupportedOp, match=r"(?i)softsign"):
        tutelage.quantise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softsign()), photos, SHAPE)
    with pytest.raises(ValueError, match="3 labels, but the network has 4 outputs"):
        tutelage.export(quantised, tmp_path / "mine", labels=["a", "b", "c"])
    with pytest.raises(PackageError, match="empty label"):
        tutelage.export(quantised, tmp_path / "mine", labels=["a", "b", "c", ""])
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file"):
        tutelage.export(quantised, tmp_path / "file")
    broken = tutelage.quantise(network, images, mean=[0.5], std=[0.5])
    with torch.no_grad():
        broken.log2_t[1] = torch.nan
    with pytest.raises(ExportError, match="not finite: train with a lower"):
        tutelage.export(broken, tmp_path / "mine")
    with pytest.raises(CompileUsageError, match="no target 'zcu105'"):
        tutelage.export(quantised, tmp_path / "mine", target="zcu105")
    assert not (tmp_path / "mine").exists()


# -- wrong arguments, and arguments that are not lists --------------------------------------------


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_mean_and_std_may_be_arrays(
    network: nn.Module, images: Tensor, tmp_path: Path, kind: Callable[[list[float]], Any]
) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.5, 0.25]
    student = tutelage.quantise(network, images, mean=kind(mean), std=kind(std))
    assert student.form is not None
    assert student.form.mean == pytest.approx([255 * value for value in mean])
    tutelage.export(student, tmp_path, mean=kind(mean), std=kind(std), target=None)
    assert read_description(tmp_path / "model.toml").form == student.form


def test_mean_and_std_are_those_of_pixels_up_to_1(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(FormError, match="mean is 123; it must be 0 to 1"):
        tutelage.quantise(network, images, mean=[123, 116, 103], std=[0.2, 0.2, 0.2])
    with pytest.raises(FormError, match="std is 58"):
        tutelage.quantise(network, images, mean=[0.5], std=[58.0])


def test_not_a_network_and_not_quantised(
    network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=r"network must be a torch\.nn\.Module, not function"):
        tutelage.quantise(lambda: network, images)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Sequential is not quantised"):
        tutelage.export(network, tmp_path)  # type: ignore[arg-type]
