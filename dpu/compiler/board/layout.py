"""Where maps are on the chip: rows of a map dealt out to the banks of a group.

With the stride s of the instruction that reads a map, row h is in bank ``(h div s) mod B`` of B
banks at ``base + ((h div s) div B mod slots) * s * R + (h mod s) * R``, R being the bank rows of
one of the map's rows. A map has as many slots as it needs; with fewer it is a ring, in which a row
takes the place of one that nothing reads any more.
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
    base : bank row at which it begins; rows wrap at the end of a bank
    slots : rows of the map in a bank, by `stride`
    stride : rows of the map that are next to each other in a bank
    width : pixels of a row
    groups : channel groups of a pixel
    banks : of the group
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
        """Bank rows of a row of the map."""
        return self.width * self.groups

    @property
    def words(self) -> int:
        """Bank rows of all."""
        return self.slots * self.stride * self.row_words

    def bank_of(self, row: int) -> int:
        """Return the bank of a row of the map."""
        return self.bank + row // self.stride % self.banks

    def slot(self, row: int) -> int:
        """Return the bank row where the slot of a row of the map begins."""
        number = row // self.stride // self.banks % self.slots
        return (self.base + number * self.stride * self.row_words) % BANK_DEPTH

    def address(self, row: int) -> int:
        """Return the bank row where a row of the map begins."""
        return (self.slot(row) + row % self.stride * self.row_words) % BANK_DEPTH


def slots_for(rows: int, stride: int, banks: int) -> int:
    """Return the slots that hold all rows of a map."""
    return -(-rows // (stride * banks))


@dataclass
class Ring:
    """Rows of a bank given out one after the other, from its end to its begin again.

    Who gets a place waits for those who had it before; `set_tokens` sees to that.

    Attributes
    ----------
    given : rows so far
    """

    given: int = 0

    def take(self, words: int) -> int:
        """Return where so many rows begin."""
        place = self.given % BANK_DEPTH
        self.given += words
        return place


@dataclass
class Banks:
    """The map groups: which rows are given out, and to whom.

    Each place is taken after the last one, so that old rows can be read for as long as possible.

    Attributes
    ----------
    room : rows of a bank that are given out at all
    taken : by group: place and rows of each owner
    following : by group: the row behind the last place that was given out
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
        """Give rows to an owner: return group and first row, or None where no group has them.

        Parameters
        ----------
        away_from : a group that is taken last
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
        """Take an owner's rows back."""
        for taken in self.taken:
            taken.pop(owner, None)

    def _used(self, group: int) -> int:
        return sum(words for _, words in self.taken[group].values())

    def _free(self, group: int, words: int) -> int | None:
        """The first gap behind the last place given out."""
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
    """Whether two stretches of a bank that wraps have rows in common."""
    return (other - first) % BANK_DEPTH < words or (first - other) % BANK_DEPTH < size
