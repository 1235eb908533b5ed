"""Read and write a model directory: `model.xmodel` and its description, `model.toml`.

    [input]                      # how an image becomes the model's input
    width = 28                   # pixels; must match the .xmodel
    height = 28
    colour = "grey"              # "grey", "rgb" or "bgr": the order of the channels
    mean = [33.3]                # per channel in that order, on the pixels' scale 0..255; default 0
    scale = [0.0129]             # input = (pixel - mean) * scale; default 1
    crop = "center"              # "none": the whole image, stretched (default);
                                 # "center": the largest centred part of the right shape
    [output]
    labels = ["t-shirt", "trouser"]   # one per output, in order
    activation = "softmax"       # default; "sigmoid"; "none": the outputs are confidences

    [provenance]                 # any keys; copied into the figures (--json)
    dataset = "Fashion-MNIST"

    [checksums]                  # SHA-256 of files beside model.toml; checked when given
    "model.xmodel" = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

[input] needs width, height and colour, [output] needs labels; everything else is optional.
mean and scale take one number per channel, or one for all. Each label names its class: an empty one
is an error, and one shared by several classes is shown with the class number, "crane (134)".
[checksums] names regular files in the directory or below it: anything else is refused unopened.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.core.files import sha256_of, write_file
from tutelage.core.images.input_form import FormError, InputForm, not_one_of
from tutelage.core.toml_file import read_toml, to_toml

COMPILED, QUANTISED, ONNX = "model.xmodel", "quantised.xmodel", "model.onnx"
DESCRIPTION = "model.toml"
ACTIVATIONS = ("softmax", "sigmoid", "none")

MAX_PACKAGE_BYTES = 4 << 30
"""Largest size of all files in [checksums]: a 1 GiB model in both .xmodel forms and as ONNX."""

# The keys of each table and their types; [provenance] may have any.
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


class PackageError(DpuError):
    """A model directory cannot be used; the message is one line that names the file."""


@dataclass(frozen=True)
class Description:
    """The contents of a model.toml.

    Attributes
    ----------
    form : conversion of an image to the model's input
    labels : one per output, as written; see `distinct_labels`
    activation : one of ACTIVATIONS
    provenance : origin of the model, any keys
    checksums : file name within the directory -> SHA-256 in hexadecimal
    """

    form: InputForm
    labels: tuple[str, ...]
    activation: str = "softmax"
    provenance: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    def tables(self) -> dict[str, Any]:
        """Return the tables of the file, the inverse of `read_description`."""
        form = self.form
        return {
            "input": {
                "width": form.width, "height": form.height, "colour": form.colour,
                "mean": list(form.mean), "scale": list(form.scale), "crop": form.crop,
            },
            "output": {"labels": list(self.labels), "activation": self.activation},
            "provenance": self.provenance,
            "checksums": self.checksums,
        }  # fmt: skip


def compiled_file(model: Path) -> Path:
    """Return the path of the compiled .xmodel, given a model directory or the file itself.

    Raises
    ------
    PackageError
        The directory has none.
    """
    if not model.is_dir():
        return model
    path = model / COMPILED
    if not path.is_file():
        compile_it = f"first run tutelage compile {shlex.quote(str(model))}"
        raise PackageError(f"{model}: has no {COMPILED}: {compile_it}")
    return path


def named_file(model: str) -> Path | None:
    """Return the .xmodel that an argument names itself or by its model directory, else None.

    Raises
    ------
    PackageError
        The model directory has no compiled file.
    """
    path = Path(model)
    is_model = model.endswith(".xmodel") or (path / DESCRIPTION).is_file()
    return compiled_file(path) if is_model else None


def read_description(path: Path) -> Description:
    """Read a model.toml.

    Raises
    ------
    TomlError
        The file is missing, too large or not TOML.
    PackageError
        It is not a regular file, lacks a key, or has a key that is unknown or out of range.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise PackageError(f"{path}: not a regular file")
    table = read_toml(path)
    where = str(path)
    _check_keys(table, where)
    output = table["output"]
    labels = tuple(output["labels"])
    if not all(isinstance(label, str) for label in labels):
        raise PackageError(f"{where}: [output] labels must be strings")
    check_labels(labels, f"{where}: [output] labels")
    activation = output.get("activation", "softmax")
    if activation not in ACTIVATIONS:
        raise PackageError(f"{where}: [output] {not_one_of('activation', activation, ACTIVATIONS)}")
    checksums = table.get("checksums", {})
    _check_names(checksums, where)
    return Description(
        _form(table["input"], where), labels, activation, table.get("provenance", {}), checksums
    )


def write_description(path: Path, description: Description) -> None:
    """Write a model.toml, replacing the file atomically.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    write_file(path, to_toml(description.tables()))


def check_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Verify files of a model directory against their checksums.

    Raises
    ------
    PackageError
        A file is missing, is not a regular file within `folder` or has another checksum, or the
        files exceed MAX_PACKAGE_BYTES together.
    """
    size = 0
    for name, expected in checksums.items():
        path = folder / name
        try:
            size += _size_inside(folder, path)
            if size > MAX_PACKAGE_BYTES:
                raise PackageError(
                    f"{path}: the files in [checksums] exceed {MAX_PACKAGE_BYTES >> 30} GiB"
                )
            actual = sha256_of(path)
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror or error}") from error
        if actual != expected.lower():
            raise PackageError(f"{path}: SHA-256 is {actual}, {DESCRIPTION} says {expected}")


def check_labels(labels: Sequence[str], where: str) -> None:
    """Verify that no label is empty.

    Raises
    ------
    PackageError
        A label is empty or blank; the message starts with `where` and gives the class numbers.
    """
    empty = [str(number) for number, label in enumerate(labels) if not label.strip()]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        numbers = f"{', '.join(empty[:3])}{more}"
        raise PackageError(f"{where}: class {numbers} (from 0) has an empty label; give it a name")


def distinct_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return unique labels: duplicates get their class numbers, such as "crane (134)"."""
    counts = Counter(labels)
    if len(counts) == len(labels):
        return tuple(labels)
    return distinct_labels(
        [f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(labels)]
    )


def _form(table: dict[str, Any], where: str) -> InputForm:
    for name in ("mean", "scale"):
        for value in table.get(name, []):
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise PackageError(f"{where}: [input] {name} must be numbers")
    numbers = {name: tuple(table.get(name, ())) for name in ("mean", "scale")}
    try:
        return InputForm(**{**table, **numbers})
    except FormError as error:
        raise PackageError(f"{where}: [input] {error}") from error


def _check_keys(table: dict[str, Any], where: str) -> None:
    """Raise PackageError for unknown or missing tables and keys, and for wrong types."""
    for name, content in table.items():
        if name not in (*_KEYS, "provenance", "checksums"):
            raise PackageError(f"{where}: unknown table or key {name!r}")
        if not isinstance(content, dict):
            raise PackageError(f"{where}: {name} must be a table, written [{name}]")
        if name in _KEYS:
            _check_types(name, content, where)
    for name, keys in _REQUIRED.items():
        for key in keys:
            if key not in table.get(name, {}):
                raise PackageError(f"{where}: {key} is missing in [{name}]")


def _check_types(name: str, content: dict[str, Any], where: str) -> None:
    for key, value in content.items():
        if key not in _KEYS[name]:
            known = ", ".join(_KEYS[name])
            raise PackageError(f"{where}: unknown key {key!r} in [{name}]; expected one of {known}")
        expected = _KEYS[name][key]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise PackageError(f"{where}: [{name}] {key} must be {_TYPE_NAMES[expected]}")


def _check_names(checksums: dict[str, Any], where: str) -> None:
    """Raise PackageError for names that lead out of the directory and for malformed checksums."""
    for name, value in checksums.items():
        path = PurePosixPath(name)
        if not path.name or path.is_absolute() or ".." in path.parts or not name.isprintable():
            raise PackageError(
                f"{where}: [checksums] {name!r} does not name a file in the model's directory"
            )
        if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
            raise PackageError(f"{where}: [checksums] {name!r} must be 64 hexadecimal digits")


def _size_inside(folder: Path, path: Path) -> int:
    """Return the size in bytes of a regular file within a folder, without opening it.

    Raises
    ------
    OSError
        There is no such file.
    PackageError
        It is a device, a pipe or a directory, or a link leads out of the folder.
    """
    place, root = os.path.realpath(path, strict=True), os.path.realpath(folder)
    if os.path.commonpath([root, place]) != root:
        raise PackageError(f"{path}: a link out of the model directory; copy the file into it")
    found = Path(place).stat()
    if not stat.S_ISREG(found.st_mode):
        raise PackageError(f"{path}: not a regular file")
    return found.st_size
