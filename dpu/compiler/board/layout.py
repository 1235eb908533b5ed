"""Locations of maps on the chip: the rows of a map are distributed over the banks of a group.

With the stride s of the instruction that reads a map, row h is in bank ``(h div s) mod B`` of B
banks at ``base + ((h div s) div B mod slots) * s * R + (h mod s) * R``, where R is the number of
bank rows per row of the map. A map has as many slots as it needs; with fewer it is a ring, in which
a row replaces one that is no longer read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.ops.limits import BANK_DEPTH


@dataclass(frozen=True)
class ChipMap:
    """A map, or a ring of its rows, in a group of banks.

    Attributes
    ----------
    bank : the group's first bank
    base : bank row at which it begins; rows wrap around at the end of a bank
    slots : number of slots in a bank, each of `stride` rows of the map
    stride : adjacent rows of the map per slot
    width : pixels per row
    groups : channel groups per pixel
    banks : number of banks of the group
    """

    bank: int
    base: int
    slots: int
    stride: int
    width: int
    groups: int
    banks: int

    @property
    def row_words(self) -> int:
        """Bank rows per row of the map."""
        return self.width * self.groups

    @property
    def words(self) -> int:
        """Total bank rows."""
        return self.slots * self.stride * self.row_words

    def bank_of(self, row: int) -> int:
        """Return the bank of a row of the map."""
        return self.bank + row // self.stride % self.banks

    def slot(self, row: int) -> int:
        """Return the first bank row of the slot of a map's row."""
        number = row // self.stride // self.banks % self.slots
        return (self.base + number * self.stride * self.row_words) % BANK_DEPTH

    def address(self, row: int) -> int:
        """Return the first bank row of a map's row."""
        return (self.slot(row) + row % self.stride * self.row_words) % BANK_DEPTH


def slots_for(rows: int, stride: int, banks: int) -> int:
    """Return the number of slots for all rows of a map."""
    return -(-rows // (stride * banks))


@dataclass
class Ring:
    """Circular allocation of the rows of a bank.

    Reuse of rows waits for their previous users; `set_tokens` ensures that.

    Attributes
    ----------
    given : number of rows allocated so far
    """

    given: int = 0

    def take(self, words: int) -> int:
        """Allocate `words` rows and return the first one."""
        place = self.given % BANK_DEPTH
        self.given += words
        return place


@dataclass
class Banks:
    """Allocation of rows in the map groups.

    Rows are allocated after the last ones, so that old rows can be read for as long as possible.

    Attributes
    ----------
    room : number of rows per bank that may be allocated
    taken : by group, the first row and number of rows of each owner
    following : by group, the row after the last allocation
    """

    shape: Shape
    room: int = BANK_DEPTH
    taken: list[dict[object, tuple[int, int]]] = field(default_factory=list)
    following: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = [{} for _ in range(self.shape.groups)]
        self.following = [0] * self.shape.groups

    def take(
        self, owner: object, words: int, away_from: int | None = None
    ) -> tuple[int, int] | None:
        """Allocate rows for an owner; return group and first row, or None if no group has room.

        Parameters
        ----------
        away_from : a group to try last
        """
        groups = sorted(range(self.shape.groups), key=lambda g: (g == away_from, self._used(g)))
        for group in groups:
            place = self._free(group, words)
            if place is not None:
                self.taken[group][owner] = (place, words)
                self.following[group] = (place + words) % BANK_DEPTH
                return group, place
        return None

    def free(self, owner: object) -> None:
        """Free an owner's rows."""
        for taken in self.taken:
            taken.pop(owner, None)

    def _used(self, group: int) -> int:
        return sum(words for _, words in self.taken[group].values())

    def _free(self, group: int, words: int) -> int | None:
        """Return the first gap after the last allocation, or None."""
        if words > self.room:
            return None
        start = self.following[group]
        taken = list(self.taken[group].values())
        if self.room < BANK_DEPTH:
            taken.append((self.room, BANK_DEPTH - self.room))
        places = [start, *((place + size) % BANK_DEPTH for place, size in taken)]
        places.sort(key=lambda place: (place - start) % BANK_DEPTH)
        for place in places:
            if all(not _overlap(place, words, *other) for other in taken):
                return place
        return None


def _overlap(first: int, words: int, other: int, size: int) -> bool:
    """Return whether two ranges of a bank overlap, considering wrap-around."""
    return (other - first) % BANK_DEPTH < words or (first - other) % BANK_DEPTH < size
