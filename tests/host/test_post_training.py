"""Quantisation without training: invariants, gains, and deployment."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tutelage.__main__ import main  # noqa: E402
from tutelage.dpu.compiler.emulation import on_cpu  # noqa: E402
from tutelage.dpu.engine.reference import load_engine  # noqa: E402
from tutelage.host.networks import create  # noqa: E402
from tutelage.host.networks.mobilenet import MobileNetV2  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.nonlinear import apply_nonlinear  # noqa: E402
from tutelage.host.quantise.ptq.channels import (  # noqa: E402
    FIXED,
    channel_groups,
    scale_channels,
)
from tutelage.host.quantise.ptq.equalise import equalise  # noqa: E402
from tutelage.host.quantise.ptq.lockstep import Step, lockstep  # noqa: E402
from tutelage.host.quantise.ptq.passes import FloatPass, PartlyRounded, outputs  # noqa: E402
from tutelage.host.quantise.ptq.post_training import PostTraining, post_training  # noqa: E402
from tutelage.host.quantise.ptq.rounding import Moment, round_layer  # noqa: E402
from tutelage.host.quantise.ptq.sensitivity import agreement, sensitivity  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_graph, to_quantised  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.config import ConfigError, make_config  # noqa: E402

SHAPE = (3, 16, 16)


def _images(count: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    small = torch.rand(count, 3, 4, 4, generator=generator)
    return F.interpolate(small, SHAPE[1:], mode="bilinear") * 2 - 1


def _with_statistics(network: nn.Module) -> nn.Module:
    """Give norms different scales and the running statistics of some images."""
    generator = torch.Generator().manual_seed(2)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
        norm.weight.data = torch.exp2(torch.rand(norm.weight.shape, generator=generator) * 2 - 1)
        norm.bias.data.normal_(0, 0.3, generator=generator)
    with torch.no_grad():
        network.train()(_images())
    return network.eval()


@functools.cache
def _mobilenet(relu6: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network = MobileNetV2(((1, 8, 1, 1), (4, 8, 1, 1), (4, 12, 1, 2)), stem_stride=2, head=24)
    for parent in [] if relu6 else list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU())
    return _with_statistics(network)


class Joined(nn.Module):
    """Concat, addition, pools, leaky ReLU, depthwise, a convolution without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.wise, self.mix = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 16, 1)
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.a(x), 26 / 256)
        y = torch.cat([F.max_pool2d(a, 2), F.avg_pool2d(F.relu(self.norm(self.b(x))), 2)], 1)
        y = F.relu(y + self.mix(F.relu(self.wise(y))))
        return self.out(F.adaptive_avg_pool2d(y, 1).flatten(1))


@functools.cache
def _joined() -> nn.Module:
    torch.manual_seed(3)
    return _with_statistics(Joined())


@functools.cache
def _traced(joined: bool) -> Student:
    return Student(_joined() if joined else _mobilenet(), SHAPE).eval()


def _float(student: Student, images: Tensor) -> Tensor:
    return outputs(FloatPass(student.eval()), [images], 16)[0]


def _db(student: Student, images: Tensor, wanted: Tensor) -> float:
    with torch.no_grad():
        return agreement(student.eval()(images), wanted).sqnr


def _unbalance(student: Student, power: float) -> None:
    """Return the same function with other channel scales: 2^uniform(-power, power)."""
    groups = channel_groups(student)
    generator = torch.Generator().manual_seed(4)
    scale = torch.exp2((torch.rand(groups.count, generator=generator) * 2 - 1) * power)
    scale[FIXED] = 1
    scale_channels(student, groups, scale)


# -- equalisation -----------------------------------------------------------------------------


@given(power=st.floats(0, 6), joined=st.booleans())
@settings(deadline=None, max_examples=4)
def test_scales_leave_the_network_as_it_is(power: float, joined: bool) -> None:
    student = copy.deepcopy(_traced(joined))
    images = _images(8)
    wanted = _float(student, images)
    _unbalance(student, power)
    torch.testing.assert_close(_float(student, images), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [_mobilenet, _joined])
def test_equalisation_does_not_depend_on_the_scales_that_a_network_comes_with(
    make: Callable[[], nn.Module],
) -> None:
    images = _images()
    balanced, other = Student(make(), SHAPE).eval(), Student(make(), SHAPE).eval()
    wanted = _float(balanced, images)
    _unbalance(other, 4)
    calibrate(balanced, images)
    calibrate(other, images)
    plain, spoilt = _db(balanced, images, wanted), _db(other, images, wanted)
    assert spoilt < plain - 6
    found = []
    for student in (balanced, other):
        equalise(student, [images])
        calibrate(student, images)
        torch.testing.assert_close(_float(student, images), wanted, rtol=1e-4, atol=1e-4)
        found.append(_db(student, images, wanted))
    assert found[1] == pytest.approx(found[0], abs=1.5)
    assert min(found) > max(plain - 4, spoilt + 6)


def test_training_afterwards_sees_the_same_network() -> None:
    """Norms are scaled with their layers, so the batch's statistics give the same outputs too."""
    images, student = _images(), Student(_joined(), SHAPE)
    student.observer = lambda name, values: None  # nothing is rounded
    with torch.no_grad():
        wanted = student.train()(images)
        equalise(student, [images])
        assert student.training
        torch.testing.assert_close(student(images), wanted, rtol=1e-3, atol=1e-3)


class OneNorm(nn.Module):
    """Two convolutions with one norm, and norms without factors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 8, 3, 2, 1) for n in (3, 8, 8))
        self.norm = nn.BatchNorm2d(8)
        self.plain, self.last = nn.BatchNorm2d(8, affine=False), nn.BatchNorm1d(10, affine=False)
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.c(F.relu(self.norm(self.a(x))))))
        return self.last(self.out(F.relu(self.plain(self.b(x))).mean((2, 3))))


def test_shared_norms_and_norms_without_factors_stay_as_they_are() -> None:
    torch.manual_seed(0)
    network, images = OneNorm(), _images(8)
    with torch.no_grad():
        network.train()(images)
    student = Student(network, SHAPE).eval()
    wanted = _float(student, images)
    torch.testing.assert_close(wanted, network.eval()(images), rtol=1e-3, atol=1e-3)
    calibrate(student, images)
    equalise(student, [images])
    torch.testing.assert_close(_float(student, images), wanted, rtol=1e-4, atol=1e-4)
    biases = [student.layer(name).norm.bias.clone() for name in ("a", "c")]  # type: ignore[union-attr, operator]
    post_training(student, images)
    for name, bias in zip(("a", "c"), biases, strict=True):
        torch.testing.assert_close(student.layer(name).norm.bias, bias)  # type: ignore[union-attr]


def test_constant_zeros_do_no_harm() -> None:
    images, network = _images(8), copy.deepcopy(_joined())
    network.norm.weight.data.zero_()  # type: ignore[union-attr, operator]
    network.norm.bias.data.zero_()  # type: ignore[union-attr, operator]
    student = Student(network, SHAPE).eval()
    wanted = _float(student, images)
    for calibration in (torch.zeros_like(images), images):
        post_training(student, calibration)
    assert _db(student, images, wanted) > 15


def test_only_homogeneous_layers_are_scaled() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 4, 1) for _ in range(3))
            self.one, self.two, self.out = (nn.Conv2d(4, 4, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x) * self.b(x) + F.relu6(self.c(x))
            return self.out(F.relu(self.two(F.relu(self.one(y)))))

    student = Student(Gated().eval(), SHAPE)
    of = channel_groups(student).of
    fixed = {name for name, groups in of.items() if (groups == FIXED).all()}
    assert fixed == set(of) - {"one", "two"}
    student.layer("two").weight = student.layer("one").weight  # one tensor used twice
    of = channel_groups(student).of
    assert all((groups == FIXED).all() for groups in of.values())


def test_fixed_layers_keep_their_scales() -> None:
    torch.manual_seed(0)
    network, images = create("densenet-tiny", in_channels=3), _images(8)
    with torch.no_grad():
        network.train()(images)
    for fixed in ((), ("cat_1", "cat_3")):
        student = Student(network.eval(), SHAPE).eval()
        wanted = _values(student, images)
        calibrate(student, [images])
        equalise(student, [images], fixed=fixed)
        found = _values(student, images)
        changed = {n for n in found if not torch.allclose(found[n], wanted[n], 1e-3, 1e-3)}
        assert {"cat_1", "cat_3"} & changed == {"cat_1", "cat_3"} - set(fixed)
        assert any("denselayer" in name for name in changed) and student.output not in changed


def _values(student: Student, images: Tensor) -> dict[str, Tensor]:
    """The values of all layers without rounding."""
    found: dict[str, Tensor] = {}
    student.observer, student.tap = (lambda _name, _values: None), found.__setitem__
    with torch.no_grad():
        student(images)
    student.observer = student.tap = None
    return found


# -- ReLU6 ------------------------------------------------------------------------------------


def test_a_relu6_becomes_the_limit_of_int8() -> None:
    network, images = _mobilenet(relu6=True), _images() * 3
    student = Student(network, SHAPE).eval()
    wanted = _float(student, images)
    assert any((layer.nonlinear == "RELU6") for layer in student.layers.values())
    equalise(student, [images])
    assert not any(layer.nonlinear == "RELU6" for layer in student.layers.values())
    others = 4 * torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(5))
    exact = _float(Student(network, SHAPE).eval(), others)  # many of these reach 6
    torch.testing.assert_close(_float(student, others), exact, rtol=1e-4, atol=1e-4)
    post_training(student, images)
    assert _db(student, images, wanted) > 20
    assert not on_cpu(to_quantised(student, "mobile"))
    model = load_engine(to_graph(student, "mobile"), "fast")
    found = model.run(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(found, student(images).detach().numpy())


def test_a_state_says_where_int8_clips() -> None:
    network, images = _mobilenet(relu6=True), _images()
    student, again = Student(network, SHAPE), Student(network, SHAPE)
    before = copy.deepcopy(student.state_dict())
    equalise(student, [images])
    again.load_state_dict(student.state_dict())
    kinds = [layer.nonlinear for layer in student.layers.values()]
    assert "RELU8" in kinds and kinds == [layer.nonlinear for layer in again.layers.values()]
    del before["widened"]  # as earlier versions wrote it
    again.load_state_dict(before)
    assert "RELU8" not in [layer.nonlinear for layer in again.layers.values()]


def test_narrow_activations_keep_their_relu6() -> None:
    student = Student(_mobilenet(relu6=True), SHAPE, Bits(4, 4))
    equalise(student, [_images()])
    kinds = {q: student.layer(q).nonlinear for q in student.activation_of}
    narrow = [kinds[name] for name, q in student.activation_of.items() if q.bits < 8]
    assert "RELU6" in narrow and "RELU8" not in narrow


# -- rounding and biases ------------------------------------------------------------------------


@pytest.mark.parametrize("silent", ["norm", "head", "everything"])
def test_layers_of_zeros_are_allowed(silent: str) -> None:
    """Such are pruned layers, and the initial last norm of a residual block."""
    torch.manual_seed(0)
    norm, head = nn.BatchNorm2d(8), nn.Linear(8, 4)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    ).eval()
    zeros: dict[str, nn.Module] = {"norm": norm, "head": head, "everything": network}
    for parameter in zeros[silent].parameters():
        nn.init.zeros_(parameter)
    images = _images()
    student = Student(network, SHAPE)
    post_training(student, images)
    student.eval()
    with torch.no_grad():
        assert (student(images) - network(images)).abs().max() < 0.02


@pytest.mark.parametrize(("make", "bits"), [(_mobilenet, 4), (_joined, 4), (_joined, 8)])
def test_rounding_by_results_is_better_and_is_deployed(
    make: Callable[[], nn.Module], bits: int
) -> None:
    images = _images()
    student = Student(make(), SHAPE, Bits(weights=bits, first=bits, last=bits)).eval()
    wanted = _float(student, images)
    calibrate(student, images)
    nearest = _db(student, images, wanted)
    only = PostTraining(equalise=False, bias_correction=False)
    post_training(student, images, only)
    assert _db(student, images, wanted) > nearest + (0.5 if bits == 4 else 0)
    points, deployed = student.fix_points(), student.integers()
    for name, conv in student.convs():
        weight = conv.folded()[0].detach()
        exact = deployed[name].weights * 2.0 ** -points.weights[name]
        torch.testing.assert_close(weight, exact, rtol=1e-5, atol=1e-7)


def _results(student: Student, step: Step) -> Tensor:
    """Return a layer's output with its rounded weights, before the activation."""
    with torch.no_grad():
        weight, bias = step.conv.folded()
        point = student.fix_points().weights[step.conv.name]
        weight = student.weight_of[step.conv.name].quantise(weight, point)
        return torch.cat([step.conv(x, weight, bias) for x, _ in step.parts()])


def _wanted(step: Step) -> Tensor:
    return torch.cat([wanted for _, wanted in step.parts()])


def test_images_join_where_maps_get_smaller() -> None:
    images, student = _images(), Student(_mobilenet(), SHAPE).eval()
    calibrate(student, images)
    counts = []
    for some, every in zip(
        lockstep(student, [images], 4, 50_000), lockstep(student, [images], 4), strict=True
    ):
        count = len(some.kept_inputs)
        for a, b in zip(some.parts(), list(every.parts())[:count], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        counts.append(4 * count)
    assert counts == sorted(counts) and counts[0] < 16 and counts[-1] == len(images)


def test_sums_keep_common_values_of_images() -> None:
    generator = torch.Generator().manual_seed(0)
    alike, chance, both = Moment(), Moment(), Moment(keeps_diagonal=True)
    for _ in range(200):
        noise = torch.randn(1, 20, 20, generator=generator)
        alike.add(torch.ones(1, 20, 20))
        chance.add(noise.clone())
        both.add(noise + torch.eye(20))
    torch.testing.assert_close(alike.steady(), alike.total)
    assert chance.steady().norm() < 0.2 * chance.total.norm()
    torch.testing.assert_close(
        both.steady().diagonal(dim1=1, dim2=2).mean(), torch.tensor(200.0), rtol=0.05, atol=0
    )
    one = Moment(keeps_diagonal=True)
    one.add(torch.ones(1, 3, 3))
    torch.testing.assert_close(one.steady()[0], torch.eye(3))


def test_each_layer_gets_no_worse_by_rounding() -> None:
    """Return the error of a layer's output after its activation, for its given inputs."""
    images = _images()
    student = Student(_mobilenet(), SHAPE, Bits(weights=3, first=3, last=3)).eval()
    calibrate(student, images)

    def error(step: Step) -> Tensor:
        results = _results(student, step), _wanted(step)
        found, wanted = (apply_nonlinear(step.conv.nonlinear, y) for y in results)
        return (found - wanted).square().mean()

    for step in lockstep(student, [images]):
        before = error(step)
        round_layer(student, step)
        # The error with the rounded bias decreases.
        assert error(step) <= 1.05 * before + 1e-6, step.conv.name


def test_corrected_biases_leave_no_mean_error() -> None:
    images = _images()
    student = Student(_mobilenet(), SHAPE, Bits(weights=4)).eval()
    wanted = _float(student, images)
    calibrate(student, images)
    original, before = copy.deepcopy(student), _db(student, images, wanted)
    post_training(student, images, PostTraining(equalise=False, rounding="nearest"))
    assert _db(student, images, wanted) > before
    for step, real in zip(lockstep(student, [images]), lockstep(original, [images]), strict=True):
        gap = _results(student, step) - _wanted(real)
        assert gap.mean((0, 2, 3)).abs().max() < 1e-3 * _wanted(real).std()


# -- all of it -----------------------------------------------------------------------------------


def test_everything_together_gains_and_repeats() -> None:
    images, tried = _images(64)[:32], _images(64)[32:]
    plain = Student(_mobilenet(), SHAPE).eval()
    wanted = _float(plain, tried)
    _unbalance(plain, 4)
    calibrate(plain, images)
    results = []
    for _ in range(2):
        student = Student(_mobilenet(), SHAPE)
        _unbalance(student, 4)
        post_training(student, images)
        assert student.training
        results.append(student.eval()(tried))
    assert torch.equal(*results)
    assert agreement(results[0].detach(), wanted).sqnr > _db(plain, tried, wanted) + 6


def test_options_and_images_that_are_wrong() -> None:
    with pytest.raises(ValueError, match="rounding 'up' is not one of nearest, adaround"):
        PostTraining(rounding="up")
    with pytest.raises(ValueError, match="calibration"):
        PostTraining(calibration="entropy")
    student = Student(_mobilenet(), SHAPE)
    with pytest.raises(ValueError, match="no calibration images"):
        post_training(student, _images()[:0])
    with pytest.raises(ValueError, match="not finite"):
        post_training(student, _images() * math.nan)


def test_only_a_calibration() -> None:
    images = _images()
    one, other = Student(_mobilenet(), SHAPE), Student(_mobilenet(), SHAPE)
    calibrate(one, images)
    post_training(other, images, PostTraining("mse", False, "nearest", False))
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


# -- sensitivity -------------------------------------------------------------------------------


def test_the_layer_that_is_rounded_worst_comes_first() -> None:
    images, student = _images(16), Student(_mobilenet(), SHAPE).train()
    calibrate(student, images)
    name = "features/4/body/3"  # a depthwise convolution
    student.log2_t.data[student.weight_of[name].index] += 4
    before = copy.deepcopy(student.state_dict())
    report = sensitivity(student, images)
    worst = report.rows[0]
    assert (worst.name, worst.kind) == (name, "weights")
    assert worst.alone.sqnr < report.rows[1].alone.sqnr - 3
    assert worst.without.sqnr > report.whole.sqnr + 3
    assert student.training and report.images == 16
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert {row.kind for row in report.rows} == {"weights", "activations", "bias"}


def test_all_quantisers_together_are_the_student() -> None:
    images, student = _images(8), Student(_mobilenet(relu6=True), SHAPE).eval()
    post_training(student, images)
    every = {q.index for q in student.quantisers}
    names = {name for name, _ in student.convs()}
    (found,) = outputs(PartlyRounded(student, every, names), [images], 8)
    torch.testing.assert_close(found, student(images).detach(), rtol=0, atol=2.0**-6)
    (nothing,) = outputs(PartlyRounded(student, set(), set()), [images], 8)
    torch.testing.assert_close(nothing, _float(student, images))


# -- through the commands ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TOML file of a ptq run, for an untrained network."""
    folder = tmp_path_factory.mktemp("ptq")
    network = create("densenet-tiny", in_channels=3, num_classes=10)
    checkpoint.save(folder / "float.safetensors", {"student": network.state_dict()}, {})
    (folder / "ptq.toml").write_text(
        f"""method = "ptq"
data = {{ kind = "folder", path = "{repo_root / "app" / "demo" / "images"}" }}
student = {{ network = "densenet-tiny", weights = "{folder / "float.safetensors"}" }}
quantisation = {{ weights = 4, calibration_images = 16 }}
"""
    )
    return folder / "ptq.toml"


def test_the_command_of_a_run_and_of_its_file(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sensitivity", str(run), "--images", "4", "--rows", "3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("4 images, everything rounded: ") and text.count("\n") == 5
    done = run.parent / "done"
    assert main(["train", str(run), "--output", str(done), "--json"]) == 0
    capsys.readouterr()
    assert main(["sensitivity", str(done), "--images", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    worst = report["rows"][0]
    assert report["images"] == 2 and worst["alone"]["sqnr"] <= report["rows"][1]["alone"]["sqnr"]
    assert main(["sensitivity", str(done), "--set", "seed=1"]) == 2
    assert "is a finished run" in capsys.readouterr().err
    assert main(["sensitivity", str(run), "--set", "method=float"]) == 2
    assert "method=ptq" in capsys.readouterr().err


def test_options_of_a_run_before_training() -> None:
    def options(table: dict[str, Any]) -> tuple[PostTraining, PostTraining]:
        config = make_config(
            {
                "method": "ptq",
                "student": {"network": "resnet-8", "weights": "x"},
                "quantisation": table,
            }
        )
        return config.quantisation.post_training(False), config.quantisation.post_training(True)

    without, before = options({})
    assert without == PostTraining()
    assert before == PostTraining(rounding="nearest", bias_correction=False)
    chosen = PostTraining("minmax", False, "adaround", False)
    assert options(asdict(chosen)) == (chosen, chosen)
    with pytest.raises(ConfigError, match="rounding 'up' is not one of"):
        options({"rounding": "up"})
