"""A model and what one must know to feed it: a model directory or a bare .xmodel.

A model directory holds `model.xmodel` and `model.toml`:

    [input]                      # how an image becomes the model's input
    width = 28                   # pixels; must be what the .xmodel takes
    height = 28
    colour = "grey"              # "grey", "rgb" or "bgr": the order of the channels
    mean = [33.3]                # per channel in that order, in pixel values 0..255; default 0
    scale = [0.0129]             # input = (pixel - mean) * scale; default 1
    crop = "center"              # "none": the whole image, stretched (default);
                                 # "center": the largest middle part of the right shape
    [output]
    labels = ["t-shirt", "trouser"]   # one per output, in order
    activation = "softmax"       # default; "sigmoid"; "none": the outputs are confidences

    [provenance]                 # free; copied into the figures (--json)
    dataset = "Fashion-MNIST"

    [checksums]                  # SHA-256 of files beside model.toml; checked when given
    "model.xmodel" = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

[input] needs width, height and colour, [output] needs labels; everything else may be left out.

A bare .xmodel is taken with what it says itself: size and channels from its input tensor
(one channel is grey, three are BGR), pixel values 0..255 as they are, class numbers as labels,
and softmax unless the model ends in softmax or a sigmoid of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from board import dpu
from board.checksum import sha256_of
from board.dpu import ModelError
from dpu.input_form import COLOURS, CROPS, InputForm
from dpu.model_name import model_name
from dpu.toml_file import TomlError, read_toml

ACTIVATIONS = ("softmax", "sigmoid", "none")
MODEL_FILE, DESCRIPTION_FILE = "model.xmodel", "model.toml"

# What each table of model.toml may hold, and of which type; [provenance] is free.
_KEYS: dict[str, dict[str, type]] = {
    "input": {
        "width": int,
        "height": int,
        "colour": str,
        "mean": list,
        "scale": list,
        "crop": str,
    },
    "output": {"labels": list, "activation": str},
}
_REQUIRED = {"input": ("width", "height", "colour"), "output": ("labels",)}
_TYPE_NAMES = {int: "a whole number", str: "a string", list: "a list"}


@dataclass(frozen=True)
class Classifier:
    """A loaded model with its description.

    Attributes
    ----------
    name : for the reader: the directory's or the file's name
    network : the model itself, from `board.dpu`
    form : how images become its input
    labels : one per output
    activation : "softmax", "sigmoid" or "none"
    provenance : what model.toml says of its origin
    """

    name: str
    network: dpu.Model
    form: InputForm
    labels: tuple[str, ...]
    activation: str
    provenance: dict[str, Any]


def load_classifier(path: str | Path, plugins: str | Path | None = None) -> Classifier:
    """Load a model directory, or a bare .xmodel.

    A file named model.xmodel with a model.toml beside it is taken as its directory.

    Raises
    ------
    ModelError
        One line that names the file and what is wrong with it.
    """
    path = Path(path)
    if path.name in (MODEL_FILE, DESCRIPTION_FILE) and (path.parent / DESCRIPTION_FILE).is_file():
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
    """Return the classifier with some of its description replaced; None keeps what there is.

    Raises
    ------
    ModelError
        The new value does not fit the model.
    """
    form, where = classifier.form, classifier.name
    channels = len(form.mean)
    if colour is not None and COLOURS[colour] != channels:
        raise ModelError(f"{where}: takes {channels} channels, {colour} has {COLOURS[colour]}")
    form = replace(
        form,
        colour=colour or form.colour,
        mean=form.mean if mean is None else _channels(mean, channels, f"{where}: mean"),
        scale=form.scale if scale is None else _channels(scale, channels, f"{where}: scale"),
        crop=crop or form.crop,
    )
    names = classifier.labels if labels is None else tuple(labels)
    _check_label_count(names, classifier.network, classifier.name)
    return replace(classifier, form=form, labels=names)


def _load_bare(path: Path, plugins: str | Path | None) -> Classifier:
    network = dpu.load(path, plugins)
    height, width, channels = _input_shape(network, path)
    if channels not in COLOURS.values():
        raise ModelError(f"{path}: takes {channels} channels; an image has 1 or 3")
    form = InputForm(
        width,
        height,
        colour="grey" if channels == 1 else "bgr",
        mean=(0.0,) * channels,
        scale=(1.0,) * channels,
    )
    own_confidence = "sigmoid" in network.last_op or "softmax" in network.last_op
    labels = tuple(str(number) for number in range(_output_count(network)))
    return Classifier(
        path.name, network, form, labels, "none" if own_confidence else "softmax", provenance={}
    )


def _load_directory(folder: Path, plugins: str | Path | None) -> Classifier:
    description = folder / DESCRIPTION_FILE
    try:
        table = read_toml(description)
    except TomlError as error:
        raise ModelError(str(error)) from error
    where = str(description)
    _check_keys(table, where)
    _check_sums(folder, table.get("checksums", {}), where)
    network = dpu.load(folder / MODEL_FILE, plugins)
    form = _input_form(table["input"], where)
    expected = (form.height, form.width, len(form.mean))
    if _input_shape(network, folder / MODEL_FILE) != expected:
        taken = "x".join(str(size) for size in network.input.dims[1:])
        told = "x".join(str(size) for size in expected)
        raise ModelError(
            f"{where}: [input] says {told} (height, width, channels), {MODEL_FILE} takes {taken}"
        )
    output = table["output"]
    if not all(isinstance(label, str) for label in output["labels"]):
        raise ModelError(f"{where}: [output] labels must be strings")
    labels = tuple(output["labels"])
    _check_label_count(labels, network, where)
    activation = _one_of(
        output.get("activation", "softmax"), ACTIVATIONS, f"{where}: [output] activation"
    )
    return Classifier(
        model_name(folder), network, form, labels, activation, table.get("provenance", {})
    )


def _input_form(table: dict[str, Any], where: str) -> InputForm:
    colour = _one_of(table["colour"], tuple(COLOURS), f"{where}: [input] colour")
    channels = COLOURS[colour]
    return InputForm(
        width=table["width"],
        height=table["height"],
        colour=colour,
        mean=_channels(table.get("mean", [0.0] * channels), channels, f"{where}: [input] mean"),
        scale=_channels(table.get("scale", [1.0] * channels), channels, f"{where}: [input] scale"),
        crop=_one_of(table.get("crop", "none"), CROPS, f"{where}: [input] crop"),
    )


def _check_keys(table: dict[str, Any], where: str) -> None:
    """Refuse unknown tables and keys, missing ones and wrong types."""
    for name, content in table.items():
        if name not in (*_KEYS, "provenance", "checksums"):
            raise ModelError(f"{where}: unknown table or key {name}")
        if not isinstance(content, dict):
            raise ModelError(f"{where}: {name} must be a table, written [{name}]")
        if name in _KEYS:
            _check_types(name, content, where)
    for name, keys in _REQUIRED.items():
        for key in keys:
            if key not in table.get(name, {}):
                raise ModelError(f"{where}: {key} is missing in [{name}]")


def _check_types(name: str, content: dict[str, Any], where: str) -> None:
    for key, value in content.items():
        if key not in _KEYS[name]:
            known = ", ".join(_KEYS[name])
            raise ModelError(f"{where}: unknown key {key} in [{name}]; known are {known}")
        expected = _KEYS[name][key]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ModelError(f"{where}: [{name}] {key} must be {_TYPE_NAMES[expected]}")


def _check_sums(folder: Path, sums: dict[str, Any], where: str) -> None:
    for name, expected in sums.items():
        if not isinstance(expected, str):
            raise ModelError(f'{where}: [checksums] "{name}" must be a string')
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise ModelError(f"{folder / name}: {error.strerror or error}") from error
        if actual != expected.lower():
            raise ModelError(
                f"{folder / name}: SHA-256 is {actual}, {DESCRIPTION_FILE} says {expected}"
            )


def _channels(values: Sequence[Any], channels: int, where: str) -> tuple[float, ...]:
    """Return one number per channel; a single number stands for all."""
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise ModelError(f"{where} must be numbers")
    if not all(math.isfinite(v) for v in values):
        raise ModelError(f"{where} must be finite")
    if len(values) not in (1, channels):
        raise ModelError(f"{where} has {len(values)} numbers for {channels} channels")
    numbers = tuple(float(v) for v in values)
    return numbers * channels if len(numbers) == 1 else numbers


def _one_of(value: str, allowed: Sequence[str], where: str) -> str:
    if value not in allowed:
        raise ModelError(f'{where} is "{value}"; it must be one of {", ".join(allowed)}')
    return value


def _input_shape(network: dpu.Model, path: Path) -> tuple[int, int, int]:
    """Return height, width, channels of the model's input."""
    dims = network.input.dims
    if len(dims) != 4:
        raise ModelError(
            f"{path}: its input {list(dims)} is not an image (batch, height, width, channels)"
        )
    return dims[1], dims[2], dims[3]


def _output_count(network: dpu.Model) -> int:
    return math.prod(network.output.dims[1:])


def _check_label_count(labels: Sequence[str], network: dpu.Model, where: str) -> None:
    outputs = _output_count(network)
    if len(labels) != outputs:
        raise ModelError(f"{where}: {len(labels)} labels, the model has {outputs} outputs")
