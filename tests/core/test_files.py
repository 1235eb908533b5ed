"""Files: bounded reading, replacing in one step, checksums, scratch directories."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import tracemalloc
from pathlib import Path

import pytest

from tutelage.core.files import (
    read_bounded,
    replaced,
    scratch_directory,
    sha256_of,
    sha256_of_open,
    write_file,
)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 12, 1000])
def test_files_up_to_the_bound_and_one_byte_of_larger_ones(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert read_bounded(tmp_path / "a", 10) == content[:11]


def test_devices_and_pipes_without_a_size(tmp_path: Path) -> None:
    assert read_bounded(Path("/dev/zero"), 10) == bytes(11)
    assert read_bounded(Path("/dev/null"), 10) == b""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"abcdef",))
    writer.start()
    assert read_bounded(tmp_path / "pipe", 10) == b"abcdef"
    writer.join()


def test_a_small_file_takes_no_memory_for_the_bound(tmp_path: Path) -> None:
    """Each image used to take 256 MiB for a moment, which halved the speed of reading."""
    (tmp_path / "a").write_bytes(b"small")
    tracemalloc.start()
    try:
        read_bounded(tmp_path / "a", 1 << 28)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# -- replacing --------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("content", ["täxt\udce9", b"bytes", memoryview(b"view")])
def test_the_new_content_takes_the_old_ones_place(
    content: str | bytes | memoryview, durable: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_file(path, content, durable=durable)
        assert reader.read() == b"old"
    wanted = "täxt\\udce9".encode() if isinstance(content, str) else bytes(content)
    assert path.read_bytes() == wanted and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="Is a directory"):
        write_file(tmp_path, b"x")
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "none" / "a", b"x")
    with pytest.raises(ValueError, match="empty name"), replaced(Path("/")):
        pass


def test_permissions_are_the_umasks_or_the_given_ones(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "usual", b"")
        write_file(tmp_path / "given", b"", mode=0o644)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"usual": 0o640, "given": 0o644}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "a").symlink_to("target")
    write_file(tmp_path / "a", b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "a").is_symlink() and (tmp_path / "a").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_file(tmp_path / "pipe", b"abc")
    reader.join()
    assert found == [b"abc"] and (tmp_path / "pipe").is_fifo()


def test_a_scratch_directory_is_empty_first_and_gone_after(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "of a killed process").touch()
    with pytest.raises(KeyError), scratch_directory(folder) as scratch:
        assert scratch == folder and not list(folder.iterdir())
        (folder / "a").touch()
        raise KeyError
    assert not folder.exists()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_checksums_are_of_the_whole_file(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    wanted = hashlib.sha256(content).hexdigest()
    assert sha256_of(tmp_path / "a") == sha256_of_open(io.BytesIO(content)) == wanted
