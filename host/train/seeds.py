"""Seeds of the random numbers of a run."""

from __future__ import annotations


def seed_of(seed: int, epoch: int, purpose: str, process: int = 0) -> int:
    """Return a separate seed for each epoch, purpose and process, 0 to 2^63 - 1."""
    mixed = seed
    for value in (epoch, sum(purpose.encode()), process):
        # Multiplier and increment of Knuth's MMIX generator.
        mixed = (mixed * 6364136223846793005 + 1442695040888963407 + value) % 2**63
    return mixed
