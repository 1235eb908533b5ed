"""Stand-in for VART's older module `runner`, which AMD ships with `vart`."""

from __future__ import annotations

from typing import Any

import vart


def Runner(subgraph: Any, mode: str) -> Any:
    """Return `vart.Runner.create_runner(subgraph, mode)`."""
    return vart.Runner.create_runner(subgraph, mode)
