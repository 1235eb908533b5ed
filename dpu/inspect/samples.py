"""Sample inputs of a model: .npy arrays, or images converted to the model's input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, Array, dequantise
from tutelage.core.images.image_files import FoundImages, broken_line, find_images
from tutelage.core.images.input_form import (
    COLOURS,
    FormError,
    InputForm,
    assumed_colour,
    float_table,
)
from tutelage.core.model_package import DESCRIPTION, read_description
from tutelage.core.text import counted
from tutelage.dpu.engine.program import Program
from tutelage.dpu.xmodel.op import Op


def load_npy(path: Path) -> Array:
    """Read a float32 or int8 array from a .npy file.

    Raises
    ------
    DpuError
        The file is missing, is not a .npy file, or has another element type.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DpuError(f"{path}: {error.strerror or 'not a .npy file'}") from None
    except Exception:  # numpy reads headers as Python: IndexError, TokenError, SyntaxError, ...
        raise DpuError(f"{path}: not a .npy file of numbers, or truncated") from None
    if not isinstance(array, np.ndarray):
        raise DpuError(f"{path}: is a .npz archive; give a .npy file")
    if array.dtype.kind != "f" and array.dtype != np.int8:
        raise DpuError(f"{path}: has {array.dtype}; give float32 or int8")
    return array if array.dtype == np.int8 else array.astype(np.float32, copy=False)


def split_name(text: str) -> tuple[str | None, Path]:
    """Split NAME=FILE; return None as the name of a plain FILE."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and not Path(text).exists() else (None, Path(text))


def load_arrays(program: Program, texts: Sequence[str], option: str = "--input") -> list[Array]:
    """Return the arrays of a program's inputs in order, read from [NAME=]FILE.npy each.

    Raises
    ------
    DpuError
        A file is invalid, an input is missing or does not exist.
    """
    names = [op.get_name() for op in program.inputs]
    given: dict[str, Array] = {}
    for position, text in enumerate(texts):
        name, path = split_name(text)
        if name is None:
            if len(texts) > len(names):
                raise DpuError(
                    f"{counted(len(texts), 'input')} given, the model has {len(names)}: {names}"
                )
            name = names[position]
        if name not in names:
            raise DpuError(f"no input {name!r}; the model has {', '.join(names)}")
        given[name] = load_npy(path)
    missing = [name for name in names if name not in given]
    if missing:
        raise DpuError(f"no {option} for {', '.join(missing)} (write {option} NAME=FILE)")
    return [given[name] for name in names]


def random_inputs(program: Program, count: int) -> list[Array]:
    """Return seeded random int8 images of several contrasts for each input, as real numbers.

    They suit quantised and compiled files alike. High contrast saturates values that low contrast
    does not.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for op in program.inputs:
        dims = (count, *op.get_output_tensor().dims[1:])
        values = rng.integers(INT8_MIN, INT8_MAX + 1, dims, dtype=np.int8)
        for index in range(count):
            values[index] >>= index % 4
        arrays.append(dequantise(values, input_point(op) or 0))
    return arrays


def input_point(op: Op) -> int | None:
    """Return the fix point of an input: its own, or that of the op that quantises it, or None."""
    points = map(declared_point, [op, *op.get_fanout_ops()])
    return next((point for point in points if point is not None), None)


def declared_point(op: Op) -> int | None:
    """Return the fix point of an op or its tensor; None if neither has one."""
    for holder in (op, op.get_output_tensor()):
        if holder.has_attr("fix_point"):
            return int(holder.get_attr("fix_point"))
    return None


def image_form(
    xmodel: Path,
    shape: Sequence[int],
    colour: str | None = None,
    mean: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
) -> InputForm:
    """Return the form in [input] of model.toml beside the .xmodel, overridden by the arguments.

    Without model.toml: grey or BGR, and unscaled pixels.

    Parameters
    ----------
    shape : the model's input, (height, width, channels)
    mean, scale : per channel, or one number for all

    Raises
    ------
    DpuError
        model.toml cannot be read, or a value does not fit `shape`.
    """
    height, width, channels = shape
    given: dict[str, Any] = {"colour": colour, "mean": mean, "scale": scale}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"width": width, "height": height}
    try:
        if (description := xmodel.parent / DESCRIPTION).is_file():
            form = replace(read_description(description).form, **given)
        else:
            form = InputForm(**{"colour": assumed_colour(channels), **given})
    except FormError as error:
        raise DpuError(str(error)) from error
    if form.channels != channels:
        raise DpuError(
            f"{form.colour} has {counted(form.channels, 'channel')}, the model {channels}"
        )
    return form


class Samples:
    """Sample inputs that are read on demand: `len` images, and the arrays of any slice."""

    def __init__(
        self, program: Program, texts: Sequence[str], form: Callable[[Sequence[int]], InputForm]
    ) -> None:
        """Accept .npy files or images; `form((height, width, channels))` returns their conversion.

        Raises
        ------
        DpuError
            The files do not fit the model, or there are none.
        """
        self._arrays: list[Array] = []
        self._files: list[Path] = []
        self._broken: list[str] = []
        self._skipped: list[str] = []
        if not program.inputs:
            raise DpuError("the model has no input")
        if all(split_name(text)[1].suffix == ".npy" for text in texts):
            self._arrays = load_arrays(program, texts, "--images")
            feeds = zip(program.inputs, self._arrays, strict=True)
            self._count = program.check_feeds({op.get_name(): array for op, array in feeds})
            return
        if len(program.inputs) > 1:
            raise DpuError("the model has several inputs; give .npy files (--images NAME=FILE.npy)")
        dims = program.inputs[0].get_output_tensor().dims
        if len(dims) != 4 or dims[0] != 1 or dims[3] not in COLOURS.values():
            raise DpuError(f"the model's input {dims} is not an image; give a .npy file")
        self._form = form(dims[1:])
        self._table = float_table(self._form)
        self._fit, self._read = _image_tools(self._form)
        self._files, self._skipped = _image_files(texts)
        self._count = len(self._files)

    def __len__(self) -> int:
        return self._count

    @property
    def read(self) -> int:
        """Number of samples, without the images found broken so far."""
        return self._count - len(self._broken)

    def notes(self) -> list[str]:
        """Return a line for each kind of file that was skipped or found broken."""
        broken = broken_line(self._broken)
        return [*self._skipped, *([broken] if broken else [])]

    def batches(self, step: int) -> Iterator[list[Array]]:
        """Yield up to `step` samples at a time; broken images are skipped and recorded.

        Raises
        ------
        DpuError
            None of the images can be read.
        """
        for start in range(0, self._count, step):
            if not self._files:
                yield self[start : start + step]
                continue
            images = []
            for path in self._files[start : start + step]:
                try:
                    images.append(self._image(path))
                except DpuError as error:
                    self._broken.append(str(error))
            if images:
                yield [np.stack(images)]
        if not self.read:
            more = f"; the other {self._count - 1} neither" if self._count > 1 else ""
            raise DpuError(f"{self._broken[0]}{more}")

    def __getitem__(self, span: slice) -> list[Array]:
        """Return one array per input, float32 or int8, NHWC.

        Raises
        ------
        DpuError
            An image is broken.
        """
        if self._files:
            return [np.stack([self._image(path) for path in self._files[span]])]
        # An input may have several rows per image of the batch.
        per_image = [len(array) // self._count for array in self._arrays]
        start, stop, _ = span.indices(self._count)
        return [a[start * n : stop * n] for a, n in zip(self._arrays, per_image, strict=True)]

    def _image(self, path: Path) -> Array:
        """Return an image as the model's input, float32 (H, W, C)."""
        try:
            image = self._fit(self._read(path))
        except ValueError as error:
            raise DpuError(f"{path}: {error}") from None
        found: Array = self._table[image, np.arange(self._form.channels)]
        return found


def _image_tools(form: InputForm) -> tuple[Callable[[Array], Array], Callable[[Path], Array]]:
    """Return the fitter and the reader of images; imported here, since arrays need no OpenCV."""
    try:
        from tutelage.core.images.decoder import read_image
        from tutelage.core.images.fitter import ImageFitter
    except ImportError:
        raise DpuError("images need OpenCV (pip install opencv-python-headless)") from None
    return ImageFitter(form), read_image


def _image_files(texts: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the images among the paths and in those that are directories, sorted by name, and a
    line about the skipped files of each directory.
    """
    files: list[Path] = []
    skipped: list[str] = []
    for path in map(Path, texts):
        if path.is_dir():
            found = _found(path)
            files += found.images
            if line := found.report():
                skipped.append(f"{path}: {line}")
        elif path.suffix == ".npy" or not path.exists():
            both = "give either .npy files or images, not both"
            problem = "no such file" if not path.exists() else both
            raise DpuError(f"{path}: {problem}")
        else:
            files.append(path)
    if not files:
        reasons = "".join(f"; {line}" for line in skipped)
        raise DpuError(f"no images in {', '.join(texts)}{reasons}")
    return files, skipped


def _found(folder: Path) -> FoundImages:
    try:
        return find_images(folder)
    except OSError as error:
        raise DpuError(f"{folder}: {error.strerror or error}") from error
