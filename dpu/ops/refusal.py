"""The exception for ops that the DPU cannot run."""

from __future__ import annotations


class Refusal(Exception):
    """An op cannot run on the DPU; the message says why.

    Attributes
    ----------
    op : name of the op, "" if unknown
    """

    def __init__(self, reason: str, op: str = "") -> None:
        super().__init__(reason)
        self.op = op
