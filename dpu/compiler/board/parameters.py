"""The constants of a DPU subgraph, in one register, in the layout that the code loads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tutelage.core.fixed_point import Array

ALIGNMENT = 16
"""Alignment of arrays, bytes: a word of a port."""


@dataclass
class Parameters:
    """The bytes of the parameter register under construction."""

    data: bytearray = field(default_factory=bytearray)
    known: dict[bytes, int] = field(default_factory=dict)

    def know(self, values: Array, offset: int) -> None:
        """Record that these values are already in the register."""
        self.known[values.tobytes()] = offset

    def add(self, values: Array) -> int:
        """Append int8 values, unless already present; return the offset of the first."""
        added = np.ascontiguousarray(values, np.int8).tobytes()
        if added not in self.known:
            self.data += bytes(-len(self.data) % ALIGNMENT)
            self.known[added] = len(self.data)
            self.data += added
        return self.known[added]


def spread(values: Array, lanes: tuple[tuple[int, int], ...], groups: int, width: int) -> Array:
    """Return values by channel in the lane layout of a map on the chip.

    Parameters
    ----------
    values : int8 [..., channels]
    lanes : (first channel, first lane) of the map's parts
    groups : channel groups of the map
    width : lanes of a group

    Returns
    -------
    int8 [..., lanes], zeros in unused lanes; `values` itself if channels and lanes are the same
    """
    if all(channel == lane for channel, lane in lanes):
        return values
    found = np.zeros((*values.shape[:-1], groups * width), np.int8)
    ends = [*(channel for channel, _ in lanes[1:]), values.shape[-1]]
    for (channel, lane), end in zip(lanes, ends, strict=True):
        found[..., lane : lane + end - channel] = values[..., channel:end]
    return found
