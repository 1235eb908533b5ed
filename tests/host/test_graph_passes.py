"""Each graph pass leaves the float network's outputs and the user's modules unchanged."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.graph_steps import kinds, normalise_by_steps  # noqa: E402
from tutelage.host.networks.norm import SyncedBatchNorm2d  # noqa: E402
from tutelage.host.quantise.graph.capture import by_export  # noqa: E402

SHAPE = (4, 8, 8)
Function = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """A convolution, the function under test, a convolution."""

    def __init__(self, function: Any, channels: int = 4, first: int = 4, **parts: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, first, 3, padding=1)
        self.last = nn.Conv2d(channels, 5, 3)
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)
        _spread(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = self.function(y) if isinstance(self.function, nn.Module) else self.function(self, y)
        return self.last(y)


class Head(nn.Module):
    """A convolution, the function under test, a dense layer."""

    def __init__(self, function: Any, features: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(features, 5)
        self.function = function
        _spread(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def _spread(network: nn.Module) -> None:
    """Give norms statistics and weights that are not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                module.weight.data.uniform_(-2, 2)
                module.bias.data.normal_()


class Scaled(nn.Conv2d):
    """A subclass with its own forward: it traces through to F.conv2d."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class Initialised(nn.Conv2d):
    """A subclass with the parent's forward."""

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight)


class Chosen(nn.Module):
    """A module that chooses its forward at construction."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.forward = self.on_slices

    def on_slices(self, x: Tensor) -> Tensor:
        worked, kept = torch.split(x, [2, 2], dim=1)
        return torch.cat((self.conv(worked), kept), 1)


class NormAct(nn.BatchNorm2d):
    """A norm with an activation, as in timm."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


class FrozenNorm(nn.Module):
    """A norm with buffers only, as in detection networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        w, b, m, v = (getattr(self, name).reshape(1, -1, 1, 1) for name in
                      ("weight", "bias", "mean", "var"))  # fmt: skip
        scale = w * (v + 1e-5).rsqrt()
        return x * scale + (b - m * scale)


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(nn.Conv2d(4, 4, 1))


def _shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def _written_swish(net: nn.Module, x: Tensor) -> Tensor:
    return x * F.relu6(x + 3) / 6 + F.relu6(x + 3) / 6 + x * (F.relu6(x + 3) / 6)


def _dims(a: int) -> Tensor:
    return torch.linspace(0.5, 2, a).view(1, a, 1, 1)


CASES: dict[str, tuple[nn.Module, str, list[str]]] = {
    # name: network, the pass that must change it, the resulting operations
    "in place": (
        Net(lambda net, x: (F.relu(x, inplace=True), x)[1]), "out of place",
        ["Conv2d", "ReLU", "Conv2d"],
    ),
    "+= with a second name": (
        Net(lambda net, x: operator.iadd(x, F.max_pool2d(x, 3, 1, 1)) * x), "out of place",
        ["Conv2d", "MaxPool2d", "add", "mul", "Conv2d"],
    ),
    "constants": (Net(Scaled(4, 4, 3, bias=False)), "constants", ["Conv2d"] * 3),
    "subclass": (Net(Initialised(4, 4, 3)), "plain modules", ["Conv2d"] * 3),
    "weight norm": (
        Net(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))), "plain modules",
        ["Conv2d"] * 3,
    ),
    "weight norm by a hook": (
        Net(_old_weight_norm()), "plain modules", ["Conv2d"] * 3,
    ),
    "norm of a flattened map": (
        Head(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256)), 256), "norms of flattened maps",
        ["Conv2d", "flatten", "Linear"],
    ),
    "dense layer over two maps": (
        Head(lambda x: torch.cat([F.max_pool2d(x, 4).flatten(1), x.mean((2, 3)), x.flatten(1)], 1),
             276),
        "dense layers over several maps", [],
    ),
    "square": (Net(lambda net, x: x**2), "arithmetic with constants", ["Conv2d", "mul", "Conv2d"]),
    "space to depth": (
        Net(lambda net, x: x.view(2, 4, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(2, 16, 4, 4),
            16),
        "movements", ["Conv2d"] * 3,
    ),
    "forward of an instance": (Net(Chosen()), "selections into the layer before", []),
    "norm with activation": (
        Net(NormAct(4)), "modules for functions", ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"],
    ),
    "synced norm": (Net(SyncedBatchNorm2d(4)), "", ["Conv2d", "SyncedBatchNorm2d", "Conv2d"]),
    "frozen norm": (Net(FrozenNorm(4)), "factors into the layer before", ["Conv2d"] * 2),
    "functions": (
        Net(lambda net, x: F.avg_pool2d(F.leaky_relu(x, 0.1), 2)), "modules for functions",
        ["Conv2d", "LeakyReLU", "AvgPool2d", "Conv2d"],
    ),
    "dropouts": (
        Net(nn.Sequential(nn.Dropout2d(), nn.Identity(), nn.AlphaDropout(), nn.MaxPool2d(1))),
        "identities", ["Conv2d"] * 2,
    ),
    "written activations": (
        Net(_written_swish), "written activations",
        ["Conv2d", "Hardswish", "Hardsigmoid", "add", "add", "Conv2d"],
    ),
    "silu by hand": (
        Net(lambda net, x: x * x.sigmoid()), "written activations", ["Conv2d", "SiLU", "Conv2d"],
    ),
    "relu behind pool": (
        Net(nn.Sequential(nn.MaxPool2d(2), nn.ReLU())),
        "activations before pools and concats", ["Conv2d", "ReLU", "MaxPool2d", "Conv2d"],
    ),
    "relu behind concat": (
        Net(lambda net, x: F.relu6(torch.cat([net.c(x), net.d(x)], 1)), 7,
            c=nn.Conv2d(4, 3, 1), d=nn.Conv2d(4, 4, 1)),
        "activations before pools and concats",
        ["Conv2d", "Conv2d", "Conv2d", "ReLU6", "ReLU6", "cat", "Conv2d"],
    ),
    "relu behind an average stays": (
        Net(nn.Sequential(nn.AvgPool2d(2), nn.ReLU())), "",
        ["Conv2d", "AvgPool2d", "ReLU", "Conv2d"],
    ),
    "scaled residual": (
        Net(lambda net, x: x + 0.2 * net.c(x), c=nn.Conv2d(4, 4, 1)),
        "factors into the layer before", ["Conv2d", "Conv2d", "add", "Conv2d"],
    ),
    "difference": (
        Net(lambda net, x: x - net.c(x), c=nn.Conv2d(4, 4, 1)), "factors into the layer before",
        ["Conv2d", "Conv2d", "add", "Conv2d"],
    ),
    "factor through relu, norm and pool": (
        Net(lambda net, x: F.max_pool2d(F.relu(net.n(x)), 2) * _dims(4), n=nn.BatchNorm2d(4)),
        "factors into the layer before", ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d"],
    ),
    "factor into the layer behind": (
        Net(lambda net, x: F.relu6(x) * 2 - 1), "factors into the layers after",
        ["Conv2d", "ReLU6", "Conv2d"],
    ),
    "factor nowhere": (
        Net(lambda net, x: F.relu6(x) * _dims(4) + x), "factors as convolutions",
        ["Conv2d", "ReLU6", "Conv2d", "add", "Conv2d"],
    ),
    "vector over a map": (
        Net(lambda net, x: x * net.f(x.mean((2, 3))).unsqueeze(2).unsqueeze(3).expand_as(x),
            f=nn.Linear(4, 4)),
        "movements", ["Conv2d", "AdaptiveAvgPool2d", "flatten", "Linear", "Unflatten", "mul",
                      "Conv2d"],
    ),
    "same": (Net(nn.Conv2d(4, 4, (3, 2), padding="same", dilation=3)), "padding in pixels",
             ["Conv2d", "PaddedConv2d", "Conv2d"]),
    "zero pad": (Net(nn.ZeroPad2d((0, 1, 2, 3))), "padding into layers",
                 ["Conv2d", "PaddedConv2d"]),
    "negative pad": (Net(lambda net, x: F.pad(x, (-1, 1, 0, -2))), "padding in pixels", []),
    "pad of columns": (Net(lambda net, x: F.pad(x, (1, 2))), "padding into layers",
                       ["Conv2d", "PaddedConv2d"]),
    "symmetric pad": (Net(lambda net, x: F.pad(x, (2, 2, 1, 1))), "padding into layers",
                      ["Conv2d"] * 2),
    "pad and average": (
        Net(nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2))), "padding into layers",
        ["Conv2d", "AvgPool2d", "Conv2d"],
    ),
    "pad of a maximum": (
        Net(lambda net, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)),
        "padding into max pools", ["Conv2d", "MaxPool2d", "Conv2d"],
    ),
    "adaptive pool": (Net(nn.AdaptiveAvgPool2d((4, 8))), "adaptive pools",
                      ["Conv2d", "AvgPool2d", "Conv2d"]),
    "adaptive identity": (Net(nn.AdaptiveMaxPool2d(8)), "identities", ["Conv2d"] * 2),
    "repeated pixel": (
        Net(lambda net, x: F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(x, 1), 3)),
        "adaptive pools", ["Conv2d", "AdaptiveAvgPool2d", "Upsample", "Conv2d"],
    ),
    "ceil mode": (
        Net(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True),
                          nn.AvgPool2d(2, 1, ceil_mode=True, count_include_pad=False))),
        "modes of pools", ["Conv2d", "MaxPool2d", "AvgPool2d", "Conv2d"],
    ),
    "divisor": (
        Net(lambda net, x: F.avg_pool2d(x, 2, divisor_override=3)), "modes of pools",
        ["Conv2d", "AvgPool2d", "Conv2d"],
    ),
    "average of one pixel": (
        Net(nn.AvgPool2d(1, 2)), "averages of one pixel", ["Conv2d", "MaxPool2d", "Conv2d"],
    ),
    "average over a large map": (
        Head(lambda x: F.adaptive_avg_pool2d(F.interpolate(x, size=(8, 264)), 1).flatten(1)),
        "averages over large maps",
        ["Conv2d", "Upsample", "AvgPool2d", "AdaptiveAvgPool2d", "flatten", "Linear"],
    ),
    "mean pair": (Head(lambda x: x.mean((2, 3))), "means over maps", []),
    "mean of mean": (Head(lambda x: x.mean(3).mean(2)), "averages of averages", []),
    "mean of a flattened map": (Head(lambda x: x.flatten(2).mean(-1)), "means over maps", []),
    "sum": (Head(lambda x: x.sum((2, 3))), "means over maps", []),
    "maximum": (Head(lambda x: x.flatten(2).max(2)[0]), "means over maps",
                ["Conv2d", "MaxPool2d", "flatten", "Linear"]),
    "maximum with two readers": (
        Head(lambda x: (lambda m: m[0] + F.relu(m[0]))(x.flatten(2).max(2))), "means over maps",
        ["Conv2d", "MaxPool2d", "ReLU", "add", "flatten", "Linear"],
    ),
    "squeeze": (Head(lambda x: F.adaptive_avg_pool2d(x, 1).squeeze()), "movements", []),
    "index": (Head(lambda x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]), "movements", []),
    "view": (Head(lambda x: x.view(x.size(0), -1), 256), "movements",
             ["Conv2d", "flatten", "Linear"]),
    "channels last": (Head(lambda x: x.permute(0, 2, 3, 1).flatten(1), 256), "movements",
                      ["Conv2d", "flatten", "Linear"]),
    "vector and map": (
        Net(lambda net, x: x * F.hardsigmoid(net.d(x.mean((2, 3))))[:, :, None, None],
            d=nn.Linear(4, 4)),
        "movements",
        ["Conv2d", "AdaptiveAvgPool2d", "flatten", "Linear", "Hardsigmoid", "Unflatten", "mul",
         "Conv2d"],
    ),
    "expanded": (
        Net(lambda net, x: x * x.mean((2, 3), keepdim=True).expand_as(x)), "movements",
        ["Conv2d", "AdaptiveAvgPool2d", "mul", "Conv2d"],
    ),
    "every second pixel": (
        Net(lambda net, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)), 8), "movements", [],
    ),
    "channels of zeros": (
        Net(lambda net, x: F.relu6(torch.cat([x, torch.zeros(2, 3, 8, 8)], 1)) + net.c(x), 7,
            c=nn.Conv2d(4, 7, 1)),
        "channels of zeros", ["Conv2d", "Conv2d", "ReLU6", "Conv2d", "add", "Conv2d"],
    ),
    "crop": (Net(lambda net, x: x[:, :, 1:, 1:]), "movements", ["Conv2d"] * 3),
    "mean over channels": (
        Net(lambda net, x: x * F.hardsigmoid(x.mean(1, keepdim=True))), "means over channels",
        ["Conv2d", "Conv2d", "Hardsigmoid", "mul", "Conv2d"],
    ),
    "attention over neighbours": (
        Net(lambda net, x: x * F.hardsigmoid(net.e(x.mean((2, 3)).view(2, 1, 4))).view(2, 4, 1, 1),
            e=nn.Conv1d(1, 1, 3, padding=1)),
        "convolutions along channels",
        ["Conv2d", "AdaptiveAvgPool2d", "Conv2d", "Hardsigmoid", "mul", "Conv2d"],
    ),
    "dense over pixels": (
        Net(lambda net, x: net.d(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), d=nn.Linear(4, 4)),
        "dense layers over channels", ["Conv2d"] * 3,
    ),
    "softmax": (
        nn.Sequential(Head(lambda x: x.mean((2, 3))), nn.Softmax(1)), "activation at the end", [],
    ),
    "sigmoid of a vector": (
        Head(lambda x: torch.sigmoid(F.adaptive_avg_pool2d(x, 1)).flatten(1)), "movements", [],
    ),
    "computed twice": (
        Net(lambda net, x: F.relu(x) + F.max_pool2d(F.relu(x), 3, 1, 1)), "duplicated modules",
        ["Conv2d", "ReLU", "MaxPool2d", "add", "Conv2d"],
    ),
    "shuffle": (Net(lambda net, x: _shuffle(x, 2), 8, 8), "selections into the layer before",
                ["Conv2d"] * 2),
    "shuffle behind groups": (
        Net(lambda net, x: F.relu(net.n(net.c(_shuffle(net.g(x), 2)))), 8, 8,
            g=nn.Conv2d(8, 8, 1, groups=2), c=nn.Conv2d(8, 8, 3, groups=8), n=nn.BatchNorm2d(8)),
        "selections into the layers after",
        ["Conv2d", "Conv2d", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"],
    ),
    "shuffle into a dense layer": (
        Head(lambda x: _shuffle(F.max_pool2d(x, 3, 1) + F.avg_pool2d(x, 3, 1), 2).flatten(1), 144),
        "selections into the layers after",
        ["Conv2d", "MaxPool2d", "AvgPool2d", "add", "flatten", "Linear"],
    ),
    "chunks of a convolution": (
        Net(lambda net, x: operator.mul(*F.relu(net.n(x)).chunk(2, 1)), 4, 8, n=nn.BatchNorm2d(8)),
        "selections into the layer before",
        ["Conv2d"] * 2 + ["BatchNorm2d"] * 2 + ["ReLU"] * 2 + ["mul", "Conv2d"],
    ),
    "part of a sum": (
        Net(lambda net, x: (x + F.relu(x))[:, 1:5] + 0, 4, 6), "", [],
    ),
    "parts of a concat": (
        Net(lambda net, x: torch.cat([net.c(x), x], 1).chunk(2, 1)[1], 4, c=nn.Conv2d(4, 4, 1)),
        "selections of concats", ["Conv2d"] * 2,
    ),
    "parts with factors": (
        Net(lambda net, x: torch.cat([F.relu6(x)[:, i : i + 1] * (i + 1) + i for i in range(4)],
                                     1)),
        "concats of one map's parts", ["Conv2d", "ReLU6", "Conv2d"],
    ),
    "constant permutation": (
        Net(lambda net, x: F.relu6(x + F.max_pool2d(x, 3, 1, 1))[:, torch.tensor([2, 0, 3, 1])]),
        "selections into the layers after",
        ["Conv2d", "MaxPool2d", "add", "ReLU6", "Conv2d"],
    ),
    "selection nowhere": (
        Net(lambda net, x: (lambda y: y + y.flip(1))(F.relu6(x))), "selections as layers",
        ["Conv2d", "ReLU6", "Conv2d", "add", "Conv2d"],
    ),
    "selection of selection": (
        Net(lambda net, x: (x + F.relu(x)).flip(1)[:, 1:3] * 1, 2, 4), "",
        [],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", CASES)
def test_every_pass_leaves_the_networks_results(case: str) -> None:
    network, expected, left = CASES[case]
    graph, changes = normalise_by_steps(network, SHAPE)
    assert not expected or changes[expected], changes
    if left:
        assert kinds(graph) == left


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_export_is_as_good_a_way_in() -> None:
    for name, (network, _, left) in CASES.items():
        graph, _ = normalise_by_steps(network, SHAPE, way=by_export)
        if left and name != "synced norm":  # a norm of another class
            assert kinds(graph) == left, name


@pytest.mark.parametrize(
    ("activation", "place"), [(nn.Softmax(1), "softmax"), (nn.LogSoftmax(-1), "softmax"),
                              (nn.Sigmoid(), "sigmoid"), (nn.Identity(), "")],
)  # fmt: skip
def test_a_final_activation_is_recorded(activation: nn.Module, place: str) -> None:
    network = nn.Sequential(Head(lambda x: x.mean((2, 3))), activation)
    graph, _ = normalise_by_steps(network, SHAPE)
    assert graph.activations.get(0, "") == place and kinds(graph)[-1] == "Linear"


def test_shared_layers_stay_shared() -> None:
    shared = nn.Conv2d(4, 4, 3)
    pad = nn.ZeroPad2d((1, 1, 1, 0))
    network = Net(lambda net, x: net.c(pad(F.relu(net.c(pad(x))))), c=shared)
    graph, _ = normalise_by_steps(network, SHAPE)
    padded = [m for n in graph.nodes if (m := graph.module_of(n)) and hasattr(m, "pads")]
    assert len(padded) == 2 and all(m.weight is shared.weight for m in padded)


# -- laws -----------------------------------------------------------------------------------

small = settings(max_examples=15, deadline=None, derandomize=True)


@small
@given(
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    wanted=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kind=st.sampled_from([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]),
)
def test_adaptive_pools(size: tuple[int, int], wanted: tuple[int, int], kind: Any) -> None:
    normalise_by_steps(nn.Sequential(nn.Conv2d(4, 4, 1), kind(wanted)), (4, *size))


@small
@given(
    pads=st.tuples(*[st.integers(0, 4)] * 4), value=st.sampled_from([0.0, float("-inf")]),
    kernel=st.integers(1, 4), stride=st.integers(1, 3), relu=st.booleans(),
    kind=st.sampled_from(["conv", "max", "average"]),
)  # fmt: skip
def test_padding(
    pads: tuple[int, int, int, int], value: float, kernel: int, stride: int, relu: bool, kind: str
) -> None:
    last = {"conv": nn.Conv2d(4, 3, kernel, stride), "max": nn.MaxPool2d(kernel, stride),
            "average": nn.AvgPool2d(kernel, stride)}[kind]  # fmt: skip
    pad = nn.ConstantPad2d(pads, value if kind == "max" and max(pads) < kernel else 0.0)
    act = nn.ReLU() if relu else nn.Identity()
    normalise_by_steps(nn.Sequential(nn.Conv2d(4, 4, 1), act, pad, last), (4, 7, 6))


@small
@given(
    size=st.integers(5, 12), kernel=st.integers(1, 3), stride=st.integers(1, 3), pad=st.booleans(),
    ceil=st.booleans(), count=st.booleans(), kind=st.sampled_from(["max", "average"]),
)  # fmt: skip
def test_modes_of_pools(
    size: int, kernel: int, stride: int, pad: bool, ceil: bool, count: bool, kind: str
) -> None:
    padding = kernel // 2 if pad else 0
    pool = (nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil) if kind == "max"
            else nn.AvgPool2d(kernel, stride, padding, ceil, count))  # fmt: skip
    normalise_by_steps(nn.Sequential(nn.Conv2d(4, 4, 1), pool), (4, size, size + 1))


@small
@given(
    steps=st.lists(
        st.sampled_from(["scale", "shift", "relu", "norm", "max", "average", "conv", "neg"]),
        max_size=6,
    )
)
def test_factors_and_summands(steps: list[str]) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        for step in steps:
            x = {
                "scale": lambda x: x * _dims(4), "shift": lambda x: x + _dims(4) - 1,
                "neg": lambda x: 1 - x, "relu": F.relu, "norm": net.n, "conv": net.c,
                "max": lambda x: F.max_pool2d(x, 3, 1, 1),
                "average": lambda x: F.avg_pool2d(x, 3, 1, 1),
            }[step](x)  # fmt: skip
        return x

    normalise_by_steps(Net(forward, n=nn.BatchNorm2d(4), c=nn.Conv2d(4, 4, 3, padding=1)), SHAPE)


@small
@given(
    permutations=st.lists(st.permutations(range(8)), min_size=1, max_size=3),
    groups=st.sampled_from([1, 2, 8]), parts=st.sampled_from([1, 2, 4]), linear=st.booleans(),
)  # fmt: skip
def test_channels(permutations: list[list[int]], groups: int, parts: int, linear: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        for permutation in permutations:
            x = net.g(x[:, torch.tensor(permutation)])
            pieces = x.split(8 // parts, 1)
            x = F.relu(torch.cat([*pieces[1:], F.max_pool2d(pieces[0], 3, 1, 1)], 1))
        return _shuffle(x, 4)

    network = Net(forward, 8, 8, g=nn.Conv2d(8, 8, 3, padding=1, groups=groups))
    if linear:
        network.last = nn.Sequential(nn.Flatten(), nn.Linear(512, 3))  # type: ignore[assignment]
    normalise_by_steps(network, SHAPE)


# -- replaced activations -------------------------------------------------------------------


def test_replacements() -> None:
    network = Net(nn.Sequential(nn.SiLU(), nn.LeakyReLU(0.01), nn.LeakyReLU(26 / 256),
                                nn.AvgPool2d(3, 1, 1, count_include_pad=False)))  # fmt: skip
    replace = {"silu": "hardswish", "leakyrelu": "leakyrelu", "avgpool_exclude_pad": "avgpool"}
    graph, changes = normalise_by_steps(network, SHAPE, replace)
    assert kinds(graph) == ["Conv2d", "Hardswish", "LeakyReLU", "LeakyReLU", "AvgPool2d", "Conv2d"]
    assert [names for _, *names in graph.replaced] == [list(pair) for pair in replace.items()]
    assert changes["replacements"]
