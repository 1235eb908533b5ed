"""The quantised student: gradients, fix points, calibration, and the law that it is its .xmodel."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu.arithmetic import MAX_SHIFT, pool_reciprocal
from dpu.engine import load_engine
from dpu.xir import Graph

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from host.networks import create  # noqa: E402
from host.networks.densenet import DenseNet  # noqa: E402
from host.quantise.calibrate import calibrate  # noqa: E402
from host.quantise.fake import FakeQuantise, quantise  # noqa: E402
from host.quantise.layers import Add, AvgPool, Concat, Conv, MaxPool  # noqa: E402
from host.quantise.lower import NotDeployable, save, to_graph  # noqa: E402
from host.quantise.student import Bits, Student  # noqa: E402

TEST_IMAGES = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
SMALL = dict(growth_rate=4, block_config=(2, 2), in_channels=1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Two threads that share a busy core wait for each other a hundred times longer than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(repo_root: Path) -> Tensor:
    """Fashion-MNIST: the 300 shipped images, and 1,000 test images where Debian's package is."""
    paths = sorted((repo_root / "app" / "demo" / "images").glob("*/*.png"))
    grey = np.stack([np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in paths])
    if TEST_IMAGES.is_file():
        raw = np.frombuffer(gzip.decompress(TEST_IMAGES.read_bytes())[16:], np.uint8)
        grey = np.concatenate([grey, raw.reshape(-1, 28, 28)[:1000]])
    return (torch.from_numpy(grey.astype(np.float32)) - 128)[:, None] / 128


# -- one quantiser ------------------------------------------------------------------------


def _plain(x: Tensor, log2_t: Tensor, bits: int, signed: bool, residue: Tensor | None) -> Tensor:
    """TQT's forward (arXiv:1903.08066, eq. 4) with a threshold that is not rounded up.

    With `residue` = round(u) - u held fast, it is smooth in x and log2_t away from the clips,
    and its derivatives are those that TQT defines (eq. 6 and 8).
    """
    magnitude = bits - 1 if signed else bits
    lowest, highest = -(2**magnitude) if signed else 0, 2**magnitude - 1
    step = 2.0 ** (log2_t - magnitude)
    scaled = x / step
    rounded = torch.floor(scaled + 0.5) if residue is None else scaled + residue
    # Clipped is what rounds out of the range; the smooth form takes the clip for given, too.
    return step * rounded.clamp(lowest, highest)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("ceiling", [-3, 0, 2])
def test_gradients_against_finite_differences(bits: int, signed: bool, ceiling: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(500, generator=generator, dtype=torch.float64) * 2.0**ceiling
    g = torch.randn(500, generator=generator, dtype=torch.float64)
    magnitude = bits - 1 if signed else bits
    lowest, highest = -(2**magnitude) if signed else 0, 2**magnitude - 1
    x.requires_grad_()
    log2_t = torch.tensor(float(ceiling), dtype=torch.float64, requires_grad=True)
    y = FakeQuantise.apply(x, log2_t, magnitude - ceiling, lowest, highest, False)
    (y * g).sum().backward()

    with torch.no_grad():
        scaled = x * 2.0 ** (magnitude - ceiling)
        residue = torch.floor(scaled + 0.5) - scaled
        assert torch.equal(y, _plain(x, log2_t, bits, signed, None))
        h = 1e-6
        slope = (
            _plain(x, log2_t + h, bits, signed, residue)
            - _plain(x, log2_t - h, bits, signed, residue)
        ) / (2 * h)
        # At a limit that is reached by rounding exactly, the clip has a corner: compare the rest.
        rounded = torch.floor(scaled + 0.5)
        smooth = (rounded != lowest) & (rounded != highest)
        expected = torch.where(smooth, slope, 2.0 ** (ceiling - magnitude) * math.log(2) * y_of(y))
        inside = (rounded >= lowest) & (rounded <= highest)
        expected = torch.where(
            inside, math.log(2) * 2.0 ** (ceiling - magnitude) * residue, expected
        )
        expected = torch.where(inside, expected, math.log(2) * y)
        assert torch.allclose(slope[smooth], expected[smooth], atol=1e-6)
    assert log2_t.grad is not None and x.grad is not None
    torch.testing.assert_close(log2_t.grad, (expected * g).sum())
    torch.testing.assert_close(x.grad, g * inside)


def y_of(y: Tensor) -> Tensor:
    return y
