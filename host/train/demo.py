"""Make the demo model: a small DenseNet for Fashion-MNIST, trained by QKD, and its model directory.

    python -m tutelage.host.train.demo [--data DIR] [--output app/demo] [--models
    models/fashion-densenet]

The steps are float training of a teacher and of the student, QKD at 8 bits (host/train/loop.py),
export with every logit compared on the test set (host/export/model_directory.py), and compilation
(host/compile/compilation.py). The model directory is shipped with a few hundred test images; the
checkpoint and its log go to `models`. It takes about an hour on one core; a run that was stopped
continues. The same seed on the same machine gives the same file.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.errors import DONE
from tutelage.core.messages import run_command
from tutelage.core.model_package import COMPILED, DESCRIPTION, read_description, write_description
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.compile.compilation import (
    CompileOptions,
    compile_model,
    plan_compile,
)
from tutelage.host.export.model_card import card_rows
from tutelage.host.export.model_directory import export, load_student, read_state
from tutelage.host.train import checkpoint
from tutelage.host.train.config import Config, make_config
from tutelage.host.train.data import DataSet, load
from tutelage.host.train.data.formats.idx import DEFAULT_IDX
from tutelage.host.train.data.image_io import encode_png
from tutelage.host.train.loop import train
from tutelage.host.train.progress import Terminal
from tutelage.host.train.run_files import CHECKPOINT, LOG, STUDENT, changed_tables

THREADS = 1  # it determines the order of float sums and so the trained weights
TEACHER_NETWORK = {"network": "densenet-small", "options": {"growth_rate": 16}}
STUDENT_NETWORK = {"network": "densenet-small"}
SHIPPED_PER_CLASS = 30

Facts = dict[str, Any]
"""Figures of the model for the READMEs and model.toml, by name."""


def configurations(runs: Path, data: Path, seed: int, epochs: int) -> dict[str, Config]:
    """Return the configurations of the three runs by name.

    Parameters
    ----------
    epochs : of each run; 0: as many as for the shipped model
    """
    common: dict[str, Any] = {
        "seed": seed,
        "data": {"kind": "idx", "path": "" if data == DEFAULT_IDX else str(data)},
        "augmentation": {"flip": True, "shift": 2},
    }
    float_training = {"epochs": epochs or 15, "lr": 0.1, "teacher_lr": 0.0}
    teaching = {
        "epochs": epochs or 18, "lr": 0.02, "teacher_lr": 0.002, "threshold_lr": 0.01,
        "temperature": 4.0, "freeze_norms": 0.5, "evaluate_every": 3,
    }  # fmt: skip

    def taught_from(run: str, network: dict[str, Any]) -> dict[str, Any]:
        return {**network, "weights": str(runs / run / STUDENT)}

    tables: dict[str, dict[str, Any]] = {
        "teacher": {"method": "float", "student": TEACHER_NETWORK, "training": float_training},
        "student": {"method": "float", "student": STUDENT_NETWORK, "training": float_training},
        "qkd": {
            "method": "qkd", "training": teaching,
            "student": taught_from("student", STUDENT_NETWORK),
            "teacher": taught_from("teacher", TEACHER_NETWORK),
        },
    }  # fmt: skip
    return {name: make_config(common | table) for name, table in tables.items()}


def train_all(runs: Path, configs: dict[str, Config], data: tuple[DataSet, DataSet]) -> None:
    """Train those of the runs that are not finished.

    Raises
    ------
    CheckpointError
        There is a run with another configuration, such as another seed.
    """
    for name, config in configs.items():
        _check_run(runs / name, config)
    for name, config in configs.items():
        if not (runs / name / STUDENT).exists():
            train(config, runs / name, resume=True, progress=Terminal(), data=data)


def _check_run(run: Path, config: Config) -> None:
    for path in (run / STUDENT, run / CHECKPOINT):
        if not path.exists():
            continue
        if other := changed_tables(checkpoint.load(path)[1]["config"], config, str(path)):
            raise checkpoint.CheckpointError(
                f"{run}: a run with another {', '.join(other)}: give another --runs"
            )


def accuracy_of(run: Path) -> float:
    """Return the accuracy of a finished run's student on the test set, in percent."""
    return float(checkpoint.load(run / STUDENT)[1]["accuracy"])


def run_xmodel(path: Path, data: DataSet, engine: str = "fast") -> NDArray[np.float32]:
    """Return the logits (N, classes) of an .xmodel for all images of a data set."""
    model = load_engine(path, engine=engine)
    parts = (data.part(start, start + 500).inputs() for start in range(0, len(data), 500))
    return np.concatenate([model.run(part.permute(0, 2, 3, 1).numpy()) for part in parts])


def accuracy(scores: NDArray[np.float32], labels: Tensor) -> float:
    """Return the top-1 accuracy in percent; of equal scores the first class counts."""
    return 100 * float(np.mean(scores.argmax(1) == labels.numpy()))


def shipped_indices(labels: Tensor, classes: int) -> Tensor:
    """Return the indices of the test images to ship, the first of each class, int64."""
    return torch.cat([(labels == c).nonzero()[:SHIPPED_PER_CLASS, 0] for c in range(classes)])


def write_images(data: DataSet, indices: Tensor, directory: Path) -> None:
    """Write `directory`/<label>/<index in the test set>.png, grey and lossless."""
    for i in indices.tolist():
        path = directory / data.classes[data.labels[i]] / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(data.images[i]))


README = """\
# The demo model

`model.xmodel` sorts 28x28 grey images of clothes into ten classes. It is a small
DenseNet-BC (growth rate 8, three blocks of three layers, {parameters:,} parameters) in the
DPU's 8-bit arithmetic, taught by quantisation-aware knowledge distillation and compiled for the
ZCU104's DPU by Tutelage's own compiler (`tutelage compile app/demo` compiles it again from
`quantised.xmodel`). The emulation runs it as the board would; no file of this compiler has run on a
real DPU yet.

| network | images | top-1 |
| --- | --- | --- |
| teacher, float, growth rate 16 | test set, {test_images:,} | {accuracy_teacher:.2f} % |
| student, float | test set, {test_images:,} | {accuracy_float:.2f} % |
| student, int8, this file | test set, {test_images:,} | {accuracy_int8:.2f} % |
| student, int8, this file | `images/`, {images} | {accuracy_images:.2f} % |

The int8 figures were measured on the written file with the exact engine; on all test images every
logit of checkpoint, quantised and compiled file is the same. Everything here was made by

    {command}

- `model.xmodel`, `quantised.xmodel`, `model.onnx`: the network, compiled, quantised, and as ONNX.
- `model.toml`: labels, preprocessing, provenance, checksums.
- `images/<label>/<index>.png`: the first {per_class} images of each class of the test
  set, unchanged; the name is the index in the test set. No network was trained on them.

The checkpoint and its log are in `models/fashion-densenet`.

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


CHECKPOINT_README = """\
# The demo model's checkpoint

`student.safetensors` is the student of the demo model in `app/demo`: a DenseNet-BC of growth rate
8, trained in float ({accuracy_float:.2f} %), then by QKD from a teacher with growth rate 16
({accuracy_teacher:.2f} %). `log.csv` has a line for each epoch.

| | |
| --- | --- |
{card}
| data | Fashion-MNIST (Zalando Research, MIT licence), of Debian's dataset-fashion-mnist |

The time is a prediction: no file of this compiler has run on a real DPU yet. Made by
`{command}`; `tutelage export models/fashion-densenet -o DIR` writes its
model directory, and reads Fashion-MNIST for the figures.
"""


# ----------------------------------------------------------------------------- main


def write_model(runs: Path, output: Path, data: tuple[DataSet, DataSet], command: str) -> Facts:
    """Export and compile the model and measure its accuracy; return the figures for the READMEs."""
    test = data[1]
    export(runs / "qkd", output, images=0, data=data)
    compile_model(plan_compile(output, None, CompileOptions(DEFAULT_BOARD)), print)
    scores = run_xmodel(output / COMPILED, test)
    shipped = shipped_indices(test.labels, len(test.classes))
    write_images(test, shipped, output / "images")
    facts: Facts = {
        "accuracy_teacher": accuracy_of(runs / "teacher"),
        "accuracy_float": accuracy_of(runs / "student"),
        "accuracy_int8": round(accuracy(scores, test.labels), 4),
        "images": len(shipped),
        "accuracy_images": round(accuracy(scores[shipped.numpy()], test.labels[shipped]), 2),
        "script": command,
    }
    description = read_description(output / DESCRIPTION)
    description.provenance.update(**facts, dataset="Fashion-MNIST (Zalando Research, MIT licence)")
    write_description(output / DESCRIPTION, description)
    run = runs / "qkd" / STUDENT
    card = "\n".join(card_rows(load_student(run, *read_state(run), test), output / COMPILED))
    return {
        **description.provenance, "command": command, "per_class": SHIPPED_PER_CLASS, "card": card,
    }  # fmt: skip


def _make(options: argparse.Namespace) -> Facts:
    command = f"python -m tutelage.host.train.demo --seed {options.seed}"
    data = load("idx", options.data, "train"), load("idx", options.data, "test")
    configs = configurations(options.runs, options.data, options.seed, options.epochs)
    train_all(options.runs, configs, data)
    facts = write_model(options.runs, options.output, data, command)
    (options.output / "README.md").write_text(README.format(**facts), encoding="utf-8")
    options.models.mkdir(parents=True, exist_ok=True)
    for file in (STUDENT, LOG):
        shutil.copy(options.runs / "qkd" / file, options.models / file)
    text = CHECKPOINT_README.format(**facts)
    (options.models / "README.md").write_text(text, encoding="utf-8")
    return facts


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tutelage.host.train.demo", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_IDX, help="directory of the four IDX .gz files"
    )
    parser.add_argument("--output", type=Path, default=Path("app/demo"), help="model directory")
    parser.add_argument(
        "--models", type=Path, default=Path("models/fashion-densenet"), help="checkpoint and log"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/demo"), help="directory of the training runs"
    )
    parser.add_argument(
        "--epochs", type=int, default=0, help="epochs of each run; 0: as for the shipped model"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training runs")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)

    def work() -> int:
        facts = _make(options)
        print(f"float {facts['accuracy_float']:.2f} %  int8 {facts['accuracy_int8']:.2f} %")
        return DONE

    return run_command("train_demo", work)


if __name__ == "__main__":
    sys.exit(main())
