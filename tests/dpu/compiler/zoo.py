"""Published networks in compiled form, at their real sizes, with random weights.

`NETWORKS` has a function for each. The fix points of the weights follow from an estimate of each
map's root mean square (He et al. 2015, arXiv:1502.01852), so that values neither vanish nor all
saturate, for any depth of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from tutelage.core.fixed_point import RELU6_FIX_POINT, Array
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

POINT = RELU6_FIX_POINT
"""Fix point of all maps but sums and hard sigmoids."""

SPREAD, WEIGHTS, BIASES = 28.0, 24.0, 16
"""Wanted root mean square of results, that of weights, largest bias; in integer steps."""

LOUDEST = 48.0
"""A sum whose root mean square is above it gets a lower fix point."""

AFTER = {"NONE": 1.0, "RELU": 0.71, "RELU6": 0.71, "LEAKYRELU": 0.71}
"""Factor of the root mean square of values around 0 by an activation."""

GATE = 75.0
"""Root mean square of a hard sigmoid with the fix point 7."""


def rounded(channels: float) -> int:
    """MobileNets' rounding of channels: to multiples of 8, never down by over a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class Net:
    """A network under construction, of random layers.

    Parameters
    ----------
    size, channels : side of the square input, and its channels
    activation : of convolutions by default: a `nonlinear` of compiled ops, or HSWISH
    same : whether to pad as TensorFlow's SAME, not by half the kernel on all sides
    """

    def __init__(
        self, size: int, channels: int = 3, activation: str = "RELU", same: bool = False
    ) -> None:
        self.model, self.rng = CompiledModel("zoo"), np.random.default_rng(0)
        self.activation, self.same = activation, same
        self._number = 0
        self._spread: dict[str, float] = {}
        self.image = self.model.input("image", [1, size, size, channels], POINT)
        self._spread[self.image.get_name()] = 74.0  # of uniform int8

    def size(self, x: Op) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = x.get_output_tensor().dims
        return height, width, channels

    def conv(
        self, x: Op, channels: int, kernel: int | tuple[int, int] = 1, stride: int = 1,
        activation: str | None = None, valid: bool = False,
    ) -> Op:  # fmt: skip
        """A convolution; the kernel is a square's side, or height and width."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = channels, height, width, self.size(x)[2]
        pad = self._pads(x, (width, height), stride, valid)
        return self._product("conv2d", x, shape, math.prod(shape[1:]), stride, pad, activation)

    def depthwise(
        self, x: Op, kernel: int = 3, stride: int = 1, activation: str | None = None
    ) -> Op:
        """A convolution with one kernel per channel."""
        shape = 1, kernel, kernel, self.size(x)[2]
        pad = self._pads(x, (kernel, kernel), stride, False)
        return self._product("depthwise_conv2d", x, shape, kernel**2, stride, pad, activation)

    def transposed(self, x: Op, channels: int, kernel: int = 2, stride: int = 2) -> Op:
        """A transposed convolution to a map `stride` times as large."""
        shape, pad = (channels, kernel, kernel, self.size(x)[2]), [(kernel - stride) // 2] * 4
        taps = (kernel // stride) ** 2 * shape[3]
        return self._product("transposed_conv2d", x, shape, taps, stride, pad, None)

    def _product(
        self, kind: str, x: Op, shape: tuple[int, ...], taps: int, stride: int, pad: list[int],
        activation: str | None,
    ) -> Op:  # fmt: skip
        """A layer with weights; each of its results is a sum over `taps` products."""
        activation = activation or self.activation
        nonlinear = "NONE" if activation == "HSWISH" else activation
        total = self._spread[x.get_name()] * WEIGHTS * math.sqrt(taps)
        shift = max(0, round(math.log2(total / SPREAD)))
        weights = self.rng.normal(0, WEIGHTS, shape).round().clip(-128, 127).astype(np.int8)
        bias = self._biases(shape[3] if kind == "depthwise_conv2d" else shape[0])
        y: Op = getattr(self.model, kind)(
            self._name(kind), x, weights, shift + POINT - self.model.point(x), bias, POINT, POINT,
            [stride, stride], pad, nonlinear,
        )  # fmt: skip
        spread = math.hypot(total / 2**shift, BIASES / math.sqrt(3)) * AFTER[nonlinear]
        self._keep(y, spread)
        return self.swish(y) if activation == "HSWISH" else y

    def _biases(self, count: int) -> Array:
        return self.rng.integers(-BIASES, BIASES + 1, count, dtype=np.int8)

    def _pads(self, x: Op, kernel: tuple[int, int], stride: int, valid: bool) -> list[int]:
        """Left, right, top and bottom."""
        pads: list[int] = []
        for length, taps in zip(self.size(x)[1::-1], kernel, strict=True):
            least = max(0, (-(-length // stride) - 1) * stride + taps - length)
            whole = 0 if valid else least if self.same else taps // 2 * 2
            pads += [whole // 2, whole - whole // 2]
        return pads

    def max_pool(
        self, x: Op, kernel: int = 3, stride: int = 2, pad: int = 0, ceil: bool = False
    ) -> Op:
        """A max pool."""
        y = self.model.max_pool(
            self._name("max"), x, [kernel] * 2, [stride] * 2, [pad] * 4, ceil
        )  # fmt: skip
        return self._keep(y, min(1.3 * self._spread[x.get_name()], LOUDEST))

    def avg_pool(self, x: Op, kernel: int = 0, stride: int = 1, pad: int = 0) -> Op:
        """An average pool, of the whole map by default."""
        sides = [kernel] * 2 if kernel else list(self.size(x)[1::-1])
        y = self.model.avg_pool(self._name("avg"), x, sides, [stride] * 2, POINT, [pad] * 4)
        return self._keep(y, 0.8 * self._spread[x.get_name()])

    def add(self, *maps: Op, nonlinear: str = "NONE", point: int | None = None) -> Op:
        """A sum, by default at a fix point at which few values saturate."""
        spread = math.hypot(
            *(self._spread[x.get_name()] * 2.0 ** (POINT - self.model.point(x)) for x in maps)
        )
        lower = max(0, math.ceil(math.log2(spread / LOUDEST)))
        point = POINT - lower if point is None else point
        y = self.model.add(self._name("add"), maps, point, nonlinear)
        return self._keep(y, spread * 2.0 ** (point - POINT))  # ReLU: one part is positive already

    def concat(self, *maps: Op) -> Op:
        """A concat of channels."""
        spreads = [self._spread[x.get_name()] for x in maps]
        y = self.model.concat(self._name("concat"), maps)
        return self._keep(y, math.sqrt(np.square(spreads).mean()))

    def swish(self, x: Op) -> Op:
        """Hard swish."""
        gate = self.model.hard_sigmoid(self._name("sigmoid"), x, 7)
        y = self.model.multiply(self._name("swish"), [x, gate], POINT)
        return self._keep(y, 0.6 * self._spread[x.get_name()])

    def excite(self, x: Op, squeezed: int) -> Op:
        """Squeeze-and-excitation: each channel times a factor computed from the means of all."""
        means = self.conv(self.avg_pool(x), squeezed, activation="RELU")
        factors = self.conv(means, self.size(x)[2], activation="NONE")
        gate = self.model.hard_sigmoid(self._name("sigmoid"), factors, 7)
        y = self.model.multiply(self._name("excite"), [x, gate], POINT)
        return self._keep(y, self._spread[x.get_name()] * GATE / 128)

    def upsample(self, x: Op, factor: int = 2) -> Op:
        """Nearest upsampling."""
        attrs = {"scale": [float(factor)] * 2, "mode": "NEAREST"}
        y = self.model.move(self._name("upsample"), "upsample-fix", x, attrs)
        return self._keep(y, self._spread[x.get_name()])

    def classify(self, x: Op, classes: int = 1000) -> Graph:
        """The last layer, over the mean of a map."""
        return self.finish(self.conv(self.avg_pool(x), classes, activation="NONE"))

    def finish(self, *outputs: Op) -> Graph:
        """The graph with these outputs."""
        for x in outputs:
            self.model.output(x)
        return self.model.finish()

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    def _keep(self, x: Op, spread: float) -> Op:
        self._spread[x.get_name()] = max(spread, 1.0)
        return x


def densenet(
    size: int, growth: int, depths: tuple[int, ...], classes: int, before: bool = False
) -> Graph:
    """DenseNet-BC (Huang et al. 2017), as host/networks/densenet.py.

    Parameters
    ----------
    before : whether batch norm and ReLU come before the convolutions: those after a concat are
        depthwise convolutions
    """
    net = Net(size)
    if size > 32:
        x = net.max_pool(net.conv(net.image, 2 * growth, 7, 2), pad=1)
    else:
        x = net.conv(net.image, 2 * growth, 3)
    for depth in depths:
        if x.get_type() == "concat-fix":
            y = net.depthwise(x, 1) if before else x
            y = net.conv(y, net.size(x)[2] // 2, activation="NONE" if before else None)
            x = net.avg_pool(y, 2, 2)
        for _ in range(depth):
            y = net.conv(net.depthwise(x, 1) if before else x, 4 * growth)
            x = net.concat(x, net.conv(y, growth, 3, activation="NONE" if before else None))
    return net.classify(net.depthwise(x, 1) if before else x, classes)


def resnet(depths: tuple[int, ...], bottleneck: bool) -> Graph:
    """ResNet v1.5 (He et al. 2015; torchvision), 224x224."""
    net = Net(224)
    x = net.max_pool(net.conv(net.image, 64, 7, 2), pad=1)
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = net.conv(x, width) if bottleneck else net.conv(x, width, 3, stride)
            y = net.conv(y, width, 3, stride if bottleneck else 1, None if bottleneck else "NONE")
            y = net.conv(y, 4 * width, activation="NONE") if bottleneck else y
            if net.size(x) != net.size(y):
                x = net.conv(x, net.size(y)[2], 1, stride, "NONE")
            x = net.add(x, y, nonlinear="RELU")
    return net.classify(x)


def inverted(net: Net, x: Op, channels: int, expand: int, kernel: int, stride: int) -> Op:
    """MobileNet v2's block: wide inside, narrow outside."""
    y = net.conv(x, net.size(x)[2] * expand) if expand > 1 else x
    y = net.conv(net.depthwise(y, kernel, stride), channels, activation="NONE")
    return net.add(x, y) if net.size(x) == net.size(y) else y


def mobilenet_v2() -> Graph:
    """MobileNetV2 (Sandler et al. 2018), 224x224."""
    net = Net(224, activation="RELU6")
    x = net.conv(net.image, 32, 3, 2)
    for expand, channels, depth, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(depth):
            x = inverted(net, x, channels, expand, 3, 1 if block else stride)
    return net.classify(net.conv(x, 1280))


def efficientnet_lite0() -> Graph:
    """EfficientNet-Lite0 (Tan and Le 2019; TensorFlow's TPU models), 224x224."""
    net = Net(224, activation="RELU6", same=True)
    x = net.conv(net.image, 32, 3, 2)
    for expand, channels, depth, kernel, stride in (
        (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1),
        (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
    ):  # fmt: skip
        for block in range(depth):
            x = inverted(net, x, channels, expand, kernel, 1 if block else stride)
    return net.classify(net.conv(x, 1280))


def mobilenet_v3_large() -> Graph:
    """MobileNetV3-Large (Howard et al. 2019), 224x224."""
    net = Net(224, activation="HSWISH")
    x = net.conv(net.image, 16, 3, 2)
    for kernel, inner, channels, squeeze, activation, stride in (
        (3, 16, 16, 0, "RELU", 1), (3, 64, 24, 0, "RELU", 2), (3, 72, 24, 0, "RELU", 1),
        (5, 72, 40, 1, "RELU", 2), (5, 120, 40, 1, "RELU", 1), (5, 120, 40, 1, "RELU", 1),
        (3, 240, 80, 0, "HSWISH", 2), (3, 200, 80, 0, "HSWISH", 1), (3, 184, 80, 0, "HSWISH", 1),
        (3, 184, 80, 0, "HSWISH", 1), (3, 480, 112, 1, "HSWISH", 1), (3, 672, 112, 1, "HSWISH", 1),
        (5, 672, 160, 1, "HSWISH", 2), (5, 960, 160, 1, "HSWISH", 1), (5, 960, 160, 1, "HSWISH", 1),
    ):  # fmt: skip
        y = x if inner == net.size(x)[2] else net.conv(x, inner, activation=activation)
        y = net.depthwise(y, kernel, stride, activation)
        y = net.excite(y, rounded(inner / 4)) if squeeze else y
        y = net.conv(y, channels, activation="NONE")
        x = net.add(x, y) if net.size(x) == net.size(y) else y
    x = net.conv(net.avg_pool(net.conv(x, 960)), 1280)
    return net.finish(net.conv(x, 1000, activation="NONE"))


def squeezenet() -> Graph:
    """SqueezeNet 1.1 (Iandola et al. 2016), 224x224."""
    net = Net(224)
    x = net.conv(net.image, 64, 3, 2, valid=True)
    for index, squeeze in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        x = net.max_pool(x, ceil=True) if index in (0, 2, 4) else x
        x = net.conv(x, squeeze)
        x = net.concat(net.conv(x, 4 * squeeze), net.conv(x, 4 * squeeze, 3))
    return net.finish(net.avg_pool(net.conv(x, 1000)))


def googlenet() -> Graph:
    """GoogLeNet (Szegedy et al. 2014), 224x224, with pools that pass the border as in Caffe."""
    net = Net(224)
    x = net.max_pool(net.conv(net.image, 64, 7, 2), ceil=True)
    x = net.max_pool(net.conv(net.conv(x, 64), 192, 3), ceil=True)
    for index, (one, in3, out3, in5, out5, pooled) in enumerate((
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    )):  # fmt: skip
        x = net.max_pool(x, ceil=True) if index in (2, 7) else x
        x = net.concat(
            net.conv(x, one), net.conv(net.conv(x, in3), out3, 3),
            net.conv(net.conv(x, in5), out5, 5), net.conv(net.max_pool(x, 3, 1, 1), pooled),
        )  # fmt: skip
    return net.classify(x)


def inception_v3() -> Graph:
    """Inception v3 (Szegedy et al. 2015), 299x299."""
    net = Net(299)

    def chain(x: Op, *layers: tuple[int, int | tuple[int, int]]) -> Op:
        for channels, kernel in layers:
            x = net.conv(x, channels, kernel)
        return x

    def pooled(x: Op, channels: int) -> Op:
        return net.conv(net.avg_pool(x, 3, 1, 1), channels)

    def halved(x: Op, channels: int) -> Op:
        return net.conv(x, channels, 3, 2, valid=True)

    x = net.conv(halved(net.image, 32), 32, 3, valid=True)
    x = net.conv(net.conv(net.max_pool(net.conv(x, 64, 3)), 80), 192, 3, valid=True)
    x = net.max_pool(x)
    for last in (32, 64, 64):
        x = net.concat(chain(x, (64, 1)), chain(x, (48, 1), (64, 5)),
                       chain(x, (64, 1), (96, 3), (96, 3)), pooled(x, last))  # fmt: skip
    x = net.concat(halved(x, 384), halved(chain(x, (64, 1), (96, 3)), 96), net.max_pool(x))
    across, down = (1, 7), (7, 1)
    for n in (128, 160, 160, 192):
        y = chain(x, (n, 1), (n, across), (192, down))
        z = chain(x, (n, 1), (n, down), (n, across), (n, down), (192, across))
        x = net.concat(net.conv(x, 192), y, z, pooled(x, 192))
    y = halved(chain(x, (192, 1), (192, across), (192, down)), 192)
    x = net.concat(halved(net.conv(x, 192), 320), y, net.max_pool(x))
    for _ in range(2):
        y, z = chain(x, (384, 1)), chain(x, (448, 1), (384, 3))
        parts = [net.conv(branch, 384, kernel) for branch in (y, z) for kernel in ((1, 3), (3, 1))]
        x = net.concat(net.conv(x, 320), net.concat(*parts[:2]), net.concat(*parts[2:]),
                       pooled(x, 192))  # fmt: skip
    return net.classify(x)


def unet(size: int = 128, width: int = 32, classes: int = 4) -> Graph:
    """A U-Net (Ronneberger et al. 2015), with transposed convolutions and one upsampling."""
    net = Net(size)
    x: Op = net.image
    skips: list[Op] = []
    for level in range(5):
        x = net.max_pool(skips[-1], 2) if level else x
        x = net.conv(net.conv(x, width << level, 3), width << level, 3)
        skips.append(x)
    for level, skip in reversed(list(enumerate(skips[:-1]))):
        if level == 1:
            x = net.conv(net.upsample(x), width << level, 3)
        else:
            x = net.transposed(x, width << level, 4 if level == 2 else 2)
        x = net.concat(skip, x)
        x = net.conv(net.conv(x, width << level, 3), width << level, 3)
    return net.finish(net.conv(x, classes, activation="NONE"))


def _csp(net: Net, x: Op, channels: int, depth: int, shortcut: bool = True) -> Op:
    """YOLOv5's C3: a branch of residual blocks, and one without, joined by a concat."""
    y, side = net.conv(x, channels // 2), net.conv(x, channels // 2)
    for _ in range(depth):
        z = net.conv(net.conv(y, channels // 2), channels // 2, 3)
        y = net.add(y, z, point=POINT) if shortcut else z
    return net.conv(net.concat(y, side), channels)


def yolo(activation: str, size: int = 256, outputs: int = 255) -> Graph:
    """YOLOv5n (Ultralytics 2021) up to its three outputs."""
    net = Net(size, activation=activation)
    x, maps = net.conv(net.image, 16, 5, 2), []
    for channels, depth in ((32, 1), (64, 2), (128, 3), (256, 1)):
        x = _csp(net, net.conv(x, channels, 3, 2), channels, depth)
        maps.append(x)
    pools = [net.conv(x, 128)]
    for _ in range(3):
        pools.append(net.max_pool(pools[-1], 5, 1, 2))
    x = net.conv(net.concat(*pools), 256)
    narrow = []
    for skip, channels in ((maps[2], 128), (maps[1], 64)):
        narrow.append(net.conv(x, channels))
        x = _csp(net, net.concat(net.upsample(narrow[-1]), skip), channels, 1, False)
    found = [x]
    for before, channels in ((narrow[1], 128), (narrow[0], 256)):
        x = net.concat(net.conv(x, channels // 2, 3, 2), before)
        x = _csp(net, x, channels, 1, False)
        found.append(x)
    return net.finish(*(net.conv(x, outputs, activation="NONE") for x in found))


NETWORKS: dict[str, Callable[[], Graph]] = {
    "densenet_bc": partial(densenet, 32, 12, (16, 16, 16), 10),
    "densenet_bc_pre": partial(densenet, 32, 12, (6, 6, 6), 10, True),
    "densenet121": partial(densenet, 224, 32, (6, 12, 24, 16), 1000),
    "resnet18": partial(resnet, (2, 2, 2, 2), False),
    "resnet50": partial(resnet, (3, 4, 6, 3), True),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "squeezenet": squeezenet,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "efficientnet_lite0": efficientnet_lite0,
    "unet": unet,
    "yolo_leaky": partial(yolo, "LEAKYRELU"),
    "yolo_hswish": partial(yolo, "HSWISH"),
}
"""Networks by name; each call builds the network again, with the same weights."""
