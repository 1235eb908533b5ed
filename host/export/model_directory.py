"""Export of a trained student's checkpoint to a model directory.

    tutelage export runs/qkd -o models/mine

writes `quantised.xmodel` (for `tutelage compile`), `model.onnx` (the same network as ONNX with
QuantizeLinear and DequantizeLinear) and `model.toml` (see core/model_package.py). It checks that
the DPU supports every layer, and that quantised.xmodel, read back, has the checkpoint's logits on
the image files of the test set, which are decoded, cropped, resized and quantised as in the
application. The files are only put in place if every logit is equal. An existing `model.xmodel` was
compiled from another export and is removed.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.files import scratch_directory, sha256_of
from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, Array, dequantise
from tutelage.core.images.preprocessor import Preprocessor
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    ONNX,
    QUANTISED,
    Description,
    check_files,
    read_description,
    write_description,
)
from tutelage.core.text import counted
from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.networks import is_own
from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import NotDeployable, to_quantised
from tutelage.host.train import checkpoint
from tutelage.host.train.checkpoint import CheckpointError
from tutelage.host.train.config import Config, make_config
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.image_io import encode_png, read_bgr
from tutelage.host.train.evaluation import batch_size
from tutelage.host.train.loop import STUDENT
from tutelage.host.train.run_data import load_split
from tutelage.host.train.student_kinds import STUDENT_KINDS
from tutelage.host.train.students import make_network


class ExportError(TutelageError):
    """The student cannot be exported; the text has the reason and a remedy."""

    status = FAILED


@dataclass(frozen=True)
class Checkpoint:
    """A trained, quantised student.

    Attributes
    ----------
    path : of the checkpoint
    config : of its run
    accuracy : on the test set, in percent, as the run reported it
    student : in evaluation mode
    """

    path: Path
    config: Config
    accuracy: float
    student: Student

    @property
    def measure(self) -> str:
        """Meaning of `accuracy`: "accuracy", or "agreement" with the float network's classes."""
        return "accuracy" if self.config.data.is_labelled else "agreement"

    @property
    def parameters(self) -> int:
        """Number of parameters, not counting the thresholds."""
        found = self.student.named_parameters()
        return sum(parameter.numel() for name, parameter in found if name != "log2_t")


def export(
    source: Path, output: Path, images: int = 1000, clip: bool = False, allow_cpu: bool = False,
    data: tuple[DataSet, DataSet] | None = None, network: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Write the model directory `output`; return figures of the checks.

    They include "accuracy" on the test set and "accuracy_compared" on the compared images, in
    percent; for images without labels "agreement" and "agreement_compared" with the classes of the
    float network.

    Parameters
    ----------
    source : a run's directory, or its student.safetensors
    images : number of test images, read from their files, to compare the logits of; 0 for all
    clip : add ops that clip activations of fewer than 8 bits, see host/quantise/to_xmodel.py
    allow_cpu : allow ops that the DPU leaves to the CPU
    data : training and test set, if they are already loaded
    network : see `read_state`

    Raises
    ------
    CheckpointError, ConfigError, DataError
        The checkpoint, or the data that it was trained on, cannot be used.
    ExportError
        The DPU does not support the network, an image file has other pixels than in the test, a
        logit differs, or the output cannot be written.
    """
    path = source / STUDENT if source.is_dir() else source
    config, state = read_state(path, network)
    test = data[1] if data else load_split(config, "test")
    loaded = load_student(path, config, state, test)
    try:
        graph, outside = deployable_graph(loaded.student, _graph_name(config), clip, allow_cpu)
    except NotDeployable as error:
        raise ExportError(f"{path}: {error}") from error
    with scratch_inside(output) as scratch:
        graph.serialize(scratch / QUANTISED)
        (scratch / ONNX).write_bytes(to_onnx(graph))
        compared = test.take(images)
        _describe(scratch, loaded, test, graph, len(compared))
        figures = _compare(loaded, scratch, compared)
        figures["on_cpu"] = outside
        (output / COMPILED).unlink(missing_ok=True)
        for file in (QUANTISED, ONNX, DESCRIPTION):  # last the description, with their checksums
            (scratch / file).replace(output / file)
    return {"output": str(output), loaded.measure: loaded.accuracy, **figures}


def deployable_graph(
    student: Student, name: str, clip: bool = False, allow_cpu: bool = False
) -> tuple[Graph, dict[str, str]]:
    """Return a student's quantised graph, and its ops that are left to the CPU with the reasons.

    Parameters
    ----------
    clip, allow_cpu : see `export`

    Raises
    ------
    NotDeployable
        Activations have fewer than 8 bits and `clip` is off.
    ExportError
        The DPU leaves an op to the CPU and `allow_cpu` is off.
    """
    graph = to_quantised(student, name, clip)
    outside = on_cpu(graph)
    if outside and not allow_cpu:
        op, reason = next(iter(outside.items()))
        more = f", and {counted(len(outside) - 1, 'more op')}" if len(outside) > 1 else ""
        raise ExportError(
            f"{op}: {reason}{more}: change the network, or let the CPU compute it with --allow-cpu"
        )
    return graph, outside


# -- input --------------------------------------------------------------------------------------


def read_state(path: Path, network: str = "") -> tuple[Config, dict[str, Any]]:
    """Return the configuration and the state of a quantised student's checkpoint.

    Parameters
    ----------
    network : the name of the checkpoint's network, if it is a user's own. The checkpoint may come
        from elsewhere, and creating its network executes the code that it names: the caller allows
        this by naming it too.

    Raises
    ------
    CheckpointError
        The file is not a student's checkpoint, the student is not quantised for the DPU, or its
        network is a user's own other than `network`.
    """
    _, state = checkpoint.load(path)
    if not isinstance(state.get("config"), dict):
        raise CheckpointError(f"{path}: not a student's checkpoint: give a run's directory")
    config = make_config(state["config"], str(path))
    if not config.quantises:
        raise CheckpointError(f"{path}: a float run: quantise it first (method ptq, qat or qkd)")
    if not isinstance(state.get("accuracy", 0.0), int | float):
        raise CheckpointError(f"{path}: its accuracy is not a number")
    if not STUDENT_KINDS[config.quantisation.quantiser].has_dpu_form:
        raise CheckpointError(f"{path}: a {config.quantisation.quantiser} run has no DPU form")
    name = config.student.network
    if is_own(name) and name != network:
        raise CheckpointError(
            f"{path}: its network {name!r} is Python code, which would be executed; if you trust "
            f"it, add --network {shlex.quote(name)}"
        )
    return config, state


def load_student(path: Path, config: Config, state: dict[str, Any], data: DataSet) -> Checkpoint:
    """Return the student of a checkpoint, for images and classes like those of `data`.

    Raises
    ------
    CheckpointError, ConfigError
        Its weights are those of another network, or are not finite.
    """
    student = Student(
        make_network(config.student, data), data.shape, config.quantisation.bits(),
        replace=config.student.replace,
    )  # fmt: skip
    checkpoint.load_weights(student, path)
    deployed = [value for _, conv in student.convs() for value in conv.folded()]
    if not all(torch.isfinite(value).all() for value in (student.log2_t, *deployed)):
        raise CheckpointError(f"{path}: weights or thresholds are not finite: train it again")
    return Checkpoint(path, config, float(state.get("accuracy", 0.0)), student.eval())


def _graph_name(config: Config) -> str:
    """Return the network's name in characters that XIR allows."""
    name = config.student.network.rpartition(":")[2]
    return "".join(c if c.isalnum() else "_" for c in name)


# -- checks -------------------------------------------------------------------------------------


@torch.no_grad()
def _compare(loaded: Checkpoint, folder: Path, data: DataSet) -> dict[str, Any]:
    """Run the checkpoint on the data set's tensors, and .xmodel and ONNX file on its image files.

    Raises
    ------
    ExportError
        A file has other pixels than the data set, or a logit of the .xmodel differs.
    """
    student, model = loaded.student, load_engine(folder / QUANTISED)
    session = _onnx_session(folder / ONNX)
    files = _Files(folder, model)
    right = same_class = 0
    at_once = batch_size(data)
    for start in range(0, len(data), at_once):
        part = data.part(start, start + at_once)
        images, labels = part.inputs(), part.labels.numpy()
        wanted = student(images).numpy()
        found = model.run(files.inputs(part, images))
        if found.shape != wanted.shape or not np.array_equal(found, wanted):
            raise ExportError(
                "the file's logits differ from the checkpoint's: please report this as a bug"
            )
        (onnx,) = session.run(None, {"images": images.numpy()})
        right += int((found.argmax(1) == labels).sum())
        same_class += int((found.argmax(1) == onnx.argmax(1)).sum())
    return {
        "images_compared": len(data),
        "logits_equal": True,
        f"{loaded.measure}_compared": round(100 * right / len(data), 4),
        "onnx_same_class": round(100 * same_class / len(data), 4),
    }


class _Files:
    """Conversion of a data set's image files to the input of an .xmodel, as in the application.

    Parameters
    ----------
    folder : directory of the model.toml, also used for temporary files
    model : the quantised .xmodel
    """

    def __init__(self, folder: Path, model: Model) -> None:
        description = read_description(folder / DESCRIPTION)
        check_files(folder, description.checksums)
        self._png = folder / "image.png"
        self._fix_point = _input_fix_point(model)
        self._preprocess = Preprocessor(description.form, self._fix_point)

    def inputs(self, data: DataSet, images: Tensor) -> Array:
        """Return the inputs, float32 (N, H, W, C), which must equal `images`, quantised.

        Parameters
        ----------
        data : a part of the data set; images that are not files are written to a file first
        images : its normalised images (N, C, H, W)

        Raises
        ------
        ExportError
            A file has other pixels.
        """
        wanted = quantise(images, self._fix_point, INT8_MIN, INT8_MAX).permute(0, 2, 3, 1).numpy()
        target = np.empty(wanted.shape[1:], np.int8)
        for index in range(len(data)):
            path = data.files[index] if data.files else self._png
            if not data.files:
                path.write_bytes(encode_png(data.pixels([index])[0]))
            self._preprocess(read_bgr(path), target)
            if not np.array_equal(dequantise(target, self._fix_point), wanted[index]):
                raise ExportError(
                    f"{path}: its pixels differ between training and the application: if the file "
                    "has changed meanwhile, export again"
                )
        return wanted


def _input_fix_point(model: Model) -> int:
    """Return the fix point of a quantised graph's only input, which is that of its `fix` op."""
    (data,) = model.program.inputs
    fixes = (op for op in model.graph.get_ops() if op.get_type() == "fix")
    return int(next(op for op in fixes if op.get_input_op("input") is data).get_attr("fix_point"))


def _onnx_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


# -- output -------------------------------------------------------------------------------------


def _describe(folder: Path, loaded: Checkpoint, data: DataSet, graph: Graph, compared: int) -> None:
    """Write model.toml beside the files whose checksums it has."""
    config, points = loaded.config, loaded.student.fix_points().activations
    layers = list(loaded.student.layers)
    provenance = {
        "name": f"{config.student.network} {config.method}",
        "method": config.method,
        "bits": config.quantisation.bits().label,
        "teacher": config.teacher.network if config.needs_teacher else "",
        "dataset": f"{config.data.kind} {config.data.path}".strip(),
        "epochs": config.training.epochs,
        "seed": config.seed,
        # Top-1 in percent of the whole test set, as the run reported it.
        loaded.measure: loaded.accuracy,
        "test_images": len(data),
        "logits_compared": compared,
        "input_fix_point": points[layers[0]],
        "output_fix_point": points[layers[-1]],
        "graph": graph.get_name(),
        "parameters": loaded.parameters,
        "checkpoint_sha256": sha256_of(loaded.path),
        "torch": torch.__version__,
        "date": datetime.date.today(),
    }
    sums = {name: sha256_of(folder / name) for name in (QUANTISED, ONNX)}
    description = Description(
        data.form, data.classes, loaded.student.activation, provenance, checksums=sums
    )
    write_description(folder / DESCRIPTION, description)


@contextmanager
def scratch_inside(output: Path) -> Iterator[Path]:
    """Yield a directory inside `output`, from which files can be moved atomically.

    Raises
    ------
    ExportError
        A file cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch_directory(output / f".export-{os.getpid()}") as folder:
            yield folder
    except OSError as error:
        place = error.filename or output
        raise ExportError(f"{place}: {error.strerror or error}: give another --output") from error
