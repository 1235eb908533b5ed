"""Users' layers: student, files, emulation and instructions give the same bits."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.host.layer_law import check_law, make_images, outputs_of, seasoned  # noqa: E402
from tutelage.dpu.compiler.emulation import on_cpu  # noqa: E402
from tutelage.dpu.engine.reference import load_engine  # noqa: E402
from tutelage.dpu.inspect.layers import layers_of  # noqa: E402
from tutelage.dpu.ops.limits import BANK_DEPTH, dense_shape  # noqa: E402
from tutelage.dpu.predict.operations import operations_of  # noqa: E402
from tutelage.host.explore.network_operations import network_operations  # noqa: E402
from tutelage.host.export.onnx_qdq import to_onnx  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.graph.modules import ChannelSlice, PaddedConv2d  # noqa: E402
from tutelage.host.quantise.layers.convolution import Conv  # noqa: E402
from tutelage.host.quantise.layers.hard_sigmoid import HardSigmoid  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_graph, to_quantised  # noqa: E402
from tutelage.host.quantise.walker import UnsupportedOp  # noqa: E402

EXAMPLES = int(os.environ.get("TUTELAGE_EXAMPLES", "10"))

Shape = tuple[int, int, int]


class Then(nn.Module):
    """Some layers, and a function of their outputs."""

    def __init__(self, function: Callable[[Tensor], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(self.layers(x))


def _resnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1, groups=16, bias=False),
        nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 96, 3, 2, 1, groups=32), nn.ReLU(),
        nn.Conv2d(96, 192, 3, 1, 1, groups=96), nn.Conv2d(192, 10, 1),
    )  # fmt: skip


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=2), nn.BatchNorm2d(12),
        nn.ReLU(), nn.ConvTranspose2d(12, 12, 3, 2, 1, output_padding=1, groups=12), nn.ReLU6(),
        nn.ConvTranspose2d(12, 5, 3, dilation=2),
    )  # fmt: skip


def _norms() -> nn.Module:
    """Return norms after convolutions, linear layers and activations, with and without factors."""
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8), nn.ReLU6(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 10),
        nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 7), nn.SyncBatchNorm(7),
    )  # fmt: skip


def _slopes() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.MaxPool2d(2), nn.LeakyReLU(), nn.Conv2d(8, 8, 1),
        nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(8 * 9, 6), nn.PReLU(), nn.Linear(6, 4),
    )  # fmt: skip


def _pads() -> nn.Module:
    return nn.Sequential(
        nn.ZeroPad2d((1, 2, 0, 3)), nn.MaxPool2d(2), nn.ZeroPad2d(2),
        nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 1, padding=1),
        PaddedConv2d(4, 6, 3, 2, pads=(0, 1, 2, 1)), PaddedConv2d(6, 6, 2, pads=(1, 0, 0, 1)),
    )  # fmt: skip


class SqueezeExcite(nn.Module):
    """A gate that is temporarily a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        gate = F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        x = x * gate.view(-1, 8, 1, 1).expand_as(x)
        x = x + x.amax((2, 3), keepdim=True) - F.avg_pool2d(x, 3, 1, 1)
        return self.last((x * F.hardsigmoid(x[:, :1])).mean((2, 3)))


class Shared(nn.Module):
    """Convolution, norm and linear layer that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.norm, self.dense, self.relu = nn.BatchNorm2d(8), nn.Linear(8, 8), nn.ReLU(True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = self.relu(self.norm(self.conv(x)))
        return self.dense(self.dense(x.mean((2, 3))))


class Joins(nn.Module):
    """The same value twice in concats and sums, the input too, and sums in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next, self.last = nn.Conv2d(6, 5, 3), nn.Conv2d(10, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(torch.cat([x, x], 1))
        y = self.next(torch.cat([y, y], 1))
        y = y + y
        z = F.relu(y)
        z += y
        z *= y
        return self.last(F.relu_(z).mean((2, 3)))


CASES: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "grouped": (_resnext, (3, 8, 7)),
    "grouped stem, dilated": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 5, 2, groups=2), nn.ReLU(),
                              nn.Conv2d(8, 24, 3, groups=8, dilation=2)), (4, 18, 20)),
    "transposed": (_transposed, (3, 8, 6)),
    "norms": (_norms, (3, 8, 8)),
    "slopes": (_slopes, (3, 8, 8)),
    "pads": (_pads, (3, 8, 12)),
    "squeeze and excite": (SqueezeExcite, (3, 8, 12)),
    "shared": (Shared, (3, 9, 6)),
    "joins": (Joins, (3, 9, 6)),
    "pixel shuffle": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
                              nn.PixelShuffle(2), nn.PixelShuffle(1), nn.Conv2d(3, 4, 1)),
        (3, 9, 11)),
    "pixel shuffle behind a pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.MaxPool2d(2), nn.PixelShuffle(2)),
        (3, 8, 12)),
    "pixel unshuffle": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 5, 3)),
                        (3, 8, 12)),
    "upsampled": (
        lambda: Then(lambda x: F.interpolate(x, scale_factor=(2, 3)) + F.interpolate(x, (8, 18)),
                     nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()), (3, 4, 6)),
    "pools": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, (1, 5), (2, 1), (0, 2)), nn.AvgPool2d((1, 2), (1, 2)),
                              nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten(), nn.Linear(48, 4)),
        (3, 8, 18)),
    "rows": (lambda: Then(lambda x: x.amax(3, keepdim=True), nn.Conv2d(3, 8, 3)), (3, 8, 12)),
    "channels": (
        lambda: Then(lambda x: torch.cat([x, x[:, :4]], 1),
                     nn.Conv2d(3, 20, 3), ChannelSlice(3, 17), nn.ReLU(), nn.Conv2d(14, 9, 1)),
        (3, 8, 12)),
    "wide dense": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5), nn.ReLU(),
                              nn.Flatten(), nn.Linear(8 * 24 * 24, 32), nn.ReLU(),
                              nn.Linear(32, 4)), (3, 32, 32)),
    "dense on images": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 21 * 17, 12), nn.Linear(12, 4)),
        (3, 21, 17)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_way_computes_the_same(name: str) -> None:
    make, shape = CASES[name]
    torch.manual_seed(0)
    # Means over sizes other than powers of two have the DPU's factor, nearly 1 / area.
    check_law(make(), [shape], float_error=3e-2)


@pytest.mark.parametrize("name", ["grouped", "slopes", "squeeze and excite", "pads"])
def test_narrow_activations_are_clipped(name: str) -> None:
    make, shape = CASES[name]
    torch.manual_seed(0)
    images = make_images([shape])
    student = Student(seasoned(make(), images), shape, Bits(4, 4)).eval()
    calibrate(student, images)
    with torch.no_grad():
        wanted = student(*images).numpy()
    graph = to_graph(student, "narrow", clip=True)
    assert not on_cpu(to_quantised(student, "narrow", clip=True))
    found = load_engine(graph, "reference").run(images[0].permute(0, 2, 3, 1).numpy())
    found = found.transpose(0, 3, 1, 2) if found.ndim == 4 else found
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["grouped", "transposed", "pads", "squeeze and excite",
                                  "pixel shuffle", "channels", "wide dense"])  # fmt: skip
def test_onnx_has_them_too(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX file")
    make, shape = CASES[name]
    torch.manual_seed(0)
    images = make_images([shape])
    student = Student(seasoned(make(), images), shape).eval()
    calibrate(student, images)
    with torch.no_grad():
        wanted = student(*images).numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(to_onnx(to_quantised(student, "law")), options)
    (found,) = session.run(None, {"images": images[0].numpy()})
    step = 2.0 ** -student.fix_points().activations[student.output]
    assert np.abs(found - wanted).max() <= 2 * step


@pytest.mark.parametrize("name", ["grouped", "transposed", "pads", "upsampled", "wide dense",
                                  "slopes"])  # fmt: skip
def test_the_prediction_uses_the_files_layers(name: str) -> None:
    make, shape = CASES[name]
    torch.manual_seed(0)
    network = make().eval()
    student = Student(network, shape).eval()
    calibrate(student, make_images([shape]))

    def essence(operations: list[Any]) -> list[Any]:
        kinds = ("conv2d", "depthwise-conv2d", "transposed-conv2d", "transposed-depthwise-conv2d")
        return sorted((o.kind, o.output, o.kernel, o.macs) for o in operations if o.kind in kinds)

    found = essence(network_operations(network, shape))
    filed = essence(operations_of(layers_of(to_quantised(student, "law"))))
    if name == "transposed":  # the file has zeros between the groups
        found = [o for o in found if o[1][2] != 12]
        filed = [o for o in filed if o[1][2] != 12]
    assert found == filed and found


# -- shared modules ---------------------------------------------------------------------------


def test_a_module_that_is_called_twice_has_one_set_of_parameters() -> None:
    torch.manual_seed(0)
    network = Shared()
    student = check_law(network, [(3, 9, 6)], float_error=3e-2)
    convs = dict(student.convs())
    first, second = convs["conv"], convs["conv_2"]
    assert first.weight is second.weight and first.norm is second.norm is not None
    assert convs["dense"].weight is convs["dense_2"].weight
    names = [name for name, _ in student.named_parameters()]
    trained = sum(p.numel() for p in network.parameters())
    assert sum(student.get_parameter(n).numel() for n in names if n != "log2_t") == trained
    assert student.weight_of["conv"] is not student.weight_of["conv_2"]


def test_their_gradients_add_up() -> None:
    network = nn.Sequential(*[nn.Conv2d(2, 2, 1, bias=False)] * 2)
    student = Student(network, (2, 4, 4)).train()
    student.observer = lambda name, values: None
    images = torch.randn(3, 2, 4, 4)
    student(images).sum().backward()
    network(images).sum().backward()
    (weight,) = (p for n, p in student.named_parameters() if n != "log2_t")
    torch.testing.assert_close(weight.grad, network[0].weight.grad)


# -- several inputs and outputs ----------------------------------------------------------------


class TwoEyes(nn.Module):
    """Two images of different sizes; a map, logits, and the logits once more."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(1, 8, 3, padding=1)
        self.head, self.last = nn.Conv2d(16, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = F.relu(self.head(torch.cat([self.left(x), self.right(y)], 1)))
        logits = self.last(z.mean((2, 3)))
        return z, logits, logits


def test_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    shapes = [(3, 16, 8), (1, 8, 4)]
    student = check_law(TwoEyes(), shapes)
    assert student.inputs == ("input", "input_2") and len(student.outputs) == 3
    found = student(*make_images(shapes))
    assert [tuple(y.shape) for y in found] == [(12, 6, 8, 4), (12, 4), (12, 4)]
    with pytest.raises(UnsupportedOp, match=r"2 inputs; give it one image"):
        student.check_classifier()
    with pytest.raises(UnsupportedOp, match=r"3 outputs .*return the logits only"):
        student.output  # noqa: B018
    with pytest.raises(TypeError, match="takes 2 inputs, not 1"):
        student(torch.zeros(1, 3, 16, 8))
    with pytest.raises(ValueError, match="different numbers for the inputs"):
        calibrate(student, (torch.zeros(2, 3, 16, 8), torch.zeros(1, 1, 8, 4)))


def test_inputs_have_fix_points_of_their_own() -> None:
    torch.manual_seed(0)
    shapes = [(3, 16, 8), (1, 8, 4)]
    left, right = make_images(shapes)
    student = Student(TwoEyes(), shapes).eval()
    calibrate(student, (left, right / 8))
    points = student.fix_points().activations
    assert points["input"] == 7 and points["input_2"] == 10
    given_points = Student(TwoEyes(), shapes, input_fix_point=5).fix_points().activations
    assert given_points["input"] == given_points["input_2"] == 5


def test_onnx_with_several_inputs_and_outputs() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the ONNX file")
    torch.manual_seed(0)
    shapes = [(3, 16, 8), (1, 8, 4)]
    images = make_images(shapes)
    student = Student(TwoEyes(), shapes).eval()
    calibrate(student, images)
    with torch.no_grad():
        wanted = [y.numpy() for y in outputs_of(student(*images))]
    session = onnxruntime.InferenceSession(to_onnx(to_quantised(student, "eyes")))
    feeds = {"images": images[0].numpy(), "images_2": images[1].numpy()}
    for name, ours in zip(("logits", "logits_2"), wanted, strict=True):
        (found,) = session.run([name], feeds)
        assert np.abs(found - ours).max() <= 2 * 2.0**-4


# -- activations that have other readers -------------------------------------------------------


def _read_before(x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, 2)
    return y + F.avg_pool2d(F.relu(x), 2)


def _read_after_in_place(x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, 2)
    F.relu_(x)
    return y + F.avg_pool2d(x, 2)


def _by_position(x: Tensor) -> Tensor:
    y = F.relu(x, True)
    return x + F.max_pool2d(y, 3, 1, 1)


def _added_in_place(x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, 2)
    z = F.max_pool2d(x, 2)
    y.add_(z)
    return y + z


@pytest.mark.parametrize(
    "function", [_read_before, _read_after_in_place, _by_position, _added_in_place]
)
def test_readers_get_the_value_that_pytorch_gives_them(function: Any) -> None:
    torch.manual_seed(0)
    check_law(Then(function, nn.Conv2d(3, 8, 3, padding=1)), [(3, 8, 8)])


# -- hard sigmoid --------------------------------------------------------------------------------


def test_a_hard_sigmoid_keeps_the_fix_point_at_which_it_ends_at_1() -> None:
    torch.manual_seed(0)
    student = Student(SqueezeExcite(), (3, 8, 8)).eval()
    (images,) = make_images([(3, 8, 8)])
    size = len(student.log2_t)

    @given(st.lists(st.floats(-5, 5), min_size=size, max_size=size))
    @settings(deadline=None, max_examples=10)
    def holds(thresholds: list[float]) -> None:
        student.log2_t.data = torch.tensor(thresholds)
        points = student.fix_points().activations
        gates = [n for n in student.layers if isinstance(student.layer(n), HardSigmoid)]
        assert len(gates) == 3 and min(points[name] for name in gates) >= 7
        quantised = to_quantised(student, "any")
        assert not on_cpu(quantised)
        with torch.no_grad():
            wanted = student(images).numpy()
        engine = load_engine(quantised, "reference")
        np.testing.assert_array_equal(engine.run(images.permute(0, 2, 3, 1).numpy()), wanted)

    holds()


# -- dense layers over wide maps -----------------------------------------------------------------


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 600))
def test_the_shape_of_a_dense_layer(height: int, width: int, channels: int) -> None:
    found = dense_shape(height, width, channels)
    own = (height, width, channels)
    if max(height, width) <= 16 and height * width * -(-channels // 16) <= BANK_DEPTH:
        assert found == own
    if found is None:
        assert height * width * channels > 4096 or max(height, width) > 16
        return
    rows, columns, depth = found
    assert rows * columns * depth == height * width * channels
    assert max(rows, columns) <= 16 and depth <= 4096
    assert rows * columns * -(-depth // 16) <= BANK_DEPTH


def test_the_bank_of_a_grouped_kernel_is_that_of_its_groups() -> None:
    """All 1,024 channels of a kernel of 7x7 would take 3,136 words, a group of outputs takes 49."""
    network = nn.Sequential(nn.Conv2d(3, 1024, 1), nn.Conv2d(1024, 1024, 7, groups=64))
    student = Student(network, (3, 8, 7))
    calibrate(student, make_images([(3, 8, 7)], 2))
    assert not on_cpu(to_quantised(student, "grouped"))


def test_a_kernel_beyond_the_array_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Conv2d(3, 4, 17)
            self.apart = nn.Conv2d(4, 4, 3, 9, groups=4)

        def forward(self, x: Tensor) -> Any:
            return self.apart(self.large(x))

    with caplog.at_level(logging.WARNING):
        Student(Large(), (3, 32, 32))
    (record,) = caplog.records  # a depthwise one may have a stride of 9
    assert record.getMessage().startswith("large (File ")
    assert "kernel 17x17; the DPU supports 1 to 16: the CPU would" in record.getMessage()
    assert "use several smaller convolutions" in record.getMessage()


# -- random networks -----------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, Shape]:
    """One to four of the layers above in sequence, on a map of any small size."""
    channels = draw(st.sampled_from([3, 8, 12]))
    shape = (channels, draw(st.integers(8, 14)), draw(st.integers(8, 14)))
    layers: list[nn.Module] = [nn.Conv2d(channels, 12, 3, padding=1)]
    for _ in range(draw(st.integers(1, 4))):
        layers += draw(st.sampled_from(_BLOCKS))(draw)
    network = nn.Sequential(*layers, nn.Conv2d(12, 3, 1))
    try:
        network.eval()(torch.zeros(1, *shape))
    except RuntimeError:  # the pools have left less than a kernel
        reject()
    return network.train(), shape


def _grouped(draw: st.DrawFn) -> list[nn.Module]:
    groups = draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    wide = 12 * draw(st.integers(1, 2))
    kernel, pads = (
        draw(st.integers(1, 4)),
        draw(st.lists(st.integers(0, 4), min_size=4, max_size=4)),
    )
    first = PaddedConv2d(12, wide, kernel, pads=(pads[0], pads[1], 3, pads[3]), groups=groups)
    return [first, nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, 12, 1, groups=groups)]


def _transposed_block(draw: st.DrawFn) -> list[nn.Module]:
    groups, stride = draw(st.sampled_from([1, 3, 12])), draw(st.integers(1, 2))
    kernel = draw(st.integers(stride, 4))
    padding = draw(st.integers(0, (kernel - 1) // 2))
    up = nn.ConvTranspose2d(12, 12, kernel, stride, padding, groups=groups)
    return [up, nn.ReLU6(), nn.AvgPool2d(2)]


def _activation(draw: st.DrawFn) -> list[nn.Module]:
    kinds: list[Callable[[], nn.Module]] = [
        nn.PReLU, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.ReLU6,
        lambda: nn.LeakyReLU(0.1), lambda: nn.BatchNorm2d(12, affine=False),
    ]  # fmt: skip
    return [draw(st.sampled_from(kinds))()]


def _moved(draw: st.DrawFn) -> list[nn.Module]:
    kinds: list[Callable[[], list[nn.Module]]] = [
        lambda: [nn.ZeroPad2d((1, 0, 2, 1))],
        lambda: [nn.Upsample(scale_factor=2), nn.MaxPool2d(3, 2)],
        lambda: [ChannelSlice(2, 9), nn.Conv2d(7, 12, 1)],
        lambda: [nn.Conv2d(12, 48, 1), nn.PixelShuffle(2), nn.MaxPool2d(2)],
        lambda: [Then(lambda x: x + x.amax((2, 3), keepdim=True))],
        lambda: [Then(lambda x: torch.cat([x, x], 1)), nn.Conv2d(24, 12, 1, groups=4)],
    ]
    return draw(st.sampled_from(kinds))()


_BLOCKS = (_grouped, _transposed_block, _activation, _moved)


@pytest.mark.slow
@given(networks(), st.integers(0, 2**16), st.sampled_from([Bits(), Bits(4, 8)]))
@settings(
    deadline=None, max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_random_networks(network: tuple[nn.Module, Shape], seed: int, bits: Bits) -> None:
    module, shape = network
    check_law(module, [shape], bits, float_error=None, seed=seed)


def test_parameters_are_convolutions_alone() -> None:
    """Layers that select or repeat values add no trainable parameters."""
    student = Student(nn.Sequential(nn.Conv2d(3, 12, 1), nn.PixelShuffle(2)), (3, 4, 4))
    assert [type(layer) for _, layer in student.convs()] == [Conv]
