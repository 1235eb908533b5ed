"""The emulation at a board's speed: each job takes as long as `dpu.predict.latency` predicts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tutelage.board.model_parts import ModelError
from tutelage.board.provider import find_provider
from tutelage.board.runner import LoadedModel
from tutelage.core.board_profile import load_profile


def pace_facts(realtime: str | None) -> dict[str, Any]:
    """Return what jobs take their time from.

    Parameters
    ----------
    realtime : board whose predicted pace the emulation keeps, None for none

    Returns
    -------
    measured : whether times are those of a DPU, which no emulation's are; text, for the reader
    """
    provider = find_provider()
    if realtime is not None:
        board = load_profile(realtime).name
        return {
            "measured": False,
            "text": f"at the pace predicted for a {board} (dpu/predict/latency.py)",
        }
    if provider.pace:
        return {"measured": False, "text": provider.pace}
    if provider.is_emulation:
        return {"measured": False, "text": "as fast as this machine computes"}
    return {"measured": True, "text": "the DPU's own"}


class Realtime:
    """Paces the emulation like a board, for the runners made from now on.

    Parameters
    ----------
    board : file name of its profile, without suffix

    Raises
    ------
    ModelError
        There is no such board, or a real DPU is at work here.
    """

    def __init__(self, board: str) -> None:
        if not find_provider().is_emulation:
            raise ModelError("--realtime is for the emulation; this DPU runs at its own speed")
        if find_provider().pace:
            raise ModelError(f"--realtime: this emulation has a pace: {find_provider().pace}")
        self._board = board
        self._vart, latency = (
            import_module("tutelage.dpu.runtime.vart"),
            import_module("tutelage.dpu.predict.latency"),
        )
        try:
            self._pace = latency.board_pace(board)
        except RuntimeError as error:
            raise ModelError(str(error)) from error
        self._vart.set_pace(self._pace)

    def report(self, model: LoadedModel) -> dict[str, Any]:
        """Return board, job_ms (predicted, of all DPU subgraphs), and jobs kept and late."""
        seconds = sum(self._pace(subgraph) for subgraph in model.dpu_subgraphs)
        return {"board": self._board, "job_ms": round(1e3 * seconds, 4), **self._vart.pace_report()}

    def end(self) -> None:
        """Let runners made from now on go as fast as they can."""
        self._vart.set_pace(None)
