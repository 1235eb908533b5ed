"""Products of maps: a network with channel attention is its .xmodel in every logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.fixed_point import MAX_SHIFT
from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.inspect.layers import layers_of
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.predict.operations import operations_of

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.explore.network_operations import network_operations  # noqa: E402
from tutelage.host.export.onnx_qdq import FLOAT32, to_onnx  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.layers.product import Product  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_graph, to_quantised  # noqa: E402
from tutelage.host.quantise.trace import trace  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

SHAPE = (3, 12, 12)


class Attention(nn.Module):
    """Squeeze and excitation (Hu et al. 2018) with a ReLU6, and a product of two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 3, 2, 1)
        self.classes = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x * F.relu6(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = torch.mul(F.max_pool2d(self.left(x), 2), self.right(x))
        return self.classes(torch.cat([y, self.right(x)], 1).mean((2, 3)))


def _student(bits: Bits) -> tuple[Student, Tensor]:
    torch.manual_seed(0)
    network = Attention()
    images = torch.rand(64, *SHAPE) * 2 - 1
    for _ in range(5):
        network(images)  # the norm learns statistics
    student = Student(network.eval(), SHAPE, bits)
    calibrate(student, images)
    return student, images


@pytest.mark.parametrize("bits", [Bits(), Bits(4, 8), Bits(4, 4, joined=0), Bits(3, 3)], ids=str)
def test_a_student_with_products_is_its_xmodel(bits: Bits) -> None:
    student, images = _student(bits)
    student.train()
    optimiser = torch.optim.SGD(student.parameters(), 0.05)
    for _ in range(3):
        F.cross_entropy(student(images), torch.arange(64) % 5).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        wanted = student.eval()(images).numpy()
    assert len(np.unique(wanted)) > 10
    clip = bits.activations < 8
    assert not on_cpu(to_quantised(student, "attention", clip))
    graph = to_graph(student, "attention", clip)
    nhwc = images.permute(0, 2, 3, 1).numpy()
    for engine in ("fast", "reference"):
        assert np.array_equal(load_engine(graph, engine).run(nhwc), wanted), engine


def test_its_fix_points_leave_shifts_that_the_dpu_has() -> None:
    student, _ = _student(Bits())
    products = [layer for layer in map(student.layer, student.layers) if isinstance(layer, Product)]
    size = len(student.log2_t)

    @given(st.lists(st.floats(-24, 24), min_size=size, max_size=size))
    @settings(deadline=None, max_examples=60)
    def holds(thresholds: list[float]) -> None:
        student.log2_t.data = torch.tensor(thresholds)
        points = student.fix_points().activations
        for layer in products:
            shift = sum(points[source] for source in layer.inputs) - points[layer.name]
            assert 0 <= shift <= MAX_SHIFT

    assert len(products) == 2
    holds()


def test_onnx_has_it_too(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX file")
    student, images = _student(Bits())
    graph = to_quantised(student, "attention")
    with torch.no_grad():
        wanted = student.eval()(images).numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for form, tolerance in (("int8", 4), (FLOAT32, 12)):
        session = onnxruntime.InferenceSession(to_onnx(graph, form), options)
        (found,) = session.run(None, {"images": images.numpy()})
        step = 2.0 ** -student.fix_points().activations["classes"]
        assert np.abs(found - wanted).max() <= tolerance * step


def test_its_operations_are_those_of_the_file() -> None:
    student, _ = _student(Bits())

    def essence(operations: list[Any]) -> list[Any]:
        found = [(o.kind, o.output, o.macs) for o in operations if not op_type(o.kind).free]
        # A quantised file has one op type for all products, a compiled one has two.
        products = {"depthwise": "mul", "eltwise": "mul"}
        return sorted((products.get(kind, kind), *rest) for kind, *rest in found)

    traced = network_operations(Attention(), SHAPE)
    assert essence(traced) == essence(operations_of(layers_of(to_graph(student, "attention"))))
    assert sum(operation.kind == "mul" for operation in traced) == 2


def test_a_product_that_the_dpu_does_not_have() -> None:
    class Outer(nn.Module):
        """One value for each channel times one for each pixel."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x.mean((2, 3), True) * F.max_pool2d(x[:, :1], 4)

    with pytest.raises(UnsupportedOp, match=r"of \(3, 1, 1\) and \(1, 3, 3\) at mul"):
        trace(Outer(), SHAPE)
