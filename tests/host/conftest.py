"""Fixtures of the workstation's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Two threads that share a busy core wait for each other a hundred times longer than one."""
    try:
        import torch
    except ImportError:  # the tests themselves then skip, with a reason
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
