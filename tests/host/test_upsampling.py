"""Interpolated maps, on the CPU or with a replacement on the DPU."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.graph_steps import kinds, normalise_by_steps  # noqa: E402
from tests.host.layer_law import as_filed, check_law, make_images  # noqa: E402
from tests.host.test_layers import Then  # noqa: E402
from tutelage.host.export.onnx_qdq import to_onnx  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.layers.upsample import Interpolate, Nearest  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_quantised  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

SHAPE = (3, 5, 6)

WAYS: dict[str, dict[str, Any]] = {
    "twice": {"scale_factor": 2, "mode": "bilinear"},
    "aligned": {"size": (13, 17), "mode": "bilinear", "align_corners": True},
    "smaller": {"size": (4, 4), "mode": "bilinear"},
    "nearest to a size": {"size": (7, 16)},
}


def _network(**options: Any) -> nn.Module:
    last = nn.Conv2d(4, 3, 3, padding=1)
    net = Then(lambda x: last(F.interpolate(x, **options)), nn.Conv2d(3, 4, 3, padding=1))
    net.last = last
    return net


@pytest.mark.parametrize("way", WAYS)
def test_the_cpu_interpolates(way: str) -> None:
    torch.manual_seed(0)
    check_law(_network(**WAYS[way]), [SHAPE], cpu=True)


@pytest.mark.parametrize("way", WAYS)
def test_onnx_has_it_too(way: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX file")
    torch.manual_seed(0)
    images = make_images([SHAPE])
    student = Student(_network(**WAYS[way]), SHAPE).eval()
    calibrate(student, images)
    (wanted,) = as_filed(student, images)
    session = onnxruntime.InferenceSession(to_onnx(to_quantised(student, "law")))
    (found,) = session.run(None, {"images": images[0].numpy()})
    assert abs(found.transpose(0, 2, 3, 1) - wanted).max() <= 2**-4


@given(
    before=st.tuples(*[st.integers(1, 9)] * 2), after=st.tuples(*[st.integers(1, 24)] * 2),
    mode=st.sampled_from(["nearest", "bilinear", "aligned"]),
)  # fmt: skip
@settings(deadline=None, max_examples=50, derandomize=True)
def test_they_are_pytorchs(before: tuple[int, int], after: tuple[int, int], mode: str) -> None:
    x = torch.randn(2, 3, *before)
    if mode == "nearest":
        layer: Any = Nearest(("x",), (3, *after), before)
        wanted = F.interpolate(x, after)
    else:
        layer = Interpolate(("x",), (3, *after), before, mode == "aligned")
        wanted = F.interpolate(x, after, mode="bilinear", align_corners=mode == "aligned")
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("mode", ["nearest", "transposed"])
def test_replacements_on_the_dpu(mode: str) -> None:
    torch.manual_seed(0)
    network = _network(scale_factor=(2, 3), mode="bilinear").eval()
    graph, _ = normalise_by_steps(network, SHAPE, {"bilinear": mode})
    middle = {"nearest": "Upsample", "transposed": "ConvTranspose2d"}[mode]
    assert kinds(graph) == ["Conv2d", middle, "Conv2d"]
    if mode == "transposed":
        x = torch.randn(2, 4, 5, 6)
        step = graph.module_of(next(n for n in graph.nodes if graph.module_of(n) and
                                    type(graph.module_of(n)).__name__ == middle))  # fmt: skip
        assert step is not None
        wanted = F.interpolate(x, scale_factor=(2, 3), mode="bilinear")
        inside = (..., slice(1, -1), slice(1, -1))
        torch.testing.assert_close(step(x)[inside], wanted[inside])


def test_scales_that_are_not_a_quotient_are_refused() -> None:
    def forward(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=1.3, mode="bilinear")

    with pytest.raises(UnsupportedOp, match="recompute_scale_factor=True") as refusal:
        Student(Then(forward, nn.Conv2d(3, 4, 1)), SHAPE)
    assert refusal.value.file == __file__
