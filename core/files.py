"""Atomic replacement, bounded reading and checksums of files; scratch directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_BYTES_AT_ONCE = 1 << 20  # so that an xclbin or an hour of frames is not in memory as a whole


@contextmanager
def replaced(path: Path, *, durable: bool = False, mode: int | None = None) -> Iterator[Path]:
    """Yield a new, empty file beside `path` that atomically replaces it at the end of the block.

    Other processes see either the old or the new file, even if this process is killed. If the
    block fails, the old file is kept and the new one is removed.

    Parameters
    ----------
    durable : sync the file and its directory to disk, so that the new file survives a power cut
    mode : permissions; None means read and write for all, reduced by the umask

    Raises
    ------
    OSError
        The directory cannot be written.
    ValueError
        `path` does not name a file, such as "/" or "..".
    """
    partial = path.with_name(f".{path.name}.{os.urandom(3).hex()}.partial")
    # O_EXCL: never an existing file or link, since others may be able to write to the directory.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield partial
        if mode is not None:
            partial.chmod(mode)
        if durable:
            _sync(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        _sync(path.parent)  # the rename is recorded in the directory


def write_file(
    path: Path, content: str | bytes | memoryview, *, durable: bool = False, mode: int | None = None
) -> None:
    """Write a whole file as `replaced` does; write to a pipe, terminal or device directly.

    Parameters
    ----------
    content : text is encoded as UTF-8, lone surrogates as backslash escapes

    Raises
    ------
    OSError, ValueError
        As for `replaced`.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    with replaced(path, durable=durable, mode=mode) as partial:
        partial.write_bytes(content)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def scratch_directory(folder: Path) -> Iterator[Path]:
    """Make an empty directory for the block and remove it afterwards with its contents.

    If it is on the file system of a result, files can be moved from it in one step each.

    Raises
    ------
    OSError
        It cannot be created.
    """
    import shutil

    shutil.rmtree(folder, ignore_errors=True)  # left over from a killed process
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a file, or its first `most` + 1 if it is larger than `most`.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        return read_open_bounded(file, most)


def read_open_bounded(file: IO[bytes], most: int) -> bytes:
    """Return the bytes of an open file as `read_bounded` does."""
    # No more than the file's size: Python allocates the whole requested size.
    size = min(os.fstat(file.fileno()).st_size, most)
    data = file.read(size + 1)
    if len(data) > size:  # it is larger, is growing, or has no size (pipes, /dev/zero)
        data += file.read(most + 1 - len(data))
    return data


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file from its current position, in hexadecimal."""
    import hashlib  # loads OpenSSL, which takes longer than the rest of this module

    digest = hashlib.sha256()
    while block := file.read(_BYTES_AT_ONCE):
        digest.update(block)
    return digest.hexdigest()
