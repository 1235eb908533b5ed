"""Augmentation by its papers: random resized crop, MixUp, CutMix; and torchvision's."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.__main__ import main  # noqa: E402
from tutelage.core.commands import MissingPackage  # noqa: E402
from tutelage.core.images.fitter import ImageFitter  # noqa: E402
from tutelage.core.images.input_form import InputForm  # noqa: E402
from tutelage.host.networks import torchvision_import  # noqa: E402
from tutelage.host.train.config import make_config  # noqa: E402
from tutelage.host.train.data import DataSet, load  # noqa: E402
from tutelage.host.train.data.augmentation import GREY, Augmentation  # noqa: E402
from tutelage.host.train.data.mixing import mix  # noqa: E402
from tutelage.host.train.data.random_window import random_window  # noqa: E402
from tutelage.host.train.data.reading import Reader, Request  # noqa: E402
from tutelage.host.train.data.torchvision_transforms import make_transforms  # noqa: E402
from tutelage.host.train.feeding import Feed  # noqa: E402
from tutelage.host.train.methods import CO_STUDYING, phase_losses  # noqa: E402
from tutelage.host.train.run_data import RunData, load_data  # noqa: E402


def _generator(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


# -- random resized crop -----------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**31 - 1),
    least=st.floats(0.01, 1),
    aspect=st.floats(0.2, 5),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
)
def test_a_random_part_is_inside(
    seed: int, least: float, aspect: float, height: int, width: int
) -> None:
    part = random_window(seed, least, aspect, height, width)
    top, left, down, across = part
    assert top >= 0 and down >= 1 and top + down <= height
    assert left >= 0 and across >= 1 and left + across <= width
    assert part == random_window(seed, least, aspect, height, width)


@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_a_random_part_has_the_distribution_of_the_paper(aspect: float) -> None:
    """Areas are uniform from 8 % to all, aspect ratios log-uniform from 3/4 to 4/3;
    crops that exceed the picture are drawn again, which makes large ones rarer."""
    parts = np.array([random_window(seed, 0.08, aspect, 1000, 1600) for seed in range(4000)])
    areas = parts[:, 2] * parts[:, 3] / 1.6e6
    ratios = parts[:, 3] / parts[:, 2] / aspect
    assert 0.079 <= areas.min() < 0.09 and areas.max() <= 1
    assert ratios.min() >= 0.745 and ratios.max() <= 1.345
    small = areas < 0.4  # all of which fit, whatever their shape
    assert np.histogram(areas[small], 4, (0.08, 0.4))[0].std() < 0.1 * small.sum() / 4
    logs = np.log(ratios[small])
    assert abs(np.mean(logs)) < 0.02
    assert np.std(logs) == pytest.approx(math.log(16 / 9) / math.sqrt(12), rel=0.05)
    tops = parts[small, 0] / (1000 - parts[small, 2])
    assert np.mean(tops) == pytest.approx(0.5, abs=0.03) and tops.min() < 0.01 < 0.99 < tops.max()


def test_a_part_that_never_fits_is_the_middle() -> None:
    assert random_window(0, 1.0, 1.0, 10, 100) == (0, 45, 10, 10)
    assert random_window(0, 1.0, 4.0, 100, 40) == (45, 0, 10, 40)


def test_the_part_is_of_the_whole_picture_and_resized_as_the_application_does(
    tmp_path: Path,
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    for name in ("train/x/a.png", "test/x/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name), picture)
    table = {
        "method": "float", "student": {"network": "densenet-tiny"},
        "data": {"kind": "folder", "path": str(tmp_path), "size": [10, 14]},
        "augmentation": {"random_resized_crop": 0.1},
    }  # fmt: skip
    train, test = load_data(make_config(table))
    assert train.is_streamed and not test.is_streamed
    augmentation = make_config(table).augmentation
    drawn = augmentation.draw(1, _generator())
    (batch,) = Reader((train,), augmentation)([Request(0, torch.tensor([0]), drawn)])
    top, left, down, across = random_window(int(drawn["seed"][0]), 0.1, 1.4, 60, 90)
    fit = ImageFitter(InputForm(14, 10, "rgb"))
    wanted = fit(picture[top : top + down, left : left + across])
    np.testing.assert_array_equal(batch.images[0].permute(1, 2, 0).numpy(), wanted)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_an_image_in_memory(channels: int) -> None:
    """A uniform grey value or colour is unchanged, and so is the order of channels."""
    colour = torch.tensor([200, 100, 30][:channels], dtype=torch.uint8)
    images = colour.view(1, channels, 1, 1).repeat(3, 1, 9, 12)
    images[:, :, :, 6:] //= 2
    data = DataSet(images, torch.tensor([2, 0, 1]), ("a", "b", "c"))
    augmentation = Augmentation(random_resized_crop=0.3)
    drawn = augmentation.draw(3, _generator(1))
    (batch,) = Reader((data,), augmentation)([Request(0, torch.arange(3), drawn)])
    assert batch.images.shape == images.shape and batch.labels.tolist() == [2, 0, 1]
    assert not torch.equal(batch.images, images)
    for image in batch.images:
        assert torch.equal(image[:, 0, 0], colour) or torch.equal(image[:, 0, 0], colour // 2)


# -- MixUp and CutMix --------------------------------------------------------------------------


def _batch(count: int = 5, side: int = 40, classes: int = 7) -> tuple[Any, Any]:
    images = torch.arange(1, count + 1).float().view(-1, 1, 1, 1).expand(count, 2, side, side)
    return images, torch.arange(count) % classes


def test_mixup_is_a_convex_combination_of_images_and_labels() -> None:
    """x = share x_i + (1 - share) x_j and y alike (equation 1 of its paper)."""
    images, labels = _batch()
    mixed, soft = mix(images, labels, 7, 3, 0.4, 0.0)
    share = float(soft[0, labels[1]])
    assert 0 <= share <= 1 and mixed.shape == images[1:].shape
    torch.testing.assert_close(mixed, share * images[1:] + (1 - share) * images[:-1])
    one_hot = torch.nn.functional.one_hot(labels, 7).float()
    torch.testing.assert_close(soft, share * one_hot[1:] + (1 - share) * one_hot[:-1])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_is_beta_distributed(alpha: float) -> None:
    images, labels = _batch(2, 1)
    shares = np.array([float(mix(images, labels, 7, s, alpha, 0.0)[1][0, 1]) for s in range(1500)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


@pytest.mark.parametrize("height, width", [(40, 40), (20, 60)])
def test_cutmix_pastes_a_box_and_mixes_the_labels_by_its_area(height: int, width: int) -> None:
    images, labels = _batch()
    images = images[:, :, :1, :1].expand(5, 2, height, width)
    areas = []
    for seed in range(200):
        mixed, soft = mix(images, labels, 7, seed, 0.0, 1.0)
        pasted = mixed[0, 0] == images[0, 0]
        assert torch.equal(mixed[0, 0] == images[1, 0], ~pasted)
        rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
        if len(rows):
            box = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all() and int(box.sum()) == int(pasted.sum())
        for one in range(4):  # the same box in each image of the batch
            assert torch.equal(mixed[one, 1] == images[one, 1], pasted)
        share = float(pasted.float().mean())
        assert float(soft[0, labels[0]]) == pytest.approx(share, abs=1e-6)
        assert torch.allclose(soft.sum(1), torch.ones(4))
        areas.append(share)
    # Uniform with alpha = 1, except for clipping at borders: 4/9 of the squared side on average.
    assert 0 <= min(areas) < 0.05 and max(areas) > 0.5 and 0.25 < np.mean(areas) < 0.45


def test_with_both_each_has_half_of_the_batches() -> None:
    images, labels = _batch()
    cut = sum(
        set(mix(images, labels, 7, s, 1.0, 1.0)[0].flatten().tolist()) <= {1, 2, 3, 4, 5}
        for s in range(300)
    )
    assert 110 < cut < 190


def test_losses_take_soft_labels() -> None:
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    labels = torch.tensor([1, 0, 2])
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    for smoothing in (0.0, 0.1):
        hard = phase_losses(CO_STUDYING, student, teacher, labels, 4.0, smoothing)
        soft = phase_losses(CO_STUDYING, student, teacher, one_hot, 4.0, smoothing)
        torch.testing.assert_close(hard, soft)
    mixed = 0.3 * one_hot + 0.7 * one_hot.roll(1, 0)
    found, _ = phase_losses(CO_STUDYING, student, None, mixed, 4.0)
    wanted = -(mixed * student.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found, wanted)


class _Process:
    """The part of an Accelerator that a Feed uses."""

    device = "cpu"

    def __init__(self, index: int, count: int) -> None:
        self.process_index, self.num_processes = index, count


@pytest.mark.parametrize("streamed", [False, True])
def test_processes_together_have_the_batches_of_one(repo_root: Path, streamed: bool) -> None:
    """Tested with all random augmentations, and with images mixed across the slices."""
    config = make_config({
        "method": "float", "student": {"network": "densenet-tiny"},
        "data": {"kind": "folder", "path": str(repo_root / "app/demo/images"), "size": 12,
                 "in_memory_mib": 0 if streamed else 8, "workers": 0},
        "augmentation": {"flip": True, "shift": 1, "cutout": 2, "mixup": 0.5, "cutmix": 0.5,
                         "random_resized_crop": 0.5 if streamed else 0.0},
        "training": {"batch_size": 12},
    })  # fmt: skip
    sets = RunData(*load_data(config))
    whole = Feed(config, sets, _Process(0, 1))
    slices = [Feed(config, sets, _Process(n, 3)) for n in range(3)]
    assert whole.steps == 20
    for one, *parts in zip(whole.batches(4), *(feed.batches(4) for feed in slices), strict=True):
        images, labels, _ = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        assert torch.equal(one[0], images) and torch.equal(one[1], labels)
        assert one[1].shape == (12, 10)


# -- torchvision -------------------------------------------------------------------------------


@pytest.fixture
def transforms() -> None:
    """Skip if torchvision is not installed, or is incompatible."""
    try:
        torchvision_import.import_torchvision()
    except ImportError as error:
        pytest.skip(f"needs torchvision: {error}")


def _photo(channels: int = 3) -> Any:
    ramp = np.linspace(40, 200, 32).astype(np.uint8)
    planes = [np.add.outer(ramp // 2, ramp // 2), np.tile(ramp, (32, 1)), np.tile(ramp, (32, 1)).T]
    return torch.from_numpy(np.stack(planes[:channels]))


SETTINGS = [
    Augmentation(rand_augment=9),
    Augmentation(colour_jitter=0.4),
    Augmentation(random_erasing=0.7, cutout=4),
    Augmentation(flip=True, rand_augment=5, colour_jitter=0.2, random_erasing=0.5),
]


@pytest.mark.parametrize("augmentation", SETTINGS, ids=lambda a: str(a.rand_augment))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_slice_has_the_transforms_of_the_whole(
    transforms: None, augmentation: Augmentation, channels: int
) -> None:
    images = _photo(channels).repeat(6, 1, 1, 1)
    before = images.clone()
    drawn = augmentation.draw(6, _generator(2))
    torch.manual_seed(9)
    state = torch.get_rng_state()
    whole = augmentation.apply(images, drawn)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert whole.shape == images.shape and whole.dtype == torch.uint8
    assert whole.is_contiguous(memory_format=torch.channels_last)
    part = augmentation.apply(images[2:5], {name: v[2:5] for name, v in drawn.items()})
    assert torch.equal(part, whole[2:5])
    assert len({image.numpy().tobytes() for image in whole}) > 2


def test_rand_augment_takes_its_magnitude(transforms: None) -> None:
    """Random operations, whose effect on the image grows with the magnitude."""
    images = _photo().repeat(60, 1, 1, 1)
    changes = []
    for magnitude in (1, 9, 25):
        augmentation = Augmentation(rand_augment=magnitude)
        found = augmentation.apply(images, augmentation.draw(60, _generator()))
        changes.append(float((found.float() - images.float()).abs().mean()))
    assert changes[0] < changes[1] < changes[2]


def test_colour_jitter_stays_within_its_factors(transforms: None) -> None:
    grey = torch.full((200, 1, 8, 8), 100, dtype=torch.uint8)  # without contrast or saturation
    augmentation = Augmentation(colour_jitter=0.3)
    found = augmentation.apply(grey, augmentation.draw(200, _generator())).flatten(1)
    assert bool((found == found[:, :1]).all())
    assert 70 <= int(found.min()) < 75 and 125 < int(found.max()) <= 130


def test_random_erasing_is_a_grey_rectangle_in_its_share_of_images(transforms: None) -> None:
    """Area 2 % to 33 % of the image, aspect ratio 0.3 to 3.3 (section 4.2 of its paper)."""
    images = torch.zeros(400, 3, 40, 40, dtype=torch.uint8)
    augmentation = Augmentation(random_erasing=0.25)
    erased = augmentation.apply(images, augmentation.draw(400, _generator()))[:, 0] == GREY
    assert 70 < int(erased.flatten(1).any(1).sum()) < 130
    for one in erased[erased.flatten(1).any(1)]:
        rows, columns = one.any(1).sum(), one.any(0).sum()
        assert int(one.sum()) == int(rows * columns)
        assert 0.015 < float(one.float().mean()) < 0.35 and 0.25 < float(rows / columns) < 3.7


def test_without_torchvision_one_line_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    repo_root: Path,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "torchvision", None)
    torchvision_import.import_torchvision.cache_clear()
    make_transforms.cache_clear()
    try:
        with pytest.raises(MissingPackage, match="pip install torchvision"):
            Augmentation(colour_jitter=0.1).transforms()
        assert Augmentation(mixup=1.0, random_resized_crop=0.1).transforms() == ((), ())
        config = tmp_path / "run.toml"
        config.write_text(
            f'method = "float"\n[data]\nkind = "folder"\npath = "{repo_root}/app/demo/images"\n'
            '[augmentation]\nrand_augment = 9\n[student]\nnetwork = "densenet-tiny"\n'
        )
        assert main(["train", str(config), "--output", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert "pip install torchvision" in error and error.count("\n") == 1
        assert not list((tmp_path / "run").glob("*.safetensors"))
    finally:
        torchvision_import.import_torchvision.cache_clear()
        make_transforms.cache_clear()


def test_a_folder_is_read_as_it_was_without_new_settings(repo_root: Path) -> None:
    """Random numbers of older runs are unchanged."""
    augmentation = Augmentation(flip=True, shift=2, cutout=3)
    generator = _generator(4)
    drawn = augmentation.draw(5, _generator(4))
    assert torch.equal(drawn["flip"], torch.rand(5, generator=generator) < 0.5)
    assert torch.equal(drawn["shift"], torch.randint(5, (5, 2), generator=generator))
    assert torch.equal(drawn["cutout"], torch.rand(5, 2, generator=generator))
    assert set(drawn) == {"flip", "shift", "cutout"}
    assert load("folder", repo_root / "app/demo/images", "test").shape == (3, 28, 28)
