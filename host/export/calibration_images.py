"""Calibration images: pictures of a directory, tensors, or batches of a loader."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.images.image_files import skipped_line, walk_images
from tutelage.core.images.input_form import InputForm
from tutelage.core.text import counted
from tutelage.host.train.data import DataError
from tutelage.host.train.data.formats.folder import FolderPictures
from tutelage.host.train.data.formats.pictures import read_all
from tutelage.host.train.data.path_table import PathTable
from tutelage.host.train.data.stored_images import StoredImages

CALIBRATION_IMAGES = 1000

HUGGING_FACE = "pixel_values"
"""Key of the images in a batch of Hugging Face's image processors."""

Batch = Tensor | Sequence[Any] | Mapping[str, Any]
"""Batch of a loader: images, (images, labels), or a dict."""


def read_pictures(folder: Path, form: InputForm, most: int = CALIBRATION_IMAGES) -> Tensor:
    """Read pictures in or below a directory, evenly spaced if there are more than `most`.

    Broken ones are left out, with a warning that names some of them.

    Returns
    -------
    uint8 (N, C, H, W) with N <= `most`

    Raises
    ------
    DataError
        There are no pictures, or none of them can be read.
    """
    skipped: Counter[str] = Counter()
    start = len(os.path.join(folder, ""))  # noqa: PTH118  (with the separator)
    try:
        paths = PathTable(folder, (path[start:] for path in walk_images(folder, skipped)))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    if not len(paths):
        reason = f" ({line})" if (line := skipped_line(skipped)) else ""
        raise DataError(f"{folder}: no images in this directory or below it{reason}")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))
    _, pixels = read_all(StoredImages(FolderPictures(paths.take(chosen)), form))
    return torch.from_numpy(pixels)


def take_images(
    network: nn.Module, batches: Iterable[Batch], most: int = CALIBRATION_IMAGES
) -> tuple[Tensor, ...]:
    """Return the first images of a loader, on the CPU.

    Parameters
    ----------
    network : its `forward` has the number and the names of the inputs
    batches : batches that `inputs_of` supports
    most : largest number of images; no further batch is requested from the loader

    Returns
    -------
    (N, ...) for each input of the network, N <= `most`

    Raises
    ------
    DataError
        There is no batch, a batch does not have the network's inputs, or its inputs differ in shape
        or type from those of the first.
    """
    parts: list[tuple[Tensor, ...]] = []
    count = 0
    for batch in batches:
        found = tuple(x.detach().cpu()[: most - count] for x in inputs_of(network, batch))
        if parts and _kinds(found) != _kinds(parts[0]):
            raise DataError(f"a calibration batch is {_shown(found)}, the first {_shown(parts[0])}")
        parts.append(found)
        count += len(found[0])
        if count >= most:
            break
    if not count:
        raise DataError("no calibration images: the loader has no batch")
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def inputs_of(network: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch that are the network's inputs, batch axis first.

    Those of a sequence are its first members, so that labels may follow; those of a dict have the
    names of the arguments of `network.forward` as keys, or, for a network of one input, the key
    "pixel_values", or are the only tensor of four axes.

    Raises
    ------
    DataError
        The batch does not have the network's inputs.
    """
    names = input_names(network)
    if isinstance(batch, Tensor):
        found: tuple[Any, ...] = (batch,)
    elif isinstance(batch, Mapping):
        found = _of_dict(names, batch)
    elif isinstance(batch, Sequence) and batch:
        several = isinstance(batch[0], (list, tuple))
        found = tuple(batch[0] if several else batch)[: len(names)]
    else:
        found = ()
    if len(found) != len(names) or not all(isinstance(x, Tensor) and x.ndim for x in found):
        raise DataError(
            f"a calibration batch is {_shown(batch)}; it must be the network's "
            f"{counted(len(names), 'input tensor')} ({', '.join(names)}), alone or before the "
            "labels, or a dict with them"
        )
    return found


def input_names(network: nn.Module) -> list[str]:
    """Return the names of the required arguments of `network.forward`; at least one."""
    arguments = inspect.signature(network.forward).parameters.values()
    wanted = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [a.name for a in arguments if a.kind in wanted and a.default is a.empty]
    return names or ["images"]


def _of_dict(names: list[str], batch: Mapping[str, Any]) -> tuple[Any, ...]:
    if all(name in batch for name in names):
        return tuple(batch[name] for name in names)
    if HUGGING_FACE in batch:
        return (batch[HUGGING_FACE],)
    return tuple(x for x in batch.values() if isinstance(x, Tensor) and x.ndim == 4)


def _kinds(tensors: Iterable[Tensor]) -> list[tuple[torch.dtype, torch.Size]]:
    return [(x.dtype, x.shape[1:]) for x in tensors]


def _shown(batch: object) -> str:
    """Return a description of a batch for a message of one line."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(x)}" for key, x in batch.items()) + "}"
    if isinstance(batch, (list, tuple)):
        return "(" + ", ".join(map(_shown, batch)) + ")"
    return type(batch).__name__
