"""Stacks, maxima, channels last, sequences and vectors as maps: each to a board's instructions."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.graph_steps import kinds, normalise_by_steps  # noqa: E402
from tests.host.layer_law import check_law  # noqa: E402
from tests.host.test_graph_passes import CASES as OTHER_CASES  # noqa: E402
from tests.host.test_graph_passes import Net  # noqa: E402
from tutelage.host.quantise.graph.normalise import CANONICAL, FOR_DPU, REPLACING  # noqa: E402

SHAPE = (4, 8, 8)


class ChannelsLast(nn.Module):
    """A block as in ConvNeXt, with batch norm: dense layers and a factor, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.depthwise, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(torch.linspace(0.2, 1, 8))
        self.classify = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.narrow(F.relu(self.wide(y)))
        x = x.permute(0, 2, 3, 1) + y
        return self.classify(torch.cat([x, F.relu(x)], -1).mean((1, 2)))


class Selective(nn.Module):
    """Two branches that are stacked and weighted by a gate each, as in split attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.gate, self.last = nn.Linear(8, 16), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([F.relu(self.first(x)), F.relu(self.second(x))], dim=1)
        gates = F.hardsigmoid(self.gate(both.sum(1).mean((2, 3)))).view(-1, 2, 8, 1, 1)
        return self.last((both * gates).sum(1))


class SelectiveKernel(Selective):
    """`Selective` with a softmax over the two branches."""

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([F.relu(self.first(x)), F.relu(self.second(x))], dim=1)
        gates = self.gate(both.sum(1).mean((2, 3))).view(-1, 2, 8, 1, 1).softmax(1)
        return self.last((both * gates).sum(1))


class Split(nn.Module):
    """The same with one convolution, separated by a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.last = nn.Conv2d(4, 16, 3), nn.Conv2d(8, 16, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = (x := F.relu(self.conv(x))).shape
        parts = x.view(n, 2, 8, h, w)
        gates = F.hardsigmoid(self.gate(parts.sum(1).mean((2, 3), keepdim=True)))
        x = (parts * gates.view(n, 2, 8, 1, 1)).mean(dim=1)
        return self.last(x.mean((2, 3)))


def _attention(net: Any, x: Tensor) -> Tensor:
    both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
    return x * F.hardsigmoid(net.c(both))


CASES: dict[str, tuple[nn.Module, list[str], list[str]]] = {
    # name: network, passes that must change it, the resulting operations
    "channels last": (
        ChannelsLast(),
        ["dense layers over channels", "activations of moved values",
         "sums and products of moved values",
         "concats of moved values", "means over maps"],
        ["Conv2d", "Conv2d", "BatchNorm2d", "Conv2d", "ReLU", "Conv2d", "add", "ReLU", "cat",
         "AdaptiveAvgPool2d", "flatten", "Linear"],
    ),
    "selective": (Selective(), ["sums of stacks", "stacks as concats"], []),
    "split": (Split(), ["sums of groups of channels"], []),
    "mean of a stack": (
        Net(lambda net, x: torch.stack([x, net.c(x), F.relu(x)]).mean(0), c=nn.Conv2d(4, 4, 1)),
        ["sums of stacks"], [],
    ),
    "maximum of a stack": (
        Net(lambda net, x: torch.stack((x, net.c(x)), -1).amax(-1), c=nn.Conv2d(4, 4, 1)),
        ["sums of stacks", "maxima of two"],
        ["Conv2d", "Conv2d", "cat", "Conv2d", "PixelShuffle", "MaxPool2d", "Conv2d"],
    ),
    "stack of channels": (
        Net(lambda net, x: torch.stack([x, F.relu(x)], 2).flatten(1, 2), 8), ["stacks as concats"],
        ["Conv2d", "ReLU", "cat", "Conv2d"],
    ),
    "side by side": (
        Net(lambda net, x: torch.hstack([x, F.relu(x)]), 8), ["stacks as concats"],
        ["Conv2d", "ReLU", "cat", "Conv2d"],
    ),
    "factor of five axes": (
        Net(lambda net, x: (x.view(-1, 2, 2, 8, 8) * 0.5 + torch.tensor([1.0, 2]).view(2, 1, 1))
            .reshape(-1, 4, 8, 8)),
        ["factors of moved values"], ["Conv2d", "Conv2d"],
    ),
    "minimum": (
        Net(lambda net, x: torch.minimum(x, net.c(x)), c=nn.Conv2d(4, 4, 1)), ["maxima of two"], [],
    ),
    "maximum of vectors": (
        Net(lambda net, x: x * torch.max(net.d(x.mean((2, 3))), x.amax((2, 3)))[..., None, None],
            d=nn.Linear(4, 4)), ["maxima of two"], [],
    ),
    "attention of pixels": (
        Net(_attention, c=nn.Conv2d(2, 1, 3, padding=1)), ["maxima over channels"], [],
    ),
    "maximum over many channels": (
        Net(lambda net, x: net.c(x).amax(1, keepdim=True), 1, c=nn.Conv2d(4, 37, 1)),
        ["maxima over channels"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_pass_leaves_the_networks_results(case: str) -> None:
    network, expected, left = CASES[case]
    graph, changes = normalise_by_steps(network, SHAPE)
    assert all(changes[name] for name in expected), changes
    if left:
        assert kinds(graph) == left


@pytest.mark.parametrize("case", CASES)
def test_every_way_computes_the_same(case: str) -> None:
    torch.manual_seed(0)
    check_law(CASES[case][0], [SHAPE], float_error=3e-2)


def test_each_pass_has_a_case() -> None:
    expected = {name for _, name, _ in OTHER_CASES.values()}
    expected |= {name for _, names, _ in CASES.values() for name in names}
    expected |= {name for *_, names in SEQUENCES.values() for name in names}
    tested_elsewhere = {"replacements", "merge selections", "arithmetic with constants",
                        "merge factors", "scaled product", "outputs as one tuple",
                        "softmax over two values", "shapes and order of outputs"}  # fmt: skip
    stages = (*CANONICAL, *REPLACING, *FOR_DPU)
    assert {step.name for stage in stages for step in stage} - tested_elsewhere <= expected


def test_a_softmax_over_two_branches_is_a_gate() -> None:
    network = SelectiveKernel()
    graph, changes = normalise_by_steps(network, SHAPE)
    assert changes["softmax over two values"] and "Sigmoid" in kinds(graph)
    graph, _ = normalise_by_steps(network, SHAPE, {"sigmoid": "hardsigmoid"})
    assert "Hardsigmoid" in kinds(graph)
    assert "permute" not in kinds(graph) and "movedim" not in kinds(graph)


# -- sequences and vectors as maps -----------------------------------------------------------------


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv1d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.ReLU())


class Residual(nn.Module):
    """A residual network over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = _block(2, 8, 2), nn.Sequential(_block(8, 8), _block(8, 8))
        self.branch, self.shared = _block(8, 4), nn.Conv1d(4, 4, 5, padding="same", dilation=2)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x), (1, 0))
        x = F.max_pool1d(x + self.block(x), 2)
        y = self.shared(F.relu(self.shared(self.branch(x))))
        x = torch.cat([F.avg_pool1d(x, 3, 1, 1), y], dim=1)
        return self.head(torch.cat([x.mean(-1), x.max(2)[0]], 1))


SEQUENCES: dict[str, tuple[nn.Module, tuple[int, ...], list[str]]] = {
    # name: network, shape of an image, passes that must change it
    "residual": (Residual(), (2, 24), ["sequences as rows", "layers of sequences"]),
    "decoder": (
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 16), nn.ReLU(),
            nn.Linear(16, 5 * 2 * 3), nn.BatchNorm1d(30), nn.ReLU(), nn.Unflatten(1, (5, 2, 3)),
            nn.ConvTranspose2d(5, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1),
        ),
        (3, 8, 8), ["vectors as maps"],
    ),
    "decoder of sequences": (
        nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(6, 16),
            nn.Unflatten(1, (4, 4)), nn.ConvTranspose1d(4, 3, 4, 2, 1), nn.Upsample(scale_factor=2),
            nn.ConstantPad1d(1, 0), nn.Conv1d(3, 2, 3, groups=1), nn.AvgPool1d(2),
        ),
        (2, 12), ["layers of sequences", "vectors as maps"],
    ),
    "pixels as a sequence": (
        Net(lambda net, x: net.n(net.q(x.flatten(2))).view(-1, 4, 8, 8), q=nn.Conv1d(4, 4, 1),
            n=nn.BatchNorm1d(4)),
        SHAPE, ["layers of sequences"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("case", SEQUENCES)
def test_sequences_and_vectors(case: str) -> None:
    network, shape, expected = SEQUENCES[case]
    _, changes = normalise_by_steps(network, shape)
    assert all(changes[name] for name in expected), changes
    torch.manual_seed(0)
    student = check_law(network, [shape], float_error=3e-2, cpu=case == "decoder of sequences")
    shared = [p for name, p in student.named_parameters() if "shared" in name]
    assert len(shared) == (2 if case == "residual" else 0)  # called twice
