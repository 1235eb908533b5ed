"""Stands in for VART's older module `runner`, which AMD ships beside `vart`."""

from __future__ import annotations

from typing import Any

import vart


def Runner(subgraph: Any, mode: str) -> Any:
    """As `vart.Runner.create_runner`."""
    return vart.Runner.create_runner(subgraph, mode)
