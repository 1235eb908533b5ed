"""The input's fix point follows the range of the network's input, from student to board."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import Tensor, nn  # noqa: E402

from tutelage.core.images.input_form import InputForm, best_fix_point, float_table, int8_table  # noqa: E402
from tutelage.dpu.engine.program import feed  # noqa: E402
from tutelage.dpu.engine.reference import load_engine  # noqa: E402
from tutelage.host.export.onnx_qdq import to_onnx  # noqa: E402
from tutelage.host.quantise.calibrate import METHODS, calibrate  # noqa: E402
from tutelage.host.quantise.quantisers import Bits  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402
from tutelage.host.quantise.to_xmodel import to_graph, to_quantised  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.data.data_set import make_form, normalise  # noqa: E402

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


def _student(fix_point: int | None = None, bits: Bits | None = None) -> Student:
    return Student(_network(), (3, 16, 16), bits, fix_point)


_FORMS = st.builds(
    lambda mean, std: make_form((3, 16, 16), mean, std),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(1e-3, 1), min_size=3, max_size=3),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(form=_FORMS)
@example(make_form((3, 16, 16), *IMAGENET))
@example(make_form((3, 16, 16)))
@example(make_form((3, 16, 16), [0.0], [1.0]))
@example(make_form((3, 16, 16), [0.0], [1 / 255]))
@example(InputForm(16, 16, "rgb", (103.94, 116.78, 123.68), (0.017,)))
def test_the_applications_table_is_the_students_quantisation(form: InputForm) -> None:
    """Each of the 256 levels of each channel, in student, .xmodel and application."""
    student = _student(best_fix_point(form)).eval()
    point = student.fix_points().activations["input"]
    assert point == best_fix_point(form)
    inputs = normalise(LEVELS, form)
    table = int8_table(form, point)
    rounded = student.images.quantise(inputs, point)[0] * 2.0**point
    assert np.array_equal(rounded.reshape(3, 256).T.numpy(), table)
    graph = to_graph(student, "net")
    (source,) = load_engine(graph).program.inputs
    assert source.get_output_tensor().get_attr("fix_point") == point
    assert np.array_equal(feed(source, float_table(form)), table)
    logits = student(inputs).detach().numpy()
    int8 = table[LEVELS[0].permute(1, 2, 0).numpy(), np.arange(3)]
    assert np.array_equal(load_engine(graph).run(int8[np.newaxis]), logits)


def test_the_best_fix_point_of_known_forms() -> None:
    def point(mean: list[float], std: list[float]) -> int:
        return best_fix_point(make_form((1, 8, 8), mean, std))

    assert best_fix_point(make_form((3, 8, 8))) == 7
    assert best_fix_point(make_form((3, 8, 8), *IMAGENET)) == 5
    assert (point([0.5], [0.5]), point([0.0], [1.0]), point([0.0], [1 / 255])) == (7, 7, -1)


@settings(deadline=None)
@given(form=_FORMS)
def test_no_other_fix_point_is_nearer(form: InputForm) -> None:
    def error(point: int) -> float:
        return float(np.square(int8_table(form, point) * 2.0**-point - float_table(form)).sum())

    best = best_fix_point(form)
    assert all(error(best) <= error(point) for point in range(best - 3, best + 4))


def _images(count: int, mean: list[float], std: list[float]) -> Tensor:
    """Pictures with areas of every brightness, as a user normalises them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, 16, 16), np.uint8)
    pixels[:, :, :8] = np.sort(pixels[:, :, :8], axis=3)
    return normalise(torch.from_numpy(pixels), make_form((3, 16, 16), mean, std))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "mean, std, point",
    [(*IMAGENET, 5), ([], [], 7), ([0.5], [0.5], 7), ([0.0], [1.0], 7), ([0.0], [1 / 255], -1)],
)
def test_calibrate_measures_the_users_tensors(
    mean: list[float], std: list[float], point: int, method: str
) -> None:
    images = _images(40, mean, std)
    student = _student().eval()
    calibrate(student, images, method)
    assert student.fix_points().activations["input"] == point
    with torch.no_grad():
        error = (student(images) - _network().eval()(images)).abs().mean()
        spread = student(images).std()
    assert error < 0.05 * spread


def test_a_given_fix_point_is_kept() -> None:
    student = _student(6)
    calibrate(student, _images(10, *IMAGENET))
    assert student.fix_points().activations["input"] == 6


def test_images_that_leave_out_levels_are_not_clipped_for_it() -> None:
    """Some grey pictures at fix point 8 or 7: equal for them, but not for later ones."""
    student = _student()
    grey = torch.randint(96, 160, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    calibrate(student, (grey - 128) / 128)
    assert student.fix_points().activations["input"] == 7
    student = _student()
    calibrate(student, torch.zeros(2, 3, 16, 16))
    assert student.fix_points().activations["input"] == 7


@pytest.mark.parametrize("first", [4, 6])
def test_images_of_fewer_bits_cover_the_same_range(first: int) -> None:
    student = _student(None, Bits(first=first))
    calibrate(student, _images(20, *IMAGENET))
    assert student.fix_points().activations["input"] == 5 - (8 - first)


def test_a_checkpoint_has_it_and_older_ones_have_seven(tmp_path: Path) -> None:
    student = _student()
    calibrate(student, _images(20, *IMAGENET))
    checkpoint.save(tmp_path / "a.safetensors", {"student": student.state_dict()}, {})
    again = _student()
    checkpoint.load_weights(again, tmp_path / "a.safetensors")
    assert again.fix_points().activations == student.fix_points().activations
    state = student.state_dict()
    state["log2_t"][student.images.index] = 0.0  # as written when 7 was the only fix point
    again.load_state_dict(state)
    assert again.fix_points().activations["input"] == 7


def test_training_leaves_it() -> None:
    student = _student().train()
    images = _images(8, *IMAGENET)
    calibrate(student, images)
    optimiser = torch.optim.Adam([student.log2_t], 0.5)
    for _ in range(5):
        optimiser.zero_grad()
        student(images).square().sum().backward()
        optimiser.step()
    assert student.fix_points().activations["input"] == 5


def test_onnx_takes_the_same_input() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    images = _images(40, *IMAGENET)
    student = _student().eval()
    calibrate(student, images)
    session = onnxruntime.InferenceSession(
        to_onnx(to_quantised(student, "net")), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"images": images.numpy()})
    wanted = student(images).detach().numpy()
    step = 2.0 ** -student.fix_points().activations["4"]
    assert np.abs(found - wanted).max() <= 2 * step
