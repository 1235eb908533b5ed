"""Power of a board and energy per frame: from measured runs where there are any, else bounds.

Runs are what `python -m tutelage.app.measure` writes on the board, `results/<board>/*/run.json`;
those of the emulation say nothing of a board. Where there are none, the board's power is between
what it takes at rest and what its supply gives (its profile), and nothing narrower is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.board_profile import load_profile
from tutelage.core.locations import RESULTS
from tutelage.core.results.figure import MEASURED, PREDICTED, Figure
from tutelage.core.results.run_json import RUN_FILE, read_run
from tutelage.core.results.typed_json import ResultsError


@dataclass(frozen=True)
class BoardPower:
    """Power of the whole board while its DPU works.

    Attributes
    ----------
    watts : a range without a middle; MEASURED, or PREDICTED where it is no more than bounds
    source : where it is from, for the reader
    """

    watts: Figure
    source: str

    @property
    def measured(self) -> bool:
        return self.watts.kind == MEASURED

    def joules_per_frame(self, fps: Figure) -> Figure:
        """Return least and most energy of a frame at predicted frames per second, J."""
        if self.watts.low is None or self.watts.high is None or not fps.low or not fps.high:
            return Figure(unit="J", kind=PREDICTED)
        return Figure.predicted(None, self.watts.low / fps.high, self.watts.high / fps.low, "J")


def board_power(board: str, results: Path = RESULTS) -> BoardPower | None:
    """Return the power of a board by its profile's file name; None where nothing is known of it.

    Raises
    ------
    DpuError
        There is no such board.
    """
    files = sorted((results / board).glob(f"*/{RUN_FILE}"))
    found = [watts for path in files for watts in _step_watts(path)]
    if found:
        watts = Figure(None, min(found), max(found), n=len(found), unit="W")
        return BoardPower(watts, f"{len(found)} steps measured in results/{board}")
    profile = load_profile(board)
    if profile.total is None or profile.idle_watts is None:
        return None
    return BoardPower(Figure.predicted(None, profile.idle_watts, profile.total.max_watts, "W"),
                      "the board at rest to the most that its supply gives")  # fmt: skip


def _step_watts(path: Path) -> Iterator[float]:
    """Yield the watts of the steps of a run on the board itself; none of an unusable file."""
    try:
        run = read_run(path)
    except ResultsError:
        return
    for step in run.steps if run.on_dpu else ():
        watts = step.power.watts.value
        if watts is not None and watts > 0:
            yield watts
