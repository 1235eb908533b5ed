"""Why an op is not for the DPU."""

from __future__ import annotations


class Refusal(Exception):
    """An op cannot run on the DPU; the text says why.

    Attributes
    ----------
    op : its name, where it is known
    """

    def __init__(self, reason: str, op: str = "") -> None:
        super().__init__(reason)
        self.op = op
