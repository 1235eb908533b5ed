"""Networks of AMD's published table whose layers are all known, as shapes.

They follow the papers and reference implementations: Caffe, TF-Slim, TensorFlow's TPU models,
Keras, torchvision. `host/latency/published.py` maps rows of the table to these networks; tests
verify that each has the table's number of operations within 3 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.dpu.predict.operations import Operation, Sketch


def resnet(
    height: int = 224,
    width: int = 224,
    depths: Sequence[int] = (3, 4, 6, 3),
    classes: int = 1000,
    bottleneck: bool = True,
    stride_at: str = "3x3",
    last_stride: int = 2,
    embedding: int = 0,
) -> list[Operation]:
    """Return ResNet v1 (He et al. 2015).

    Parameters
    ----------
    height, width : of the images, pixels
    depths : number of blocks of each stage
    classes : number of outputs; 0 for networks without a dense layer
    stride_at : convolution with which a stage halves the map: "1x1" (the paper, Caffe, Keras) or
        "3x3" (torchvision, MLPerf) of its first block, or "last", the 3x3 of its last block
        (TF-Slim)
    last_stride : of the fourth stage; 1 in networks for re-identification
    """
    net = Sketch(height, width)
    x = net.pool(net.conv(0, 64, 7, 2), 3, 2)
    for stage, depth in enumerate(depths):
        stride = 1 if stage == 0 else last_stride if stage == 3 else 2
        if stride_at == "last":  # in TF-Slim stages 1 to 3 halve the map at their end
            stride = 2 if stage < 3 else 1
        at = depth - 1 if stride_at == "last" else 0
        for block in range(depth):
            step = stride if block == at else 1
            x = _residual(net, x, 64 << stage, step, bottleneck, block == 0, stride_at)
    x = net.global_pool(x)
    if classes:
        net.dense(x, classes)
    return net.operations


def _residual(
    net: Sketch, x: int, width: int, stride: int, bottleneck: bool, first: bool, stride_at: str
) -> int:
    channels = 4 * width if bottleneck else width
    short = x
    if first and (net.shape(x)[2] != channels or stride > 1):
        short = net.conv(x, channels, 1, stride)
    elif stride > 1:
        short = net.pool(x, 1, stride)
    if not bottleneck:
        return net.add(net.conv(net.conv(x, width, 3, stride), width, 3), short)
    outer, inner = (stride, 1) if stride_at == "1x1" else (1, stride)
    y = net.conv(net.conv(x, width, 1, outer), width, 3, inner)
    return net.add(net.conv(y, channels), short)


def resnet_v2(size: int, depths: Sequence[int], classes: int = 1001) -> list[Operation]:
    """Return TF-Slim's ResNet v2: blocks begin with batch norm and ReLU, stages end with a stride.

    A batch norm without a convolution before it is a depthwise 1x1 convolution.
    """
    net = Sketch(size, size)
    x = net.pool(net.conv(0, 64, 7, 2), 3, 2)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if block == depth - 1 and stage < 3 else 1
            width = 64 << stage
            y = net.depthwise(x, 1)
            if block == 0:
                short = net.conv(y, 4 * width, 1, stride)
            else:
                short = net.pool(x, 1, stride) if stride > 1 else x
            y = net.conv(net.conv(y, width), width, 3, stride)
            x = net.add(net.conv(y, 4 * width), short)
    net.dense(net.global_pool(net.depthwise(x, 1)), classes)
    return net.operations


def vgg(depths: Sequence[int], classes: int = 1000) -> list[Operation]:
    """Return VGG (Simonyan and Zisserman 2014)."""
    net = Sketch(224, 224)
    x = 0
    for channels, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        for _ in range(depth):
            x = net.conv(x, channels, 3)
        x = net.pool(x)
    net.dense(net.dense(net.dense(x, 4096), 4096), classes)
    return net.operations


def squeezenet(size: int = 224, version: str = "1.1") -> list[Operation]:
    """Return SqueezeNet 1.0 or 1.1 (Iandola et al. 2016)."""
    net = Sketch(size, size)
    first = (64, 3) if version == "1.1" else (96, 7)
    x = net.conv(0, *first, 2, "valid")
    pools = (0, 2, 4) if version == "1.1" else (0, 3, 7)
    for index, squeeze in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if index in pools:
            x = net.pool(x, 3, 2, "valid", ceil=True)
        x = net.conv(x, squeeze)
        x = net.concat(net.conv(x, 4 * squeeze), net.conv(x, 4 * squeeze, 3))
    net.global_pool(net.conv(x, 1000))
    return net.operations


def inception_v1(large: int = 5, classes: int = 1000) -> list[Operation]:
    """Return GoogLeNet (Szegedy et al. 2014); TF-Slim has 3x3 kernels, the paper 5x5."""
    net = Sketch(224, 224)
    x = net.pool(net.conv(0, 64, 7, 2), 3, 2)
    x = net.pool(net.conv(net.conv(x, 64), 192, 3), 3, 2)
    table = (
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    )  # fmt: skip
    for index, (one, in3, out3, in5, out5, pooled) in enumerate(table):
        if index in (2, 7):
            x = net.pool(x, 3 if index == 2 or large == 5 else 2, 2)
        x = net.concat(
            net.conv(x, one),
            net.conv(net.conv(x, in3), out3, 3),
            net.conv(net.conv(x, in5), out5, large),
            net.conv(net.pool(x, 3, 1), pooled),
        )
    net.dense(net.global_pool(x), classes)
    return net.operations


def inception_v2(separable_stem: bool = True, classes: int = 1001) -> list[Operation]:
    """Return BN-Inception (Ioffe and Szegedy 2015); TF-Slim's first convolution is separable."""
    net = Sketch(224, 224)
    if separable_stem:  # in TF-Slim depthwise with 8 outputs for each channel, then 1x1
        x = net.conv(net.depthwise(0, 7, 2, outputs=8), 64)
    else:
        x = net.conv(0, 64, 7, 2)
    x = net.pool(x, 3, 2)
    x = net.pool(net.conv(net.conv(x, 64), 192, 3), 3, 2)
    table = (
        (64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0),
        (224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 96),
        (96, 128, 192, 160, 192, 96), (0, 128, 192, 192, 256, 0),
        (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128),
    )  # fmt: skip
    for one, in3, out3, inner, double, pooled in table:
        step = 1 if one else 2
        y = net.conv(net.conv(x, inner), double, 3)
        parts = [net.conv(net.conv(x, in3), out3, 3, step), net.conv(y, double, 3, step)]
        if one:
            parts = [net.conv(x, one), *parts, net.conv(net.pool(x, 3, 1), pooled)]
        else:
            parts.append(net.pool(x, 3, 2))
        x = net.concat(*parts)
    net.dense(net.global_pool(x), classes)
    return net.operations


def inception_v3(classes: int = 1001) -> list[Operation]:
    """Return Inception v3 (Szegedy et al. 2015), 299x299."""
    net = Sketch(299, 299)
    x = _inception_stem(net)
    x = net.conv(net.conv(x, 80), 192, 3, pad="valid")
    x = net.pool(x, 3, 2, "valid")
    for pooled in (32, 64, 64):
        x = net.concat(
            net.conv(x, 64),
            net.conv(net.conv(x, 48), 64, 5),
            net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3),
            net.conv(net.pool(x, 3, 1, kind="avgpool2d"), pooled),
        )
    y = net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3, 2, "valid")
    x = net.concat(net.conv(x, 384, 3, 2, "valid"), y, net.pool(x, 3, 2, "valid"))
    for inner in (128, 160, 160, 192):
        y = net.conv(net.conv(net.conv(x, inner), inner, (1, 7)), 192, (7, 1))
        z = net.conv(net.conv(net.conv(x, inner), inner, (7, 1)), inner, (1, 7))
        z = net.conv(net.conv(z, inner, (7, 1)), 192, (1, 7))
        p = net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 192)
        x = net.concat(net.conv(x, 192), y, z, p)
    y = net.conv(net.conv(x, 192), 320, 3, 2, "valid")
    z = net.conv(net.conv(net.conv(x, 192), 192, (1, 7)), 192, (7, 1))
    x = net.concat(y, net.conv(z, 192, 3, 2, "valid"), net.pool(x, 3, 2, "valid"))
    for _ in range(2):
        y = net.conv(x, 384)
        z = net.conv(net.conv(x, 448), 384, 3)
        x = net.concat(
            net.conv(x, 320),
            net.concat(net.conv(y, 384, (1, 3)), net.conv(y, 384, (3, 1))),
            net.concat(net.conv(z, 384, (1, 3)), net.conv(z, 384, (3, 1))),
            net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 192),
        )
    net.dense(net.global_pool(x), classes)
    return net.operations


def _inception_stem(net: Sketch) -> int:
    x = net.conv(net.conv(0, 32, 3, 2, "valid"), 32, 3, pad="valid")
    return net.pool(net.conv(x, 64, 3), 3, 2, "valid")


def inception_v4(classes: int = 1001) -> list[Operation]:
    """Return Inception v4 (Szegedy et al. 2016), 299x299, as in TF-Slim."""
    net = Sketch(299, 299)
    x = net.conv(net.conv(net.conv(0, 32, 3, 2, "valid"), 32, 3, pad="valid"), 64, 3)
    x = net.concat(net.pool(x, 3, 2, "valid"), net.conv(x, 96, 3, 2, "valid"))
    y = net.conv(net.conv(net.conv(x, 64), 64, (1, 7)), 64, (7, 1))
    x = net.concat(net.conv(net.conv(x, 64), 96, 3, pad="valid"), net.conv(y, 96, 3, pad="valid"))
    x = net.concat(net.conv(x, 192, 3, 2, "valid"), net.pool(x, 3, 2, "valid"))
    for _ in range(4):
        x = net.concat(
            net.conv(x, 96),
            net.conv(net.conv(x, 64), 96, 3),
            net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3),
            net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 96),
        )
    y = net.conv(net.conv(net.conv(x, 192), 224, 3), 256, 3, 2, "valid")
    x = net.concat(net.conv(x, 384, 3, 2, "valid"), y, net.pool(x, 3, 2, "valid"))
    for _ in range(7):
        y = net.conv(net.conv(net.conv(x, 192), 224, (1, 7)), 256, (7, 1))
        z = net.conv(net.conv(net.conv(x, 192), 192, (7, 1)), 224, (1, 7))
        z = net.conv(net.conv(z, 224, (7, 1)), 256, (1, 7))
        p = net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 128)
        x = net.concat(net.conv(x, 384), y, z, p)
    y = net.conv(net.conv(x, 192), 192, 3, 2, "valid")
    z = net.conv(net.conv(net.conv(x, 256), 256, (1, 7)), 320, (7, 1))
    x = net.concat(y, net.conv(z, 320, 3, 2, "valid"), net.pool(x, 3, 2, "valid"))
    for _ in range(3):
        y = net.conv(x, 384)
        z = net.conv(net.conv(net.conv(x, 384), 448, (3, 1)), 512, (1, 3))
        x = net.concat(
            net.conv(x, 256),
            net.concat(net.conv(y, 256, (1, 3)), net.conv(y, 256, (3, 1))),
            net.concat(net.conv(z, 256, (1, 3)), net.conv(z, 256, (3, 1))),
            net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 256),
        )
    net.dense(net.global_pool(x), classes)
    return net.operations


def inception_resnet_v2(classes: int = 1001) -> list[Operation]:
    """Return Inception-ResNet v2 (Szegedy et al. 2016), 299x299, as in TF-Slim."""
    net = Sketch(299, 299)
    x = _inception_stem(net)
    x = net.pool(net.conv(net.conv(x, 80), 192, 3, pad="valid"), 3, 2, "valid")
    x = net.concat(
        net.conv(x, 96),
        net.conv(net.conv(x, 48), 64, 5),
        net.conv(net.conv(net.conv(x, 64), 96, 3), 96, 3),
        net.conv(net.pool(x, 3, 1, kind="avgpool2d"), 64),
    )
    for _ in range(10):
        y = net.conv(net.conv(x, 32), 32, 3)
        z = net.conv(net.conv(net.conv(x, 32), 48, 3), 64, 3)
        x = net.add(x, net.conv(net.concat(net.conv(x, 32), y, z), 320))
    y = net.conv(net.conv(net.conv(x, 256), 256, 3), 384, 3, 2, "valid")
    x = net.concat(net.conv(x, 384, 3, 2, "valid"), y, net.pool(x, 3, 2, "valid"))
    for _ in range(20):
        y = net.conv(net.conv(net.conv(x, 128), 160, (1, 7)), 192, (7, 1))
        x = net.add(x, net.conv(net.concat(net.conv(x, 192), y), 1088))
    a = net.conv(net.conv(x, 256), 384, 3, 2, "valid")
    b = net.conv(net.conv(x, 256), 288, 3, 2, "valid")
    c = net.conv(net.conv(net.conv(x, 256), 288, 3), 320, 3, 2, "valid")
    x = net.concat(a, b, c, net.pool(x, 3, 2, "valid"))
    for _ in range(10):
        y = net.conv(net.conv(net.conv(x, 192), 224, (1, 3)), 256, (3, 1))
        x = net.add(x, net.conv(net.concat(net.conv(x, 192), y), 2080))
    net.dense(net.global_pool(net.conv(x, 1536)), classes)
    return net.operations


def mobilenet_v1(width: float = 1.0, size: int = 224, classes: int = 1001) -> list[Operation]:
    """Return MobileNet (Howard et al. 2017)."""
    net = Sketch(size, size)
    x = net.conv(0, int(32 * width), 3, 2)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
            (1024, 2), (1024, 1)]  # fmt: skip
    for channels, stride in plan:
        x = net.conv(net.depthwise(x, 3, stride), int(channels * width))
    net.dense(net.global_pool(x), classes)
    return net.operations


def _inverted(
    net: Sketch, x: int, channels: int, expand: int, kernel: int, stride: int, skip: bool = True
) -> int:
    """Add the inverted residual block of MobileNet v2."""
    inner = net.shape(x)[2] * expand
    y = net.conv(x, inner) if expand > 1 else x
    y = net.conv(net.depthwise(y, kernel, stride), channels)
    return net.add(x, y) if skip and net.shape(y) == net.shape(x) else y


def _fused(
    net: Sketch, x: int, channels: int, inner: int, stride: int, early: bool, skip: bool = True
) -> int:
    """Add the fused block of the EdgeTPU networks: a 3x3 convolution for 1x1 and depthwise.

    Parameters
    ----------
    early : whether the 3x3 convolution has the stride, else the 1x1 after it
    """
    y = net.conv(x, inner, 3, stride if early else 1)
    y = net.conv(y, channels, 1, 1 if early else stride)
    return net.add(x, y) if skip and net.shape(y) == net.shape(x) else y


def mobilenet_v2(size: int = 224, classes: int = 1001, width: float = 1.0) -> list[Operation]:
    """Return MobileNet v2 (Sandler et al. 2018)."""
    net = Sketch(size, size)
    x = net.conv(0, _rounded(32 * width), 3, 2)
    for expand, channels, depth, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(depth):
            wide = _rounded(channels * width)
            x = _inverted(net, x, wide, expand, 3, stride if block == 0 else 1)
    net.dense(net.global_pool(net.conv(x, _rounded(1280 * max(width, 1.0)))), classes)
    return net.operations


def mobilenet_edge(width: float = 1.0, classes: int = 1001) -> list[Operation]:
    """Return MobileNet EdgeTPU of TensorFlow's research models."""

    def wide(channels: int) -> int:
        return _rounded(channels * width)

    net = Sketch(224, 224)
    x = net.conv(net.conv(0, wide(32), 3, 2), wide(16))
    for channels, depth in ((32, 4), (48, 4)):
        for block in range(depth):
            inner = net.shape(x)[2] * (4 if block else 8)
            x = _fused(net, x, wide(channels), inner, 1 if block else 2, True)
    for channels, kernel, stride, depth in ((96, 3, 2, 4), (96, 3, 1, 4), (160, 5, 2, 4)):
        for block in range(depth):
            expand, step = (4, 1) if block else (8, stride)
            x = _inverted(net, x, wide(channels), expand, kernel, step, bool(block))
    x = _inverted(net, x, wide(192), 8, 3, 1)
    net.dense(net.global_pool(net.conv(x, 1280)), classes)
    return net.operations


def _rounded(channels: float, divisor: int = 8) -> int:
    """Return a scaled width, rounded to multiples of 8 but never down by more than 10 %."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


def efficientnet_edge(
    size: int, width: float, depth: float, classes: int = 1001
) -> list[Operation]:
    """Return EfficientNet-EdgeTPU S, M or L of TensorFlow's TPU models: ReLU, no excitation."""
    net = Sketch(size, size)
    x = net.conv(0, _rounded(32 * width), 3, 2)
    inner = 4 * _rounded(24 * width)
    for fused, channels, repeats, expand, kernel, stride in (
        (True, 24, 1, 4, 3, 1), (True, 32, 2, 8, 3, 2), (True, 48, 4, 8, 3, 2),
        (False, 96, 5, 8, 5, 2), (False, 144, 4, 8, 5, 1), (False, 192, 2, 8, 5, 2),
    ):  # fmt: skip
        for block in range(math.ceil(repeats * depth)):
            step, out = (1 if block else stride), _rounded(channels * width)
            if fused:
                inner = inner if channels == 24 and not block else net.shape(x)[2] * expand
                x = _fused(net, x, out, inner, step, False, channels > 24)
            else:
                x = _inverted(net, x, out, expand, kernel, step)
    net.dense(net.global_pool(net.conv(x, _rounded(1280 * width))), classes)
    return net.operations


def mobilenet_v3_small(classes: int = 1000) -> list[Operation]:
    """Return MobileNet v3 small (Howard et al. 2019), hard swish as hard sigmoid and product."""
    net = Sketch(224, 224)

    def swish(x: int, hard: bool) -> int:
        return net.add(x, net.elementwise("hard-sigmoid", x)) if hard else x

    x = swish(net.conv(0, 16, 3, 2), True)
    for kernel, inner, channels, squeeze, hard, stride in (
        (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
    ):  # fmt: skip
        y = x if inner == net.shape(x)[2] else swish(net.conv(x, inner), hard)
        y = swish(net.depthwise(y, kernel, stride), hard)
        if squeeze:
            s = net.conv(net.global_pool(y), _rounded(inner / 4))
            y = net.scale(y, net.elementwise("hard-sigmoid", net.conv(s, inner)))
        y = net.conv(y, channels)
        x = net.add(x, y) if net.shape(x) == net.shape(y) else y
    x = net.global_pool(swish(net.conv(x, 576), True))
    net.dense(swish(net.conv(x, 1024), True), classes)
    return net.operations


def mnist_cnn() -> list[Operation]:
    """Return the CNN of AMD's tutorial for MNIST: four convolutions, 28x28."""
    net = Sketch(28, 28, 1)
    x = net.conv(net.conv(0, 16, 5, 2, "valid"), 32, 5, 2, 2)
    net.conv(net.conv(x, 64, 3, 2, 1), 10, 3, 1, "valid")
    return net.operations


def yolo_v3(outputs: int = 75) -> list[Operation]:
    """Return YOLO v3 (Redmon and Farhadi 2018), 416x416, with 75 outputs for VOC, 255 for COCO."""
    net = Sketch(416, 416)
    x = net.conv(0, 32, 3)
    routes = []
    for channels, depth in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = net.conv(x, channels, 3, 2)
        for _ in range(depth):
            x = net.add(x, net.conv(net.conv(x, channels // 2), channels, 3))
        routes.append(x)
    for channels in (512, 256, 128):
        for _ in range(2):
            x = net.conv(net.conv(x, channels), 2 * channels, 3)
        x = net.conv(x, channels)
        net.conv(net.conv(x, 2 * channels, 3), outputs)
        if channels > 128:
            up = net.upsample(net.conv(x, channels // 2))
            x = net.concat(up, routes[3 if channels == 512 else 2])
    return net.operations
