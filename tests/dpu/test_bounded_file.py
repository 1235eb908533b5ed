"""Bounded reading, of files that tell their size and of those that do not."""

from __future__ import annotations

import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from tutelage.core.bounded_file import read_bounded


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 12, 1000])
def test_files_up_to_the_bound_and_one_byte_of_larger_ones(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert read_bounded(tmp_path / "a", 10) == content[:11]


def test_devices_and_pipes_that_tell_no_size(tmp_path: Path) -> None:
    assert read_bounded(Path("/dev/zero"), 10) == bytes(11)
    assert read_bounded(Path("/dev/null"), 10) == b""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"abcdef",))
    writer.start()
    assert read_bounded(tmp_path / "pipe", 10) == b"abcdef"
    writer.join()


def test_a_small_file_takes_no_memory_for_the_bound(tmp_path: Path) -> None:
    """Each image once took 256 MiB for a moment, which halved the speed of reading."""
    (tmp_path / "a").write_bytes(b"small")
    tracemalloc.start()
    try:
        read_bounded(tmp_path / "a", 1 << 28)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
