"""Decode a `dpu_fingerprint`: the DPU that a compiled model targets, and its array size.

VART compares the `dpu_fingerprint` of a DPU subgraph with that of the hardware. The subgraph's
`dpu_name` can be wrong: a published GoogLeNet for a DPUCZDX8G says DPUCVDX8G.

Only these bits are used here: 63 to 56, the kind of DPU (consistent with all of 169 published
files), 55 to 48, its instruction set, and 3 to 0, its size (AMD's target_factory, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import DpuError, UnsupportedError

OWN = "DPUCZDX8G"
"""The emulated DPU: that of the Zynq UltraScale+ boards, including the ZCU104."""

EMULATOR_DPU_NAME = "TUTELAGE_EMULATOR"
"""`dpu_name` of files without instructions, which run only in the emulation."""

FAMILIES = {
    0x01: OWN,
    0x02: "DPUCAHX8H",
    0x05: "DPUCVDX8H",
    0x06: "DPUCVDX8G",
    0x09: "DPUCV2DX8G",
}
"""Top byte -> kind of DPU, found in published files of known targets."""

_PLACES = {
    "DPUCAHX8H": "Alveo U50 or U280",
    "DPUCVDX8H": "VCK5000",
    "DPUCVDX8G": "VCK190",
    "DPUCV2DX8G": "VEK280 or Alveo V70",
}
"""Kind of DPU -> cards and boards that have it, for messages."""


@dataclass(frozen=True)
class DpuArray:
    """The array of one core of a DPUCZDX8G.

    Attributes
    ----------
    name : the size in AMD's documents: "B4096" performs 4096 operations per cycle
    rows : output rows (pixels) computed in parallel
    channels : input channels, and output channels, processed in parallel
    """

    name: str
    rows: int
    channels: int

    @property
    def operations(self) -> int:
        """Operations per cycle; a multiplication and an addition count as two."""
        return 2 * self.rows * self.channels**2


ARRAYS = (
    DpuArray("B512", 4, 8),
    DpuArray("B800", 4, 10),
    DpuArray("B1024", 8, 8),
    DpuArray("B1152", 4, 12),
    DpuArray("B1600", 8, 10),
    DpuArray("B2304", 8, 12),
    DpuArray("B3136", 8, 14),
    DpuArray("B4096", 8, 16),
)
"""Indexed by the fingerprint's lowest four bits."""

B4096 = ARRAYS[7]
"""The array of the ZCU104, also assumed for files without a fingerprint."""


def is_own(fingerprint: int | None) -> bool:
    """Return whether the fingerprint is that of a DPUCZDX8G, or None."""
    return fingerprint is None or FAMILIES.get(fingerprint >> 56) == OWN


def array_of(fingerprint: int | None) -> DpuArray:
    """Return the array of a DPUCZDX8G with this fingerprint; for None, B4096.

    Raises
    ------
    UnsupportedError
        The fingerprint belongs to another DPU or has an unknown size.
    """
    if fingerprint is None:
        return B4096
    size = fingerprint & 0xF
    if not is_own(fingerprint) or size >= len(ARRAYS):
        raise UnsupportedError(f"the array of {describe(fingerprint)} is not known")
    return ARRAYS[size]


def array_named(dpu_name: str) -> DpuArray:
    """Return the array named at the end of a DPU's name, such as "DPUCZDX8G_ISA1_B4096".

    Raises
    ------
    DpuError
        The name is not that of a DPUCZDX8G, or its size is unknown.
    """
    found = [array for array in ARRAYS if array.name == dpu_name.rpartition("_")[2]]
    if not found or not dpu_name.startswith(OWN):
        raise DpuError(f"{dpu_name!r} is not the name of a {OWN} of a known size")
    return found[0]


def dpu_name(fingerprint: int) -> str:
    """Return the DPU's name, for a DPUCZDX8G with ISA and size, such as DPUCZDX8G_ISA1_B4096."""
    family = FAMILIES.get(fingerprint >> 56)
    if family is None:
        return "an unknown DPU"
    if family != OWN or fingerprint & 0xF >= len(ARRAYS):
        return family
    return f"{family}_ISA{fingerprint >> 48 & 0xFF}_{ARRAYS[fingerprint & 0xF].name}"


def describe(fingerprint: int) -> str:
    """Return the DPU's name, its boards and the fingerprint, for messages."""
    name = dpu_name(fingerprint)
    place = f"{_PLACES[name]}, " if name in _PLACES else ""
    return f"{name} ({place}fingerprint {fingerprint:#x})"


def fingerprint_of(subgraph: Any) -> int | None:
    """Return the fingerprint of a subgraph (of xir or the emulation); None if it has none.

    0 counts as none, since VART does not check it.
    """
    if not subgraph.has_attr("dpu_fingerprint"):
        return None
    return int(subgraph.get_attr("dpu_fingerprint")) or None


def device_of(subgraph: Any) -> str:
    """Return a subgraph's device in capitals, "" if it has none."""
    return str(subgraph.get_attr("device")).upper() if subgraph.has_attr("device") else ""


def parts_of(graph: Any) -> list[Any]:
    """Return a graph's per-device subgraphs in order; a quantised graph has none."""
    root = graph.get_root_subgraph()
    return [] if root.is_leaf else list(root.toposort_child_subgraph())


def dpu_parts(graph: Any) -> list[Any]:
    """Return the subgraphs that run on a DPU, in order; a quantised graph has none."""
    return [part for part in parts_of(graph) if device_of(part) == "DPU"]


def fingerprints_of(graph: Any) -> list[int]:
    """Return the distinct fingerprints of a graph's subgraphs, in order."""
    found = dict.fromkeys(fingerprint_of(part) for part in parts_of(graph))
    return [number for number in found if number is not None]


def foreign(graph: Any) -> str | None:
    """Describe the other DPU that a graph is compiled for; None if it is a DPUCZDX8G or none."""
    others = [number for number in fingerprints_of(graph) if not is_own(number)]
    return describe(others[0]) if others else None


def refuse_foreign(graph: Any) -> None:
    """Raise an error if a graph is compiled for a DPU other than a DPUCZDX8G.

    Such files store their weights in another order: by the rules of the DPUCZDX8G they would give
    wrong results without an error.

    Raises
    ------
    UnsupportedError
        The graph is compiled for another DPU; the message names it.
    """
    other = foreign(graph)
    if other is not None:
        raise UnsupportedError(f"compiled for {other}; only models for the {OWN} are supported")
