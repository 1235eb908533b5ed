"""Typical networks of users, from PyTorch to a board's instructions."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.layer_law import check_law, make_images  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.trace import trace  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

SHAPE = (3, 18, 14)


def _cbr(inputs: int, outputs: int, stride: int = 1, **options: Any) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ShuffleUnits(nn.Module):
    """Channel split, a branch, concat and shuffle, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _cbr(3, 8, 2)
        self.units = nn.ModuleList(
            nn.Sequential(_cbr(4, 4), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.BatchNorm2d(4),
                          nn.Conv2d(4, 4, 1), nn.ReLU())
            for _ in range(2)
        )  # fmt: skip
        self.classify = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for unit in self.units:
            kept, worked = x.chunk(2, dim=1)
            x = torch.cat((kept, unit(worked)), 1)
            n, c, h, w = x.size()
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        return self.classify(x.mean([2, 3]))


class OptionA(nn.Module):
    """The residual network whose shortcut drops pixels and pads channels."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = _cbr(3, 6), nn.Sequential(_cbr(6, 12, 2), nn.Conv2d(12, 12, 3, 1, 1))
        self.register_buffer("mean", torch.tensor([0.1, 0.0, -0.1]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.5, 0.4, 0.45]).view(3, 1, 1))
        self.classify = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / self.std)
        skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        x = F.relu(skip + 0.5 * self.body(x))
        return F.log_softmax(self.classify(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1)), 1)


class Squeezed(nn.Module):
    """Hand-written hard-swish, squeeze and excite by dense layers, asymmetric padding."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.classify = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pad(x))
        x = x * F.relu6(x + 3.0) / 6.0
        gate = F.relu(self.squeeze(x.mean((2, 3))))
        x = x * F.hardsigmoid(self.excite(gate)).view(x.shape[0], -1, 1, 1)
        return self.classify(F.adaptive_avg_pool2d(x, 1)).flatten(1)


class Branching(nn.Module):
    """Control flow on types and sizes, which symbolic tracing alone does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = _cbr(3, 8, 2), nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU())
        self.classify = nn.Linear(8, 4)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError("an image, please")
        x = self.a(x if scale is None else x * scale)
        if x.shape[-1] > 4:
            x = self.b(x).clamp(0, 6)
        x = F.batch_norm(x, torch.zeros(8), torch.ones(8) * 2, None, None, False, 0.1, 1e-5)
        return torch.sigmoid(self.classify(x.mean(dim=(-1, -2))))


class Written(nn.Module):
    """Assignment to a part of a tensor, which only torch.export traces."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = _cbr(3, 8, 2), _cbr(8, 8)
        self.classify = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_tensor(x):
            raise TypeError("an image, please")
        return self.classify(F.dropout(self.b(self.a(x)), 0.1, self.training).mean((2, 3)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "shuffle": (ShuffleUnits, "softmax"), "option A": (OptionA, "softmax"),
    "squeezed": (Squeezed, "softmax"), "branching": (Branching, "sigmoid"),
    "written": (Written, "softmax"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    make, activation = NETWORKS[name]
    ends = name in ("option A", "branching")
    student = check_law(make(), [SHAPE], float_error=None if ends else 1e-4)
    assert student.activation == activation


def test_the_student_of_exchanged_activations(caplog: pytest.LogCaptureFixture) -> None:
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.GELU()
            )
            self.classify = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.classify(self.body(x).mean((2, 3)))

    network, (images,) = Smooth(), make_images([SHAPE])
    with pytest.raises(UnsupportedOp, match=r"SiLU at body\.1.*replace"):
        Student(network, SHAPE)
    with caplog.at_level(logging.WARNING):
        student = Student(network, SHAPE, replace={"silu": "hardswish", "gelu": "relu"}).eval()
    assert "replaced silu by hardswish in 1 place (body.1)" in caplog.text
    assert "replaced gelu by relu in 1 place (body.3)" in caplog.text
    student.observer = lambda name, values: None
    network.body[1], network.body[3] = nn.Hardswish(), nn.ReLU()
    torch.testing.assert_close(student(images), network.eval()(images), rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="replace swoosh=relu is not known"):
        trace(network, SHAPE, {"swoosh": "relu"})


def test_a_convolution_that_is_called_twice_has_one_weight() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pad = nn.Conv2d(3, 3, 3), nn.ZeroPad2d((1, 1, 2, 0))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.pad(F.relu(self.conv(self.pad(x)))))

    first, second = (layer for _, layer in Student(Twice(), SHAPE).convs())
    assert first.weight is second.weight and first.bias is second.bias
    check_law(Twice(), [SHAPE])


# -- the networks of the shared cases ---------------------------------------------------------

NETS = Path(__file__).parents[3] / "shared/cases/nets/nets.py"
REPLACE = {"Silu": {"silu": "hardswish"}, "Elu": {"elu": "relu"}}
ON_CPU = {"BigKernel": "kernel 17x17"}
"""Parts of networks that the DPU does not support."""


@pytest.fixture(scope="module")
def nets() -> ModuleType:
    if not NETS.is_file():
        pytest.skip(f"{NETS} is not here")
    spec = importlib.util.spec_from_file_location("nets_of_users", NETS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_networks_that_users_bring(nets: ModuleType) -> None:
    found = [cls for _, cls in inspect.getmembers(nets, inspect.isclass)
             if issubclass(cls, nn.Module) and cls.__module__ == nets.__name__]  # fmt: skip
    assert len(found) > 50
    for cls in found:
        torch.manual_seed(0)
        name = cls.__name__
        if name in REPLACE:
            assert trace(cls(), (3, 32, 32), REPLACE[name])
            continue
        ends = name.endswith("End")
        student = check_law(cls(), [(3, 32, 32)], cpu=name in ON_CPU, board=name not in ON_CPU,
                            float_error=None if ends else 1e-4)  # fmt: skip
        assert student.activation == ("sigmoid" if name == "SigmoidEnd" else "softmax")
