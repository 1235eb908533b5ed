"""Export of a quantised network in Python: the implementation of `tutelage.export`.

    student = tutelage.quantise(network, loader)
    tutelage.export(student, "models/mine", labels=["cat", "dog"], mean=[0.5], std=[0.5])

writes `quantised.xmodel`, `model.onnx`, `model.toml` and, compiled for a board, `model.xmodel`: the
same files that `tutelage export` and `tutelage compile` write for a run.
"""

from __future__ import annotations

import copy
import datetime
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.files import sha256_of
from tutelage.core.images.input_form import InputForm
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    ONNX,
    QUANTISED,
    Description,
    check_labels,
    write_description,
)
from tutelage.core.text import counted
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.compile.target import load_target
from tutelage.host.export.model_directory import ExportError, deployable_graph, scratch_inside
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.walker import input_shapes
from tutelage.host.train.data.data_set import channel_values, make_form
from tutelage.host.train.data.formats.folder import FolderFormat

CHECKED_IMAGES = 4
"""Number of random images for which the file must compute the student's outputs."""


def export_student(
    student: Student,
    folder: str | os.PathLike[str],
    *,
    labels: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    form: InputForm | None = None,
    activation: str | None = None,
    target: str | None = DEFAULT_BOARD,
    clip: bool = False,
    allow_cpu: bool = False,
) -> None:
    """Write a model directory, for `tutelage.load`, `classify` and `deploy`.

    The student is not modified, nor its device and mode.

    Parameters
    ----------
    student : result of `tutelage.quantise`, perhaps trained afterwards
    folder : directory for quantised.xmodel, model.onnx, model.toml and, with a target, model.xmodel
    labels : one for each output; numbers by default
    mean, std : normalisation of the network's input, for pixels in 0..1 as in torchvision: the
        input is (v / 255 - mean) / std, after a centre crop
    form : how pictures become inputs, instead of `mean` and `std`; by default that of `quantise`
    activation : function from outputs to confidences: "softmax", "sigmoid" or "none"; by default
        the one that the network ends with, else softmax
    target : target of model.xmodel: name of a board, "emulator", or a DPU's fingerprint; None
        compiles nothing
    clip : add ops that clip activations of fewer than 8 bits
    allow_cpu : allow ops that the DPU leaves to the CPU

    Raises
    ------
    NotDeployable, ExportError
        The DPU does not support the network, a value of the file differs, a parameter is not
        finite, the normalisation is not known, or the folder cannot be written.
    CompileError, CompileUsageError
        There is no such target, or it cannot run the network.
    PackageError
        A label is empty.
    FormError
        Shape, mean and std do not fit together.
    ValueError
        There are more or fewer labels than outputs.
    TypeError
        `student` is not a student.
    """
    if not isinstance(student, Student):
        raise TypeError(
            f"{type(student).__name__} is not quantised: give the result of tutelage.quantise"
        )
    if target is not None:
        load_target(target)  # raises for an unknown target before anything is written
    _check_ends(student)
    student = copy.deepcopy(student).cpu().eval()
    _check_finite(student)
    description = _describe(student, labels, _form(student, mean, std, form), activation)
    graph, _ = deployable_graph(student, "network", clip, allow_cpu)
    folder = Path(folder)
    with scratch_inside(folder) as scratch:
        graph.serialize(scratch / QUANTISED)
        (scratch / ONNX).write_bytes(to_onnx(graph))
        check_values(student, scratch / QUANTISED)
        for name in (QUANTISED, ONNX):
            description.checksums[name] = sha256_of(scratch / name)
        write_description(scratch / DESCRIPTION, description)
        (folder / COMPILED).unlink(missing_ok=True)  # compiled from another network
        for name in (QUANTISED, ONNX, DESCRIPTION):
            (scratch / name).replace(folder / name)
    if target is not None:
        compile_model(plan_compile(folder, None, CompileOptions(target)), say=_nothing)


def _nothing(text: str) -> None:
    """Discard a line of progress, which a command would print."""


def _check_ends(student: Student) -> None:
    """Raise ExportError for inputs and outputs that model.toml cannot describe."""
    shapes = input_shapes(student.input_shape)
    several = len(shapes) > 1 or len(student.outputs) > 1
    if several or len(shapes[0]) != 3 or shapes[0][0] not in (1, 3):
        raise ExportError(
            "a model directory is for one image of 1 or 3 channels and one output: to write the "
            '.xmodel only, call to_quantised(student, "name").serialize("net.xmodel") of '
            "tutelage.host.quantise.to_xmodel"
        )


def _form(
    student: Student, mean: Sequence[float], std: Sequence[float], form: InputForm | None
) -> InputForm:
    channels, height, width = input_shapes(student.input_shape)[0]
    mean, std = channel_values(mean), channel_values(std)
    if mean or std:
        return make_form((channels, height, width), mean, std, crop=FolderFormat.crop)
    form = form or student.form
    if form is None:
        raise ExportError(
            "the normalisation of the network's input is not known: give mean=[...] and std=[...], "
            "for pixels in 0..1, or form=InputForm(...)"
        )
    if (form.channels, form.height, form.width) != (channels, height, width):
        raise ExportError(
            f"form is for images of {form.channels}x{form.height}x{form.width}, the network's are "
            f"{channels}x{height}x{width}"
        )
    return form


def _describe(
    student: Student, labels: Sequence[str], form: InputForm, activation: str | None
) -> Description:
    outputs = math.prod(student.layer(student.output).shape)
    labels = tuple(labels) or tuple(map(str, range(outputs)))
    if len(labels) != outputs:
        raise ValueError(
            f"{counted(len(labels), 'label')}, but the network has {counted(outputs, 'output')}: "
            "give one label for each output"
        )
    check_labels(labels, "labels")
    points = student.fix_points().activations
    provenance = {
        "bits": student.bits.label,
        "input_fix_point": points[next(iter(student.layers))],
        "output_fix_point": points[student.output],
        "torch": torch.__version__,
        "date": datetime.date.today(),
    }
    return Description(form, labels, activation or student.activation, provenance)


def _check_finite(student: Student) -> None:
    deployed = [value for _, conv in student.convs() for value in conv.folded()]
    if not all(torch.isfinite(value).all() for value in (student.log2_t, *deployed)):
        raise ExportError("weights or thresholds are not finite: train with a lower learning rate")


@torch.no_grad()
def check_values(student: Student, path: Path) -> None:
    """Raise ExportError if an .xmodel computes other outputs than the student."""
    generator = torch.Generator().manual_seed(0)
    shapes = input_shapes(student.input_shape)
    inputs = [torch.randn(CHECKED_IMAGES, *shape, generator=generator) for shape in shapes]
    outputs = student(*inputs)
    named = zip(student.outputs, [outputs] if len(student.outputs) == 1 else outputs, strict=True)
    wanted = dict(named)  # a value that the network returns twice is one output of the file
    maps = [x if x.ndim == 4 else x.unsqueeze(2) for x in inputs]
    found = load_engine(path).run_all(*(x.permute(0, 2, 3, 1).numpy() for x in maps)).values()
    for (name, ours), values in zip(wanted.items(), found, strict=True):
        layer = student.layer(name)
        last = ours.permute(0, 2, 3, 1) if ours.ndim == 4 and layer.channels_last else ours
        if not np.array_equal(values.reshape(last.shape), last.numpy()):
            raise ExportError(
                "the file's values differ from the student's: please report this as a bug"
            )
