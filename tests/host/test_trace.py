"""Tracing a PyTorch module to the DPU's layers: supported code, and refusals of the rest."""

from __future__ import annotations

import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks.norm import synchronise  # noqa: E402
from tutelage.host.quantise.layers.base import is_signed  # noqa: E402
from tutelage.host.quantise.layers.concat import Concat  # noqa: E402
from tutelage.host.quantise.layers.convolution import Conv  # noqa: E402
from tutelage.host.quantise.layers.eltwise import Add  # noqa: E402
from tutelage.host.quantise.layers.pooling import MaxPool  # noqa: E402
from tutelage.host.quantise.layers.reshape import Reshape  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.trace import trace  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

SHAPE = (4, 8, 8)


class Own(nn.Module):
    """A user's module with most supported functions, methods and modules."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Conv2d(4, 6, 3, padding=1)  # named like a method of nn.ModuleDict
        self.norm = nn.BatchNorm2d(6)
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.ReLU6())
        self.twice = nn.Conv2d(6, 6, 1)
        self.logits = nn.Linear(12 * 4 * 4, 5)  # named like the layer that trace() adds

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.values(x)))
        y = self.twice(self.twice(self.body(x)))
        y = F.leaky_relu(y + x, 26 / 256)
        y = torch.cat([y, x], 1)
        y = F.max_pool2d(y, 3, stride=2, padding=1)
        return self.logits(F.dropout(y, 0.5, self.training).flatten(1))


class Calls(nn.Module):
    """conv -> the function under test."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.conv(x))


def test_a_users_own_module_goes_through() -> None:
    torch.manual_seed(0)
    network = Own()
    network.norm.eval()  # mixed modes stay mixed
    layers = trace(network, SHAPE)
    kinds = [type(layer) for layer in layers.values()]
    assert kinds[1:] == [Conv, Conv, Conv, Conv, Add, Conv, Concat, MaxPool, Conv, Reshape]
    assert {"values_2", "twice", "twice_2", "body/0", "logits", "logits_2"} <= set(layers)
    assert layers["values_2"].nonlinear == "RELU" and layers["body/0"].nonlinear == "RELU6"
    assert [layer.nonlinear for layer in layers.values() if isinstance(layer, Add)] == ["NONE"]
    assert layers["leaky_relu"].nonlinear == "LEAKYRELU"
    assert network.training and not network.norm.training


def test_a_users_own_module_computes_the_same() -> None:
    torch.manual_seed(0)
    network = Own()
    images = torch.randn(64, *SHAPE)
    network(images)  # statistics that are not the initial ones
    network.eval()
    student = Student(network, SHAPE)
    student.observer = lambda name, values: None
    torch.testing.assert_close(student.eval()(images), network(images))


def test_norms_derived_from_torchs_are_norms() -> None:
    network = synchronise(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    conv = trace(network, SHAPE)["0"]
    assert isinstance(conv, Conv) and conv.norm is not None


def test_in_place_addition() -> None:
    def add(x: Tensor) -> Tensor:
        y = F.relu(x)
        z = F.avg_pool2d(y, 1)
        z += y
        return z

    layers = trace(Calls(add), SHAPE)
    assert isinstance(next(reversed(layers.values())), Add)


def test_operands_by_their_names() -> None:
    layers = trace(Calls(lambda x: torch.add(input=x, other=F.avg_pool2d(x, 3, 1, 1))), SHAPE)
    *_, last = layers.values()
    assert last.inputs == ("conv", "avg_pool2d")


def test_signed_layers() -> None:
    layers = trace(Own(), SHAPE)
    assert [name for name in layers if not is_signed(layers, name)] == ["values_2", "body/0"]


def test_layers_are_copies() -> None:
    network = Own()
    conv = trace(network, SHAPE)["values_2"]
    assert isinstance(conv, Conv) and conv.norm is not None
    with torch.no_grad():
        conv.weight.zero_()
        conv.norm.weight.zero_()
    assert network.values.weight.abs().min() > 0 and network.norm.weight.min() == 1


def _branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


REFUSED: list[tuple[Any, str]] = [
    (nn.SiLU(), r"SiLU at function.*use ReLU, ReLU6, LeakyReLU.* or Hardswish"),
    (F.silu, r"SiLU at silu.*use ReLU, ReLU6, LeakyReLU.* or Hardswish"),
    (F.gelu, r"GELU at gelu.*use ReLU, ReLU6, LeakyReLU.* or Hardswish"),
    (lambda x: x * torch.sigmoid(-x), r"Sigmoid at sigmoid.*runs on the CPU"),
    (lambda x: x * torch.softmax(x, 1), r"Softmax at softmax.*return logits"),
    (nn.GroupNorm(2, 4), r"GroupNorm at function.*use BatchNorm2d"),
    (nn.BatchNorm2d(4, track_running_stats=False), r"BatchNorm2d without statistics at function"),
    (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), r"mode 'reflect'.*pad with zeros"),
    (nn.ConvTranspose2d(4, 4, 2, 2, 0, 1), r"output_padding \(1, 1\).*no larger than the padding"),
    (nn.ConvTranspose2d(4, 4, 2, padding=2), r"ConvTranspose2d with padding.*less than the kernel"),
    (nn.MaxPool2d((1, 3), (3, 2), ceil_mode=True), r"last window begins in.*use ceil_mode=False"),
    (nn.AvgPool2d(3, ceil_mode=True), r"exceeds the border at function.*use ceil_mode=False"),
    (nn.AvgPool2d(3, padding=1, count_include_pad=False), r"count_include_pad=False at function"),
    (nn.MaxPool2d(2, dilation=2), r"a dilated MaxPool2d at function.*use dilation=1"),
    (nn.AdaptiveAvgPool2d(3), r"AvgPool of \(8, 8\) to \(3, 3\) at function.*pool to 1x1"),
    (lambda x: x * x.amin((2, 3), keepdim=True), r"amin at amin"),
    (lambda x: x.permute(0, 2, 3, 1).mean(1), r"at mean|at permute"),
    (lambda x: F.max_pool2d(x, 4) + x, r"fails on an input of 4x8x8: RuntimeError"),
    (lambda x: F.max_pool2d(x, 8) + x.mean((2, 3)), r"an addition of \(4, 1, 1\) and \(4,\)"),
    (lambda x: F.max_pool2d(torch.cat([x, x], 2), 2), r"a concat along another axis at.*dim=1"),
    (nn.PReLU(init=1.5), r"a slope of 1.5 at function.*up to 1"),
    (nn.Hardtanh(-1, 1), r"a clip to \(-1.*clip to \(0, 6\)"),
    (lambda x: F.pad(x, (1, 1), value=1.0), r"padding by constant 1.0 at pad.*zeros"),
    (nn.Upsample(scale_factor=2, mode="bicubic"), r"an upsampling by bicubic.*nearest"),
    (lambda x: x.argmax(1), r"argmax at argmax.*compute it in the application"),
    (lambda x: x.flatten(), r"a reshape to"),
    (lambda x: x.flatten(1)[:, 3:], r"not a whole map.*return the map itself"),
    (lambda x: (x, x.sum()), r"sum at sum.*use convolutions"),
    (lambda x: torch.cat([x, torch.ones(2, 1, 8, 8)], 1), r"a concat with a constant at cat"),
    (lambda x: F.dropout(x, 0.5), r"computes other values.*draw random numbers"),
    (_branch, r"cannot be traced.*must not branch on values"),
]


@pytest.mark.parametrize(("function", "text"), REFUSED)
def test_refusals_name_the_op_its_place_and_a_way_out(function: Any, text: str) -> None:
    with pytest.raises(UnsupportedOp, match=text) as caught:
        trace(Calls(function), SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "kind", "groups"),
    [
        (lambda x: F.relu6(x + x), "RELU6", 4),
        (lambda x: F.leaky_relu(x + x, 26 / 256), "LEAKYRELU", 1),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.LeakyReLU(26 / 256)), "LEAKYRELU", 1),
    ],
)
def test_an_activation_that_the_dpu_does_not_fuse_gets_a_convolution(
    function: Any, kind: str, groups: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The ZCU104's sums have ReLU only, its depthwise convolutions no leaky ReLU."""
    network = Calls(function)
    with caplog.at_level(logging.WARNING):
        layers = trace(network, SHAPE)
    *_, before, last = layers.values()
    assert before.nonlinear == "NONE"
    assert isinstance(last, Conv) and (last.nonlinear, last.groups) == (kind, groups)
    assert last.kernel == (1, 1) and kind in caplog.text and "costs time" in caplog.text
    images = torch.randn(8, *SHAPE)
    student = Student(network, SHAPE)
    student.observer = lambda name, values: None
    torch.testing.assert_close(student.eval()(images), network.eval()(images))


def test_fused_activations_need_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6())
    trace(Calls(depthwise), SHAPE)
    trace(Calls(lambda x: F.relu(x + x)), SHAPE)
    trace(Calls(nn.LeakyReLU(0.1)), SHAPE)
    assert not caplog.records


def test_a_refusal_names_the_line_of_a_function() -> None:
    with pytest.raises(UnsupportedOp, match=rf"File .*{__file__}.*, line \d+"):
        trace(Calls(lambda x: x.exp()), SHAPE)


def test_refusals_of_whole_networks() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.conv(x)

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("images of 16x16 only")

    line = (
        r"Fails fails on .* 4x8x8: ValueError: images of 16x16 only \(File .*test_trace.py\", line"
    )
    with pytest.raises(UnsupportedOp, match=line):
        trace(Fails(), SHAPE)
    with pytest.raises(UnsupportedOp, match=r"cannot be traced|fails on an input"):
        trace(Unused(), SHAPE)
    with pytest.raises(UnsupportedOp, match="no output of the network depends on its input"):
        trace(Unused(), [SHAPE, SHAPE])
    with pytest.raises(UnsupportedOp, match="one of its inputs"):
        trace(nn.Identity(), SHAPE)
    with pytest.raises(UnsupportedOp, match="no convolution and no linear layer"):
        trace(nn.MaxPool2d(2), SHAPE)
    with pytest.raises(UnsupportedOp, match=r"cannot be traced|fails on an input"):
        trace(nn.Conv2d(3, 4, 1), SHAPE)  # the images have four channels


def test_networks_without_numbers() -> None:
    def network() -> Any:
        return nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()

    class Two(nn.Sequential):
        def forward(self, input: Any) -> Any:
            return super().forward(input), 0.5

    spoilt, other = network(), network()
    spoilt[0].bias.data[1] = float("nan")
    other[1].running_var[1] = -1
    for given, text in (
        (spoilt, r"0\.bias contains NaN"),
        (other, r"computes values that are not finite.*variance"),
        (network().to("meta"), r"0\.weight has a shape but no values.*load weights"),
        (Two(network()), "returns a float; return one tensor"),
    ):
        with pytest.raises(UnsupportedOp, match=text):
            trace(given, SHAPE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_other_precision(dtype: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    network.eval().to(dtype)
    images = torch.rand(3, *SHAPE)
    student = Student(network, SHAPE).eval()
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    student.observer = lambda name, values: None
    torch.testing.assert_close(student(images), network.float()(images), rtol=1e-3, atol=1e-3)


def test_vectors_joined_along_their_last_axis() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.mean((2, 3))
            return torch.cat([self.a(x), self.b(x)], dim=-1)

    assert any(isinstance(layer, Concat) for layer in trace(Heads(), SHAPE).values())


def test_a_function_of_the_weight_of_a_layer_that_is_called_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            x = F.relu(F.conv_transpose2d(x, self.a.weight, padding=1))
            return F.conv2d(x, self.a.weight, self.a.bias) + F.conv2d(x, self.a.weight)

    torch.manual_seed(0)
    network, images = Tied().eval(), torch.rand(3, *SHAPE)
    student = Student(network, SHAPE).eval()
    student.observer = lambda name, values: None
    torch.testing.assert_close(student(images), network(images), rtol=1e-4, atol=1e-4)
