"""Fused rounding gives the same integers and gradients as rounding each value by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks.densenet import DenseNet  # noqa: E402
from tutelage.host.quantise.fake import (  # noqa: E402
    FakeQuantise,
    NormQuantise,
    Rounding,
    quantise,
)
from tutelage.host.quantise.fix_points import BIAS_RANGE  # noqa: E402
from tutelage.host.quantise.forward import Forward  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402

FORMATS = [torch.contiguous_format, torch.channels_last]


class Kinds(nn.Module):
    """Weights with and without norm, bias and affine factors; groups; a factor of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8, eps=1e-3)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm_b = nn.BatchNorm2d(8, affine=False)
        self.c, self.up = nn.Conv2d(8, 4, 1, bias=False), nn.ConvTranspose2d(4, 6, 2, 2)
        self.d = nn.Linear(6 * 16 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm_a(self.a(x)))
        y = self.norm_b(self.b(y))
        return self.d(torch.flatten(F.relu(self.up(self.c(y))), 1))


def _student(memory_format: Any) -> Student:
    torch.manual_seed(5)
    network = Kinds()
    for norm in (network.norm_a, network.norm_b):
        assert norm.running_mean is not None and norm.running_var is not None
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.1, 3)
    nn.init.normal_(network.norm_a.weight)
    nn.init.normal_(network.norm_a.bias)
    network.norm_a.weight.data[3] = 0.0
    student = Student(network, (2, 8, 8), Bits(4, 4))
    student.log2_t.data.uniform_(-3, -0.1)
    return student.to(memory_format=memory_format)  # type: ignore[call-overload]


def _alone(student: Student, deployed: bool) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return each layer's weight and bias from the definition."""
    points = student.fix_points()
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, conv in student.convs():
        quantiser, point = student.weight_of[name], points.weights[name]
        limits = point, quantiser.lowest, quantiser.highest, False
        threshold = student.log2_t[quantiser.index]
        weight, bias = conv.folded()
        if deployed:
            own = points.bias(conv, float(bias.detach().abs().max()))
            bias = FakeQuantise.apply(bias, torch.zeros(()), own, *BIAS_RANGE, False)
            found[name] = FakeQuantise.apply(weight, threshold, *limits), bias
        elif conv.norm is None:
            found[name] = FakeQuantise.apply(conv.weight, threshold, *limits), conv.bias
        else:
            norm = conv.norm
            with torch.no_grad():
                gain = torch.ones(len(weight)) if norm.weight is None else norm.weight
                assert norm.running_var is not None
                scale = (gain / torch.sqrt(norm.running_var + norm.eps)).view(-1, 1, 1, 1)
                scale = torch.where(scale.abs() < 1e-8, 1e-8, scale)
            rounded = FakeQuantise.apply(conv.weight * scale, threshold, *limits)
            found[name] = rounded / scale, conv.bias
    return found


def _gradients(
    student: Student, parameters: dict[str, tuple[Tensor, Tensor | None]]
) -> dict[str, Tensor]:
    """Return the gradients of a weighted sum of the parameters."""
    student.zero_grad()
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for weight, bias in parameters.values():
        for value in (weight,) if bias is None else (weight, bias):
            total = total + (value * torch.randn(value.shape, generator=generator)).sum()
    total.backward()
    return {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("deployed", [True, False])
def test_parameters_rounded_together_are_those_rounded_alone(
    memory_format: Any, deployed: bool
) -> None:
    student = _student(memory_format).train()
    student.freeze_norms(deployed)
    for _ in range(2):  # the second time with thresholds that have moved
        together, alone = Forward(student).parameters, _alone(student, deployed)
        assert [*together] == [*alone]
        for name, (weight, bias) in alone.items():
            assert torch.equal(together[name][0], weight), name
            assert (bias is None) == (together[name][1] is None)
            assert bias is None or torch.equal(together[name][1], bias)
        found, wanted = _gradients(student, Forward(student).parameters), _gradients(student, alone)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
        student.log2_t.data += 1.3


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("relu", [True, False])
def test_a_norm_and_its_rounding_in_one_are_both_in_turn(memory_format: Any, relu: bool) -> None:
    torch.manual_seed(2)
    z = torch.randn(16, 6, 7, 7).contiguous(memory_format=memory_format)
    g = torch.randn(16, 12, 7, 7).contiguous(memory_format=memory_format)[:, 3:9]  # of a concat
    rounding = Rounding(2, 0 if relu else -8, 15 if relu else 7)
    found = []
    for together in (True, False):
        own = z.clone(memory_format=torch.preserve_format).requires_grad_()
        weight, bias = (torch.linspace(a, 2, 6).requires_grad_() for a in (-1, 0.3))
        mean, var = torch.zeros(6), torch.ones(6)
        log2_t = torch.tensor(1.5, requires_grad=True)
        if together:
            y = NormQuantise.apply(
                own, weight, bias, (mean, var, 0.2, 1e-4), log2_t, rounding, relu
            )
        else:
            x = F.batch_norm(own, mean, var, weight, bias, True, 0.2, 1e-4)
            y = FakeQuantise.apply(x, log2_t, *rounding, relu)
        y.backward(g)
        found.append((y.detach(), mean, var, own.grad, weight.grad, bias.grad, log2_t.grad))
    for index, (one, other) in enumerate(zip(*found, strict=True)):
        if index < 3:
            assert torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_parameters_follow_a_copy_and_a_change_of_memory() -> None:
    """Vectors are laid out once, but always have the layers' current values."""
    student = _student(torch.contiguous_format).eval()
    with torch.no_grad():
        Forward(student)
        twin = copy.deepcopy(student)
        for _, conv in twin.convs():
            conv.weight.mul_(0.7)
        twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for one in (student, twin, student.double()):
            points = one.fix_points()
            for name, (weight, _) in Forward(one).parameters.items():
                quantiser = one.weight_of[name]
                folded = one.layer(name).folded()[0]  # type: ignore[operator]
                limits = quantiser.lowest, quantiser.highest
                assert torch.equal(weight, quantise(folded, points.weights[name], *limits)), name


def test_autocast_leaves_the_students_integers_alone() -> None:
    """Products in bfloat16 would differ from the DPU's."""
    torch.manual_seed(0)
    network = DenseNet(growth_rate=4, block_config=(2,), in_channels=1, stem="stride4")
    student = Student(network, (1, 28, 28), Bits(4, 4))
    images = torch.randn(4, 1, 28, 28)
    for frozen in (False, True):
        student.train().freeze_norms(frozen)
        state = copy.deepcopy(student.state_dict())
        plain = student(images)
        student.load_state_dict(state)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(student(images), plain)
