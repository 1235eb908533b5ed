"""Options of methods: features, averages, damping, real steps, joined bits, starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks import create  # noqa: E402
from tutelage.host.quantise.calibrate import calibrate  # noqa: E402
from tutelage.host.quantise.fake import FakeQuantise, quantise  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.averaging import Average  # noqa: E402
from tutelage.host.train.config import ConfigError, make_config  # noqa: E402
from tutelage.host.train.data import DataSet, load  # noqa: E402
from tutelage.host.train.evaluation import accuracy  # noqa: E402
from tutelage.host.train.features import (  # noqa: E402
    attention_distance,
    layers_with_values_of,
)
from tutelage.host.train.loop import STUDENT, TrainingRun, train  # noqa: E402
from tutelage.host.train.methods import (  # noqa: E402
    SELF_STUDYING,
    TUTORING,
    Phase,
    phase_losses,
)
from tutelage.host.train.oscillation import Freezing, damping, rising  # noqa: E402
from tutelage.host.train.progress import Silent  # noqa: E402
from tutelage.host.train.students import (  # noqa: E402
    make_student,
    prepare_epoch,
    trained_network,
)

BLOCKS = ["features.denseblock1", "features.denseblock2"]


@pytest.fixture(scope="module")
def data(repo_root: Path) -> tuple[DataSet, DataSet]:
    folder = repo_root / "app" / "demo" / "images"
    return load("folder", folder, "train"), load("folder", folder, "test")


@pytest.fixture(scope="module")
def float_run(data: tuple[DataSet, DataSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("float")
    train(_config("float", {"student": {"network": "densenet-tiny"}}), output, data=data)
    return output / STUDENT


@pytest.fixture(scope="module")
def images(data: tuple[DataSet, DataSet]) -> Tensor:
    return data[0].inputs(slice(0, 240, 4))


def _config(method: str, tables: dict[str, Any], **training: Any) -> Any:
    training = {"epochs": 3, "batch_size": 60, "lr": 0.05, **training}
    return make_config({"method": method, **tables, "training": training})


def _taught(weights: Path, method: str = "qat+kd", *, tables: Any = None, **training: Any) -> Any:
    network = {"network": "densenet-tiny", "weights": str(weights)}
    bits = {"weights": 4, "activations": 4, "calibration_images": 100}
    merged: dict[str, Any] = {"student": network, "teacher": network, "quantisation": bits}
    for name, table in (tables or {}).items():
        merged[name] = {**merged.get(name, {}), **table}
    return _config(method, merged, **training)


def _run(config: Any, output: Path, data: tuple[DataSet, DataSet]) -> Any:
    return TrainingRun(config, output, data, Silent())


def _student(bits: Bits, images: Tensor) -> Student:
    torch.manual_seed(0)
    network = create("densenet-tiny")
    with torch.no_grad():
        network.train()(images)  # gives the norms statistics
    student = Student(network, (3, 28, 28), bits, 7)
    calibrate(student, images)
    student.train()
    student.freeze_norms(True)
    return student


def test_a_run_has_the_loss_of_its_phase_and_settings(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    config = _taught(float_run, temperature=2.5, label_smoothing=0.1, damping=0.7, freeze_norms=0)
    run = _run(config, tmp_path, data)
    run._set_modes(TUTORING)
    run._update_kept_logits(TUTORING)
    images, labels, rows = next(iter(run.feed.batches(0)))
    with torch.no_grad():
        found = run.teaching.losses(TUTORING, images, labels, rows, 0.25)
        logits, taught = run.student(images), run.teacher(images)
        wanted, _ = phase_losses(TUTORING, logits, taught, labels, 2.5, 0.1)
        damped = 0.7 * rising(0.25) * damping(run.student)
    assert found.teacher is None and damped > 0
    torch.testing.assert_close(found.student, wanted + damped)


# -- features ------------------------------------------------------------------------------


def test_the_distance_is_attention_transfers() -> None:
    """|q_S / |q_S| - q_T / |q_T||^2, q the sums of squares over the channels, written out."""
    student, teacher = torch.randn(5, 3, 4, 6).double(), torch.randn(5, 7, 4, 6).double()
    wanted = 0.0
    for own, other in zip(student, teacher, strict=True):
        q, p = own.square().sum(0).flatten(), other.square().sum(0).flatten()
        wanted += float((q / q.norm() - p / p.norm()).square().sum()) / 5
    assert float(attention_distance([student], [teacher])) == pytest.approx(wanted)
    assert float(attention_distance([student] * 2, [teacher] * 2)) == pytest.approx(2 * wanted)
    # Neither the scale nor the number of channels matters.
    alike = torch.cat([student, student], 1) * 3
    assert float(attention_distance([student], [alike])) == pytest.approx(0, abs=1e-12)


def test_maps_of_two_sizes_are_compared_at_the_smaller() -> None:
    small = torch.rand(2, 3, 4, 4)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3).requires_grad_()
    distance = attention_distance([small], [large])
    assert float(distance) == pytest.approx(0, abs=1e-9)
    assert not distance.requires_grad  # the teacher's are constants
    assert float(attention_distance([torch.ones(2, 4)], [torch.ones(2, 4)])) == 0


def test_a_students_layer_is_found_by_its_value() -> None:
    network = create("densenet-small")
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 32, 32))
    student = Student(network, (3, 32, 32))
    names = ["features.denseblock2", "features.transition1", "features.relu0", "cat"]
    found = layers_with_values_of(names, network, student)
    assert found == ["cat_5", "features/transition1/pool", "features/conv0", "cat"]
    assert network.training and student.training and student.observer is None is student.tap
    with pytest.raises(
        ValueError, match=r"no quantised layer computes the same as module 'features.c"
    ):
        layers_with_values_of(["features.conv0"], network, student)
    with pytest.raises(ValueError, match=r"no module 'block'; it has features, pool, classifier"):
        layers_with_values_of(["block"], network, student)


def test_features_are_added_to_the_distillation_loss(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    phase = Phase("half", teacher="frozen", distil=0.5)
    features = {"layers": BLOCKS, "weight": 2.0}
    same: dict[str, Any] = {"quantisation": {"equalise": False}}
    tables = {"features": features, **same}
    run = _run(_taught(float_run, tables=tables, freeze_norms=0), tmp_path, data)
    plain = _run(_taught(float_run, tables=same, freeze_norms=0), tmp_path, data)
    for each in (run, plain):
        each._set_modes(phase)
        each._update_kept_logits(phase)
    images, labels, rows = next(iter(run.feed.batches(0)))
    with torch.no_grad():
        losses = [each.teaching.losses(phase, images, labels, rows, 0.5) for each in (run, plain)]
    seen: dict[str, Tensor] = {}
    run.student.tap = seen.__setitem__
    run.student(images)
    teacher: list[Tensor] = []
    for name in BLOCKS:
        run.teacher.get_submodule(name).register_forward_hook(
            lambda _module, _given, found: teacher.append(found)
        )
    with torch.no_grad():
        run.teacher(images)
        wanted = 0.5 * 2.0 * attention_distance([seen["cat_1"], seen["cat_3"]], teacher)
    assert float(losses[0].student - losses[1].student) == pytest.approx(float(wanted), rel=1e-4)
    # A phase without distillation has none.
    alone = [
        each.teaching.losses(SELF_STUDYING, images, labels, rows, 0.5) for each in (run, plain)
    ]
    assert torch.equal(alone[0].student, alone[1].student)


def test_features_come_closer(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    def distance(weight: float) -> float:
        tables = {"features": {"layers": BLOCKS, "weight": weight}}
        run = _run(_taught(float_run, tables=tables), tmp_path / str(weight), data)
        run.go()
        images, taps = data[0].inputs(slice(0, 60)), run.teaching._taps
        with torch.no_grad():
            run.student.eval()(images), run.teacher.eval()(images)
        return float(attention_distance(*(each.take() for each in taps)))

    assert distance(50.0) < 0.75 * distance(1e-6)


def test_features_have_the_scales_of_the_float_network(
    float_run: Path, data: tuple[DataSet, DataSet]
) -> None:
    def student_of(**tables: Any) -> tuple[nn.Module, Any]:
        config = _taught(float_run, tables=tables)
        return trained_network(config.student, data[0]), make_student(config, data[0])

    network, student = student_of(features={"layers": BLOCKS})
    assert layers_with_values_of(BLOCKS, network, student) == ["cat_1", "cat_3"]
    with pytest.raises(ValueError, match="no quantised layer computes the same"):
        layers_with_values_of(BLOCKS, *student_of())  # of other scales, which are better


def test_features_that_cannot_be_compared(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="need a phase that distils; no phase does"):
        _taught(float_run, "qat", tables={"features": {"layers": BLOCKS}})
    with pytest.raises(ConfigError, match="give equally many"):
        _taught(float_run, tables={"features": {"layers": BLOCKS, "teacher_layers": ["a"]}})
    with pytest.raises(ConfigError, match=r"weight is 0\.0; it must be positive"):
        _taught(float_run, tables={"features": {"layers": BLOCKS, "weight": 0}})
    for table in ({"layers": ["no"]}, {"layers": BLOCKS, "teacher_layers": ["no", "features"]}):
        with pytest.raises(ConfigError, match="no module 'no'"):
            _run(_taught(float_run, tables={"features": table}), tmp_path, data)


# -- starts --------------------------------------------------------------------------------


def test_a_low_bit_student_starts_from_a_wider_one(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    train(_taught(float_run, "qat", epochs=1), tmp_path / "w4a4", data=data)
    bits = {"start": str(tmp_path / "w4a4" / STUDENT), "weights": 3, "activations": 3}
    tables: dict[str, Any] = {
        "student": {"network": "densenet-tiny", "weights": ""},
        "quantisation": bits,
    }
    narrow: Any = make_student(_taught(float_run, "qat", tables=tables), data[0])
    wide, _ = checkpoint.load(tmp_path / "w4a4" / STUDENT)
    state = narrow.state_dict()
    assert all(torch.equal(state[k], v) for k, v in wide["student"].items() if k != "log2_t")
    # Thresholds suit the new levels: fewer levels have a narrower range.
    weights = [q.index for q in narrow.weight_of.values()][1:-1]
    assert (state["log2_t"][weights] <= wide["student"]["log2_t"][weights].ceil()).all()
    calibrated = state["log2_t"].clone()
    with torch.no_grad():
        narrow.log2_t.copy_(wide["student"]["log2_t"])
    calibrate(narrow, data[0].take(100).inputs())
    assert torch.equal(narrow.log2_t, calibrated)
    assert not torch.equal(calibrated, wide["student"]["log2_t"])
    assert narrow.bits == Bits(3, 3)
    with pytest.raises(ConfigError, match="are both given: give one"):
        _taught(float_run, "qat", tables={"quantisation": bits})
    with pytest.raises(ConfigError, match="start needs a student of the quantiser 'tqt'"):
        _taught(float_run, "qat", tables={**tables, "quantisation": {
            **bits, "quantiser": "brevitas"}})  # fmt: skip
    tables["student"]["network"] = "resnet-8"
    with pytest.raises(checkpoint.CheckpointError, match="weights of another network"):
        make_student(_taught(float_run, "qat", tables=tables), data[0])


# -- joined bits -----------------------------------------------------------------------------


def test_inputs_of_a_concat_have_their_own_bits(images: Tensor) -> None:
    student = _student(Bits(3, 3), images)
    widths = {name: q.bits for name, q in student.activation_of.items()}
    assert widths["cat"] == widths["features/conv0"] == 8
    assert widths["features/denseblock1/denselayer1/conv1"] == 3
    assert {q.bits for q in student.weight_of.values()} == {3, 8}
    assert student.bits.label == "W3A3" and Bits(4, 4, joined=6).label == "W4A4, joined 6"
    narrow = Bits(3, 3, joined=0)
    assert _student(narrow, images).activation_of["cat"].bits == 3
    assert narrow.label == "W3A3, joined 3"
    with pytest.raises(ValueError, match=r"bits.joined is 9"):
        Bits(joined=9)
    assert make_config(
        {"method": "ptq", "student": {"network": "densenet-tiny", "weights": "w"},
         "quantisation": {"weights": 2, "activations": 2, "joined": 5}}
    ).quantisation.bits() == Bits(2, 2, joined=5)  # fmt: skip


# -- oscillations ----------------------------------------------------------------------------


def test_damping_pulls_weights_to_the_middle_of_their_level(images: Tensor) -> None:
    student = _student(Bits(3, 3), images)
    points = student.points().weights
    wanted = 0.0
    for name, conv in student.convs():
        q, step = student.weight_of[name], 2.0 ** -points[name]
        weight = conv.folded()[0].detach()
        inside = weight.clamp(q.lowest * step, q.highest * step)
        wanted += float((inside - q.quantise(weight, points[name])).square().sum())
    found = damping(student)
    assert found.item() == pytest.approx(wanted, rel=1e-5) and wanted > 0
    found.backward()
    for name, conv in student.convs():
        q, step = student.weight_of[name], 2.0 ** -points[name]
        weight, gradient = conv.folded()[0].detach(), conv.weight.grad
        assert gradient is not None
        is_clipped = (weight < q.lowest * step) | (weight > q.highest * step)
        assert not gradient[is_clipped].any()
        away = torch.sign(weight - q.quantise(weight, points[name]))
        scale = torch.sign(weight / conv.weight.detach())  # of the norm, which is folded
        assert torch.equal(torch.sign(gradient)[~is_clipped], (away * scale)[~is_clipped])
    assert (rising(0), rising(1)) == (0, 1) and rising(0.5) == pytest.approx(0.5)


def test_a_weight_that_oscillates_is_held_and_others_are_not(images: Tensor) -> None:
    student = _student(Bits(4, 4), images)
    name, conv = next(pair for pair in student.convs() if pair[1].norm is not None)
    step = 2.0 ** -student.points().weights[name]
    scale = (conv.folded()[0] / conv.weight)[0, 0, 0, 0].item()
    weights = conv.weight.detach()[0, 0, 0]  # of one norm's channel

    def put(*levels: float) -> None:
        for place, level in enumerate(levels):
            weights[place] = level * step / scale

    put(1.6, -3.0, 2.2)
    freezing = Freezing(student, momentum=0.1)
    # The first goes to and fro over a border and is mostly at 2, the second drifts, one rests.
    for number in range(24):
        put(1.4 if number % 4 == 3 else 1.6, -3.0 + 0.2 * number, 2.2)
        freezing.hold(student, 0.2)
    integers = conv.folded()[0][0, 0, 0] / step
    assert float(integers[0].detach()) == pytest.approx(2.0)
    assert integers[1:3].tolist() == pytest.approx([1.6, 2.2], rel=1e-4)
    held = freezing.get_buffer("held0" if conv is next(student.convs())[1] else "held1")
    assert held.isnan().sum() == held.numel() - 1
    put(-3.0)  # whatever the optimiser makes of it, and of the norm
    assert conv.norm is not None
    conv.norm.weight.data *= 1.1
    freezing.hold(student, 0.2)
    assert float(conv.folded()[0][0, 0, 0, 0].detach() / step) == pytest.approx(2.0)


def test_a_run_freezes_by_a_falling_threshold(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    run = _run(_taught(float_run, "qat", freeze_oscillations=0.02), tmp_path, data)
    assert run.freezing is not None
    run.freezing.get_buffer("often0").fill_(0.05)  # oscillations per step
    run._follow(0, 0.2)  # the threshold is 0.02 divided by the share of the damping
    assert run.freezing.get_buffer("held0").isnan().all()
    run._follow(1, 1.0)
    held = run.freezing.get_buffer("held0")
    assert not held.isnan().any() and run.freezing.get_buffer("held1").isnan().all()
    name, conv = next(run.student.convs())
    integers = conv.folded()[0].detach() * 2.0 ** run.student.points().weights[name]
    assert torch.allclose(integers, held, atol=1e-3)


# -- real steps ------------------------------------------------------------------------------


def test_steps_are_real_numbers_in_training_only(images: Tensor) -> None:
    student = _student(Bits(4, 4), images)
    with torch.no_grad():
        student.log2_t.add_(0.3 * torch.rand(len(student.log2_t)) - 0.15)
        student.set_input_fix_point(7)
    deployed = student.eval()(images)
    student.real_steps = True
    assert torch.equal(student.eval()(images), deployed)
    seen: dict[str, Tensor] = {}
    student.train().tap = seen.__setitem__
    student(images)
    for name, quantiser in student.activation_of.items():
        # The threshold is 2^ceil(log2_t) when it is half-way between two powers.
        middle = 0.0 if quantiser is student.images else 0.5
        log2_t = float(student.log2_t.detach()[quantiser.index]) + middle
        step = 2.0 ** (log2_t - quantiser.magnitude)
        levels = seen[name].detach() / step
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        assert levels.max() <= quantiser.highest + 1e-3
    before = student.log2_t.detach().clone()
    student.round_steps()
    given = student.images.index
    rounded = torch.where(torch.arange(len(before)) == given, before, before.ceil() - 0.5)
    assert torch.equal(student.log2_t.detach(), rounded)
    assert student.fix_points().activations["input"] == 7


def test_real_steps_begin_and_end_where_the_calibration_left_them(images: Tensor) -> None:
    student = _student(Bits(8, 8), images)
    assert not student.fix_points().notes  # no fix point was moved for the DPU's shifts
    calibrated, points = student(images), student.fix_points()
    student.real_steps = True
    assert torch.equal(student(images), calibrated)
    student.log2_t.data += 0.01 * (torch.rand(len(student.log2_t)) - 0.5)
    student.set_input_fix_point(7)
    student.round_steps()
    assert student.fix_points() == points


def test_the_gradients_of_real_steps_are_those_of_the_formula() -> None:
    """Compared with differences: a clipped value's limit is t (2^m - 1) / 2^m, smooth in log2 t."""
    log2_t = torch.tensor(0.37, requires_grad=True)
    x = torch.tensor([5.0, -7.0], requires_grad=True)

    def value(t: float) -> float:
        return float(quantise(x.detach(), 3 - t, -8, 7).sum())

    FakeQuantise.apply(x, log2_t, 3 - float(log2_t.detach()), -8, 7, False).sum().backward()
    difference = (value(0.37 + 1e-3) - value(0.37 - 1e-3)) / 2e-3
    assert float(log2_t.grad) == pytest.approx(difference, rel=1e-3)
    assert x.grad is not None and not x.grad.any()
    inside = torch.tensor([0.3], requires_grad=True)
    y = FakeQuantise.apply(inside, log2_t, 3 - float(log2_t.detach()), -8, 7, False)
    log2_t.grad = None
    y.sum().backward()
    assert float(log2_t.grad) == pytest.approx(math.log(2) * float(y.detach() - inside.detach()))


def test_steps_are_rounded_once_also_after_a_resumption(float_run: Path, images: Tensor) -> None:
    training = _taught(float_run, real_steps=0.5).training

    def course(start: int) -> list[tuple[bool, list[float]]]:
        student = _student(Bits(4, 4), images)
        if start:
            student.load_state_dict(states[start])
        found = []
        for epoch in range(start, 4):
            states[epoch] = {k: v.clone() for k, v in student.state_dict().items()}
            prepare_epoch(student, training, epoch, 4)
            found.append((student.real_steps, student.log2_t.tolist()))
            student.log2_t.data += 0.05
        return found

    states: dict[int, Any] = {}
    whole = course(0)
    assert [real for real, _ in whole] == [True, True, False, False]
    assert [course(start) for start in (1, 2, 3)] == [whole[1:], whole[2:], whole[3:]]
    always = _taught(float_run, real_steps=1.0).training
    student = _student(Bits(4, 4), images)
    prepare_epoch(student, always, 3, 4)
    assert not student.real_steps


def test_a_run_rounds_steps_and_freezes_norms_in_time(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    run = _run(_taught(float_run, "qat", real_steps=0.5, freeze_norms=0.6), tmp_path, data)
    found = []
    for run.epoch in range(3):  # at 0, 1/3 and 2/3 of the run
        run._set_modes(SELF_STUDYING)
        found.append((run.student.real_steps, run.student.norm_frozen))
    assert found == [(True, False), (True, False), (False, True)]


# -- the average -----------------------------------------------------------------------------


def _floats(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}


def test_the_average_is_that_of_the_formula() -> None:
    network: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average, wanted = Average(network, 0.4), _floats(network)
    kept: Any = average.network
    for step in range(5):
        with torch.no_grad():
            network[0].weight += 1.0
        network.train()(torch.randn(4, 2))
        average.update(network, step)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, value in _floats(network).items():
            wanted[name] = decay * wanted[name] + (1 - decay) * value
    assert {"0.weight", "1.weight", "1.running_mean", "1.running_var"} < wanted.keys()
    for name, value in _floats(kept).items():
        assert torch.allclose(value, wanted[name]), name
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    assert kept[1].num_batches_tracked == 5


def test_the_average_is_evaluated_and_kept(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    run = _run(_taught(float_run, "qat", ema=0.9, epochs=2), tmp_path, data)
    steps: list[int] = []
    wanted, follow = _floats(run.student), run._follow

    def follow_and_average(step: int, progress: float) -> None:
        follow(step, progress)
        decay = min(0.9, (1 + step) / (10 + step))
        steps.append(step)
        for name, value in _floats(run.student).items():
            wanted[name] = decay * wanted[name] + (1 - decay) * value

    run._follow = follow_and_average
    run.go()
    assert run.average is not None and steps == list(range(8))  # of 240 images in batches of 60
    for name, value in _floats(run.average.network).items():
        torch.testing.assert_close(value, wanted[name], msg=name)
    learnt = {k: v.clone() for k, v in run.student.state_dict().items()}
    result = run.finish(0.0)
    parts, _ = checkpoint.load(tmp_path / STUDENT)
    average = run.average.network.state_dict()
    assert all(torch.equal(average[k], v) for k, v in parts["student"].items())
    assert not torch.equal(parts["student"]["log2_t"], learnt["log2_t"])
    assert result.accuracy == accuracy(run.average.network, data[1])


def test_a_resumed_run_with_everything_is_an_undisturbed_one(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    config = _taught(
        float_run, tables={"features": {"layers": BLOCKS}}, ema=0.9, real_steps=0.4,
        damping=1e-3, freeze_oscillations=0.005,
    )  # fmt: skip
    train(config, tmp_path / "whole", data=data)
    run = _run(config, tmp_path / "halves", data)
    save = run.files.save

    def save_and_stop(epoch: int, history: Any) -> None:
        save(epoch, history)
        if epoch == 2:
            raise KeyboardInterrupt

    run.files.save = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        run.go()
    train(config, tmp_path / "halves", resume=True, data=data)
    one, other = (checkpoint.load(tmp_path / part / STUDENT)[0] for part in ("whole", "halves"))
    for name, tensor in one["student"].items():
        assert torch.equal(tensor, other["student"][name]), name


# -- mixed images ----------------------------------------------------------------------------


def test_the_teacher_judges_the_mixed_image(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    tables = {"augmentation": {"mixup": 0.4, "cutmix": 1.0}}
    run = _run(_taught(float_run, tables=tables), tmp_path, data)
    seen: list[Tensor] = []
    for network in (run.student, run.teacher):
        network.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    images, labels, _ = batch = next(iter(run.feed.batches(0)))
    run._step(TUTORING, batch, 0.3)
    assert len(seen) == 2 and seen[0] is seen[1] is images
    assert labels.shape == (60, 10) and ((labels > 0).sum(1) == 2).any()
