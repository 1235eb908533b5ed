"""Models with the description of their input and outputs: a model directory or a bare .xmodel.

`core/model_package.py` documents the directory and its model.toml.

For a bare .xmodel, size and channels come from its input tensor (one channel is grey, three are
BGR), pixel values 0..255 are used unchanged, labels are class numbers, and the activation is
softmax unless the model itself ends in softmax or a sigmoid. The file does not record how images
were preprocessed in training: `Classifier.notes` lists the assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.board import runner as dpu
from tutelage.board.model_parts import ModelError
from tutelage.core.deployed_model import model_name, plugin_of
from tutelage.core.images.input_form import COLOURS, FormError, InputForm, assumed_colour
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    PackageError,
    check_files,
    check_labels,
    distinct_labels,
    read_description,
)
from tutelage.core.text import counted
from tutelage.core.toml_file import TomlError

_FORM_OPTIONS = ("colour", "mean", "scale", "crop")
"""Parts of a form that an option of the same name overrides."""

_SHOWN_REPEATS = 4  # labels that a warning lists if several classes share them


@dataclass(frozen=True)
class Classifier:
    """A loaded model with its description.

    Attributes
    ----------
    name : the directory's or the file's name
    network : the loaded model (`tutelage.board.runner`)
    form : conversion of images to its input
    labels : one per output, all different (`tutelage.core.model_package.distinct_labels`)
    activation : "softmax", "sigmoid" or "none"
    provenance : the table of the same name in model.toml
    described : the form in model.toml; None for a bare file
    assumed : parts of the form that are assumed, not given
    repeated : the labels of classes that share their name with others
    """

    name: str
    network: dpu.LoadedModel
    form: InputForm
    labels: tuple[str, ...]
    activation: str
    provenance: dict[str, Any] = field(default_factory=dict)
    described: InputForm | None = None
    assumed: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Reasons why results may be wrong, one line each."""
        lines = []
        changed = [name for name in _FORM_OPTIONS if self._is_changed(name)]
        if self.described and changed:
            values = ", ".join(
                f"{name} {_shown(self.form, name)} instead of {_shown(self.described, name)}"
                for name in changed
            )
            lines.append(
                f"{self.name}: {values}: differs from {DESCRIPTION}, so the model gets other "
                "pixels than in training"
            )
        if self.repeated:
            shown, count = ", ".join(self.repeated[:_SHOWN_REPEATS]), len(self.repeated)
            more = f" and {count - _SHOWN_REPEATS} more" if count > _SHOWN_REPEATS else ""
            lines.append(
                f"{self.name}: {count} classes share their labels with others and are shown with "
                f"the class number: {shown}{more}"
            )
        return lines

    @property
    def notes(self) -> list[str]:
        """The warnings, and the assumptions made for a bare file, one line each."""
        if not self.assumed:
            return self.warnings
        values = ", ".join(f"{name} {_shown(self.form, name)}" for name in self.assumed)
        options = ", ".join(f"--{name}" for name in self.assumed)
        text = (
            f"{self.name} has no {DESCRIPTION}, so the preprocessing in training is unknown; "
            f"assumed: {values} ({options} change it)"
        )
        return [*self.warnings, text]

    def _is_changed(self, name: str) -> bool:
        return self.described is not None and getattr(self.form, name) != getattr(
            self.described, name
        )


def load_classifier(path: str | Path, plugins: str | Path | None = None) -> Classifier:
    """Load a model directory, or a bare .xmodel.

    A file named model.xmodel with a model.toml beside it is taken as its directory.

    Parameters
    ----------
    path : model directory or .xmodel file
    plugins : Python file with functions op_<type>(inputs, attrs) for operators run on the CPU; by
        default the one that was deployed with the model, if any

    Raises
    ------
    ModelError
        The model cannot be loaded; the message is one line that names the file and the fault.
    """
    path = Path(path)
    plugins = plugins or plugin_of(path)
    if path.name in (COMPILED, DESCRIPTION) and (path.parent / DESCRIPTION).is_file():
        path = path.parent
    if not path.exists():
        raise ModelError(f"{path}: no such file or directory")
    if path.is_dir():
        return _load_directory(path, plugins)
    return _load_bare(path, plugins)


def override(
    classifier: Classifier,
    labels: Sequence[str] | None = None,
    colour: str | None = None,
    mean: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    crop: str | None = None,
) -> Classifier:
    """Return the classifier with parts of its description replaced; None keeps the current value.

    Raises
    ------
    ModelError
        The new value does not fit the model.
    """
    given: dict[str, Any] = {"colour": colour, "mean": mean, "scale": scale, "crop": crop}
    given = {name: value for name, value in given.items() if value is not None}
    form, where = classifier.form, classifier.name
    if colour is not None and COLOURS[colour] != form.channels:
        raise ModelError(
            f"{where}: takes {counted(form.channels, 'channel')}, {colour} has {COLOURS[colour]}"
        )
    try:
        form = replace(form, **given)
    except FormError as error:
        raise ModelError(f"{where}: {error}") from error
    assumed = tuple(name for name in classifier.assumed if name not in given)
    classifier = replace(classifier, form=form, assumed=assumed)
    return classifier if labels is None else _labelled(classifier, labels, f"{where}: labels")


def _labelled(classifier: Classifier, labels: Sequence[str], where: str) -> Classifier:
    """Return the classifier with these labels, after checking them."""
    outputs = _output_count(classifier.network)
    if len(labels) != outputs:
        raise ModelError(
            f"{where}: {counted(len(labels), 'label')}, the model has {counted(outputs, 'output')}"
        )
    try:
        check_labels(labels, where)
    except PackageError as error:
        raise ModelError(str(error)) from error
    shown = distinct_labels(labels)
    repeated = tuple(new for new, old in zip(shown, labels, strict=True) if new != old)
    return replace(classifier, labels=shown, repeated=repeated)


def _load_bare(path: Path, plugins: str | Path | None) -> Classifier:
    network = dpu.load(path, plugins)
    height, width, channels = _input_shape(network, path)
    if channels not in COLOURS.values():
        raise ModelError(f"{path}: takes {counted(channels, 'channel')}; an image has 1 or 3")
    try:
        form = InputForm(width, height, colour=assumed_colour(channels))
    except FormError as error:
        raise ModelError(f"{path}: {error}") from error
    own_confidence = "sigmoid" in network.last_op or "softmax" in network.last_op
    labels = tuple(str(number) for number in range(_output_count(network)))
    assumed = _FORM_OPTIONS[channels == 1 :]  # one channel is grey
    return Classifier(
        path.name, network, form, labels, "none" if own_confidence else "softmax", assumed=assumed
    )


def _load_directory(folder: Path, plugins: str | Path | None) -> Classifier:
    where = folder / DESCRIPTION
    try:
        description = read_description(where)
        check_files(folder, description.checksums)
    except (PackageError, TomlError) as error:
        raise ModelError(str(error)) from error
    network, form = dpu.load(folder / COMPILED, plugins), description.form
    expected = (form.height, form.width, form.channels)
    if _input_shape(network, folder / COMPILED) != expected:
        taken = "x".join(str(size) for size in network.input.dims[1:])
        described = "x".join(str(size) for size in expected)
        raise ModelError(
            f"{where}: [input] says {described} (height, width, channels), {COMPILED} takes {taken}"
        )
    classifier = Classifier(
        model_name(folder), network, form, description.labels, description.activation,
        description.provenance, described=form,
    )  # fmt: skip
    return _labelled(classifier, description.labels, f"{where}: [output] labels")


def _shown(form: InputForm, name: str) -> str:
    """Format a part of a form, as one number if all channels have the same value."""
    value = getattr(form, name)
    if isinstance(value, str):
        return value
    return " ".join(f"{number:g}" for number in (value if len(set(value)) > 1 else value[:1]))


def _input_shape(network: dpu.LoadedModel, path: Path) -> tuple[int, int, int]:
    """Return (height, width, channels) of the model's input."""
    dims = network.input.dims
    if len(dims) != 4:
        raise ModelError(
            f"{path}: its input {list(dims)} is not an image (batch, height, width, channels)"
        )
    return dims[1], dims[2], dims[3]


def _output_count(network: dpu.LoadedModel) -> int:
    return math.prod(network.output.dims[1:])
