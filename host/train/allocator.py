"""Settings of the C library's allocator for memory that every training step reallocates."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3), from glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # the largest that glibc accepts on 64-bit systems
_KEPT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory instead of returning it to the system.

    The activations of a step are freed at its end and allocated again in the next: each page that
    was returned to the system then costs a page fault. Without glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, _KEPT)
