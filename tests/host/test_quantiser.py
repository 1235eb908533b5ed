"""The quantised student: gradients, fix points, calibration, and the law that it is its .xmodel."""

from __future__ import annotations

import gzip
import logging
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.fixed_point import MAX_ALIGNMENT, MAX_SHIFT, pool_reciprocal, sum_is_exact
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.xmodel.graph import Graph

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks import create  # noqa: E402
from tutelage.host.networks.densenet import DenseNet  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.fake import FakeQuantise, quantise  # noqa: E402
from tutelage.host.quantise.layers.concat import Concat  # noqa: E402
from tutelage.host.quantise.layers.convolution import Conv  # noqa: E402
from tutelage.host.quantise.layers.eltwise import Add  # noqa: E402
from tutelage.host.quantise.layers.pooling import AvgPool, MaxPool  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import NotDeployable, save, to_graph  # noqa: E402

TEST_IMAGES = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
SMALL: dict[str, Any] = dict(growth_rate=4, block_config=(2, 2), in_channels=1)


@pytest.fixture(scope="module")
def images(repo_root: Path) -> Tensor:
    """Fashion-MNIST: the 300 shipped images, and 1,000 test images with Debian's package."""
    paths = sorted((repo_root / "app" / "demo" / "images").glob("*/*.png"))
    grey = np.stack([np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in paths])
    if TEST_IMAGES.is_file():
        raw = np.frombuffer(gzip.decompress(TEST_IMAGES.read_bytes())[16:], np.uint8)
        grey = np.concatenate([grey, raw.reshape(-1, 28, 28)[:1000]])
    return (torch.from_numpy(grey.astype(np.float32)) - 128)[:, None] / 128


# -- one quantiser ------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("ceiling", [-3, 0, 2])
def test_gradients_are_tqts_and_those_of_finite_differences(
    bits: int, signed: bool, ceiling: int
) -> None:
    """TQT (arXiv:1903.08066, eq. 6 to 8) passes the round and the ceil straight through.

    It thus differentiates s * (u + r), u = x / s, with the residue r of the rounding and the
    set of clipped values constant, and s = 2^log2_t / 2^m without the ceil: smooth in both.
    """
    generator = torch.Generator().manual_seed(bits)
    x, g = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    x = (x * 2.0**ceiling).requires_grad_()
    magnitude = bits - 1 if signed else bits
    lowest, highest = -(2**magnitude) if signed else 0, 2**magnitude - 1
    # Below the power of two, to which the ceil rounds it; the gradient is the same.
    log2_t = torch.tensor(ceiling - 0.3, dtype=torch.float64, requires_grad=True)
    point = magnitude - math.ceil(float(log2_t.detach()))
    y = FakeQuantise.apply(x, log2_t, point, lowest, highest, False)
    (y * g).sum().backward()
    assert log2_t.grad is not None and x.grad is not None

    with torch.no_grad():
        step = 2.0**-point
        rounded = torch.floor(x / step + 0.5)
        limit = rounded.clamp(lowest, highest)
        residue, inside = rounded - x / step, rounded == limit
        torch.testing.assert_close(y, step * limit)

        def smooth(x: Tensor, log2_t: float) -> Tensor:
            s = 2.0 ** (log2_t - magnitude)
            return s * torch.where(inside, x / s + residue, limit)

        h = 1e-5
        by_x = (smooth(x + h, ceiling) - smooth(x - h, ceiling)) / (2 * h)
        by_t = (smooth(x, ceiling + h) - smooth(x, ceiling - h)) / (2 * h)
        plain = step * math.log(2) * torch.where(inside, residue, limit)
    assert 0 < inside.sum() < len(x)
    torch.testing.assert_close(by_t, plain, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(log2_t.grad, (g * plain).sum())
    torch.testing.assert_close(by_x, inside.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, g * inside)


@given(
    values=st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20),
    point=st.integers(-3, 9),
    bits=st.integers(2, 8),
)
@settings(deadline=None, max_examples=60)
def test_rounding_is_the_dpus(values: list[float], point: int, bits: int) -> None:
    """Halves round up, as in tutelage.core.fixed_point."""
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scaled = np.asarray(values, np.float32).astype(np.float64) * 2.0**point
    expected = np.clip(np.floor(scaled + 0.5), lowest, highest)
    # float32 cannot represent every x * 2^p + 1/2; if it can, the result is exact.
    exact = (scaled + 0.5).astype(np.float32) == scaled + 0.5
    found = quantise(torch.tensor(values), point, lowest, highest).numpy() * 2.0**point
    assert (found == expected)[exact].all()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fused_relu_is_a_relu_before_the_quantiser(bits: int, memory_format: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 5).contiguous(memory_format=memory_format)
    g = torch.randn(2, 6, 5, 5)  # contiguous in both cases, so that strides differ in one
    found = []
    for fused in (True, False):
        own = x.clone(memory_format=torch.preserve_format).requires_grad_()
        log2_t = torch.tensor(0.0, requires_grad=True)
        before = own if fused else F.relu(own)
        y = FakeQuantise.apply(before, log2_t, bits, 0, 2**bits - 1, fused)
        y.backward(g)
        found.append((y.detach(), own.grad, log2_t.grad))
    for fused_result, plain_result in zip(*found, strict=True):
        torch.testing.assert_close(fused_result, plain_result)


# -- positions of quantisers ----------------------------------------------------------------


@pytest.mark.parametrize("preset", ["densenet-tiny", "densenet-small"])
def test_each_dense_block_has_one_fix_point(preset: str) -> None:
    """The concats, all their inputs, and the max pools before and after them have the same one."""
    student = Student(create(preset, in_channels=1), (1, 28, 28))
    blocks: dict[str, set[int]] = {}
    for name, layer in student.layers.items():
        if isinstance(layer, Concat):
            block = name.rpartition("cat")[0] + student.activation_of[name].name
            tied = (name, *layer.inputs)
            blocks.setdefault(block, set()).update(student.activation_of[n].index for n in tied)
        if isinstance(layer, MaxPool):
            assert student.activation_of[name] is student.activation_of[layer.inputs[0]]
    depth = 2 if preset == "densenet-tiny" else 3
    assert len(blocks) == depth and all(len(indices) == 1 for indices in blocks.values())
    assert len({next(iter(indices)) for indices in blocks.values()}) == depth
    torch.nn.init.uniform_(student.log2_t, -3, 3)
    points = student.fix_points().activations
    for quantiser in dict.fromkeys(student.activation_of.values()):
        assert len({points[name] for name in quantiser.members}) == 1


def test_first_and_last_layer_have_their_own_bits() -> None:
    student = Student(DenseNet(**SMALL), (1, 28, 28), Bits(4, 3, first=6, last=5, joined=0))
    first, *middle, last = (student.weight_of[name].bits for name, _ in student.convs())
    assert (first, set(middle), last) == (6, {4}, 5)
    bits = {name: q.bits for name, q in student.activation_of.items()}
    assert bits["input"] == student.images.bits == 6
    assert bits["pool"] == bits["classifier"] == bits["logits"] == 5
    others = {
        b for name, b in bits.items() if name not in ("input", "pool", "classifier", "logits")
    }
    assert others == {3}


def test_ranges() -> None:
    """[0, 2^b - 1] after a ReLU, but int8's range at 8 bits."""
    for bits, highest in ((2, 3), (4, 15), (7, 127), (8, 127)):
        student = Student(DenseNet(**SMALL), (1, 28, 28), Bits(8, bits, last=bits, joined=0))
        relu = student.activation_of["features/conv0"]
        assert (relu.lowest, relu.highest) == (0, highest)
        signed = student.activation_of["classifier"]
        assert (signed.lowest, signed.highest) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("field", ["weights", "activations", "first", "last"])
@pytest.mark.parametrize("bits", [-1, 1, 9])
def test_bits_are_two_to_eight(field: str, bits: int) -> None:
    with pytest.raises(ValueError, match=rf"bits.{field} is {bits}; .* 2 to 8"):
        Bits(**{field: bits})


# -- legal shifts -----------------------------------------------------------------------------


class Mixed(nn.Module):
    """Every kind of layer that shifts: convolutions, pools, an addition, a concat with images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.c, self.d = nn.Conv2d(6, 4, 3, 2, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x) + self.b(x))
        y = self.c(torch.cat([F.max_pool2d(y, 2), F.avg_pool2d(x, 2)], 1))
        return self.d(torch.cat([y, F.max_pool2d(x, 4)], 1).mean((2, 3)))


STUDENTS = {
    "mixed": lambda: Student(Mixed(), (2, 8, 8), Bits(4, 8)),
    "dense": lambda: Student(DenseNet(**SMALL), (1, 28, 28), Bits(3, 3)),
    "residual": lambda: Student(create("resnet-8", in_channels=1), (1, 28, 28)),
}


def _assert_legal(student: Student) -> None:
    points = student.fix_points()
    for name, integers in student.integers().items():
        accumulator = points.activations[student.layer(name).inputs[0]] + points.weights[name]
        assert integers.weights_fix_point == points.weights[name]
        assert 0 <= accumulator - points.activations[name] <= MAX_SHIFT
        assert 0 <= accumulator - integers.bias_fix_point <= MAX_SHIFT
    for name in student.layers:
        layer, out = student.layer(name), points.activations[name]
        ins = [points.activations[source] for source in layer.inputs]
        if isinstance(layer, Add):
            assert 0 <= max(ins) - out <= MAX_ALIGNMENT and max(ins) - min(ins) <= MAX_ALIGNMENT
            assert sum_is_exact(ins, out)
        elif isinstance(layer, AvgPool):
            shift = pool_reciprocal(layer.kernel[1], layer.kernel[0])[1]
            assert ins[0] - out <= MAX_SHIFT and ins[0] + shift - out >= 0
        elif isinstance(layer, Concat | MaxPool):
            assert set(ins) == {out}


@pytest.mark.parametrize("kind", STUDENTS)
def test_every_shift_is_legal(kind: str) -> None:
    student = STUDENTS[kind]()
    size = len(student.log2_t)

    @given(st.lists(st.floats(-24, 24), min_size=size, max_size=size))
    @settings(deadline=None, max_examples=60)
    def holds(thresholds: list[float]) -> None:
        student.log2_t.data = torch.tensor(thresholds)
        _assert_legal(student)

    holds()


def test_weights_above_one_in_a_cycle() -> None:
    """A dense layer leads back to its own concat: two negative fix points would not converge."""
    student = Student(DenseNet(**SMALL), (1, 28, 28))
    for name, quantiser in student.weight_of.items():
        student.log2_t.data[quantiser.index] = 12 if "denselayer1" in name else 0
    _assert_legal(student)
    assert any("in a cycle" in note for note in student.fix_points().notes)


def test_moved_fix_points_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    student = Student(DenseNet(**SMALL), (1, 28, 28))
    student.log2_t.data[student.activation_of["features/conv0"].index] = -9.0
    with caplog.at_level(logging.INFO):
        notes = student.fix_points().notes
        student.fix_points()
        student.log2_t.data[student.activation_of["classifier"].index] = 3.0
        student.fix_points()
    assert [record.getMessage() for record in caplog.records] == list(notes)
    assert notes[0].startswith("features/conv0: fix point 16 -> 14 (features/conv0 would shift")


def test_thresholds_that_have_run_away_stay_numbers() -> None:
    student = Student(Mixed(), (2, 8, 8))
    for far in (-5000.0, 5000.0):
        nn.init.constant_(student.log2_t, far)
        _assert_legal(student)
        assert torch.isfinite(student(torch.randn(2, 2, 8, 8))).all()


def test_legal_thresholds_stay() -> None:
    student = Student(DenseNet(**SMALL), (1, 28, 28), Bits(4, 4, joined=0))
    assert not student.fix_points().notes
    assert student.fix_points().activations["features/conv0"] == 4
    assert student.fix_points().weights["features/conv0"] == 7
    assert student.fix_points().activations["input"] == 7


# -- calibration ----------------------------------------------------------------------------


def _student(preset: str, bits: Bits, **options: Any) -> Student:
    torch.manual_seed(1)
    return Student(create(preset, in_channels=1, **options), (1, 28, 28), bits)


def _seasoned(preset: str, bits: Bits, images: Tensor) -> Student:
    """A network with running statistics of real images, as after training in float."""
    torch.manual_seed(1)
    network = create(preset, in_channels=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        for start in range(0, 300, 60):
            network.train()(images[start : start + 60])
    return Student(network, (1, 28, 28), bits)


def test_minmax_takes_the_power_of_two_above_the_largest(images: Tensor) -> None:
    student = _student("densenet-tiny", Bits())
    student.train()
    calibrate(student, images[:60], "minmax", batch=25)
    assert student.training and student.observer is None
    log2_t = student.log2_t.tolist()
    largest: dict[str, float] = {}

    def observe(name: str, values: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(values.abs().max()))

    student.eval()
    student.observer = observe
    with torch.no_grad():
        student(images[:60])
    for quantiser in dict.fromkeys(student.activation_of.values()):
        if quantiser != student.images:
            ceiling = math.ceil(math.log2(largest[quantiser.name]))
            assert log2_t[quantiser.index] == ceiling - 0.5
    for name, layer in student.convs():
        peak = float(layer.folded()[0].detach().abs().max())
        ceiling = math.ceil(math.log2(peak))
        assert log2_t[student.weight_of[name].index] == ceiling - 0.5


def test_mse_has_the_least_error_of_all_powers_of_two(images: Tensor) -> None:
    student = _student("densenet-tiny", Bits(3, 3))
    calibrate(student, images[:40], "mse")
    found = student.log2_t.detach() + 0.5
    seen: dict[str, list[Tensor]] = {}
    student.eval()
    student.observer = lambda name, values: seen.setdefault(name, []).append(values.flatten())
    with torch.no_grad():
        student(images[:40])
        for name, layer in student.convs():
            seen[student.weight_of[name].name] = [layer.folded()[0].detach().flatten()]
    for quantiser in student.quantisers:
        if quantiser == student.images:
            continue
        values = torch.cat(seen[quantiser.name])
        errors = {
            c: float((quantiser.quantise(values, quantiser.magnitude - c) - values).square().mean())
            for c in range(-12, 12)
        }
        assert min(errors, key=errors.__getitem__) == found[quantiser.index]


def test_mse_samples_large_tensors(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sampled = _student("densenet-tiny", Bits(4, 4)), _student("densenet-tiny", Bits(4, 4))
    calibrate(whole, images[:200])
    monkeypatch.setattr("tutelage.host.quantise.calibrate._MOST_VALUES", 20_000)
    calibrate(sampled, images[:200])
    assert int((whole.log2_t != sampled.log2_t).sum()) <= 1
    again = _student("densenet-tiny", Bits(4, 4))
    calibrate(again, images[:200])
    assert torch.equal(again.log2_t, sampled.log2_t)


def test_calibration_refuses(images: Tensor) -> None:
    student = _student("densenet-tiny", Bits())
    with pytest.raises(ValueError, match="'entropy' is not one of mse, minmax"):
        calibrate(student, images, "entropy")
    with pytest.raises(ValueError, match="no calibration images"):
        calibrate(student, images[:0])
    with pytest.raises(ValueError, match=r"features/conv0 .* not finite"):
        calibrate(student, images[:4] * math.nan)
    assert student.observer is None


def test_a_layer_that_is_all_zero_keeps_its_threshold(images: Tensor) -> None:
    student = _student("densenet-tiny", Bits())
    nn.init.zeros_(student.get_parameter("layers.classifier.weight"))
    calibrate(student, images[:20])
    assert student.log2_t[student.activation_of["classifier"].index] == 0
    assert student.log2_t[student.weight_of["classifier"].index] == 0


# -- training -------------------------------------------------------------------------------


def _teach(student: Student, images: Tensor, steps: int = 10) -> None:
    """A few steps with made-up labels (the image's brightness), as training does them."""
    labels = (images.mean((1, 2, 3)) * 10).long() % 10
    weights = [p for p in student.parameters() if p is not student.log2_t]
    optimisers = torch.optim.SGD(weights, 0.05, momentum=0.9), torch.optim.Adam([student.log2_t])
    student.train()
    for step in range(steps):
        student.norm_frozen = step == steps - 1
        part = slice(step * 30, step * 30 + 30)
        student.zero_grad()
        F.cross_entropy(student(images[part]), labels[part]).backward()
        for optimiser in optimisers:
            optimiser.step()
    student.norm_frozen = False


def test_every_parameter_learns(images: Tensor) -> None:
    student = _seasoned("mobilenet-small", Bits(4, 4), images)
    calibrate(student, images[:60])
    student.train()
    F.cross_entropy(student(images[:60]), torch.arange(60) % 10).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert student.log2_t.grad is not None
    still = [q.name for q in student.quantisers if student.log2_t.grad[q.index] == 0]
    # The mean of 4-bit values may be exact at 8 bits, without a gradient.
    assert student.images.name in still and set(still) <= {student.images.name, "pool"}


def test_training_with_frozen_norms_computes_the_deployed_network(images: Tensor) -> None:
    student = _student("densenet-small", Bits(4, 4))
    calibrate(student, images[:100])
    _teach(student, images)
    with torch.no_grad():
        expected = student.eval()(images[:50])
        student.train()
        student.norm_frozen = True
        assert torch.equal(student(images[:50]), expected)


def test_a_student_goes_through_its_state(images: Tensor) -> None:
    taught, fresh = (_student("resnet-8", Bits(4, 4)) for _ in range(2))
    calibrate(taught, images[:60])
    _teach(taught, images, 3)
    fresh.load_state_dict(taught.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(images[:20]), taught.eval()(images[:20]))


# -- the law: a student's logits are its model's ---------------------------------------------


def _assert_same(student: Student, graph: Graph, images: Tensor, some: int = 100) -> None:
    """Compare every logit with the fast engine, and of `some` images with the reference too."""
    with torch.no_grad():
        expected = student.eval()(images).numpy()
    assert len(np.unique(expected)) > 15
    nhwc = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    found = load_engine(graph, "fast", threads=1).run(nhwc)
    assert np.array_equal(found, expected)
    assert np.array_equal(load_engine(graph, "reference").run(nhwc[:some]), expected[:some])


CASES = [
    (preset, bits)
    for preset in ("densenet-small", "resnet-8", "mobilenet-small")
    for bits in (Bits(8, 8), Bits(4, 8), Bits(4, 4), Bits(3, 3))
]
LAW = [(*case, "mse") for case in CASES] + [(*case, "minmax") for case in CASES[:4]]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "bits", "method"), LAW)
def test_a_student_is_its_model(preset: str, bits: Bits, method: str, images: Tensor) -> None:
    student = _seasoned(preset, bits, images)
    calibrate(student, images[:100], method)
    _teach(student, images)
    calibrate(student, images[:100], method)
    graph = to_graph(student, preset, clip=bits.activations < 8)
    _assert_same(student, graph, images[:600], 12)


class Pools(nn.Module):
    """Average pools with padding and of 3x6, a max pool in ceil mode, ReLU6 after a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.d = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x)), 3, 2, ceil_mode=True)
        x = F.relu6(x + F.leaky_relu(self.b(x), 26 / 256))
        x = F.avg_pool2d(F.avg_pool2d(x, 3, 2, padding=1), (3, 6), (1, 1))
        return self.d(x.mean((2, 3)))


def test_pools_of_all_kinds_are_their_model(images: Tensor) -> None:
    torch.manual_seed(0)
    student = Student(Pools(), (1, 28, 28))
    calibrate(student, images[:100])
    graph = to_graph(student, "pools")
    assert not any(op.get_attr("device") == "CPU" for op in graph.get_ops() if
                   op.get_type() not in ("fix2float", "const"))  # fmt: skip
    _assert_same(student, graph, images[:200], 20)


@pytest.mark.parametrize("threshold", [0.5, 2.0, 3.0, 5.0])
def test_a_relu6_has_a_fix_point_at_which_the_dpu_clips_at_6(
    threshold: float, images: Tensor
) -> None:
    """At 4 the DPU's 96 is 6, above it int8 ends first, and below it 96 is more than 6."""
    first = nn.Conv2d(1, 8, 3)
    nn.init.normal_(first.weight, std=4)
    network = nn.Sequential(first, nn.ReLU6(), nn.Conv2d(8, 4, 3), nn.ReLU6(),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))  # fmt: skip
    student = Student(network, (1, 28, 28))
    calibrate(student, images[:100])
    student.log2_t.data[student.activation_of["0"].index] = threshold
    points = student.fix_points()
    assert points.activations["0"] == max(4, 7 - math.ceil(threshold))
    assert bool([n for n in points.notes if "supports the activation" in n]) == (threshold > 3)
    _assert_same(student, to_graph(student, "six"), images[:200], 20)


def test_a_relu6_that_cannot_have_it_is_clipped_by_ops(images: Tensor) -> None:
    """Weights of up to 2^9 force the fix point below 4: 2 + p_w is all that a product has."""
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU6(), nn.Conv2d(8, 10, 26), nn.Flatten())
    student = Student(network, (1, 28, 28), input_fix_point=7)
    calibrate(student, images[:100])
    student.log2_t.data[student.weight_of["0"].index] = 13  # p_w = -6
    assert student.fix_points().activations["0"] == 1
    with pytest.raises(NotDeployable, match="a ReLU6 at fix point 1"):
        to_graph(student, "six")
    _assert_equal_logits(student, images[:100], clip=True)


@pytest.mark.parametrize("pad", [(4, 4, 1), (4, 1, 1), (3, 1, 1)])
def test_an_average_pool_as_large_as_its_map_has_its_padding(
    pad: tuple[int, int, int], images: Tensor
) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 25), nn.ReLU(), nn.AvgPool2d(*pad), nn.Conv2d(4, 3, 1))
    student = Student(network, (1, 28, 28))
    calibrate(student, images[:50])
    assert student.eval()(images[:2]).shape == network(images[:2]).shape
    _assert_equal_logits(student, images[:50])


@pytest.mark.parametrize("bits", [2, 4, 5, 7])
def test_a_narrow_relu6_beside_signed_values_is_its_model(bits: int, images: Tensor) -> None:
    """One group with a signed quantiser, although values after the ReLU6 are not negative."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(8, 5, 26)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.cat([F.relu6(self.a(x)), self.b(x)], 1))

    torch.manual_seed(0)
    student = Student(Both(), (1, 28, 28), Bits(bits, bits, bits, bits))
    calibrate(student, images[:50])
    for threshold in (2.5, 3.0, 5.0):
        student.log2_t.data[student.activation_of["a"].index] = threshold
        _assert_equal_logits(student, images[:50], clip=True)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_an_inserted_identity_is_one(bits: int, method: str, images: Tensor) -> None:
    """A weight of exactly 1 needs a fix point at which 1 is not clipped."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, groups=1), nn.Conv2d(4, 4, 3, groups=4),
                            nn.LeakyReLU(26 / 256), nn.Conv2d(4, 3, 24))  # fmt: skip
    student = Student(network, (1, 28, 28), Bits(bits, 8))
    calibrate(student, images[:50], method)
    integers = student.integers()["2"]
    weights = integers.weights.double() * 2.0**-integers.weights_fix_point
    assert torch.equal(weights[:, :, 0, 0], torch.eye(4, dtype=torch.double))


def test_inputs_of_a_sum_give_up_the_bits_that_the_dpu_would_drop(images: Tensor) -> None:
    student = _student("resnet-8", Bits(8, 8))
    calibrate(student, images[:100])
    add = next(n for n in student.layers if isinstance(student.layer(n), Add))
    out, ins = student.activation_of[add], student.layer(add).inputs
    fine, coarse = (student.activation_of[name] for name in ins)
    for quantiser, ceiling in ((out, 1), (fine, -4), (coarse, 4)):
        student.log2_t.data[quantiser.index] = ceiling - 0.5
    points = student.fix_points()
    assert sum_is_exact([points.activations[n] for n in ins], points.activations[add])
    assert any("lose bits of a sum's input" in note for note in points.notes)
    _assert_same(student, to_graph(student, "sum"), images[:200], 20)


class Varied(nn.Module):
    """LeakyReLU, ReLU6, dilation, and windows that are neither square nor padded evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, 30, 3), nn.LeakyReLU(26 / 256))
        self.b = nn.Sequential(nn.Conv2d(30, 4, 3, padding=(2, 1)), nn.ReLU6())
        self.c = nn.Conv2d(4, 4, (3, 1), padding=(0, 2), dilation=(2, 1), groups=4)
        self.pool, self.d = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.c(self.b(self.a(x))), (3, 2), stride=1, padding=(1, 0))
        return self.d(self.pool(F.leaky_relu(x + x, 26 / 256)).flatten(1))


def test_a_network_of_odd_shapes_is_its_model(images: Tensor) -> None:
    torch.manual_seed(0)
    large = F.interpolate(images[:30], size=(20, 48))
    student = Student(Varied(), (1, 20, 48))
    calibrate(student, large)
    _assert_same(student, to_graph(student, "varied"), large, 10)


def _assert_equal_logits(student: Student, images: Tensor, clip: bool = False) -> None:
    with torch.no_grad():
        expected = student.eval()(images).numpy()
    nhwc = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    found = load_engine(to_graph(student, "exact", clip), "reference").run(nhwc)
    assert np.array_equal(found, np.moveaxis(expected, 1, -1))


def test_sums_past_two_to_the_24_are_exact() -> None:
    """Halves of 2000 products each cancel but for one, and float32 would lose the last bits."""
    generator = torch.Generator().manual_seed(0)
    half = 2000
    conv = nn.Conv2d(2 * half, 3, 1)
    images = torch.randint(60, 128, (1, half, 8, 8), generator=generator) / 128
    weights = torch.randint(60, 128, (3, half, 1, 1), generator=generator) / 128
    with torch.no_grad():
        conv.weight.copy_(torch.cat([weights, -weights], 1))
        conv.weight[:, 0] -= 1 / 128
        nn.init.constant_(conv.get_parameter("bias"), 3 / 2**14)
    student = Student(nn.Sequential(conv), (2 * half, 8, 8))
    student.log2_t.data[student.activation_of["0"].index] = -7  # fix point 14: no shift
    _assert_equal_logits(student, images.repeat(1, 2, 1, 1))
    assert student.fix_points().activations["0"] == 14 and not student.fix_points().notes


def test_leaky_products_past_two_to_the_24_are_exact() -> None:
    """26 * (71 * 71 - (117 << 16)), rounded to 24 bits, would be exactly a half."""
    student = Student(nn.Sequential(nn.Conv2d(1, 1, 1), nn.LeakyReLU(26 / 256)), (1, 1, 1))
    nn.init.constant_(student.get_parameter("layers.0.weight"), 71 / 128)
    nn.init.constant_(student.get_parameter("layers.0.bias"), -117 * 4)
    student.log2_t.data[student.activation_of["0"].index] = 7
    integers = student.integers()["0"]
    assert (int(integers.bias), integers.bias_fix_point) == (-117, -2)
    _assert_equal_logits(student, torch.full((1, 1, 1, 1), 71 / 128))


def test_averages_past_two_to_the_24_are_exact() -> None:
    """The sum of a 50x51 map times 103 / 2^18, one below a half that float32 would make of it."""
    numerator, shift = pool_reciprocal(51, 50)
    half = 1 << (shift - 1)
    total = next(
        t for t in range(2**24 // numerator + 1, 127 * 2550)
        if t * numerator % (1 << shift) == half - 1
    )  # fmt: skip
    image = torch.full((2550,), float(total // 2550))
    image[: total % 2550] += 1
    student = Student(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 1, 1)), (1, 50, 51))
    nn.init.ones_(student.get_parameter("layers.1.weight"))
    nn.init.zeros_(student.get_parameter("layers.1.bias"))
    student.log2_t.data[student.weight_of["1"].index] = 1
    _assert_equal_logits(student, image.view(1, 1, 50, 51) / 128)
    assert student.fix_points().activations["0"] == 7


@pytest.mark.parametrize("order", ["pre", "post"])
def test_both_orders_of_densenet_with_a_max_pool(order: str, images: Tensor) -> None:
    student = Student(DenseNet(stem="imagenet", order=order, **SMALL), (1, 28, 28), Bits(4, 8))
    calibrate(student, images[:100])
    _teach(student, images)
    _assert_same(student, to_graph(student, order), images[:300], 40)


def test_narrow_first_and_last_layers(images: Tensor) -> None:
    """Images and logits of few bits are clipped too."""
    student = _student("resnet-8", Bits(4, 4, first=5, last=6))
    calibrate(student, images[:100])
    _teach(student, images)
    assert student.fix_points().activations["input"] == 4
    _assert_same(student, to_graph(student, "narrow", clip=True), images[:300], 40)


def test_wide_joins_between_narrow_layers(images: Tensor) -> None:
    """Inputs of a concat have 8 bits; only narrower values need ops that clip."""
    student = _student("densenet-tiny", Bits(3, 3))
    calibrate(student, images[:100])
    _teach(student, images)
    narrow = [name for name, q in student.activation_of.items() if q.bits == 3]
    assert narrow and all(name.endswith(("conv1", "transition1/conv")) for name in narrow)
    _assert_same(student, to_graph(student, "joined", clip=True), images[:300], 40)


def test_a_channels_last_student_is_the_same(images: Tensor) -> None:
    student = _student("densenet-small", Bits(4, 8))
    calibrate(student, images[:100])
    _teach(student, images)
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graph = to_graph(student, "last")
    _assert_same(student, graph, images[:200].contiguous(memory_format=torch.channels_last), 40)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=15)
def test_the_law_holds_for_any_thresholds(seed: int) -> None:
    """Also with unreasonable thresholds, which move fix points and saturate everything."""
    generator = torch.Generator().manual_seed(seed)
    student = Student(Mixed(), (2, 8, 8), Bits(5, 8, last=8))
    spread = torch.randint(-6, 7, (len(student.log2_t),), generator=generator)
    student.log2_t.data += spread.float()
    images = torch.randn(20, 2, 8, 8, generator=generator)
    with torch.no_grad():
        expected = student.eval()(images).numpy()
    nhwc = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(load_engine(to_graph(student, "any"), "reference").run(nhwc), expected)


def test_narrow_activations_are_not_deployable_as_they_are(tmp_path: Path) -> None:
    student = _student("densenet-tiny", Bits(4, 4, joined=0))
    with pytest.raises(NotDeployable, match=r"features/conv0.* have 4 bits, .* clips at int8 only"):
        to_graph(student, "narrow")
    with pytest.raises(NotDeployable, match="activations=8"):
        save(student, tmp_path / "narrow.xmodel")
    assert not list(tmp_path.iterdir())


def test_a_saved_model_is_the_graph(tmp_path: Path, images: Tensor) -> None:
    student = _student("densenet-tiny", Bits(4, 8))
    calibrate(student, images[:50])
    save(student, tmp_path / "tiny.xmodel")
    graph = Graph.deserialize(tmp_path / "tiny.xmodel")
    assert graph.get_name() == "tiny"
    with torch.no_grad():
        expected = student.eval()(images[:50]).numpy()
    nhwc = np.ascontiguousarray(images[:50].permute(0, 2, 3, 1).numpy())
    assert np.array_equal(load_engine(graph, threads=1).run(nhwc), expected)


def test_deployed_integers_stay_in_their_bits(images: Tensor) -> None:
    student = _student("densenet-small", Bits(3, 8, first=5))
    calibrate(student, images[:50])
    for name, integers in student.integers().items():
        quantiser = student.weight_of[name]
        assert integers.weights.dtype == integers.bias.dtype == torch.int8
        assert quantiser.lowest <= integers.weights.min()
        assert integers.weights.max() <= quantiser.highest
        layer = student.layer(name)
        assert isinstance(layer, Conv)
        _, bias = layer.folded()
        error = (integers.bias.double() * 2.0**-integers.bias_fix_point - bias).abs().max()
        assert error <= 2.0**-integers.bias_fix_point  # half a step, or one at the very top
