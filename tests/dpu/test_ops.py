"""Every op type: the -fix forms against their real-valued meaning, the plain ones by hand."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dpu.one_op import RNG, fix_graph, int8, real_graph, real_values, run
from tutelage.core.errors import DpuError, UnknownOpError, XmodelError
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import computed_types, op_type

WINDOW = {"kernel": [3, 2], "stride": [1, 2], "pad": [1, 1, 0, 0], "pad_mode": "FLOOR"}


def _real(values: np.ndarray, point: int) -> np.ndarray:
    return values.astype(np.float64) * 2.0**-point


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x.ravel()]).reshape(x.shape)


ELEMENTWISE: dict[str, Callable[..., np.ndarray]] = {
    "relu-fix": lambda x: np.maximum(x, 0),
    "relu6-fix": lambda x: np.clip(x, 0, 6),
    "leaky-relu-fix": lambda x: np.where(x < 0, x * 26 / 256, x),
    "hard-sigmoid-fix": lambda x: np.maximum(x + 3, 0) / 6,  # the DPU's is not limited to 1
    "hard-swish-fix": lambda x: x * _hard_sigmoid(x),
    "sigmoid-fix": lambda x: 1 / (1 + np.exp(-x)),
    "tanh-fix": np.tanh,
    "upload": lambda x: x,
    "download": lambda x: x,
    "identity-fix": lambda x: x,
    "softmax-fix": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("points", [(4, 4), (3, 5), (5, 2)])
def test_elementwise(kind: str, points: tuple[int, int]) -> None:
    """Equal to the op in real numbers within the rounding of the 8-bit inner steps."""
    x = int8(2, 4, 5, 6)
    attrs = {"axis": -1} if kind == "softmax-fix" else {}
    y = run(fix_graph(kind, attrs, [([1, 4, 5, 6], points[0])], points[1]), x)
    wanted = np.clip(ELEMENTWISE[kind](_real(x, points[0])) * 2.0 ** points[1], -128, 127)
    # A hard swish multiplies by a gate of 8 bits: |x| <= 16 at half a step of 2**-7.
    slack = 0.5 + 1e-3 + (2.0 ** points[1] * 16 / 256 if kind == "hard-swish-fix" else 0)
    # 2731 / 2**14 is 1/6 but for one part in 8192, of 127 at most.
    assert np.abs(y - wanted).max() <= slack + (0.02 if "hard" in kind else 0)


REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "max": np.max,
    "min": np.min,
    "sum": np.sum,
    "mean": np.mean,
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("keep_dims", [False, True])
def test_reductions(name: str, keep_dims: bool) -> None:
    x, attrs = int8(3, 4, 2, 5), {"axis": [1, 2], "keep_dims": keep_dims}
    y = run(fix_graph(f"reduction_{name}-fix", attrs, [([1, 4, 2, 5], 4)], 4), x)
    real = REDUCTIONS[name](x.astype(np.float64), (1, 2), keepdims=keep_dims)
    wanted = np.clip(np.floor(real + 0.5), -128, 127)  # 8 values: the reciprocal is exact
    np.testing.assert_array_equal(y, wanted)


MOVES: dict[str, tuple[dict[str, Any], Any]] = {
    "reshape": ({"shape": [1, 40]}, lambda x: x.reshape(-1, 40)),
    "flatten": ({"start_axis": 1, "end_axis": -1}, lambda x: x.reshape(-1, 40)),
    "transpose": ({"order": [0, 3, 1, 2]}, lambda x: x.transpose(0, 3, 1, 2)),
    "upsample": ({"scale": [2.0, 3.0], "mode": "NEAREST"}, lambda x: x.repeat(3, 1).repeat(2, 2)),
    "resize": ({"scale": [1.5, 1.25], "mode": "NEAREST"},
               lambda x: x[:, [0, 0, 1, 2, 3]][:, :, [0, 0, 1]]),
    "pixel-shuffle": ({"scale": 2, "upscale": False}, lambda x: np.stack(
        [x[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], -1).reshape(1, 2, 1, 20)),
    "gstiling": ({"stride": 2, "reverse": False}, lambda x: np.concatenate(
        [x[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], -1)),
    "downsample": ({"scale": [2.0, 3.0], "mode": "BILINEAR", "half_pixel_centers": True},
                   lambda x: x[:, ::3, ::2]),
    "pad": ({"paddings": [0, 0, 1, 2, 0, 1, 0, 0], "mode": "CONSTANT"},
            lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))),
    "strided_slice": ({"begin": [0, 1, 0, 0], "end": [1, 4, 2, 5], "strides": [1, 2, 1, 3]},
                      lambda x: x[:, 1:4:2, :, ::3]),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVES)
def test_moves(kind: str) -> None:
    attrs, formula = MOVES[kind]
    x = int8(1, 4, 2, 5)
    fixed = {"gstiling": "tile-fix"}.get(kind, f"{kind}-fix")
    np.testing.assert_array_equal(
        run(fix_graph(fixed, attrs, [([1, 4, 2, 5], 3)], 3), x), formula(x)
    )
    if op_type(kind).real is not None:  # only the DPU has a downsampling
        plain = real_graph(kind, attrs, [[1, 4, 2, 5]])
        np.testing.assert_array_equal(run(plain, x.astype(np.float32)), formula(x))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_pixels_become_channels_and_come_back(
    side: int, height: int, width: int, channels: int, tile: bool
) -> None:
    dims = [1, height * side, width * side, channels]
    x = RNG.integers(-128, 128, dims, dtype=np.int8)
    kind, size, back = ("tile-fix", "stride", "reverse") if tile else (
        "pixel-shuffle-fix", "scale", "upscale")  # fmt: skip
    there = run(fix_graph(kind, {size: side, back: False}, [(dims, 3)], 3), x)
    again = fix_graph(kind, {size: side, back: True}, [(list(there.shape), 3)], 3)
    np.testing.assert_array_equal(run(again, there), x)


def test_the_order_of_a_shuffles_channels_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch's PixelShuffle is the definition")
    x = int8(2, 3, 4, 12)
    wanted = torch.pixel_shuffle(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)), 2)
    y = run(fix_graph("pixel-shuffle-fix", {"scale": 2, "upscale": True},
                        [([1, 3, 4, 12], 3)], 3), x)  # fmt: skip
    np.testing.assert_array_equal(y, wanted.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("centres", ["corners", "half", "none"])
@pytest.mark.parametrize("scale", [[2.0, 2.0], [1.5, 3.0], [0.5, 0.75]])
def test_bilinear_resizing(centres: str, scale: list[float]) -> None:
    attrs = {"scale": scale, "mode": "BILINEAR", "align_corners": centres == "corners",
             "half_pixel_centers": centres == "half"}  # fmt: skip
    x = int8(2, 4, 6, 3)
    wanted = x.astype(np.float64)
    for axis, factor in ((1, scale[1]), (2, scale[0])):
        size, out = x.shape[axis], int(x.shape[axis] * factor)
        step = (size - 1) / (out - 1) if centres == "corners" else size / out
        places = np.arange(out) * step + (step / 2 - 0.5 if centres == "half" else 0)
        lines = np.moveaxis(wanted, axis, -1)
        mixed = [np.interp(places, np.arange(size), line) for line in lines.reshape(-1, size)]
        wanted = np.moveaxis(np.reshape(mixed, (*lines.shape[:-1], out)), -1, axis)
    y = run(real_graph("resize", attrs, [[1, 4, 6, 3]]), x.astype(np.float32))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-4)
    q = run(fix_graph("upsample-fix", attrs, [([1, 4, 6, 3], 3)], 2), x)
    assert np.abs(q - wanted / 2).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    "attrs, rows",
    [({"align_corners": True}, [0, 1, 2, 2, 3]), ({"half_pixel_centers": True}, [0, 0, 1, 2, 3]),
     ({}, [0, 0, 1, 2, 3])],
)  # fmt: skip
def test_nearest_rows(attrs: dict[str, Any], rows: list[int]) -> None:
    """Five rows of four: 0, 3/4, 3/2, 9/4, 3 (halves up); at -1/10, 7/10, ...; at 0, 4/5, ..."""
    x = int8(1, 4, 2, 1)
    attrs = {"mode": "NEAREST", "scale": [1.0, 1.25], **attrs}
    y = run(fix_graph("resize-fix", attrs, [([1, 4, 2, 1], 3)], 3), x)
    np.testing.assert_array_equal(y, x[:, rows])


def test_a_resize_may_have_its_size_as_constants() -> None:
    graph = real_graph("identity", {}, [[1, 2, 2, 1]])
    numbers = [graph.create_const_op(f"n{n}", np.array([n], np.float32)) for n in (4, 6)]
    size = graph.create_op("size", "stack", {"axis": 0}, {"input": numbers})
    inputs = {"input": [graph.get_op("x0")], "size": [size]}
    y = graph.create_op("z", "resize", {"mode": "NEAREST"}, inputs)
    assert y.get_output_tensor().dims == [1, 4, 6, 1]


def test_a_flatten_of_amds_quantiser() -> None:
    """reshape(x, stack(1, -1)) with the attribute shape = [0]; the batch stays."""
    graph = real_graph("identity", {}, [[1, 2, 2, 3]])
    numbers = [graph.create_const_op(f"n{n}", np.array([n], np.float32)) for n in (1, -1)]
    shape = graph.create_op("shape", "stack", {"axis": 0}, {"input": numbers})
    inputs = {"input": [graph.get_op("y")], "shape": [shape]}
    flat = graph.create_op("flat", "reshape", {"shape": [0]}, inputs)
    assert flat.get_output_tensor().dims == [1, 12]
    x = real_values(3, 2, 2, 3)
    for engine in ("fast", "reference"):
        y = load_engine(graph, engine, trace=True).trace(x)["flat"]
        np.testing.assert_array_equal(y, x.reshape(3, 12))


def test_an_elementwise_op_has_its_inputs_shape_whatever_its_attribute_says() -> None:
    """Vitis AI 1.4's compiler keeps `shape` from before it reshaped the input."""
    attrs = {"shape": [1, 10], "hsigmoid_in": 2}
    graph = fix_graph("hard-sigmoid-fix", attrs, [([1, 1, 1, 10], 2)], 7)
    assert graph.get_op("y").get_output_tensor().dims == [1, 1, 1, 10]
    assert run(graph, int8(2, 1, 1, 10)).shape == (2, 1, 1, 10)


def test_squeeze() -> None:
    x = int8(2, 1, 1, 7)
    graph = fix_graph("squeeze-fix", {"axis": [1, 2]}, [([1, 1, 1, 7], 2)], 2)
    np.testing.assert_array_equal(run(graph, x), x[:, 0, 0])


@pytest.mark.parametrize("nonlinear", ["NONE", "RELU", "RELU6", "LEAKYRELU"])
def test_dense_layers(nonlinear: str) -> None:
    x, weights, bias = int8(3, 2, 2, 5), int8(4, 2, 2, 5), int8(4)
    constants = {"weights": (weights, 6), "bias": (bias, 5)}
    attrs = {"nonlinear": nonlinear}
    graph = fix_graph("inner-product-fix", attrs, [([1, 2, 2, 5], 4)], 2, constants)
    y = run(graph, x)
    real = np.tensordot(_real(x, 4), _real(weights, 6), ([1, 2, 3], [1, 2, 3])) + _real(bias, 5)
    # A DPU's ReLU6 clips at 96, which is 24 at this output's fix point, 2.
    shapes = {"RELU": (0, 99), "RELU6": (0, 24), "NONE": (-99, 99)}
    if nonlinear == "LEAKYRELU":
        real = np.where(real < 0, real * 26 / 256, real)
    real = np.clip(real, *shapes.get(nonlinear, (-99, 99)))
    np.testing.assert_array_equal(y, np.clip(np.floor(real * 4 + 0.5), -128, 127))


@pytest.mark.parametrize("transpose_b", [False, True])
def test_matmul(transpose_b: bool) -> None:
    a, b = int8(1, 3, 4), int8(1, 5, 4) if transpose_b else int8(1, 4, 5)
    inputs = [([1, 3, 4], 4), (list(b.shape), 3)]
    attrs = {"transpose_a": False, "transpose_b": transpose_b}
    y = run(fix_graph("matmul-fix", attrs, inputs, 2), a, b)
    real = _real(a, 4) @ _real(b.swapaxes(1, 2) if transpose_b else b, 3)
    np.testing.assert_array_equal(y, np.clip(np.floor(real * 4 + 0.5), -128, 127))


@pytest.mark.parametrize("nonlinear", ["HSIGMOID", "HSWISH"])
def test_convolutions_with_a_hard_nonlinearity(nonlinear: str) -> None:
    x, weights = int8(2, 3, 3, 4), int8(5, 1, 1, 4)
    attrs = {"kernel": [1, 1], "stride": [1, 1], "nonlinear": nonlinear, "hsigmoid_in": 4}
    graph = fix_graph("conv2d-fix", attrs, [([1, 3, 3, 4], 5)], 4, {"weights": (weights, 7)})
    real = np.clip(np.tensordot(_real(x, 5), _real(weights, 7), ([3], [3]))[..., 0, 0], -8, 7.94)
    wanted = np.maximum(real + 3, 0) / 6 * 16
    if nonlinear == "HSWISH":
        wanted = _hard_sigmoid(real) * real * 16
    assert np.abs(run(graph, x) - wanted).max() <= 1.6


def _windows(x: np.ndarray, fill: float) -> np.ndarray:
    """Return the values under `WINDOW`, (N, out_h, out_w, C, 2, 3)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, (2, 3), (1, 2))
    return view[:, ::2]


PLAIN_UNARY: dict[str, Callable[..., np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky-relu": lambda x: np.where(x < 0, x * 26 / 256, x),
    "hard-sigmoid": _hard_sigmoid,
    "hard-swish": lambda x: x * _hard_sigmoid(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "identity": lambda x: x,
    "clamp": lambda x: np.clip(x, -1, 2),
    "nndct_clamp": lambda x: np.clip(x, -1, 2),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "gelu": lambda x: x * (1 + _erf(x / np.sqrt(2))) / 2,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "neg": lambda x: -x,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "aten::abs": np.abs,
    "aten::elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "aten::mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "aten::silu": lambda x: x / (1 + np.exp(-x)),
    "aten::softplus": lambda x: np.log1p(np.exp(x)),
    "aten::sqrt": np.sqrt,
    "l2_normalize": lambda x: x / np.sqrt((x**2).sum(-1, keepdims=True)),
    "maxpool2d": lambda x: _windows(x, -np.inf).max((-2, -1)),
    "avgpool2d": lambda x: _windows(x, 0).mean((-2, -1)),
}


@pytest.mark.parametrize("kind", PLAIN_UNARY)
def test_plain_ops(kind: str) -> None:
    x = 4 * real_values(2, 6, 5, 3)
    attrs: dict[str, Any] = dict(WINDOW) if "pool" in kind else {}
    x = np.abs(x) if kind == "aten::sqrt" else x
    if kind == "leaky-relu":
        attrs = {"alpha": 26 / 256}
    if kind == "l2_normalize":
        attrs = {"axis": [3]}
    if "clamp" in kind:
        attrs = {"min": -1.0, "max": 2.0}
    if kind == "avgpool2d":
        attrs |= {"count_include_pad": True}
    y = run(real_graph(kind, attrs, [[1, 6, 5, 3]]), x)
    np.testing.assert_allclose(y, PLAIN_UNARY[kind](x), rtol=1e-5, atol=1e-5)


def test_plain_convolutions() -> None:
    x, weights, bias = real_values(2, 6, 5, 3), real_values(4, 2, 3, 3), real_values(4)
    view = _windows(x, 0)
    constants = {"weights": weights, "bias": bias}
    y = run(real_graph("conv2d", WINDOW, [[1, 6, 5, 3]], constants), x)
    wanted = np.einsum("nhwcij,oijc->nhwo", view, weights) + bias
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)
    depthwise = {"weights": real_values(1, 2, 3, 3), "bias": real_values(3)}
    y = run(real_graph("depthwise-conv2d", WINDOW, [[1, 6, 5, 3]], depthwise), x)
    wanted = np.einsum("nhwcij,oijc->nhwc", view, depthwise["weights"]) + depthwise["bias"]
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


def test_a_transposed_convolution_spreads_its_input() -> None:
    """Stride 2, kernel 2: each pixel becomes a 2 x 2 block, the file's kernel rotated by 180."""
    x, weights = real_values(1, 3, 3, 2), real_values(4, 2, 2, 2)
    attrs = {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0, 0, 0], "pad_mode": "FLOOR"}
    y = run(real_graph("transposed-conv2d", attrs, [[1, 3, 3, 2]], {"weights": weights}), x)
    blocks = np.einsum("hwc,oijc->hiwjo", x[0], weights[:, ::-1, ::-1]).reshape(6, 6, 4)
    np.testing.assert_allclose(y[0], blocks, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "min", "max"])
def test_plain_eltwise(kind: str) -> None:
    names = {"sub": "subtract", "mul": "multiply", "div": "divide", "min": "minimum"}
    function = getattr(np, names.get(kind, "maximum" if kind == "max" else kind))
    a, b = real_values(1, 3, 3, 2), real_values(1, 1, 1, 2) + 5
    graph = real_graph(kind, {}, [[1, 3, 3, 2], [1, 1, 1, 2]])
    np.testing.assert_allclose(run(graph, a, b), function(a, b), rtol=1e-6)
    if kind in ("add", "mul"):
        graph = real_graph("eltwise", {"type": kind.upper()}, [[1, 3, 3, 2], [1, 1, 1, 2]])
        np.testing.assert_allclose(run(graph, a, b), function(a, b), rtol=1e-6)


@pytest.mark.parametrize("name", [*REDUCTIONS, "product"])
def test_plain_reductions(name: str) -> None:
    x = real_values(2, 3, 4, 5)
    graph = real_graph(f"reduction_{name}", {"axis": [1, 2], "keep_dims": True}, [[1, 3, 4, 5]])
    function = np.prod if name == "product" else REDUCTIONS[name]
    np.testing.assert_allclose(run(graph, x), function(x, (1, 2), keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("axis", [3, -1, [3]])
def test_an_axis_may_be_a_number(axis: int | list[int]) -> None:
    """torch's operators accept this form, and their exporters write it."""
    x = real_values(2, 3, 4, 5)
    y = run(real_graph("l2_normalize", {"axis": axis}, [[1, 3, 4, 5]]), x)
    np.testing.assert_allclose(y, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-5)
    y = run(real_graph("reduction_max", {"axis": axis, "keep_dims": False}, [[1, 3, 4, 5]]), x)
    np.testing.assert_array_equal(y, x.max(-1))
    for kind in ("l2_normalize", "nndct_normalize"):
        name = "axis" if kind == "l2_normalize" else "dim"
        graph = real_graph(kind, {name: [3]}, [[1, 3, 4, 5]])
        graph.get_op("y").set_attr(name, "last")
        with pytest.raises(XmodelError, match="is inconsistent: ValueError: invalid literal"):
            load_engine(graph, "reference")


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_scalar_has_no_batch(engine: str) -> None:
    """A norm over all of an image: the file has no axis for more than one."""
    x = real_values(3, 4, 4, 2)
    graph = real_graph("nndct_normalize", {"p": 2}, [[1, 4, 4, 2]])
    model = load_engine(graph, engine)
    with pytest.raises(DpuError, match=r"op 'y' gives a scalar, .* one image at a time, not 3"):
        model.run(x)
    np.testing.assert_allclose(model.run(x[:1]), np.linalg.norm(x[0]), rtol=1e-6)
    graph.create_op("z", "div", {}, {"input": [graph.get_op("x0"), graph.get_op("y")]})
    wanted = [image / np.linalg.norm(image) for image in x]
    np.testing.assert_allclose(load_engine(graph, engine).run(x), wanted, rtol=1e-5)


def test_a_prelu_and_a_scale_have_a_number_for_each_channel() -> None:
    x, weight, bias = real_values(2, 3, 3, 4), real_values(4), real_values(4)
    y = run(real_graph("prelu", {}, [[1, 3, 3, 4]], {"weight": weight}), x)
    np.testing.assert_allclose(y, np.where(x > 0, x, weight * x), rtol=1e-6)
    graph = real_graph("scale", {"axis": -1}, [[1, 3, 3, 4]], {"scale": weight, "bias": bias})
    np.testing.assert_allclose(run(graph, x), x * weight + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("approximate", ["'none'", "'tanh'"])
def test_gelus_are_pytorchs(approximate: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch's GELU is the definition")
    x = 4 * real_values(2, 3, 3, 4)
    y = run(real_graph("gelu", {"approximate": approximate}, [[1, 3, 3, 4]]), x)
    wanted = torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate.strip("'"))
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, axes", [([1, 3, 1, 1], (2, 3)), ([1, 3], (2, 3)), ([1], (1, 2, 3)),
                                         ([1, 3, 4, 1], (3,)), ([1, 1, 4, 5], (1,))])  # fmt: skip
def test_the_axes_of_a_mean_follow_from_the_shapes(shape: list[int], axes: tuple[int]) -> None:
    x = real_values(2, 3, 4, 5)
    y = run(real_graph("aten::mean", {"shape": shape}, [[1, 3, 4, 5]]), x)
    np.testing.assert_allclose(y, x.mean(axes, keepdims=len(shape) == 4), rtol=1e-5, atol=1e-6)


def test_a_mean_whose_shapes_do_not_say_the_axis_wants_a_plugin(tmp_path: Path) -> None:
    graph, x = (
        real_graph("aten::mean", {"shape": [1, 4, 3]}, [[1, 4, 4, 3]]),
        real_values(2, 4, 4, 3),
    )
    with pytest.raises(UnknownOpError, match=r"'aten::mean'.*function op_aten_mean"):
        load_engine(graph)
    file = tmp_path / "ops.py"
    file.write_text("def op_aten_mean(inputs, attrs):\n    return inputs['input'][0].mean(1)\n")
    plugins = load_plugins(file)
    np.testing.assert_array_equal(load_engine(graph, "fast", plugins).run(x), x.mean(1))


@pytest.mark.parametrize("kind", ["aten::erfinv", "my-op", "Mylayer", "torchvision::nms"])
def test_an_op_that_nobody_knows_names_the_function_to_write(kind: str, tmp_path: Path) -> None:
    graph, x = real_graph(kind, {"shape": [1, 4]}, [[1, 4]]), real_values(1, 4)
    words = rf"'y' has the type '{kind}'.*function (op_\w+)"
    with pytest.raises(UnknownOpError, match=words) as caught:
        load_engine(graph)
    function = str(caught.value).split()[-1]
    file = tmp_path / "ops.py"
    file.write_text(f"def {function}(inputs, attrs):\n    return -inputs['input'][0]\n")
    for engine in ("fast", "reference"):
        model = load_engine(graph, engine, load_plugins(file))
        np.testing.assert_array_equal(model.trace(x)["y"], -x)


def test_norms() -> None:
    x = real_values(2, 3, 4, 5)
    for p, wanted in ((2, np.sqrt((x**2).sum((2, 3)))), (1, np.abs(x).sum((2, 3)))):
        attrs = {"p": p, "dim": [2, -1], "keepdim": False}
        y = run(real_graph("nndct_normalize", attrs, [[1, 3, 4, 5]]), x)
        np.testing.assert_allclose(y, wanted, rtol=1e-5)
    y = run(real_graph("nndct_normalize", {"p": 2, "dim": 1, "keepdim": True}, [[1, 3, 4, 5]]), x)
    np.testing.assert_allclose(y, np.sqrt((x**2).sum(1, keepdims=True)), rtol=1e-5)


def test_anchor_boxes() -> None:
    """1 x 2 pixels on an image of 8 x 16: squares of 4 and sqrt(4 * 9), then 2 : 1 and 1 : 2."""
    attrs = {"min_sizes": [4.0], "max_sizes": [9.0], "aspect_ratio": [2.0], "flip": True,
             "clip": False, "variance": [0.1, 0.1, 0.2, 0.2], "step": [8.0],
             "offset": 0.5}  # fmt: skip
    graph = real_graph("priorbox", attrs, [[1, 1, 2, 3], [1, 8, 16, 3]])
    y = run(graph, real_values(2, 1, 2, 3), real_values(2, 8, 16, 3))
    root = np.sqrt(2)
    sizes = [(4, 4), (6, 6), (4 * root, 4 / root), (4 / root, 4 * root)]
    boxes = [((x - w / 2) / 16, (4 - h / 2) / 8, (x + w / 2) / 16, (4 + h / 2) / 8)
             for x in (4, 12) for w, h in sizes]  # fmt: skip
    assert y.shape == (2, 2, 32)
    np.testing.assert_allclose(y[1, 0], np.ravel(boxes), rtol=1e-6)
    np.testing.assert_allclose(y[0, 1], np.tile([0.1, 0.1, 0.2, 0.2], 8), rtol=1e-6)


def test_stacks() -> None:
    a, b = real_values(2, 3, 4), real_values(2, 3, 4)
    y = run(real_graph("stack", {"axis": 1}, [[1, 3, 4], [1, 3, 4]]), a, b)
    np.testing.assert_array_equal(y, np.stack([a, b], 1))


@pytest.mark.parametrize("multiplier, stride", [(1, [2, 2]), (1, [1, 1]), (2, [2, 1])])
def test_transposed_depthwise_convolutions(multiplier: int, stride: list[int]) -> None:
    """Each channel alone is a transposed convolution of one channel."""
    attrs = {"kernel": [4, 4], "stride": stride, "pad": [1, 1, 1, 1]}
    x, weights, bias = int8(2, 3, 5, 3), int8(multiplier, 4, 4, 3), int8(3 * multiplier)
    kinds = {True: "transposed-depthwise-conv2d-fix", False: "transposed-conv2d-fix"}
    constants = {"weights": (weights, 7), "bias": (bias, 6)}
    y = run(fix_graph(kinds[True], attrs, [([1, 3, 5, 3], 4)], 3, constants), x)
    for channel in range(3):
        out = slice(channel * multiplier, (channel + 1) * multiplier)
        one = {"weights": (np.ascontiguousarray(weights[..., channel : channel + 1]), 7),
               "bias": (bias[out], 6)}  # fmt: skip
        single = run(fix_graph(kinds[False], attrs, [([1, 3, 5, 1], 4)], 3, one),
                      np.ascontiguousarray(x[..., channel : channel + 1]))  # fmt: skip
        np.testing.assert_array_equal(y[..., out], single)
    real = {"weights": _real(weights, 7).astype(np.float32), "bias": _real(bias, 6)}
    real["bias"] = real["bias"].astype(np.float32)
    plain = run(real_graph(kinds[True].removesuffix("-fix"), attrs, [[1, 3, 5, 3]], real),
                 _real(x, 4).astype(np.float32))  # fmt: skip
    rounded = np.clip(np.floor(plain * 8 + 0.5), -128, 127)
    np.testing.assert_array_equal(rounded, y)


@pytest.mark.parametrize("second", [[1, 5, 4], [4]])
def test_a_product_of_shapes_that_do_not_fit_is_refused(second: list[int]) -> None:
    with pytest.raises(DpuError, match=r"op 'y': cannot multiply \[1, 3, 4\] by"):
        real_graph("matmul", {}, [[1, 3, 4], second])


@pytest.mark.parametrize(
    "kind, attrs",
    [("downsample-fix", {"scale": [2.0, 2.0]}), ("pool-fix", {"type": "MAX", **WINDOW})],
)
def test_a_shift_that_the_pool_instruction_lacks_is_refused(
    kind: str, attrs: dict[str, Any]
) -> None:
    graph = fix_graph(kind, attrs, [([1, 4, 2, 5], 3)], 11)
    with pytest.raises(Refusal, match="pool shift 8 is out of range"):
        op_type(kind).engine_layers(graph.get_op("y"), {})


def test_plain_dense_layers_and_concat() -> None:
    x, weights, bias = real_values(3, 8), real_values(4, 8), real_values(4)
    constants = {"weights": weights, "bias": bias}
    y = run(real_graph("inner-product", {}, [[1, 8]], constants), x)
    np.testing.assert_allclose(y, x @ weights.T + bias, rtol=1e-4, atol=1e-5)
    a, b = real_values(1, 3, 4), real_values(1, 4, 5)
    y = run(real_graph("matmul", {}, [[1, 3, 4], [1, 4, 5]]), a, b)
    np.testing.assert_allclose(y, a @ b, rtol=1e-4, atol=1e-5)
    a, b = real_values(2, 3, 3, 1), real_values(2, 3, 3, 2)
    y = run(real_graph("concat", {"axis": 3}, [[1, 3, 3, 1], [1, 3, 3, 2]]), a, b)
    np.testing.assert_array_equal(y, np.concatenate([a, b], 3))


@pytest.mark.parametrize(
    "mode, wanted",
    [
        ("DPU_ROUND", [3, -2, 1, -1, 0, 127, -128]),
        ("PY3_ROUND", [2, -2, 1, -1, 0, 127, -128]),
        ("STD_ROUND", [3, -3, 1, -1, -1, 127, -128]),
    ],
)
def test_rounding_modes(mode: str, wanted: list[int]) -> None:
    x = np.array([[2.5, -2.5, 1.4, -1.4, -0.5, 500.0, -500.0]], np.float32) / 4
    attrs = {"fix_point": 2, "bit_width": 8, "if_signed": True, "round_mode": mode}
    y = run(real_graph("fix", attrs, [[1, 7]]), x)
    np.testing.assert_array_equal(y * 4, [wanted])
    y = run(real_graph("float2fix", attrs, [[1, 7]]), x)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, [wanted])


def test_inputs_of_a_concat_are_brought_to_its_fix_point() -> None:
    a, b = int8(1, 2, 2, 3), int8(1, 2, 2, 2)
    graph = fix_graph("concat-fix", {"axis": 3}, [([1, 2, 2, 3], 5), ([1, 2, 2, 2], 3)], 3)
    wanted = np.concatenate([np.floor(a / 4 + 0.5), b], 3)
    np.testing.assert_array_equal(run(graph, a, b), wanted)


OP_TYPES = {
    *(kind.removesuffix("-fix") for kind in ELEMENTWISE), *MOVES, *PLAIN_UNARY,
    "squeeze", "inner-product", "matmul", "fix", "float2fix", "fix2float", "tile", "prelu", "scale",
    "aten::mean", "nndct_normalize", "priorbox", "stack", "transposed-depthwise-conv2d",
    "add", "sub", "mul", "div", "min", "max",
    *(f"reduction_{name}" for name in (*REDUCTIONS, "product")),
}  # fmt: skip
"""Ops tested in this module."""

ON_NETWORKS = {"conv2d", "depthwise-conv2d", "transposed-conv2d", "pool", "eltwise", "concat"}
"""Ops covered by the tests of whole networks, in both engines and forms."""

RARE = {"depthwise"}
"""Another name of eltwise."""


def test_every_op_type_is_tested() -> None:
    """A new op type needs a test in tests/dpu with its name in the set OP_TYPES."""
    tested = OP_TYPES | ON_NETWORKS | RARE
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body if path.name != Path(__file__).name else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OP_TYPES":
                tested |= ast.literal_eval(node.value)
    known = {kind.removesuffix("-fix") for kinds in computed_types() for kind in kinds}
    assert known - tested == set()
