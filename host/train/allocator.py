"""What the C library does with memory that training frees and takes again in every step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3), glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # what glibc takes on 64 bits
_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB that is freed, instead of returning it to the system.

    A step's maps are freed at its end and taken again in the next: each page of memory that was
    returned costs a page fault then. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, _KEPT)
