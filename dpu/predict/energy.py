"""What a frame costs in joules: from measured runs where there are any, else a range that is sure.

Runs are what `python -m tutelage.app.measure` writes on the board, `results/<board>/*/run.json`;
those of the emulation tell nothing of a board. Where there are none, the board's power lies between
what it takes at rest and what its supply gives (its profile), and nothing narrower is claimed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import load_profile
from tutelage.core.locations import RESULTS


@dataclass(frozen=True)
class Watts:
    """What the whole board takes while its DPU works.

    Attributes
    ----------
    low, high : W
    source : where they are from
    measured : False: bounds that only tell the possible
    """

    low: float
    high: float
    source: str
    measured: bool

    def joules(self, slowest: float, fastest: float) -> tuple[float, float]:
        """Least and most energy of a frame at so many frames per second."""
        return self.low / fastest, self.high / slowest


def board_watts(board: str, results: Path = RESULTS) -> Watts | None:
    """The power of a board by its profile's file name; None where nothing tells it.

    Raises
    ------
    DpuError
        There is no such board.
    """
    found = [watts for path in sorted((results / board).glob("*/run.json")) for watts in _run(path)]
    if found:
        runs = f"{len(found)} steps measured in results/{board}"
        return Watts(min(found), max(found), runs, measured=True)
    profile = load_profile(board)
    if profile.total is None or profile.idle_watts is None:
        return None
    source = "the board at rest to the most that its supply gives"
    return Watts(profile.idle_watts, profile.total.max_watts, source, measured=False)


def _run(path: Path) -> Iterator[float]:
    """Watts of the steps of a run on the board itself; none of what is no such file."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        no_dpu = run["emulation"] or not run.get("pace", {"measured": True})["measured"]
        steps = [] if no_dpu else run["steps"]  # older runs have no pace
        for step in steps:
            watts: Any = step["power"]["watts"]["value"]
            number = isinstance(watts, (int, float)) and not isinstance(watts, bool)
            if number and 0 < watts < math.inf:
                yield float(watts)
    except (LookupError, OSError, TypeError, ValueError):
        return
