"""Train, quantise and write the demo model: Fashion-MNIST on a small DenseNet.

    python -m host.train_demo [--data DIR] [--output app/demo] [--epochs N] [--seed N]

Float training by host/train.py, post-training quantisation to 8 bits, a compiled .xmodel, which is
measured with the exact engine and shipped with a few hundred test images. Some minutes on two
cores; goes on where it was stopped. The same seed on the same machine gives the same file.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpu.engine import load_engine
from host.checkpoint import load_weights
from host.config import Config, make_config
from host.data import DEFAULT_IDX, MEAN, SCALE, DataError, DataSet, load, normalise
from host.progress import Terminal
from host.quantise.calibrate import calibrate
from host.quantise.lower import save
from host.quantise.student import Student
from host.train import STUDENT, Interrupted, make_network, train

THREADS = 2  # fixed: the order of float sums, hence the trained weights, depends on it
NETWORK = {"network": "densenet-small", "options": {"growth_rate": 16}}
CALIBRATION_IMAGES = 1000
SHIPPED_PER_CLASS = 30


def configuration(epochs: int, seed: int) -> Config:
    """The float run."""
    return make_config(
        {
            "method": "float",
            "seed": seed,
            "student": NETWORK,
            "augmentation": {"flip": True, "shift": 2},
            "training": {"epochs": epochs, "lr": 0.1},
        }
    )


def write_xmodel(config: Config, weights: Path, data: DataSet, path: Path) -> int:
    """Quantise a float run and write it as an .xmodel; returns the number of parameters."""
    network = make_network(config.student, data)
    load_weights(network, weights)
    student = Student(network, data.shape)
    calibrate(student, normalise(data.take(CALIBRATION_IMAGES).images))
    save(student, path)
    return sum(p.numel() for p in network.parameters())


def run_xmodel(path: Path, images: Tensor, engine: str = "fast") -> NDArray[np.float32]:
    """The logits (N, classes) of a written file for uint8 images (N, C, H, W)."""
    model = load_engine(path, engine=engine)
    parts = (normalise(part).permute(0, 2, 3, 1).numpy() for part in images.split(500))
    return np.concatenate([model.run(part) for part in parts])


def accuracy(scores: NDArray[np.float32], labels: Tensor) -> float:
    """Top-1 in percent; of equal scores the first counts."""
    return 100 * float(np.mean(scores.argmax(1) == labels.numpy()))


def shipped_indices(labels: Tensor, classes: int) -> Tensor:
    """The test-set indices of the images to ship: the first of each class."""
    return torch.cat([(labels == c).nonzero()[:SHIPPED_PER_CLASS, 0] for c in range(classes)])


def write_images(data: DataSet, indices: Tensor, directory: Path) -> None:
    """Write `directory`/<label>/<index in the test set>.png, grey and lossless."""
    for i in indices.tolist():
        path = directory / data.classes[data.labels[i]] / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", data.images[i, 0].numpy())[1].tobytes())


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
name = "densenet-small k16"
dataset = "Fashion-MNIST (Zalando Research, MIT licence)"
script = "{command}"
date = "{date}"
parameters = {parameters}
# Top-1 in percent: float network and written file on the whole test set of
# {test_images:,} images, written file on the images that are shipped.
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
DenseNet-BC (growth rate 16, three blocks of three layers, {parameters:,} parameters) in the
DPU's 8-bit arithmetic, in compiled form, so that the app and the emulation can be tried without
training or compiling anything first. It holds no instructions for a real DPU.

| network | images | top-1 |
| --- | --- | --- |
| float | test set, {test_images:,} | {accuracy_float:.2f} % |
| int8, this file | test set, {test_images:,} | {accuracy_int8:.2f} % |
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


def _facts(options: argparse.Namespace, data: DataSet, test: DataSet, shown: Any) -> dict[str, Any]:
    """Train, quantise, write and measure; what model.toml and README.md say of it."""
    config = configuration(options.epochs, options.seed)
    result = train(config, options.runs, resume=True, progress=shown, data=(data, test))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "model.xmodel"
    parameters = write_xmodel(config, options.runs / STUDENT, data, path)
    scores = run_xmodel(path, test.images)
    shipped = shipped_indices(test.labels, len(test.classes))
    write_images(test, shipped, options.output / "images")
    return {
        "parameters": parameters,
        "accuracy_float": result.accuracy,
        "accuracy_int8": accuracy(scores, test.labels),
        "test_images": len(test),
        "images": len(shipped),
        "accuracy_images": accuracy(scores[shipped.numpy()], test.labels[shipped]),
        "command": f"python -m host.train_demo --epochs {options.epochs} --seed {options.seed}",
        "date": datetime.date.today().isoformat(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "labels": ", ".join(f'"{label}"' for label in test.classes),
        "mean": MEAN,
        "scale": SCALE,
        "per_class": SHIPPED_PER_CLASS,
    }


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m host.train_demo", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_IDX, help="directory of the four IDX .gz files"
    )
    parser.add_argument("--output", type=Path, default=Path("app/demo"), help="model directory")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="training's files")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    try:
        data, test = (load("idx", options.data, split) for split in ("train", "test"))
        facts = _facts(options, data, test, Terminal())
    except DataError as error:
        print(f"train_demo: {error}", file=sys.stderr)
        return 2
    except (Interrupted, OSError) as error:
        print(f"train_demo: {error}", file=sys.stderr)
        return 1
    (options.output / "model.toml").write_text(MODEL_TOML.format(**facts))
    (options.output / "README.md").write_text(README.format(**facts))
    print(f"float {facts['accuracy_float']:.2f} %  int8 {facts['accuracy_int8']:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
