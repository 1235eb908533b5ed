"""What a `dpu_fingerprint` says: which DPU a compiled model is for, and the size of its array.

The number is the `dpu_fingerprint` of a DPU subgraph, which VART compares with the hardware's. The
name beside it, `dpu_name`, can be wrong: a published GoogLeNet for a DPUCZDX8G says DPUCVDX8G.

Of the bits only these are used here: 63 to 56 the kind of DPU (fits all of 169 published files),
55 to 48 its instruction set and 3 to 0 its size (AMD's target_factory, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import DpuError, UnsupportedError

OWN = "DPUCZDX8G"
"""The DPU of the Zynq UltraScale+ boards, the ZCU104 among them: the one that is emulated here."""

EMULATOR_DPU_NAME = "TUTELAGE_EMULATOR"
"""`dpu_name` of files without instructions, which only the emulation runs."""

FAMILIES = {
    0x01: OWN,
    0x02: "DPUCAHX8H",
    0x05: "DPUCVDX8H",
    0x06: "DPUCVDX8G",
    0x09: "DPUCV2DX8G",
}
"""Top byte -> kind of DPU, as published files of known targets have it."""

_PLACES = {
    "DPUCAHX8H": "Alveo U50 or U280",
    "DPUCVDX8H": "VCK5000",
    "DPUCVDX8G": "VCK190",
    "DPUCV2DX8G": "VEK280 or Alveo V70",
}
"""The cards and boards that have it, for a reader."""


@dataclass(frozen=True)
class DpuArray:
    """The array of one core of a DPUCZDX8G.

    Attributes
    ----------
    name : the size as AMD's documents call it: "B4096" makes 4096 operations a cycle
    rows : output rows (pixels) that it computes at once
    channels : input channels, and output channels, that it takes at once
    """

    name: str
    rows: int
    channels: int

    @property
    def operations(self) -> int:
        """Operations in a cycle; a multiplication and an addition are two."""
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
"""By the fingerprint's lowest four bits."""

B4096 = ARRAYS[7]
"""The ZCU104's, and of all files without a fingerprint."""


def is_own(fingerprint: int | None) -> bool:
    """Whether a file with this fingerprint is for a DPUCZDX8G, or for no DPU (None)."""
    return fingerprint is None or FAMILIES.get(fingerprint >> 56) == OWN


def array_of(fingerprint: int | None) -> DpuArray:
    """Return the array that a DPUCZDX8G with this fingerprint has; None is a B4096.

    Raises
    ------
    UnsupportedError
        It is another DPU's, or of an unknown size.
    """
    if fingerprint is None:
        return B4096
    size = fingerprint & 0xF
    if not is_own(fingerprint) or size >= len(ARRAYS):
        raise UnsupportedError(f"the array of {describe(fingerprint)} is not known")
    return ARRAYS[size]


def array_named(dpu_name: str) -> DpuArray:
    """Return the array that a DPU's name ends in, such as "DPUCZDX8G_ISA1_B4096".

    Raises
    ------
    DpuError
        It does not end in the name of one.
    """
    found = [array for array in ARRAYS if array.name == dpu_name.rpartition("_")[2]]
    if not found or not dpu_name.startswith(OWN):
        raise DpuError(f"{dpu_name!r} is not the name of a {OWN} of a known size")
    return found[0]


def dpu_name(fingerprint: int) -> str:
    """Return the DPU's name, of one's own with size and instruction set: "DPUCZDX8G_ISA1_B4096"."""
    family = FAMILIES.get(fingerprint >> 56)
    if family is None:
        return "an unknown DPU"
    if family != OWN or fingerprint & 0xF >= len(ARRAYS):
        return family
    return f"{family}_ISA{fingerprint >> 48 & 0xFF}_{ARRAYS[fingerprint & 0xF].name}"


def describe(fingerprint: int) -> str:
    """Return the DPU's name and the number for a reader."""
    name = dpu_name(fingerprint)
    place = f"{_PLACES[name]}, " if name in _PLACES else ""
    return f"{name} ({place}fingerprint {fingerprint:#x})"


def fingerprint_of(subgraph: Any) -> int | None:
    """Return the fingerprint of a subgraph (xir's or the emulation's); None where it has none.

    VART does not check 0, which counts as none.
    """
    if not subgraph.has_attr("dpu_fingerprint"):
        return None
    return int(subgraph.get_attr("dpu_fingerprint")) or None


def device_of(subgraph: Any) -> str:
    """Return a subgraph's device in capitals, "" where it has none."""
    return str(subgraph.get_attr("device")).upper() if subgraph.has_attr("device") else ""


def parts_of(graph: Any) -> list[Any]:
    """Return a graph's subgraphs of one device each, in order; none of a quantised graph."""
    root = graph.get_root_subgraph()
    return [] if root.is_leaf else list(root.toposort_child_subgraph())


def dpu_parts(graph: Any) -> list[Any]:
    """Return the subgraphs that run on a DPU, in order; none of a quantised graph."""
    return [part for part in parts_of(graph) if device_of(part) == "DPU"]


def fingerprints_of(graph: Any) -> list[int]:
    """Return the fingerprints of a graph's parts, in order; none of a quantised graph."""
    found = dict.fromkeys(fingerprint_of(part) for part in parts_of(graph))
    return [number for number in found if number is not None]


def foreign(graph: Any) -> str | None:
    """Say which DPU other than a DPUCZDX8G a graph is compiled for; None where it is for none."""
    others = [number for number in fingerprints_of(graph) if not is_own(number)]
    return describe(others[0]) if others else None


def refuse_foreign(graph: Any) -> None:
    """Refuse a graph that is compiled for another DPU than a DPUCZDX8G.

    Such files keep their weights in another order: computed by this DPU's rules they give wrong
    results without an error.

    Raises
    ------
    UnsupportedError
        It is compiled for another one; the text names it.
    """
    other = foreign(graph)
    if other is not None:
        raise UnsupportedError(f"compiled for {other}; only the {OWN} is known here")
