"""Tables of tensors in files of weights: checkpoints of this project, safetensors and torch.save.

Files are untrusted. Pickles may have only tensors and plain containers, and are read by PyTorch's
weights_only reader; other files are refused.
"""

from __future__ import annotations

import argparse
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tutelage.core.errors import one_line
from tutelage.core.text import shown
from tutelage.host.train.checkpoint import STATE, CheckpointError, refuse_pipe, unreadable

MAX_PICKLE = 1 << 26
"""Most bytes of the pickle within a zip file of torch.save; it has names, but no values."""

MAX_DEPTH = 4
"""Levels of nested dictionaries to search for tensors."""

_LEGACY_PICKLES = 5
"""Number of pickles in a file of torch.save before version 1.6; the values follow them."""

_HARMLESS_MODULES = ("collections", "torch", "torch._utils", "torch._tensor", "torch.nn.parameter",
             "torch.serialization", "torch.storage", "_codecs", "argparse")  # fmt: skip
"""Modules that pickles of tensors refer to; argparse is for the options of a training script."""

_LFS_POINTER = b"version https://git-lfs"
"""First bytes of the text that Git leaves in place of a large file that was not fetched."""

_HARMLESS_BUILTINS = {("builtins", "set"), ("__builtin__", "set")}


@dataclass(frozen=True)
class Table:
    """Tensors by name.

    Attributes
    ----------
    place : keys that lead to the table, such as "student" or "checkpoint.state_dict"; "" for the
        top level of the file
    tensors : by name
    is_own : whether it is of a checkpoint of this project
    """

    place: str
    tensors: Mapping[str, Tensor]
    is_own: bool = False


def read_tables(path: Path) -> list[Table]:
    """Return the tables of a file, in the file's order; values are memory-mapped if possible.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, of another kind, or has more than tensors and plain
        containers.
    """
    try:
        refuse_pipe(path)
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CheckpointError(f"{path}: {reason}") from error
    if head[8:9] == b"{":
        return list(_read_safetensors(path))
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return list(_tables_in(_read_torch(path), "", set()))
    if head == _LFS_POINTER:
        raise CheckpointError(f"{path}: a Git LFS pointer, not the weights: run git lfs pull")
    raise CheckpointError(
        f"{path}: not a file of weights: neither safetensors nor a file of torch.save"
    )


def _read_safetensors(path: Path) -> Iterator[Table]:
    try:
        with safe_open(path, framework="pt") as file:
            is_own = STATE in (file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise unreadable(path, error) from error
    if not is_own:
        yield Table("", tensors)
        return
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    for part, named in parts.items():
        if not part.startswith("optimiser."):
            yield Table(part, named, is_own=True)


# -- files of torch.save ------------------------------------------------------------------------


def _read_torch(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    try:
        foreign = sorted(_foreign_names(path, is_zip))
        if not foreign:
            with torch.serialization.safe_globals([argparse.Namespace]), _no_warnings():
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, MemoryError, OSError,
            ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip  # damaged files cause any of these in the reader
        raise CheckpointError(
            f"{path}: damaged, or not a file of torch.save: {one_line(error)[:160]}"
        ) from error
    more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    raise CheckpointError(
        f"{path}: has Python objects ({shown(', '.join(foreign[:3]))}{more}), and loading these "
        "can run arbitrary code: if you trust the file, load it yourself and save only its tensors "
        "with torch.save(model.state_dict(), FILE)"
    )


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Suppress PyTorch's warnings about old file formats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _foreign_names(path: Path, is_zip: bool) -> set[str]:
    """Return the names in a file's pickles that are not those of tensors and plain containers.

    Raises
    ------
    CheckpointError
        The file is a program, or another kind of zip file.
    ValueError
        The file is compressed, which files of torch.save never are, or its pickle is too large.
    """
    if not is_zip:
        with path.open("rb") as file:
            return _foreign_in_all([file] * _LEGACY_PICKLES)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        _refuse_programs(path, {entry.filename.rpartition("/")[2] for entry in entries})
        if not pickles:
            raise CheckpointError(f"{path}: a zip file, but not of torch.save")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is a compressed zip file")
        if any(entry.file_size > MAX_PICKLE for entry in pickles):
            raise ValueError(f"its pickle has more than {MAX_PICKLE:,} bytes")
        return _foreign_in_all([archive.open(entry) for entry in pickles])


def _refuse_programs(path: Path, names: Collection[str]) -> None:
    """Refuse files of torch.jit and torch.export, which cannot be read without running them.

    Parameters
    ----------
    names : of the files within the zip file
    """
    programs = {
        "constants.pkl": ("a TorchScript program", "torch.jit.load({}).state_dict()"),
        "archive_format": ("a program of torch.export", "torch.export.load({}).state_dict"),
    }
    for name, (what, tensors) in programs.items():
        if name in names:
            tensors = tensors.format(f'"{shown(path.name)}"')
            raise CheckpointError(
                f"{path}: {what}, not a table of tensors: save only its tensors, "
                f'torch.save({tensors}, "weights.pth")'
            )


def _foreign_in_all(pickles: Iterable[IO[bytes]]) -> set[str]:
    """Return the foreign names of pickles; of damaged ones, those before the damage.

    Raises
    ------
    ValueError
        The pickles are damaged, and no foreign name was found.
    """
    found: set[str] = set()
    try:
        for file in pickles:
            for name in _foreign_in(file):
                found.add(name)  # one at a time, since the next may fail
    except ValueError:
        if not found:
            raise
    return found


def _foreign_in(file: IO[bytes]) -> Iterator[str]:
    """Yield the foreign names of one pickle.

    `bytearray` is one of them, since it allocates as much memory as its argument says. torch.save
    writes names only by the opcode GLOBAL; PyTorch's reader refuses others.
    """
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            if module not in _HARMLESS_MODULES and (module, name) not in _HARMLESS_BUILTINS:
                yield f"{module}.{name}"


def _tables_in(found: Any, place: str, seen: set[int]) -> Iterator[Table]:
    """Yield each dictionary that has tensors, the outer ones first."""
    if not isinstance(found, Mapping) or id(found) in seen or place.count(".") >= MAX_DEPTH:
        return
    seen.add(id(found))
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if _is_plain(value)}
    if tensors:
        yield Table(place, tensors)
    for key, value in named.items():
        yield from _tables_in(value, f"{place}.{key}" if place else key, seen)


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )
