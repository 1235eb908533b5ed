"""Files: replaced in one step, read up to a bound, and their checksums; scratch directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_BYTES_AT_ONCE = 1 << 20  # an xclbin or an hour of frames need not be in memory as a whole


@contextmanager
def replaced(path: Path, *, durable: bool = False, mode: int | None = None) -> Iterator[Path]:
    """Yield a new, empty file beside `path`, which takes its place at the end, in one step.

    Whoever reads `path` meanwhile, or after this process was killed, sees the old file or the new
    one. Where the block fails, the old one stays and the new one is removed.

    Parameters
    ----------
    durable : also after a cut of the power: the file and its name are on the disk at the end
    mode : permissions; None: what the umask leaves of read and write for all

    Raises
    ------
    OSError
        The place cannot be written.
    ValueError
        `path` names no file, as "/" and ".." do.
    """
    partial = path.with_name(f".{path.name}.{os.urandom(3).hex()}.partial")
    # Never an existing file or link: the directory may be open to others.
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
        _sync(path.parent)  # a renaming is an entry of the directory


def write_file(
    path: Path, content: str | bytes | memoryview, *, durable: bool = False, mode: int | None = None
) -> None:
    """Write a whole file as `replaced` does; a pipe, terminal or device is written to instead.

    Parameters
    ----------
    content : text is encoded as UTF-8, lone surrogates as Python writes them

    Raises
    ------
    OSError, ValueError
        As `replaced`.
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
    """Make an empty directory for the block; afterwards it is gone, whatever it then has.

    Within the directory of a result, files can be moved from it in one step each.

    Raises
    ------
    OSError
        It cannot be made.
    """
    import shutil

    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had the same name for it
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a file, `most` + 1 of them where there are more, for the caller to see.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        return read_open_bounded(file, most)


def read_open_bounded(file: IO[bytes], most: int) -> bytes:
    """Return the bytes of an open file as `read_bounded` does."""
    # As many bytes as there are: Python takes memory for all that is asked for.
    size = min(os.fstat(file.fileno()).st_size, most)
    data = file.read(size + 1)
    if len(data) > size:  # it is larger, it grows, or it has no size (pipes, /dev/zero)
        data += file.read(most + 1 - len(data))
    return data


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: IO[bytes]) -> str:
    """Return the SHA-256 of an open file's bytes from its position on, in hexadecimal."""
    import hashlib  # with OpenSSL, which takes longer than the rest of this file

    digest = hashlib.sha256()
    while block := file.read(_BYTES_AT_ONCE):
        digest.update(block)
    return digest.hexdigest()
