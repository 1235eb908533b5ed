"""Outputs of networks: detection heads, nested results, final activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.graph_steps import normalise_by_steps  # noqa: E402
from tests.host.layer_law import as_filed, check_law, make_images  # noqa: E402
from tutelage.host.export.onnx_qdq import to_onnx  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_quantised  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

SHAPE = (3, 10, 12)


class Heads(nn.Module):
    """Two maps of a backbone, four convolutions on them, and a function that returns them."""

    def __init__(self, returned: Callable[..., Any], boxes: int = 8, classes: int = 6) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.heads = nn.ModuleList(
            nn.Conv2d(8, channels, 3, padding=1) for channels in (boxes, classes) * 2
        )
        self.returned = returned

    def forward(self, x: Tensor) -> Any:
        large = F.relu(self.stem(x))
        small = F.relu(self.down(large))
        return self.returned(*(head(y) for head, y in zip(self.heads, (large, large, small, small),
                                                          strict=True)))  # fmt: skip


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor


def _rows(x: Tensor, size: int) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1, size)


def _ssd(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Any:
    return torch.cat([_rows(a, 4), _rows(c, 4)], 1), torch.cat([_rows(b, 3), _rows(d, 3)], dim=1)


def _yolo(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Any:
    def anchors(x: Tensor) -> Tensor:
        n, k, h, w = x.shape
        return x.view(n, 2, k // 2, h, w).permute(0, 1, 3, 4, 2).contiguous()

    return [anchors(a), anchors(c)]


def _yolo8(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    both = [torch.cat(pair, 1) for pair in ((a, b), (c, d))]
    return torch.cat([x.view(x.shape[0], 14, -1) for x in both], 2).transpose(1, 2)


def _parts(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Any:
    anchors = a.view(a.shape[0], 2, 4, *a.shape[2:]).permute(0, 1, 3, 4, 2)
    return anchors[..., :3].flatten(1, 3), anchors[..., 3], d.flatten(1)


CASES: dict[str, Callable[..., Any]] = {
    "ssd": _ssd,
    "yolo": _yolo,
    "yolo of anchors last": _yolo8,
    "channels last": lambda a, b, c, d: (a.permute(0, 2, 3, 1), c),
    "slices of anchors": _parts,
    "nested": lambda a, b, c, d: {"out": Found(a, b.mean((2, 3))), "aux": [c, (d, None)]},
    "rows of maps": lambda a, b, c, d: torch.cat([a, F.interpolate(c, None, 2)[:, :, :5]], 2),
    "flattened": lambda a, b, c, d: torch.cat([b.flatten(1), d.flatten(1)], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_way_returns_the_networks_outputs(name: str) -> None:
    torch.manual_seed(0)
    check_law(Heads(CASES[name]), [SHAPE], cpu=True, float_error=3e-2)


@pytest.mark.parametrize("name", CASES)
def test_every_pass_keeps_the_outputs(name: str) -> None:
    torch.manual_seed(0)
    normalise_by_steps(Heads(CASES[name]), SHAPE)


def test_rows_of_maps_cost_nothing() -> None:
    """The permutation of a head is the DPU's own order."""
    student = Student(Heads(_ssd), SHAPE)
    kinds = [op.get_type() for op in to_quantised(student, "ssd").toposort()]
    assert kinds.count("reshape") == 4 and kinds.count("concat") == 2 and "transpose" not in kinds


@pytest.mark.parametrize("name", ["ssd", "yolo", "yolo of anchors last", "flattened"])
def test_onnx_has_them_too(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX file")
    torch.manual_seed(0)
    images = make_images([SHAPE])
    student = Student(Heads(CASES[name]), SHAPE).eval()
    calibrate(student, images)
    wanted = as_filed(student, images)
    session = onnxruntime.InferenceSession(to_onnx(to_quantised(student, "law")))
    found = session.run(None, {"images": images[0].numpy()})
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape and abs(mine - theirs).max() <= 2**-3


# -- activations at the end -------------------------------------------------------------------


def _pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


ENDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "log of softmax": (lambda a, b, c, d: torch.log(F.softmax(_pooled(b), 1)), ("softmax",)),
    "method": (lambda a, b, c, d: _pooled(b).softmax(-1).log(), ("softmax",)),
    "several": (
        lambda a, b, c, d: (_pooled(a).sigmoid(), _pooled(b), F.log_softmax(_pooled(d), -1)),
        ("sigmoid", "", "softmax"),
    ),
    "over pixels": (lambda a, b, c, d: (F.softmax(b, 1), a), ("softmax", "")),
    "over pixels, then channels last": (
        lambda a, b, c, d: F.softmax(b, 1).permute(0, 2, 3, 1), ("softmax",),
    ),
    "of rows": (
        lambda a, b, c, d: F.softmax(torch.cat([_rows(b, 3), _rows(d, 3)], 1), -1), ("softmax",),
    ),
    "in front of a concat": (
        lambda a, b, c, d: torch.cat([_rows(x, 3).softmax(2) for x in (b, d)], 1), ("softmax",),
    ),
    "sigmoids in front of a concat": (
        lambda a, b, c, d: torch.cat([_rows(b.sigmoid(), 3), _rows(d.sigmoid(), 3)], 1),
        ("sigmoid",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_a_cpu_result_has_the_outputs_name(name: str) -> None:
    returned, expected = ENDS[name]
    torch.manual_seed(0)
    normalise_by_steps(Heads(returned), SHAPE)
    student = Student(Heads(returned), SHAPE)
    assert student.activations == expected
    assert student.activation == next(name for name in expected if name)


def test_a_part_of_a_map_in_another_shape_is_refused() -> None:
    network = Heads(lambda a, b, c, d: a[:, :, 1::2].flatten(1)[:, 3:])
    with pytest.raises(UnsupportedOp, match=r"return the map itself") as refusal:
        Student(network, SHAPE)
    assert refusal.value.file == __file__ and refusal.value.line
