"""Output shapes of ops, from their inputs and attributes (XIR's infer_shape)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.dpu.ops import activation_ops, aten_ops, cpu_ops, detection_ops, resize_ops
from tutelage.dpu.ops.sliding_window import Window, transposed_window_of, window_of
from tutelage.dpu.xmodel.graph import MAX_RANK, Op, Tensor


def infer_tensor(op: Op) -> Tensor:
    """The output tensor of `op`: inferred dims, type by the op's kind; an old tensor keeps its
    name and attributes.

    Raises
    ------
    UnsupportedError
        The op type has no rule and no attribute `shape`.
    """
    kind = op.get_type()
    dims = infer_dims(op)
    fixed = kind.endswith("-fix") or kind in ("upload", "download", "float2fix")
    dtype: Any = "XINT8" if fixed else "FLOAT32"
    if op._output is not None:
        tensor = Tensor(op._output.name, dims, op._output.dtype.upper())
        tensor._attrs = op._output._attrs
        return tensor
    if op.has_attr("data_type"):
        dtype = str(op.get_attr("data_type")).upper()
    return Tensor(op.get_name(), dims, dtype)


def infer_dims(op: Op) -> list[int]:
    """The dims of `op`'s output.

    Raises
    ------
    UnsupportedError
        The op type has no rule and no attribute `shape`, or the inputs do not fit the op.
    """
    kind = op.get_type().removesuffix("-fix")
    if kind in ("const", "data"):
        return list(op.get_attr("shape"))
    if not op.get_input_num():
        raise UnsupportedError(f"op {op.get_name()!r} ({kind}) has no input")
    dims = op.get_input_tensors_by_name("input")[0].dims if op.get_input_num("input") else []
    if kind in CONVOLUTIONS or kind in _POOLS:
        return _window_dims(op, kind, dims)
    if kind in _OTHERS:
        return list(_OTHERS[kind](op, dims))
    if kind.startswith("reduction_"):
        return _reduced(op, dims)
    if kind in cpu_ops.OPS:  # whose attribute `shape`, if any, may be out of date
        return dims
    if op.has_attr("shape"):
        return list(op.get_attr("shape"))
    raise UnsupportedError(
        f"op {op.get_name()!r} ({kind}): give its output by an attribute `shape`"
    )


_POOLS = ("maxpool2d", "avgpool2d", "pool")
CONVOLUTIONS = (
    "conv2d",
    "depthwise-conv2d",
    "transposed-conv2d",
    "transposed-depthwise-conv2d",
)


def _window_dims(op: Op, kind: str, dims: list[int]) -> list[int]:
    place = transposed_window_of if kind.startswith("transposed") else window_of
    window = place(op.get_attrs(), dims[1], dims[2])
    channels = dims[3]
    if kind in CONVOLUTIONS:
        channels = _channels(op, kind, window, dims[3])
    return [dims[0], window.out_h, window.out_w, channels]


def _channels(op: Op, kind: str, window: Window, channels: int) -> int:
    """Output channels of a convolution, after checking the weights' shape."""
    outputs, height, width, inputs = op.get_input_tensor("weights", 0).dims
    if (height, width) != (window.kernel_h, window.kernel_w):
        raise UnsupportedError(f"op {op.get_name()!r}: the weights are not of the kernel's size")
    if "depthwise" in kind:
        per_channel = inputs == 1 != channels and outputs % channels == 0
        if not per_channel and inputs != channels:
            raise UnsupportedError(f"op {op.get_name()!r}: weights for another number of channels")
        return outputs if per_channel else outputs * inputs
    if channels % inputs or outputs % (channels // inputs):
        raise UnsupportedError(f"op {op.get_name()!r}: weights for another number of channels")
    return outputs


def _concat(op: Op, dims: list[int]) -> list[int]:
    axis = op.get_attr("axis") % len(dims)
    for tensor in op.get_input_tensors_by_name("input"):
        if tensor.ndim != len(dims) or any(
            a != b for i, (a, b) in enumerate(zip(tensor.dims, dims, strict=True)) if i != axis
        ):
            raise UnsupportedError(f"op {op.get_name()!r}: {tensor.dims} does not join {dims}")
    total = sum(tensor.dims[axis] for tensor in op.get_input_tensors_by_name("input"))
    return [*dims[:axis], total, *dims[axis + 1 :]]


def _broadcast(op: Op, dims: list[int]) -> list[int]:
    out = list(dims)
    for tensor in op.get_input_tensors_by_name("input")[1:]:
        other = tensor.dims
        width = max(len(out), len(other))
        left, right = [1] * (width - len(out)) + out, [1] * (width - len(other)) + other
        if any(a != b and 1 not in (a, b) for a, b in zip(left, right, strict=True)):
            raise UnsupportedError(f"op {op.get_name()!r}: {other} does not go with {out}")
        out = [max(a, b) for a, b in zip(left, right, strict=True)]
    return out


def values_of(op: Op) -> list[int] | None:
    """The numbers that an op of constants gives, as XIR's shape inference reads them.

    vai_q_pytorch writes a shape as a stack of constants; XIR notes it as `shape_info`.
    """
    tensor = op.get_output_tensor()
    if tensor.has_attr("shape_info"):
        return [int(value) for value in tensor.get_attr("shape_info")]
    sources = op.get_input_ops_by_name("input") if op.get_type() == "stack" else [op]
    if len(sources) > MAX_RANK or any(
        source.get_type() != "const" or source.get_output_tensor().get_element_num() > MAX_RANK
        for source in sources
    ):
        return None
    return [int(value) for source in sources for value in cpu_ops.const_array(source).ravel()]


def _given(op: Op, name: str) -> list[int] | None:
    """What the constants of argument `name` say, or its attribute; None where neither does."""
    if op.get_input_num(name):
        return values_of(op.get_input_op(name))
    value = cpu_ops.attr(op, name, None)
    return None if value is None else [int(v) for v in value]


def _reshape(op: Op, dims: list[int]) -> list[int]:
    shape = _given(op, "shape")
    if shape is None:  # computed elsewhere: the file's own dims then say it
        shape = op.get_output_tensor().dims
    if shape.count(-1) == 1:
        shape[shape.index(-1)] = math.prod(dims) // -math.prod(shape)
    if math.prod(shape) != math.prod(dims):
        raise UnsupportedError(f"op {op.get_name()!r}: {dims} does not reshape to {shape}")
    return shape


def _flatten(op: Op, dims: list[int]) -> list[int]:
    start = cpu_ops.attr(op, "start_axis", 1) % len(dims)
    end = cpu_ops.attr(op, "end_axis", -1) % len(dims)
    return [*dims[:start], math.prod(dims[start : end + 1]), *dims[end + 1 :]]


def _squeeze(op: Op, dims: list[int]) -> list[int]:
    axes = cpu_ops.attr(op, "axis", None) or [i for i, d in enumerate(dims) if d == 1]
    return [d for i, d in enumerate(dims) if i not in axes]


def _pad(op: Op, dims: list[int]) -> list[int]:
    flat = op.get_attr("paddings")
    return [d + b + a for d, b, a in zip(dims, flat[::2], flat[1::2], strict=True)]


def _resize(op: Op, dims: list[int]) -> list[int]:
    size = _given(op, "size")
    if size is not None and len(size) in (2, 4):
        return [dims[0], *size, dims[3]] if len(size) == 2 else size
    if not op.has_attr("scale"):  # the file's own dims then say it
        return op.get_output_tensor().dims
    # XIR multiplies in float32 and cuts off: 2.3 times 10 pixels are 23.
    width, height = (np.float32(factor) for factor in op.get_attr("scale"))
    return [dims[0], int(np.float32(dims[1]) * height), int(np.float32(dims[2]) * width), dims[3]]


def _downsample(op: Op, dims: list[int]) -> list[int]:
    width, height = resize_ops.steps_of(op)
    return [dims[0], -(-dims[1] // height), -(-dims[2] // width), dims[3]]


def _blocks(op: Op, dims: list[int]) -> list[int]:
    side, to_space, _ = resize_ops.block_of(op)
    n, height, width, channels = dims
    if to_space:
        rest, out = channels % side**2, [n, height * side, width * side, channels // side**2]
    else:
        rest = height % side or width % side
        out = [n, height // side, width // side, channels * side**2]
    if rest:
        raise UnsupportedError(f"op {op.get_name()!r}: {dims} does not fall into blocks of {side}")
    return out


def _stack(op: Op, dims: list[int]) -> list[int]:
    if any(tensor.dims != dims for tensor in op.get_input_tensors_by_name("input")):
        raise UnsupportedError(f"op {op.get_name()!r}: the inputs are not of one shape")
    axis = cpu_ops.attr(op, "axis", 0) % (len(dims) + 1)
    return [*dims[:axis], op.get_input_num("input"), *dims[axis:]]


def _priorbox(op: Op, dims: list[int]) -> list[int]:
    return [dims[0], 2, dims[1] * dims[2] * detection_ops.priors(op) * 4]


def _mean(op: Op, dims: list[int]) -> list[int]:
    """Refuse an aten::mean whose shapes do not say what it does."""
    if op._output is None:
        return list(op.get_attr("shape"))
    keep = len(dims) == op.get_output_tensor().ndim
    return aten_ops.reduced(dims, aten_ops.mean_axes(op), keep)


def _clamp(op: Op, dims: list[int]) -> list[int]:
    """Refuse a clamp without limits before it runs."""
    activation_ops.clamp_limits(op)
    return dims


def _matmul(op: Op, dims: list[int]) -> list[int]:
    other = op.get_input_tensor("input", 1).dims
    rows = dims[-1] if cpu_ops.attr(op, "transpose_a", False) else dims[-2]
    columns = other[-2] if cpu_ops.attr(op, "transpose_b", False) else other[-1]
    return [*dims[:-2], rows, columns]


def _slice(op: Op, dims: list[int]) -> list[int]:
    spans = zip(dims, op.get_attr("begin"), op.get_attr("end"), op.get_attr("strides"), strict=True)
    return [len(range(*slice(begin, end, step).indices(d))) for d, begin, end, step in spans]


_OTHERS: dict[str, Any] = {
    "concat": _concat,
    "eltwise": _broadcast,
    "depthwise": _broadcast,
    "add": _broadcast,
    "sub": _broadcast,
    "mul": _broadcast,
    "div": _broadcast,
    "min": _broadcast,
    "max": _broadcast,
    "reshape": _reshape,
    "flatten": _flatten,
    "squeeze": _squeeze,
    "pad": _pad,
    "upsample": _resize,
    "resize": _resize,
    "downsample": _downsample,
    "tile": _blocks,
    "gstiling": _blocks,
    "pixel-shuffle": _blocks,
    "stack": _stack,
    "priorbox": _priorbox,
    "aten::mean": _mean,
    "clamp": _clamp,
    "nndct_clamp": _clamp,
    "nndct_normalize": lambda op, dims: aten_ops.reduced(dims, *aten_ops.norm_axes(op)),
    "matmul": _matmul,
    "strided_slice": _slice,
    "transpose": lambda op, dims: [dims[axis] for axis in op.get_attr("order")],
    "inner-product": lambda op, dims: [dims[0], op.get_input_tensor("weights", 0).dims[0]],
}


def _reduced(op: Op, dims: list[int]) -> list[int]:
    axes = aten_ops.listed_axes(op, "axis")
    if cpu_ops.attr(op, "keep_dims", False):
        return [1 if i in axes else d for i, d in enumerate(dims)]
    return [d for i, d in enumerate(dims) if i not in axes]
