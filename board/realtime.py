"""Pacing of the emulation: each job takes the time that `dpu.predict.latency` predicts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tutelage.board.model_parts import ModelError
from tutelage.board.provider import find_provider
from tutelage.board.runner import LoadedModel
from tutelage.core.board_profile import load_profile


def pace_facts(realtime: str | None) -> dict[str, Any]:
    """Return the source of the times of jobs.

    Parameters
    ----------
    realtime : board whose predicted speed the emulation is slowed down to; None for none

    Returns
    -------
    measured (whether times are those of a real DPU) and text (a description)
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
    """Slows the emulation down to a board's predicted speed, for all runners created afterwards.

    Parameters
    ----------
    board : file name of the board's profile, without suffix

    Raises
    ------
    ModelError
        The board is unknown, or this machine has a real DPU.
    """

    def __init__(self, board: str) -> None:
        if not find_provider().is_emulation:
            raise ModelError("--realtime is for the emulation; this machine has a real DPU")
        if find_provider().pace:
            raise ModelError(f"--realtime: this emulation is paced already: {find_provider().pace}")
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
        """Return board, job_ms (predicted, of all DPU subgraphs), and the counts of jobs, and late.

        Parameters
        ----------
        model : the model that ran
        """
        seconds = sum(self._pace(subgraph) for subgraph in model.dpu_subgraphs)
        return {"board": self._board, "job_ms": round(1e3 * seconds, 4), **self._vart.pace_report()}

    def end(self) -> None:
        """Run all runners created afterwards at full speed."""
        self._vart.set_pace(None)
