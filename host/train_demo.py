"""Train, quantise and write the demo model: Fashion-MNIST on a small CNN.

    python -m host.train_demo [--data DIR] [--output app/demo] [--epochs N] [--seed N]

One file, top to bottom: read the images, train in float, fold the batch norms,
choose the fix points, write a compiled .xmodel, measure the written file with
the exact engine, and ship it with a few hundred test images. About ten minutes
on two cores; the same seed on the same machine gives the same file.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dpu.builder import CompiledModel
from dpu.engine import load_engine
from dpu.xir import Op

LABELS = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
THREADS = 2  # fixed: the order of float sums, hence the trained weights, depends on it
BATCH = 128

# (v - 128) / 128 at fix point 7 is v - 128: all 256 grey levels enter the DPU
# as they are, nothing is rounded or clipped.
MEAN, SCALE, INPUT_FIX_POINT = 128.0, 1 / 128, 7
BLACK = (0 - MEAN) * SCALE

# The DPU averages 7x7 values with this reciprocal instead of 1/49.
RECIPROCAL_7X7 = 21 / 1024

MAX_SHIFT = 16  # DPUCZDX8G shifts an accumulator right, and a bias left, by 0..16
CALIBRATION_IMAGES = 1000
SHIPPED_PER_CLASS = 30


# ---------------------------------------------------------------------------- data


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in a gzipped IDX file of unsigned bytes.

    Raises
    ------
    ValueError
        The file is not IDX, holds another type than uint8, or is cut short.
    """
    data = gzip.decompress(path.read_bytes())
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = data[3]
    shape = struct.unpack_from(f">{rank}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != np.prod(shape):
        raise ValueError(f"{path}: {values.size} values instead of {np.prod(shape)}")
    return values.reshape(shape)


def load_split(directory: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (N, 28, 28) and labels (N,) of the split "train" or "t10k"."""
    images = read_idx(directory / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(directory / f"{split}-labels-idx1-ubyte.gz")
    return images, labels


def normalise(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (N, 28, 28, 1) network input from (N, 28, 28) grey levels."""
    return ((images[..., None].astype(np.float32) - MEAN) * SCALE).astype(np.float32)


def as_nchw(nhwc: NDArray[np.float32]) -> Tensor:
    """Return the batch as PyTorch's (N, C, H, W), channels_last in memory."""
    return torch.from_numpy(nhwc).permute(0, 3, 1, 2)


def augment(x: Tensor, shift: int = 2) -> Tensor:
    """Flip half of the images and move each by up to `shift` pixels; (N, 1, 28, 28)."""
    n, _, height, width = x.shape
    padded = F.pad(x, [shift] * 4, value=BLACK)
    top = torch.randint(2 * shift + 1, (n, 1, 1))
    left = torch.randint(2 * shift + 1, (n, 1, 1))
    rows = top + torch.arange(height).view(1, -1, 1)
    columns = torch.arange(width).view(1, 1, -1)
    columns = left + torch.where(torch.rand(n, 1, 1) < 0.5, columns, width - 1 - columns)
    return padded[torch.arange(n).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


# ------------------------------------------------------------------------- network


class ConvBNReLU(nn.Sequential):
    """Convolution, batch norm, ReLU: the order in which the norm folds away."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class FashionCNN(nn.Module):
    """Stem, max pool, one dense block, strided transition, average pool, classifier."""

    def __init__(
        self, stem: int = 32, growth_rate: int = 16, layers: int = 3, features: int = 64
    ) -> None:
        super().__init__()
        block = stem + layers * growth_rate
        self.stem = ConvBNReLU(1, stem, 3)  # 28x28
        self.pool = nn.MaxPool2d(2)  # 14x14
        self.dense = nn.ModuleList(
            ConvBNReLU(stem + i * growth_rate, growth_rate, 3) for i in range(layers)
        )
        self.transition = ConvBNReLU(block, features, 3, stride=2)  # 7x7
        self.head = ConvBNReLU(features, features, 3)
        self.classifier = nn.Conv2d(features, len(LABELS), 1)  # a dense layer, as the DPU runs it

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x)["classifier"].flatten(1)

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Return the tensors that carry a fix point of their own, by name."""
        block = self.pool(self.stem(x))
        for layer in self.dense:
            block = torch.cat([block, layer(block)], 1)
        transition = self.transition(block)
        head = self.head(transition)
        average = head.sum((2, 3), keepdim=True) * RECIPROCAL_7X7
        return {
            "block": block,
            "transition": transition,
            "head": head,
            "average": average,
            "classifier": self.classifier(average),
        }


def train(net: FashionCNN, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train in place: SGD with momentum, one-cycle learning rate, label smoothing."""
    optimiser = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=epochs * steps)
    net.train()
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            x = augment(images[batch]).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(net(x), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1}/{epochs}  loss {total / steps:.4f}  {seconds:.0f} s", flush=True)
    net.eval()


def fold(net: FashionCNN) -> None:
    """Fold every batch norm into its convolution, in place; the function stays the same."""
    for module in list(net.modules()):
        if isinstance(module, ConvBNReLU):
            conv, norm = module[0], module[1]
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            module[0] = fuse_conv_bn_eval(conv, norm)
            module[1] = nn.Identity()


@torch.inference_mode()
def logits(net: FashionCNN, images: Tensor) -> NDArray[np.float32]:
    """Return the float network's output (N, 10)."""
    return torch.cat([net(batch) for batch in images.split(500)]).numpy()


def accuracy(scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Return top-1 in percent; of equal scores the first counts."""
    return 100 * float(np.mean(scores.argmax(1) == labels))


# -------------------------------------------------------------------- quantisation


@dataclass(frozen=True)
class QuantisedConv:
    """A convolution as the DPU runs it: int8 OHWI weights, int8 bias, their fix points."""

    weights: NDArray[np.int8]
    weights_fix_point: int
    bias: NDArray[np.int8]
    bias_fix_point: int
    fix_point: int  # of the output


def quantise(values: NDArray[np.float32], fix_point: int) -> NDArray[np.int8]:
    """Round half up to int8, as DPU_ROUND does: q means q * 2**-fix_point."""
    scaled = np.floor(np.ldexp(values, fix_point) + 0.5)
    return np.clip(scaled, -128, 127).astype(np.int8)


def best_fix_point(values: NDArray[np.float32], candidates: range) -> int:
    """Return the candidate with the least mean squared error of quantisation."""

    def error(fix_point: int) -> float:
        restored = np.ldexp(quantise(values, fix_point).astype(np.float32), -fix_point)
        return float(np.mean(np.square(restored - values), dtype=np.float64))

    return min(candidates, key=error)


def quantise_conv(conv: nn.Conv2d, p_in: int, p_out: int) -> QuantisedConv:
    """Quantise a folded convolution with fix points whose shifts the DPU can do.

    The output shift p_in + p_w - p_out bounds p_w, and the bias shift
    p_in + p_w - p_bias bounds p_bias; the best within these bounds is taken.
    """
    assert conv.bias is not None
    weights = np.ascontiguousarray(conv.weight.detach().permute(0, 2, 3, 1).numpy())
    bias = conv.bias.detach().numpy()
    p_w = best_fix_point(weights, range(p_out - p_in, p_out - p_in + MAX_SHIFT + 1))
    p_bias = best_fix_point(bias, range(p_in + p_w - MAX_SHIFT, p_in + p_w + 1))
    return QuantisedConv(quantise(weights, p_w), p_w, quantise(bias, p_bias), p_bias, p_out)


@torch.inference_mode()
def calibrate(net: FashionCNN, images: Tensor) -> dict[str, int]:
    """Return the fix point of each activation, by squared error over `images`.

    All that meets in the dense block's concats shares the one named "block".
    """
    return {
        name: best_fix_point(tensor.numpy(), range(-2, 12))
        for name, tensor in net.activations(images).items()
    }


# ------------------------------------------------------------------------- writing


def write_xmodel(net: FashionCNN, fix_points: dict[str, int], path: Path) -> None:
    """Write the folded network in compiled form; reads like `FashionCNN.activations`."""
    model = CompiledModel("fashion_cnn")
    p = fix_points

    def conv(
        name: str, x: Op, layer: nn.Module, p_in: int, p_out: int, nonlinear: str = "RELU"
    ) -> Op:
        assert isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple)
        q = quantise_conv(layer, p_in, p_out)
        pad_h, pad_w = layer.padding
        stride_h, stride_w = layer.stride
        return model.conv2d(
            name,
            x,
            weights=q.weights,
            weights_fix_point=q.weights_fix_point,
            bias=q.bias,
            bias_fix_point=q.bias_fix_point,
            fix_point=q.fix_point,
            stride=(stride_w, stride_h),
            pad=(pad_w, pad_w, pad_h, pad_h),
            nonlinear=nonlinear,
        )

    x = model.input("image", (1, 28, 28, 1), fix_point=INPUT_FIX_POINT)
    x = conv("stem", x, net.stem[0], INPUT_FIX_POINT, p["block"])
    x = model.max_pool("pool", x, kernel=(2, 2), stride=(2, 2))
    for i, layer in enumerate(net.dense, 1):
        assert isinstance(layer, ConvBNReLU)
        new = conv(f"dense{i}", x, layer[0], p["block"], p["block"])
        x = model.concat(f"concat{i}", [x, new])
    x = conv("transition", x, net.transition[0], p["block"], p["transition"])
    x = conv("head", x, net.head[0], p["transition"], p["head"])
    x = model.avg_pool("average", x, kernel=(7, 7), stride=(1, 1), fix_point=p["average"])
    x = conv("classifier", x, net.classifier, p["average"], p["classifier"], "NONE")
    x = model.reshape("logits", x, (1, len(LABELS)))
    model.output(x)
    model.save(path)


def run_xmodel(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits (N, 10) of a written file, computed by the exact engine."""
    engine = load_engine(path, engine="fast")
    starts = range(0, len(images), 500)
    return np.concatenate([engine.run(normalise(images[i : i + 500])) for i in starts])


def shipped_indices(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the test-set indices of the images to ship: the first of each class."""
    return np.concatenate(
        [np.flatnonzero(labels == c)[:SHIPPED_PER_CLASS] for c in range(len(LABELS))]
    )


def write_images(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    indices: NDArray[np.intp],
    directory: Path,
) -> None:
    """Write `directory`/<label>/<index in the test set>.png, grey and lossless."""
    for i in indices:
        path = directory / LABELS[labels[i]] / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", images[i])[1].tobytes())


MODEL_TOML = """\
[input]
width = 28
height = 28
colour = "grey"
mean = [{mean}]
scale = [{scale}]
crop = "none"

[output]
labels = [{labels}]
activation = "softmax"

[provenance]
name = "fashion_cnn"
dataset = "Fashion-MNIST (Zalando Research, MIT licence)"
script = "{command}"
date = "{date}"
parameters = {parameters}
# Top-1 in percent: float network and written file on the whole test set of
# 10,000 images, written file on the images that are shipped.
accuracy_float = {accuracy_float:.2f}
accuracy_int8 = {accuracy_int8:.2f}
images = {images}
accuracy_images = {accuracy_images:.2f}

[checksums]
"model.xmodel" = "{sha256}"
"""

README = """\
# The demo model

`model.xmodel` sorts 28x28 grey images of clothes into ten classes. It is a small
densely connected CNN ({parameters:,} parameters) in the DPU's 8-bit arithmetic,
in compiled form, so that the app and the emulation can be tried without training
or compiling anything first. It holds no instructions for a real DPU.

| network | images | top-1 |
| --- | --- | --- |
| float | test set, 10,000 | {accuracy_float:.2f} % |
| int8, this file | test set, 10,000 | {accuracy_int8:.2f} % |
| int8, this file | `images/`, {images} | {accuracy_images:.2f} % |

The int8 figures were measured on the written file with the exact engine.
Everything here was made by

    {command}

- `model.xmodel`: the network; `host/train_demo.py` tells how it is built and quantised.
- `model.toml`: labels, preprocessing, provenance, checksum.
- `images/<label>/<index>.png`: the first {per_class} images of each class of the test
  set, unchanged; the name is the index in the test set. The network never saw them.

## Where the images come from

Fashion-MNIST by Zalando Research (https://github.com/zalandoresearch/fashion-mnist),
as packaged by Debian in `dataset-fashion-mnist`:
Han Xiao, Kashif Rasul, Roland Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", arXiv:1708.07747.

The MIT License (MIT). Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this
software and associated documentation files (the "Software"), to deal in the Software
without restriction, including without limitation the rights to use, copy, modify,
merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
permit persons to whom the Software is furnished to do so, subject to the following
conditions:

The above copyright notice and this permission notice shall be included in all copies
or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


# ----------------------------------------------------------------------------- main


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m host.train_demo", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("/usr/share/datasets/fashion-mnist"),
        help="directory of the four IDX .gz files (default: Debian's dataset-fashion-mnist)",
    )
    parser.add_argument("--output", type=Path, default=Path("app/demo"), help="model directory")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        train_images, train_labels = load_split(args.data, "train")
        test_images, test_labels = load_split(args.data, "t10k")
    except (OSError, EOFError, ValueError) as error:
        print(f"train_demo: {error}", file=sys.stderr)
        return 2

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)
    net = FashionCNN()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = as_nchw(normalise(train_images))
    train(net, images, torch.from_numpy(train_labels.astype(np.int64)), args.epochs)
    fold(net)

    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "model.xmodel"
    fix_points = calibrate(net, images[:CALIBRATION_IMAGES])
    print("fix points", fix_points)
    write_xmodel(net, fix_points, path)

    shipped = shipped_indices(test_labels)
    scores = run_xmodel(path, test_images)
    facts = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "accuracy_float": accuracy(logits(net, as_nchw(normalise(test_images))), test_labels),
        "accuracy_int8": accuracy(scores, test_labels),
        "images": len(shipped),
        "accuracy_images": accuracy(scores[shipped], test_labels[shipped]),
        "command": f"python -m host.train_demo --epochs {args.epochs} --seed {args.seed}",
        "date": datetime.date.today().isoformat(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "labels": ", ".join(f'"{label}"' for label in LABELS),
        "mean": MEAN,
        "scale": SCALE,
        "per_class": SHIPPED_PER_CLASS,
    }
    write_images(test_images, test_labels, shipped, args.output / "images")
    (args.output / "model.toml").write_text(MODEL_TOML.format(**facts))
    (args.output / "README.md").write_text(README.format(**facts))
    print(f"float {facts['accuracy_float']:.2f} %  int8 {facts['accuracy_int8']:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
