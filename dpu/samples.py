"""Sample inputs of a model: .npy arrays, or images turned into what the model takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dpu.arithmetic import Array
from dpu.errors import DpuError
from dpu.pictures import is_cut_off, read_picture
from dpu.program import Program
from dpu.toml_file import read_toml

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""Names that are taken for images in a directory."""

COLOURS = {"grey": 1, "rgb": 3, "bgr": 3}
"""Order of the channels and their number."""


def load_npy(path: Path) -> Array:
    """A float32 or int8 array from a .npy file.

    Raises
    ------
    DpuError
        The file is missing, no .npy file, or holds another element type.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DpuError(f"{path}: {error.strerror or 'not a .npy file'}") from None
    except Exception:  # numpy reads headers as Python: IndexError, TokenError, SyntaxError, ...
        raise DpuError(f"{path}: not a .npy file of numbers, or truncated") from None
    if not isinstance(array, np.ndarray):
        raise DpuError(f"{path}: a .npz archive; a .npy file is wanted")
    if array.dtype.kind != "f" and array.dtype != np.int8:
        raise DpuError(f"{path}: holds {array.dtype}; float32 or int8 is wanted")
    return array if array.dtype == np.int8 else array.astype(np.float32, copy=False)


def split_name(text: str) -> tuple[str | None, Path]:
    """Split NAME=FILE; a plain FILE has no name."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and not Path(text).exists() else (None, Path(text))


def load_arrays(program: Program, texts: Sequence[str], option: str = "--input") -> list[Array]:
    """The arrays of a program's inputs in its order, from [NAME=]FILE.npy each.

    Raises
    ------
    DpuError
        A file is bad, an input is missing or not there.
    """
    names = [op.get_name() for op in program.inputs]
    given: dict[str, Array] = {}
    for position, text in enumerate(texts):
        name, path = split_name(text)
        if name is None:
            if len(texts) > len(names):
                raise DpuError(f"{len(texts)} inputs given, the model has {len(names)}: {names}")
            name = names[position]
        if name not in names:
            raise DpuError(f"no input {name!r}; the model has {', '.join(names)}")
        given[name] = load_npy(path)
    missing = [name for name in names if name not in given]
    if missing:
        raise DpuError(f"no {option} for {', '.join(missing)} (write {option} NAME=FILE)")
    return [given[name] for name in names]


@dataclass(frozen=True)
class ImageForm:
    """How an image becomes the model's input.

    Attributes
    ----------
    colour : "grey", "rgb" or "bgr": the order of the channels
    mean, scale : per channel or one for all; input = (pixel 0..255 - mean) * scale
    crop : "none" stretches the whole image, "center" takes its largest middle part
    """

    colour: str
    mean: Sequence[float] = (0.0,)
    scale: Sequence[float] = (1.0,)
    crop: str = "none"


def image_form(
    xmodel: Path,
    channels: int,
    colour: str | None = None,
    mean: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
) -> ImageForm:
    """The form from [input] of a model.toml beside the .xmodel, what is given taking its place.

    Without model.toml: grey or BGR, pixels as they are.

    Raises
    ------
    DpuError
        model.toml cannot be read, or something does not fit `channels`.
    """
    form = ImageForm("grey" if channels == 1 else "bgr")
    description = xmodel.parent / "model.toml"
    if description.is_file():
        form = _described(form, description)
    chosen: dict[str, Any] = {"colour": colour, "mean": mean, "scale": scale}
    form = replace(form, **{key: value for key, value in chosen.items() if value is not None})
    if COLOURS[form.colour] != channels:
        raise DpuError(f"{form.colour} has {COLOURS[form.colour]} channels, the model {channels}")
    for what, values in (("mean", form.mean), ("scale", form.scale)):
        if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
            raise DpuError(f"{what} {list(values)}: one finite number, or one for each channel")
    return form


def _described(form: ImageForm, path: Path) -> ImageForm:
    """`form` with what [input] of a model.toml says."""
    table = read_toml(path).get("input", {})
    if not isinstance(table, dict):
        raise DpuError(f"{path}: input must be a table, written [input]")
    for key, allowed in (("colour", tuple(COLOURS)), ("crop", ("none", "center"))):
        if table.get(key, allowed[0]) not in allowed:
            raise DpuError(f"{path}: [input] {key} must be one of {', '.join(allowed)}")
    for key in ("mean", "scale"):
        values = table.get(key, [])
        if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
            raise DpuError(f"{path}: [input] {key} must be a list of numbers")
    known = ("colour", "mean", "scale", "crop")
    return replace(form, **{key: table[key] for key in known if table.get(key)})


class Samples:
    """Inputs that are read piece by piece: `len` images, and the arrays of any slice of them."""

    def __init__(self, program: Program, texts: Sequence[str], form: Any) -> None:
        """Take .npy files or images; `form(channels)` gives the images' `ImageForm`.

        Raises
        ------
        DpuError
            The files do not fit the model, or there are none.
        """
        self._arrays: list[Array] = []
        self._files: list[Path] = []
        if not program.inputs:
            raise DpuError("the model has no input")
        if all(split_name(text)[1].suffix == ".npy" for text in texts):
            self._arrays = load_arrays(program, texts, "--images")
            feeds = zip(program.inputs, self._arrays, strict=True)
            self._count = program.check_feeds({op.get_name(): array for op, array in feeds})
            return
        if len(program.inputs) > 1:
            raise DpuError("the model has several inputs: give .npy files (--images NAME=FILE.npy)")
        dims = program.inputs[0].get_output_tensor().dims
        if len(dims) != 4 or dims[0] != 1 or dims[3] not in COLOURS.values():
            raise DpuError(f"the model's input {dims} is no image; give a .npy file")
        self._size, self._form = (dims[2], dims[1]), form(dims[3])
        self._files = _image_files(texts)
        self._count = len(self._files)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, span: slice) -> list[Array]:
        """One array per input, float32 or int8, NHWC."""
        if self._files:
            return [np.stack([self._image(path) for path in self._files[span]])]
        # An input may hold several rows for each image of the batch.
        per_image = [len(array) // self._count for array in self._arrays]
        start, stop, _ = span.indices(self._count)
        return [a[start * n : stop * n] for a, n in zip(self._arrays, per_image, strict=True)]

    def _image(self, path: Path) -> Array:
        """float32 (H, W, C): cropped, resized, in the model's colours, less mean, times scale."""
        cv2 = _opencv()
        try:
            data = read_picture(path)
        except ValueError as error:
            raise DpuError(f"{path}: {error}") from None
        try:
            whole = bool(data) and not is_cut_off(data)
            pixels = np.frombuffer(data, np.uint8)
            image = cv2.imdecode(pixels, cv2.IMREAD_COLOR) if whole else None
        except cv2.error:  # of a size that OpenCV refuses
            image = None
        if image is None:
            raise DpuError(f"{path}: not an image that OpenCV reads")
        if self._form.crop == "center":
            image = _center(image, *self._size)
        shrinks = image.shape[1] > self._size[0] or image.shape[0] > self._size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, self._size, interpolation=method)
        if self._form.colour == "grey":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
        elif self._form.colour == "rgb":
            image = image[..., ::-1]
        mean, scale = (np.asarray(v, np.float64) for v in (self._form.mean, self._form.scale))
        return ((image - mean) * scale).astype(np.float32)


def _center(image: Array, width: int, height: int) -> Array:
    """The largest middle part of an image with the shape of width x height."""
    rows, columns = image.shape[:2]
    part_columns = max(1, min(columns, round(rows * width / height)))
    part_rows = max(1, min(rows, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise DpuError("images need OpenCV (pip install opencv-python-headless)") from None
    return cv2


def _image_files(texts: Sequence[str]) -> list[Path]:
    """The images among the paths and below those that are directories, sorted by name."""
    files: list[Path] = []
    for path in map(Path, texts):
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.suffix == ".npy" or not path.exists():
            problem = "no such file" if not path.exists() else "either .npy files or images"
            raise DpuError(f"{path}: {problem}")
        else:
            files.append(path)
    if not files:
        raise DpuError(f"no images in {', '.join(texts)}")
    return files
