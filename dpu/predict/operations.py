"""A network as shapes: what each operation reads, computes and writes, without any values.

It is what `tutelage.dpu.predict.latency` predicts from. It comes from a quantised or compiled
.xmodel (`operations_of`), or is written down directly with a `Sketch`, for which neither weights
nor PyTorch are needed and a DenseNet takes a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tutelage.dpu.inspect.layers import INPUT, Layer
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.ops.work import Shape


@dataclass(frozen=True)
class Operation:
    """One operation of a network for one image.

    Attributes
    ----------
    name : for tables
    kind : as `tutelage.dpu.inspect.layers.Layer.kind`; dense layers are convolutions over the whole
        map
    output : shape of the result, (1, 1, values) where it has no rows and columns
    sources : positions of the operations that it reads
    kernel, stride : height and width of the window
    depth : input channels that one output value sums over (1 in a depthwise convolution)
    parameters : constant values that it reads, one byte each
    on_dpu : False for what is left to the CPU
    augmented : the kernel's width and the input's channels share the array's input lanes; None
        where that is left to the rule of `tutelage.dpu.predict.cycles.augmented_channels`
    constants : shapes of constants that it takes value by value, as it does its sources
    """

    name: str
    kind: str
    output: Shape
    sources: tuple[int, ...] = ()
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    depth: int = 0
    parameters: int = 0
    on_dpu: bool = True
    augmented: bool | None = None
    constants: tuple[Shape, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 without weights."""
        products = math.prod(self.output) * math.prod(self.kernel) * self.depth
        # Each input value of a transposed convolution meets the kernel once.
        steps = math.prod(self.stride) if op_type(self.kind).spreads else 1
        return products // steps


class Sketch:
    """Writes a network down, operation by operation; each method returns the new one's position.

    `pad` is "same" (out = ceil(in / stride)), "valid", or the rows and columns added on each
    side. `operations` holds what was written.
    """

    def __init__(self, height: int, width: int, channels: int = 3) -> None:
        self.operations = [Operation(INPUT, INPUT, (height, width, channels), on_dpu=False)]

    def shape(self, x: int) -> Shape:
        """Shape of an operation's result."""
        return self.operations[x].output

    def conv(
        self,
        x: int,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        pad: str | int = "same",
        bias: bool = True,
    ) -> int:
        """A convolution with its batch norm and activation, which cost nothing of their own."""
        k = _pair(kernel)
        depth = self.shape(x)[2]
        out = self._window(x, k, stride, pad, channels)
        parameters = channels * (math.prod(k) * depth + bias)
        return self._add("conv2d", out, (x,), k, stride, depth, parameters)

    def depthwise(
        self, x: int, kernel: int = 3, stride: int = 1, pad: str | int = "same", outputs: int = 1
    ) -> int:
        """A depthwise convolution with so many outputs for each channel."""
        k, channels = _pair(kernel), outputs * self.shape(x)[2]
        out = self._window(x, k, stride, pad, channels)
        parameters = channels * (math.prod(k) + 1)
        return self._add("depthwise-conv2d", out, (x,), k, stride, 1, parameters)

    def pool(
        self,
        x: int,
        kernel: int = 2,
        stride: int = 2,
        pad: str | int = "same",
        kind: str = "maxpool2d",
        ceil: bool = False,
    ) -> int:
        """A maximum or average pool; with `ceil` a last partial window counts, as in Caffe."""
        k = _pair(kernel)
        out = self._window(x, k, stride, pad, self.shape(x)[2], ceil)
        return self._add(kind, out, (x,), k, stride)

    def global_pool(self, x: int) -> int:
        """The average of each channel."""
        height, width, channels = self.shape(x)
        size = (height, width)
        return self._add("avgpool2d", (1, 1, channels), (x,), size, size)

    def dense(self, x: int, outputs: int) -> int:
        """A fully connected layer: a convolution over the whole map."""
        height, width, channels = self.shape(x)
        parameters = outputs * (height * width * channels + 1)
        return self._add("conv2d", (1, 1, outputs), (x,), (height, width), 1, channels, parameters)

    def add(self, *sources: int) -> int:
        """The sum of maps."""
        return self._add("eltwise", self.shape(sources[0]), sources)

    def scale(self, x: int, factors: int) -> int:
        """A map times one factor for each channel."""
        return self._add("eltwise", self.shape(x), (x, factors))

    def concat(self, *sources: int) -> int:
        """Maps joined along the channels."""
        height, width, _ = self.shape(sources[0])
        channels = sum(self.shape(source)[2] for source in sources)
        return self._add("concat", (height, width, channels), sources)

    def upsample(self, x: int, factor: int = 2) -> int:
        """Each value repeated."""
        height, width, channels = self.shape(x)
        return self._add("upsample", (height * factor, width * factor, channels), (x,))

    def elementwise(self, kind: str, x: int) -> int:
        """An activation that no convolution takes in, such as "hard-sigmoid"."""
        return self._add(kind, self.shape(x), (x,))

    def _window(
        self,
        x: int,
        kernel: tuple[int, int],
        stride: int,
        pad: str | int,
        channels: int,
        ceil: bool = False,
    ) -> Shape:
        if pad == "same":
            height, width = (-(-size // stride) for size in self.shape(x)[:2])
            return height, width, channels
        add = 0 if pad == "valid" else int(pad)
        extra = stride - 1 if ceil else 0
        height, width = (
            (size + 2 * add - k + extra) // stride + 1
            for size, k in zip(self.shape(x)[:2], kernel, strict=True)
        )
        return height, width, channels

    def _add(
        self,
        kind: str,
        output: Shape,
        sources: tuple[int, ...],
        kernel: tuple[int, int] = (1, 1),
        stride: int | tuple[int, int] = 1,
        depth: int = 0,
        parameters: int = 0,
    ) -> int:
        name = f"{kind}{len(self.operations)}"
        self.operations.append(
            Operation(name, kind, output, sources, kernel, _pair(stride), depth, parameters)
        )
        return len(self.operations) - 1


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def operations_of(layers: list[Layer], on_cpu: Collection[str] = ()) -> list[Operation]:
    """The layers of an .xmodel as operations, in the same order.

    Parameters
    ----------
    layers : as `tutelage.dpu.inspect.layers.layers_of` gives them
    on_cpu : names of ops that the CPU computes although their kind is one of the DPU's
    """
    places = {id(layer): place for place, layer in enumerate(layers)}
    return [_operation(layer, places, layer.name in on_cpu) for layer in layers]


def _operation(layer: Layer, places: dict[int, int], left: bool) -> Operation:
    kind, (kernel, depth) = layer.kind, _taps(layer)
    if layer.type.dense and layer.weights is not None:
        kind = layer.type.becomes
    stride_w, stride_h = layer.stride
    return Operation(
        layer.name,
        kind,
        _shape(layer.dims),
        tuple(places[id(source)] for source in layer.sources),
        kernel,
        (stride_h, stride_w),
        depth,
        layer.parameters,
        on_dpu=runs_on_dpu(layer) and not left,
        augmented=_augmented(layer),
        constants=tuple(
            _shape(op.get_output_tensor().dims) for op in layer.constants.get("input", ())
        ),
    )


def _augmented(layer: Layer) -> bool | None:
    """Whether channel augmentation is used, where AMD's compiler wrote the op and says it."""
    if not layer.op.has_attr("workload_on_arch"):
        return None
    return layer.op.has_attr("channel_augmentation")


def runs_on_dpu(layer: Layer) -> bool:
    """Whether the DPU computes the layer: as the file says, else by kind."""
    if layer.kind == INPUT:
        return False
    if layer.device is not None:
        return layer.device == "DPU"
    return layer.type.predicted_on_dpu


def _taps(layer: Layer) -> tuple[tuple[int, int], int]:
    """Kernel (height, width) and the input channels that one output sums over."""
    width, height = layer.kernel or [1, 1]
    if layer.weights is None:
        return (height, width), 0
    return (height, width), layer.type.depth(layer.op, layer.weights.get_output_tensor().dims)


def _shape(dims: list[int]) -> Shape:
    """Height, width and channels of a tensor's shape, whose first dimension is the batch."""
    if len(dims) == 4:
        return dims[1], dims[2], dims[3]
    return 1, 1, math.prod(dims[1:])
