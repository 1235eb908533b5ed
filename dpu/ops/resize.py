"""Ops that resample a feature map or exchange its channels for pixels.

All but bilinear interpolation only select values, so the same functions serve real numbers and
int8. Maps are NHWC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array, Inputs, quantise_int8
from tutelage.dpu.ops.data import given_numbers
from tutelage.dpu.ops.int8 import fix_point, input_fix_point, requantise
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import register, type_of
from tutelage.dpu.ops.shape import Lowered, check_one_fix_point

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import OnnxGraph


class Resize(Lowered):
    """Nearest or bilinear interpolation."""

    moves = False
    on_dpu = True

    def __init__(self, name: str) -> None:
        super().__init__(name, resize)
        self.int8 = resize_fix

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        size = given_numbers(op, "size")
        if size is not None and len(size) in (2, 4):
            return [dims[0], *size, dims[3]] if len(size) == 2 else size
        if not op.has_attr("scale"):  # the dims in the file then apply
            return list(op.get_output_tensor().dims)
        # XIR multiplies in float32 and truncates: 2.3 times 10 pixels are 23.
        width, height = (np.float32(factor) for factor in op.get_attr("scale"))
        rows, columns = np.float32(dims[1]) * height, np.float32(dims[2]) * width
        return [dims[0], int(rows), int(columns), dims[3]]

    def has_onnx(self, op: Any) -> bool:
        return whole_factors(op) is not None

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        repeats = whole_factors(op)
        assert repeats is not None
        factors = [1.0, 1.0, *map(float, repeats)]
        attrs = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        inputs = [graph.x(op), "", graph.constant(factors)]
        return graph.node("Resize", inputs, mode="nearest", **attrs), True

    def keeps_integers(self, op: Any) -> bool:
        return _mode(op) == "NEAREST"

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import RepeatLayer

        factors = whole_factors(op)
        if factors is None:
            raise Refusal("it does not repeat each pixel an integer number of times")
        _check_kept(op)
        return [RepeatLayer(op.get_name(), (op.get_input_op("input").get_name(),), *factors)]

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        if whole_factors(op) is None:
            raise Refusal("it does not repeat each pixel an integer number of times")
        source = check_one_fix_point(op, sink, to)
        return to.model.move(op.get_name(), "upsample-fix", to.int8(source), op.get_attrs())


class Upsample(Resize):
    """A resize that most files use to repeat pixels."""

    moves = True


class Downsample(Lowered):
    """Every s-th pixel of every s-th row; only in int8 form."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        width, height = steps_of(op)
        return [dims[0], -(-dims[1] // height), -(-dims[2] // width), dims[3]]

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        """Return a max pool of one pixel, which also changes the fix point."""
        from tutelage.dpu.ops.engine_layers import MAXIMUM, AluLayer, pool_shift_cut

        width, height = steps_of(op)
        shift = fix_point(op) - input_fix_point(op)
        _, rows, columns, _ = op.get_output_tensor().dims
        return [
            AluLayer(
                op.get_name(),
                (op.get_input_op("input").get_name(),),
                stride=(height, width),
                output=(rows, columns),
                mode=MAXIMUM,
                shift_cut=pool_shift_cut(shift),
            )
        ]

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        width, height = steps_of(op)
        dims = op.get_input_tensor("input", 0).dims
        ranges = ([0, 0], dims[1:3], [2, 3], [height, width])  # starts, ends, axes, steps
        inputs = [graph.x(op), *(graph.constant(r, np.int64) for r in ranges)]
        return graph.node("Slice", inputs), True


class Blocks(Lowered):
    """Space to depth and depth to space."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        side, to_space, _ = block_of(op)
        n, height, width, channels = dims
        if to_space:
            rest, out = channels % side**2, [n, height * side, width * side, channels // side**2]
        else:
            rest = height % side or width % side
            out = [n, height // side, width // side, channels * side**2]
        if rest:
            what = f"{dims} is not divisible into blocks of {side}"
            raise UnsupportedError(f"op {op.get_name()!r}: {what}")
        return out

    def emit(self, op: Any, graph: OnnxGraph) -> tuple[str, bool]:
        side, to_space, channels_last = block_of(op)
        if not to_space:
            return graph.node("SpaceToDepth", [graph.x(op)], blocksize=side), True
        mode = "DCR" if channels_last else "CRD"
        return graph.node("DepthToSpace", [graph.x(op)], blocksize=side, mode=mode), True


class Tile(Blocks):
    """The int8 form of gstiling."""

    free = True

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import BlocksLayer

        _check_kept(op)
        side, to_space, _ = block_of(op)
        return [BlocksLayer(op.get_name(), (op.get_input_op("input").get_name(),), side, to_space)]


class PixelShuffle(Blocks):
    """Pixel shuffle in PyTorch's channel order, which ONNX and the DPU support in one direction."""

    on_dpu = free = True

    def has_onnx(self, op: Any) -> bool:
        return bool(op.get_attr("upscale"))

    def limit(self, op: Any) -> str:
        """Require a preceding convolution, whose channels the DPU saves as pixels."""
        before = op.get_input_op("input")
        while type_of(before).rounds or type_of(before).nonlinear:
            before = before.get_input_op("input")
        if not op.get_attr("upscale"):
            return "the DPU has no pixel unshuffle"
        if not type_of(before).on_array or type_of(before).spreads:
            return "the pixel shuffle does not follow a convolution"
        return ""

    def keeps_integers(self, op: Any) -> bool:
        return True

    def compile(self, op: Any, sink: Sink, to: Compilation) -> Any:
        source = check_one_fix_point(op, sink, to)
        attrs = {"scale": int(op.get_attr("scale")), "upscale": True}
        return to.model.move(op.get_name(), "pixel-shuffle-fix", to.int8(source), attrs)

    def engine_layers(self, op: Any, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        from tutelage.dpu.ops.engine_layers import BlocksLayer

        _check_kept(op)
        side, to_space, _ = block_of(op)
        source = op.get_input_op("input").get_name()
        return [BlocksLayer(op.get_name(), (source,), side, to_space, channels_last=False)]


def _check_kept(op: Any) -> None:
    """Raise Refusal for a copy that changes the fix point."""
    if fix_point(op) != input_fix_point(op):
        raise Refusal("it changes the fix point")


def resize(op: Any, inputs: Inputs) -> Array:
    """Resize by nearest or bilinear interpolation to the size of the output tensor.

    Output pixel i is sampled at ``s * i`` of the input, with `half_pixel_centers` at
    ``s * (i + 1/2) - 1/2``; s is ``in / out``, with `align_corners` ``(in - 1) / (out - 1)``.
    NEAREST takes the pixel below (with `align_corners` the nearest, halves upwards), BILINEAR
    interpolates between the two pixels around it, columns first. Everything is float32, in this
    order (XIR's definition of `resize`; the order is that of VART's CPU runner, without FMA).

    Raises
    ------
    UnsupportedError
        The mode is neither NEAREST nor BILINEAR, or the input does not have four axes.
    """
    x, dims, mode = inputs["input"][0], op.get_output_tensor().dims, _mode(op)
    if x.ndim != 4 or mode not in ("NEAREST", "BILINEAR"):
        what = f"resizing {x.ndim} axes by {mode!r}"
        raise UnsupportedError(f"op {op.get_name()!r}: {what} is not implemented")
    if mode == "NEAREST":
        rows, columns = (_nearest(op, x.shape[axis], dims[axis]) for axis in (1, 2))
        return np.ascontiguousarray(x.take(rows, 1).take(columns, 2))
    return _mixed(op, _mixed(op, x.astype(np.float32), 2, dims[2]), 1, dims[1])


def _mode(op: Any) -> str:
    return str(op.get_attrs().get("mode", "NEAREST")).upper()


def _places(op: Any, size: int, out: int) -> Array:
    attrs = op.get_attrs()
    ends, half = bool(attrs.get("align_corners")), bool(attrs.get("half_pixel_centers"))
    return sampled_places(size, out, ends, half)


def sampled_places(size: int, out: int, align_corners: bool, half_pixel_centers: bool) -> Array:
    """Return the positions of `out` output pixels on an axis of `size` input pixels, float32."""
    places = np.arange(out, dtype=np.float32)
    if align_corners and out > 1:
        scale = np.float32(size - 1) / np.float32(out - 1)
    else:
        scale = np.float32(size) / np.float32(out)
    if half_pixel_centers:
        half = np.float32(0.5)
        return np.asarray((places + half) * scale - half)
    return np.asarray(places * scale)


def _nearest(op: Any, size: int, out: int) -> Array:
    places = _places(op, size, out)
    below = np.floor(places)
    if op.get_attrs().get("align_corners"):
        below += places - below >= 0.5
    return np.clip(below, 0, size - 1).astype(np.intp)


def _mixed(op: Any, x: Array, axis: int, out: int) -> Array:
    """Return `x` interpolated along `axis` to `out` pixels: ``low + (high - low) * share``."""
    low, high, share = mixed_pixels(_places(op, x.shape[axis], out), x.shape[axis])
    share = share.reshape([-1 if a == axis else 1 for a in range(4)])
    below = x.take(low, axis)
    return np.asarray(below + (x.take(high, axis) - below) * share)


def mixed_pixels(places: Array, size: int) -> tuple[Array, Array, Array]:
    """Return the indices of the two pixels around each position, and the second's weight."""
    low = np.clip(np.floor(places), 0, size - 1).astype(np.intp)
    high = np.clip(np.ceil(places), 0, size - 1).astype(np.intp)
    return low, high, places - low.astype(np.float32)


def whole_factors(op: Any) -> tuple[int, int] | None:
    """Return how often a nearest resize repeats each row and column; None if it does otherwise."""
    attrs = op.get_attrs()
    before, after = op.get_input_tensor("input", 0).dims, op.get_output_tensor().dims
    if _mode(op) != "NEAREST" or attrs.get("align_corners") or attrs.get("half_pixel_centers"):
        return None
    if len(before) != 4 or after[1] % before[1] or after[2] % before[2]:
        return None
    return after[1] // before[1], after[2] // before[2]


def downsample(op: Any, inputs: Inputs) -> Array:
    """Return every s-th pixel of every s-th row, whatever `mode` and `half_pixel_centers` are.

    Source: AMD's compiled programs, executed; `scale` is [w, h], integers.

    Raises
    ------
    UnsupportedError
        A scale is not an integer.
    """
    width, height = steps_of(op)
    return np.ascontiguousarray(inputs["input"][0][:, ::height, ::width])


def steps_of(op: Any) -> tuple[int, int]:
    """Return the attribute `scale` of a downsampling as integer steps (width, height)."""
    scale = [float(value) for value in op.get_attr("scale")]
    if len(scale) != 2 or not all(value >= 1 and value.is_integer() for value in scale):
        raise UnsupportedError(f"op {op.get_name()!r}: downsampling by {scale} is not implemented")
    return int(scale[0]), int(scale[1])


def block_of(op: Any) -> tuple[int, bool, bool]:
    """Return the block size that an op exchanges for channels, the direction and the order.

    Returns
    -------
    side : side of a block, pixels
    to_space : whether channels become pixels
    channels_last : whether the order of the channels is (dy, dx, c), as in tiling, or
        (c, dy, dx), as in PyTorch's PixelShuffle
    """
    if "shuffle" in op.get_type():
        side, to_space, channels_last = op.get_attr("scale"), op.get_attr("upscale"), False
    else:
        side, to_space, channels_last = op.get_attr("stride"), op.get_attr("reverse"), True
    if int(side) < 1:
        raise UnsupportedError(f"op {op.get_name()!r}: invalid block size {side}")
    return int(side), bool(to_space), channels_last


def blocks(op: Any, inputs: Inputs) -> Array:
    """Return space to depth or back in s x s blocks, for gstiling, tile-fix and pixel-shuffle.

    gstiling and tile-fix have the attributes `stride` and `reverse`, and the channel order
    (dy, dx, c); pixel-shuffle has `scale` and `upscale`, and the order (c, dy, dx) (XIR, VART's
    CPU runner; for tile-fix also AMD's compiled programs, executed).
    """
    x = inputs["input"][0]
    side, to_space, channels_last = block_of(op)
    n, h, w, c = x.shape
    if to_space:
        c //= side * side
        shape = (n, h, w, side, side, c) if channels_last else (n, h, w, c, side, side)
        order = (0, 1, 3, 2, 4, 5) if channels_last else (0, 1, 4, 2, 5, 3)
        return x.reshape(shape).transpose(order).reshape(n, h * side, w * side, c)
    h, w = h // side, w // side
    order = (0, 1, 3, 2, 4, 5) if channels_last else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, h, side, w, side, c).transpose(order).reshape(n, h, w, c * side * side)


def resize_fix(op: Any, inputs: Inputs) -> Array:
    """Return upsample-fix or resize-fix: `resize` of the integers, rounded once at the end.

    Source: Vitis AI Library, cpu_task. If a compiler leaves bilinear ops to the CPU, their last
    bit is that of its float32.
    """
    resized = resize(op, {"input": [inputs["input"][0]]})
    shift = fix_point(op) - input_fix_point(op)
    if resized.dtype == np.int8:
        return requantise(resized, -shift, 0)
    return quantise_int8(resized.astype(np.float64), shift)


register(
    Resize("resize"),
    Upsample("upsample"),
    Downsample("downsample", downsample, real=False),
    Tile("tile", blocks, real=False),
    Blocks("gstiling", blocks, int8=False),
    PixelShuffle("pixel-shuffle", blocks),
)
