"""From a trained student's checkpoint to a model directory: what a compiler and the app need.

    python -m host export runs/qkd -o models/mine

writes `quantised.xmodel` (what `python -m host compile` takes), `model.onnx` (the same network as
ONNX with QuantizeLinear and DequantizeLinear) and `model.toml` (see app/model.py). On the way it
checks that the DPU takes every layer and that the file, read back, gives the checkpoint's logits
on real images, each of them. Nothing is put in place unless all of that holds. A `model.xmodel`
that lies there was compiled from another export: it goes.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpu.compile import on_cpu
from dpu.engine import load_engine
from dpu.xir import Graph
from host import checkpoint
from host.checkpoint import CheckpointError
from host.compile import COMPILED, DESCRIPTION, QUANTISED, scratch_directory, sha256
from host.config import Config, make_config
from host.data import MEAN, SCALE, DataSet, normalise
from host.onnx_qdq import to_onnx
from host.quantise.lower import NotDeployable, to_quantised
from host.quantise.student import Student
from host.toml_file import to_toml
from host.train import EVALUATION_BATCH, STUDENT, load_data, make_network

ONNX = "model.onnx"
COLOURS = {1: "grey", 3: "rgb"}


class ExportError(RuntimeError):
    """The student cannot be exported; the text says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained, quantised student.

    Attributes
    ----------
    path : the checkpoint's file
    config : the run that made it
    accuracy : in percent of the test set, as the run told
    student : in evaluation mode
    """

    path: Path
    config: Config
    accuracy: float
    student: Student


def export(
    source: Path, output: Path, images: int = 1000, clip: bool = False, allow_cpu: bool = False,
    data: tuple[DataSet, DataSet] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the model directory `output`; returns the figures of what was checked.

    Parameters
    ----------
    source : a run's directory, or its student.safetensors
    images : test images whose logits must be equal, 0 for all
    clip : add ops that clip activations of fewer than 8 bits, see host/quantise/lower.py
    allow_cpu : export also what the DPU leaves to the CPU
    data : training and test set, where they are loaded already

    Raises
    ------
    CheckpointError, ConfigError, DataError
        The checkpoint, or the data that it was trained on, cannot be used.
    ExportError
        The DPU cannot run it, a logit differs, or the output cannot be written.
    """
    path = source / STUDENT if source.is_dir() else source
    config, state = read_state(path)
    _, test = data or load_data(config)
    loaded = load_student(path, config, state, test)
    name = _graph_name(config)
    try:
        graph = to_quantised(loaded.student, name, clip)
    except NotDeployable as error:
        raise ExportError(f"{path}: {error}") from error
    outside = on_cpu(graph)
    if outside and not allow_cpu:
        op, reason = next(iter(outside.items()))
        more = f", and {len(outside) - 1} more ops" if len(outside) > 1 else ""
        raise ExportError(f"{op}: {reason}{more}; the CPU would compute it: --allow-cpu")
    with _scratch(output) as scratch:
        graph.serialize(scratch / QUANTISED)
        (scratch / ONNX).write_bytes(to_onnx(graph))
        figures = _compare(loaded.student, scratch, test.take(images))
        figures["on_cpu"] = outside
        _describe(scratch, loaded, test, graph, figures)
        (output / COMPILED).unlink(missing_ok=True)
        for file in (QUANTISED, ONNX, DESCRIPTION):  # the description last: it vouches for them
            (scratch / file).replace(output / file)
    return {"output": str(output), "accuracy": loaded.accuracy, **figures}


# -- what goes in -------------------------------------------------------------------------------


def read_state(path: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration and state of a student's checkpoint.

    Raises
    ------
    CheckpointError
        It is no student of ours, or one that has not been quantised.
    """
    _, state = checkpoint.load(path)
    if not isinstance(state.get("config"), dict):
        raise CheckpointError(f"{path}: not a student's checkpoint (give a run's directory)")
    config = make_config(state["config"], str(path))
    if config.method == "float":
        raise CheckpointError(f"{path}: a float run; quantise it first (method ptq, qat or qkd)")
    if not isinstance(state.get("accuracy", 0.0), int | float):
        raise CheckpointError(f"{path}: its accuracy is no number")
    if config.quantisation.quantiser != "tqt":
        raise CheckpointError(f"{path}: a {config.quantisation.quantiser} run has no DPU form")
    return config, state


def load_student(path: Path, config: Config, state: dict[str, Any], data: DataSet) -> Checkpoint:
    """The student of a checkpoint, for images and classes as those of `data`.

    Raises
    ------
    CheckpointError, ConfigError
        Its weights are another network's, or have no finite values.
    """
    student = Student(make_network(config.student, data), data.shape, config.quantisation.bits())
    checkpoint.load_weights(student, path)
    deployed = [value for _, conv in student.convs() for value in conv.folded()]
    if not all(torch.isfinite(value).all() for value in (student.log2_t, *deployed)):
        raise CheckpointError(f"{path}: its weights or thresholds are not finite; train it again")
    return Checkpoint(path, config, float(state.get("accuracy", 0.0)), student.eval())


def _graph_name(config: Config) -> str:
    """The network's name as XIR takes it."""
    name = config.student.network.rpartition(":")[2]
    return "".join(c if c.isalnum() else "_" for c in name)


# -- checks -------------------------------------------------------------------------------------


@torch.no_grad()
def _compare(student: Student, folder: Path, data: DataSet) -> dict[str, Any]:
    """Run checkpoint, .xmodel and ONNX on the same images.

    Raises
    ------
    ExportError
        A logit of the .xmodel differs.
    """
    model = load_engine(folder / QUANTISED)
    session = _onnx_session(folder / ONNX)
    right = same_class = 0
    for start in range(0, len(data), EVALUATION_BATCH):
        images = normalise(data.images[start : start + EVALUATION_BATCH])
        labels = data.labels[start : start + EVALUATION_BATCH].numpy()
        wanted = student(images).numpy()
        found = model.run(images.permute(0, 2, 3, 1).numpy())
        if found.shape != wanted.shape or not np.array_equal(found, wanted):
            raise ExportError("the file's logits differ from the checkpoint's; this is a bug")
        (onnx,) = session.run(None, {"images": images.numpy()})
        right += int((found.argmax(1) == labels).sum())
        same_class += int((found.argmax(1) == onnx.argmax(1)).sum())
    return {
        "images_compared": len(data),
        "logits_equal": True,
        "accuracy_compared": round(100 * right / len(data), 4),
        "onnx_same_class": round(100 * same_class / len(data), 4),
    }


def _onnx_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


# -- what comes out -----------------------------------------------------------------------------


def _describe(
    folder: Path, loaded: Checkpoint, data: DataSet, graph: Graph, figures: dict[str, Any]
) -> None:
    """Write model.toml beside the files that it has the checksums of."""
    channels, height, width = data.shape
    config, points = loaded.config, loaded.student.fix_points().activations
    layers = list(loaded.student.layers)
    provenance = {
        "name": f"{config.student.network} {config.method}",
        "method": config.method,
        "bits": f"W{config.quantisation.weights}A{config.quantisation.activations}",
        "teacher": config.teacher.network if config.needs_teacher else "",
        "dataset": f"{config.data.kind} {config.data.path}".strip(),
        "epochs": config.training.epochs,
        "seed": config.seed,
        # Top-1 in percent of the whole test set, as the run told.
        "accuracy": loaded.accuracy,
        "test_images": len(data),
        "logits_compared": figures["images_compared"],
        "input_fix_point": points[layers[0]],
        "output_fix_point": points[layers[-1]],
        "graph": graph.get_name(),
        "parameters": sum(p.numel() for n, p in loaded.student.named_parameters() if n != "log2_t"),
        "checkpoint_sha256": sha256(loaded.path),
        "torch": torch.__version__,
        "date": datetime.date.today(),
    }
    description = {
        "input": {
            "width": width, "height": height, "colour": COLOURS[channels],
            "mean": [MEAN] * channels, "scale": [SCALE] * channels, "crop": "none",
        },
        "output": {"labels": list(data.classes), "activation": "softmax"},
        "provenance": provenance,
        "checksums": {name: sha256(folder / name) for name in (QUANTISED, ONNX)},
    }  # fmt: skip
    (folder / DESCRIPTION).write_text(to_toml(description), encoding="utf-8")


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A directory inside `output`, so that files are put in place in one step each."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch_directory(output / f".export-{os.getpid()}") as folder:
            yield folder
    except OSError as error:
        place = error.filename or output
        raise ExportError(f"{place}: {error.strerror or error}; give another --output") from error
