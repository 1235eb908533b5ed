"""Frozen parameters, and parameters that a network uses twice."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.layer_law import check_law, make_images  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402

SHAPE = (3, 8, 8)


class Backbone(nn.Module):
    """Parts that passes rewrite: norms, channel slices, a shuffle, factors, computed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.gamma = nn.Parameter(torch.linspace(0.5, 1, 8).view(8, 1, 1))
        self.one, self.two = (
            nn.Conv2d(4, 4, 1),
            nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        )
        self.last, self.slope = nn.Linear(8 * 9, 6), nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(F.max_pool2d(F.relu(self.norm(self.conv(x))) * self.gamma, 2))
        a, b = F.relu(x - F.avg_pool2d(x, 3, 1, 1)).chunk(2, 1)
        x = torch.stack([self.one(a), F.leaky_relu(self.two(b))], 2).flatten(1, 2)
        return self.last(x.permute(0, 2, 3, 1).flatten(1))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.backbone(x)))


def _step(student: Student) -> dict[str, Tensor]:
    """Return the parameters before a step that changes all trained ones."""
    images = make_images([SHAPE])
    calibrate(student, images)
    student.train()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    optimiser = torch.optim.SGD(student.parameters(), 0.1, weight_decay=0.1)
    student(*images).square().mean().backward()
    optimiser.step()
    return before


def test_frozen_parameters_do_not_change() -> None:
    torch.manual_seed(0)
    network = Classifier()
    network.backbone.requires_grad_(False)
    student = Student(network, SHAPE)
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trained == {"log2_t", "layers.head.weight", "layers.head.bias"}
    before = _step(student)
    changed = {n for n, p in student.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained


def test_all_that_is_trained_is_trained() -> None:
    torch.manual_seed(0)
    student = Student(Classifier(), SHAPE)
    constants = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert all("sub" in name or "leaky" in name or "stack" in name for name in constants), constants
    before = _step(student)
    same = {n for n, p in student.named_parameters() if torch.equal(p, before[n])}
    assert same == constants


def test_a_trained_factor_of_frozen_weights_trains_them() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False).requires_grad_(False)
            self.gamma = nn.Parameter(torch.linspace(0.5, 2, 4).view(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.gamma * self.conv(x)

    network = Scaled()
    assert all(p.requires_grad for p in Student(network, SHAPE).parameters())
    network.gamma.requires_grad_(False)
    names = [n for n, p in Student(network, SHAPE).named_parameters() if p.requires_grad]
    assert names == ["log2_t"]


# -- the same parameters twice ------------------------------------------------------------------


class Twice(nn.Module):
    """A transposed convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.up(x)))


class Biases(nn.Module):
    """Two transposed convolutions with the same weights and separate biases."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.more = nn.ConvTranspose2d(3, 3, 4, 2, 1), nn.ConvTranspose2d(3, 3, 4, 2, 1)
        self.more.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.more(F.relu(self.up(x)))


class Autoencoder(nn.Module):
    """A decoder with the encoder's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, 6, 4, 2, 1)
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        code = F.relu(self.encode(x))
        return F.conv_transpose2d(code, self.encode.weight, self.bias, 2, 1)


@pytest.mark.parametrize(("network", "count"), [(Twice, 2), (Biases, 3), (Autoencoder, 3)])
def test_tied_transposed_convolutions_stay_tied(network: Any, count: int) -> None:
    torch.manual_seed(0)
    given = network()
    student = check_law(given, [SHAPE])
    parameters = [p for name, p in student.named_parameters() if name != "log2_t"]
    assert len(parameters) == count
    student.observer = lambda name, values: None
    images = torch.randn(2, *SHAPE)
    fresh = Student(given, SHAPE).train()
    fresh.observer = lambda name, values: None
    fresh(images).sum().backward()
    given(images).sum().backward()
    (weight,) = (p for p in given.parameters() if p.dim() == 4)
    (found,) = (p for p in fresh.parameters() if p.dim() == 4)
    assert found.grad is not None and weight.grad is not None
    torch.testing.assert_close(found.grad.norm(), weight.grad.norm())
