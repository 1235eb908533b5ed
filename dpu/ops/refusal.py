"""Why an op is not for the DPU."""

from __future__ import annotations


class Refusal(Exception):
    """An op cannot run on the DPU; the text says why."""
