"""Speed that AMD publishes for three boards, for networks that can be rebuilt.

From AMD's model zoo, "Performance on ZCU104", "on ZCU102" and "on Kria KV260 SOM" in the READMEs of
Vitis AI 2.0 (ZCU104 only) and 2.5 (Xilinx/Vitis-AI, model_zoo/README.md, commit 00cfb6f8d8,
Apache-2.0): end-to-end frames per second, including pre- and post-processing on the A53, with one
thread and with as many as increased it. If both releases have a network, 2.5 is used, whose
compiler and library are those of the boards' images. `unusable` has the reasons why other rows are
not used.

From AMD's tutorials: the speed of two networks in a Python application, which prepares its images
before the timing starts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.dpu.predict.operations import Operation
from tutelage.host.latency.published_networks import (
    efficientnet_edge,
    inception_resnet_v2,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    mnist_cnn,
    mobilenet_edge,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3_small,
    resnet,
    resnet_v2,
    squeezenet,
    vgg,
    yolo_v3,
)

TABLE = Path(__file__).with_name("published.csv")
"""Figures of the model zoo for the networks below."""

PYTHON_TABLE = Path(__file__).with_name("published_python.csv")
"""Figures of the tutorials, each with its source."""


@dataclass(frozen=True)
class PublishedBoard:
    """DPU and processor for which the figures of a board are published.

    Attributes
    ----------
    cores, clock_mhz : of the DPU, a B4096 on all three boards, from the tables
    cpus, cpu_ghz : of the A53s; from memory of the boards' data sheets, not looked up
    """

    cores: int
    clock_mhz: float
    cpus: int = 4
    cpu_ghz: float = 1.2


BOARDS = {
    "zcu104": PublishedBoard(2, 300.0),
    "zcu102": PublishedBoard(3, 281.0),
    "kv260": PublishedBoard(1, 300.0, cpu_ghz=1.333),
}
"""Published boards by the names of their profiles."""


@dataclass(frozen=True)
class Published:
    """Row of a network in a board's table.

    Attributes
    ----------
    board : name in `BOARDS`
    name : the table's `standard_name`
    release : of Vitis AI
    family : name of the group of networks that is left out of the fit together, on all boards
    build : returns the network
    gops : operations according to the table, 1e9; for `COUNTED_AS_MACS` multiply-accumulates
    one, many : frames per second with one thread and with many
    why_not : why the row is predicted but not fitted; "" for rows that are fitted
    """

    board: str
    name: str
    release: str
    family: str
    build: Callable[[], list[Operation]]
    gops: float
    one: float
    many: float
    why_not: str = ""

    @property
    def speed(self) -> tuple[float, float]:
        """Frames per second with one thread and with many."""
        return self.one, self.many

    @property
    def gops_built(self) -> float:
        """Operations of the rebuilt network in the unit of the table, 1e9."""
        counted = 1 if self.name in COUNTED_AS_MACS else 2
        return counted * sum(operation.macs for operation in self.build()) / 1e9


@dataclass(frozen=True)
class PublishedPython:
    """Speed of a network in a Python application; never fitted.

    Attributes
    ----------
    board, release : as in `Published`
    name : of the network
    build : returns the network
    threads : number of threads of the application
    fps : frames per second with these threads
    """

    board: str
    release: str
    name: str
    build: Callable[[], list[Operation]]
    threads: int
    fps: float


COUNTED_AS_MACS = (
    "pt_squeezenet_imagenet_224_224_351.7M",
    "tf_mobilenetEdge1.0_imagenet_224_224_990M",
    "tf_mobilenetEdge0.75_imagenet_224_224_624M",
)
"""Rows whose operations are multiply-accumulates, half of the count of the other rows."""

_OLDER = "of the previous release, which is up to 16 % slower for networks that are in both"
_STEM = (
    "its first layer is a depthwise convolution with eight outputs for each channel, unlike that "
    "of any other row; one thread and many both take 3.6 ms longer than predicted, so that the DPU "
    "seems to compute it at a seventh of the rate of other depthwise convolutions"
)
_POOL = (
    "2.0 takes twice as long for PyTorch's SqueezeNet as 2.5 (one thread, 3.28 and 1.67 ms), so "
    "that its compiler or library was slow for this network"
)
_OTHER = "the table has 17 % more operations than the rebuilt network"
_DETECTOR = "a detector: its post-processing is not a classifier's"
_R18 = (2, 2, 2, 2)

MNIST, DENSENET = "mnist_cnn", "densenetx"


def densenetx() -> list[Operation]:
    """Return a DenseNet-BC with k = 12 and three blocks of 16, for 32x32 images; needs PyTorch."""
    from tutelage.host.explore.network_operations import densenet_operations

    return densenet_operations((3, 32, 32))


_PYTHON = {MNIST: mnist_cnn, DENSENET: densenetx}
"""Networks of the tutorials."""

_ROWS: tuple[tuple[str, str, Callable[[], list[Operation]], str], ...] = (
    ("resnet", "pt_vehicle-make-classification_CompCars_224_224_3.63G",
     lambda: resnet(depths=_R18, bottleneck=False, classes=163), ""),
    ("resnet", "pt_vehicle-color-classification_color_224_224_3.63G",
     lambda: resnet(depths=_R18, bottleneck=False, classes=15), ""),
    ("resnet", "pt_vehicle-type-classification_CompCars_224_224_3.63G",
     lambda: resnet(depths=_R18, bottleneck=False, classes=7), ""),
    ("resnet", "pt_personreid-res50_market1501_256_128_5.3G",
     lambda: resnet(256, 128, classes=0), ""),
    ("resnet", "pt_personreid-res18_market1501_176_80_1.1G",
     lambda: resnet(176, 80, _R18, 0, bottleneck=False), ""),
    ("resnet", "tf_resnetv1_50_imagenet_224_224_6.97G", lambda: resnet(stride_at="last"), ""),
    ("resnet", "tf_resnetv1_101_imagenet_224_224_14.4G",
     lambda: resnet(depths=(3, 4, 23, 3), stride_at="last"), ""),
    ("resnet", "tf_resnetv1_152_imagenet_224_224_21.83G",
     lambda: resnet(depths=(3, 8, 36, 3), stride_at="last"), ""),
    ("resnet", "tf_resnetv2_50_imagenet_299_299_13.1G",
     lambda: resnet_v2(299, (3, 4, 6, 3)), ""),
    ("resnet", "tf_resnetv2_101_imagenet_299_299_26.78G",
     lambda: resnet_v2(299, (3, 4, 23, 3)), ""),
    ("resnet", "tf_resnetv2_152_imagenet_299_299_40.47G",
     lambda: resnet_v2(299, (3, 8, 36, 3)), ""),
    ("resnet", "tf_mlperf_resnet50_imagenet_224_224_8.19G", resnet, ""),
    ("resnet", "tf2_resnet50_imagenet_224_224_7.76G", lambda: resnet(stride_at="1x1"), ""),
    ("resnet", "pt_resnet50_imagenet_224_224_8.2G", resnet, ""),
    ("vgg", "tf_vgg16_imagenet_224_224_30.96G", lambda: vgg((2, 2, 3, 3, 3)), ""),
    ("vgg", "tf_vgg19_imagenet_224_224_39.28G", lambda: vgg((2, 2, 4, 4, 4)), ""),
    ("squeezenet", "pt_squeezenet_imagenet_224_224_351.7M", squeezenet, ""),
    ("inception", "tf_inceptionv1_imagenet_224_224_3G", lambda: inception_v1(3, 1001), ""),
    ("inception", "tf_inceptionv2_imagenet_224_224_3.88G", inception_v2, _STEM),
    ("inception", "tf_inceptionv3_imagenet_299_299_11.45G", inception_v3, ""),
    ("inception", "tf2_inceptionv3_imagenet_299_299_11.5G", lambda: inception_v3(1000), ""),
    ("inception", "pt_inceptionv3_imagenet_299_299_11.4G", lambda: inception_v3(1000), ""),
    ("inception", "tf_inceptionv4_imagenet_299_299_24.55G", inception_v4, ""),
    ("inception", "tf_inceptionresnetv2_imagenet_299_299_26.35G", inception_resnet_v2, ""),
    ("mobilenet", "tf_mobilenetv1_0.25_imagenet_128_128_27M", lambda: mobilenet_v1(0.25, 128), ""),
    ("mobilenet", "tf_mobilenetv1_0.5_imagenet_160_160_150M", lambda: mobilenet_v1(0.5, 160), ""),
    ("mobilenet", "tf_mobilenetv1_1.0_imagenet_224_224_1.14G", mobilenet_v1, ""),
    ("mobilenet", "tf2_mobilenetv1_imagenet_224_224_1.15G",
     lambda: mobilenet_v1(classes=1000), ""),
    ("mobilenet", "tf_mobilenetv2_1.0_imagenet_224_224_602M", mobilenet_v2, ""),
    ("mobilenet", "tf_mobilenetv2_1.4_imagenet_224_224_1.16G",
     lambda: mobilenet_v2(width=1.4), ""),
    ("mobilenet", "tf_mobilenetEdge0.75_imagenet_224_224_624M", lambda: mobilenet_edge(0.75), ""),
    ("mobilenet", "tf_mobilenetEdge1.0_imagenet_224_224_990M", mobilenet_edge, ""),
    ("mobilenet", "tf2_mobilenetv3_imagenet_224_224_132M", mobilenet_v3_small, _OTHER),
    ("efficientnet", "tf_efficientnet-edgetpu-S_imagenet_224_224_4.72G",
     lambda: efficientnet_edge(224, 1.0, 1.0), ""),
    ("efficientnet", "tf_efficientnet-edgetpu-M_imagenet_240_240_7.34G",
     lambda: efficientnet_edge(240, 1.0, 1.1), ""),
    ("efficientnet", "tf_efficientnet-edgetpu-L_imagenet_300_300_19.36G",
     lambda: efficientnet_edge(300, 1.2, 1.4), ""),
    ("resnet", "cf_resnet18_imagenet_224_224_3.65G",
     lambda: resnet(depths=_R18, bottleneck=False), _OLDER),
    ("resnet", "cf_resnet50_imagenet_224_224_7.7G", lambda: resnet(stride_at="1x1"), _OLDER),
    ("resnet", "pt_personreid-res50_market1501_256_128_5.4G",
     lambda: resnet(256, 128, classes=0), _OLDER),
    ("inception", "cf_inceptionv1_imagenet_224_224_3.16G", inception_v1, _OLDER),
    ("inception", "cf_inceptionv2_imagenet_224_224_4G", lambda: inception_v2(False, 1000), _OLDER),
    ("inception", "cf_inceptionv3_imagenet_299_299_11.4G", inception_v3, _OLDER),
    ("squeezenet", "cf_squeezenet_imagenet_227_227_0.76G", lambda: squeezenet(227), _POOL),
    ("yolo", "tf_yolov3_voc_416_416_65.63G", yolo_v3, _DETECTOR),
    ("yolo", "tf2_yolov3_coco_416_416_65.9G", lambda: yolo_v3(255), _DETECTOR),
)  # fmt: skip


def published(table: Path = TABLE) -> list[Published]:
    """Return the rows whose networks can be rebuilt, with AMD's figures, ordered by board."""
    with table.open(encoding="utf-8", newline="") as file:
        figures = {(row["board"], row["standard_name"]): row for row in csv.DictReader(file)}
    return [
        Published(
            board, name, row["vitis_ai"], family, build, float(row["gops"]),
            float(row["fps_1thread"]), float(row["fps_multithread"]), why_not,
        )
        for board in BOARDS
        for family, name, build, why_not in _ROWS
        if (row := figures.get((board, name)))
    ]  # fmt: skip


def published_python(table: Path = PYTHON_TABLE) -> list[PublishedPython]:
    """Return the figures of Python applications."""
    with table.open(encoding="utf-8", newline="") as file:
        return [
            PublishedPython(
                row["board"], row["vitis_ai"], row["network"], _PYTHON[row["network"]],
                int(row["threads"]), float(row["fps"]),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


_UNUSABLE = (
    (r"_0\.\d+_|0\.88_1\.8G", "pruned: its remaining layers are not published"),
    (r"OFA-|ofa", "found by search: its layers are not published"),
    (r"efficientnet-b0", "the replacement of its swish activations is not published"),
    (r"cf_squeeze_|torchvision_|_5\.7G|_4\.1G", "another name of a network that is used"),
    (r"ssd|mlperf_resnet34|refinedet|RefineDet|yolo|densebox|efficientdet|VPGnet|pointpillars|"
     r"pointpainting|centerpoint|CLOCs|movenet|OCR|BCC|C2D2|superpoint|ultrafast",
     "a detector or similar: its post-processing on the A53 takes longer and is not published"),
    (r"(?i)fpn|salsanext|unet|erfnet|sa-gate|hardnet|multitask|mt-resnet18|cityscapes|fadnet",
     "returns a map: its post-processing on the A53 takes longer and is not published"),
    (r"cf_reid|plate-recognition|person-orientation|pmg", "its layers are not published"),
)  # fmt: skip


def unusable(name: str) -> str:
    """Return why a network of AMD's table, by its name, is not rebuilt; "" if unknown."""
    return next((why for pattern, why in _UNUSABLE if re.search(pattern, name)), "")
