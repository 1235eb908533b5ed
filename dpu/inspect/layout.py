"""Layout of a drawn graph: boxes of layers from top to bottom, in columns, and lines between them.

Nodes are in rows by their longest distance from an input. Lines between neighbouring rows are
straight; a value that is read further down runs beside the boxes, in one lane for all its readers,
so that a DenseNet's concats stay readable. A long graph is broken into columns where a single value
passes from row to row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BOX_WIDTH, BOX_HEIGHT = 228, 52
"""Size of a node's box, pixels."""

GAP_X, GAP_Y = 18, 26
"""Space between boxes of a row, and between rows, pixels."""

LANE, MARGIN = 9, 24
"""Space between lanes, and around the drawing, pixels."""

ASPECT = 1.5
"""Target aspect ratio of a drawing with several columns."""

SHORTEST_COLUMN = 12
"""Least number of rows of a column, except the last."""

FEW_ROWS = 6
"""Most remaining rows that do not get their own column."""

Point = tuple[float, float]


@dataclass
class Line:
    """A polyline from node `source` to node `target`; `arrow` if it ends in a box."""

    source: int
    target: int
    points: list[Point]
    arrow: bool = True
    curved: bool = False


@dataclass
class Layout:
    """Size of the drawing, the top left corner of each node's box, and the lines."""

    width: float = 0.0
    height: float = 0.0
    corners: dict[int, Point] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)


def place(sources: Sequence[Sequence[int]]) -> Layout:
    """Lay out the graph whose node i reads the nodes ``sources[i]``, all less than i."""
    readers: list[list[int]] = [[] for _ in sources]
    for node, read in enumerate(sources):
        for source in dict.fromkeys(read):
            readers[source].append(node)
    rows = _rows(_levels(sources, readers))
    layout, left = Layout(), float(MARGIN)
    before: _Column | None = None
    for first, last, leaving in _breaks(rows, readers):
        entry = before.leaving if before else None
        column = _Column(rows[first:last], sources, readers, entry, leaving)
        column.draw(layout, left)
        if before is not None and entry is not None:
            head = [(before.gutter, MARGIN), column.entry_point]
            layout.lines.append(Line(entry, entry, [*before.tail, *head], arrow=False))
        layout.height = max(layout.height, column.bottom + MARGIN)
        layout.width = column.gutter + MARGIN
        left, before = column.gutter + GAP_X, column
    return layout


def _levels(sources: Sequence[Sequence[int]], readers: list[list[int]]) -> list[int]:
    """Return the row of each node: below all its sources; inputs directly above their readers."""
    level = [0] * len(sources)
    for node, read in enumerate(sources):
        level[node] = max((level[source] + 1 for source in read), default=0)
    for node, read in enumerate(sources):
        if not read and readers[node]:
            level[node] = min(level[reader] for reader in readers[node]) - 1
    return level


def _rows(level: list[int]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, number in enumerate(level):
        rows[number].append(node)
    return rows


def _breaks(
    rows: list[list[int]], readers: list[list[int]]
) -> Iterator[tuple[int, int, int | None]]:
    """Yield the columns: first row, last row + 1, and the node whose value passes to the next.

    A column ends once it is long enough and at most one value passes.
    """
    level = {node: number for number, row in enumerate(rows) for node in row}
    last_read: list[list[int]] = [[] for _ in rows]
    for node in level:
        if readers[node]:
            last_read[max(level[reader] for reader in readers[node])].append(node)
    wanted, start = _wanted_rows(rows), 0
    passing: dict[int, None] = {}
    for number, row in enumerate(rows[:-1]):
        for node in last_read[number]:
            del passing[node]
        passing.update((node, None) for node in row if readers[node])
        long_enough = number + 1 - start >= wanted and len(rows) - number - 1 > FEW_ROWS
        if len(passing) <= 1 and long_enough:
            yield start, number + 1, next(iter(passing), None)
            start = number + 1
    if rows:
        yield start, len(rows), None


def _wanted_rows(rows: list[list[int]]) -> int:
    """Return the rows per column for a drawing with the aspect ratio `ASPECT`."""
    width = max(map(len, rows), default=1) * (BOX_WIDTH + GAP_X) + 4 * LANE
    rows_for_shape = math.sqrt(len(rows) * width / (ASPECT * (BOX_HEIGHT + GAP_Y)))
    return max(SHORTEST_COLUMN, math.ceil(rows_for_shape))


class _Column:
    """Some rows of the graph, drawn from top to bottom.

    Attributes
    ----------
    leaving : the node whose value the next column reads
    entry_point : point where the value of an earlier column enters
    tail : points from `leaving` to the gutter at the column's right
    gutter, bottom : right and lower end
    """

    def __init__(
        self,
        rows: list[list[int]],
        sources: Sequence[Sequence[int]],
        readers: list[list[int]],
        entry: int | None,
        leaving: int | None,
    ) -> None:
        """`entry` is the node of an earlier column whose value enters, if any."""
        self.rows, self.entry, self.leaving = rows, entry, leaving
        self.row_of = {node: number for number, row in enumerate(rows) for node in row}
        self.readers = {
            node: [reader for reader in readers[node] if reader in self.row_of]
            for node in ([] if entry is None else [entry]) + list(self.row_of)
        }
        self.middle: dict[int, float] = {}
        for row in rows:
            self._place_row(row, sources)
        self.top = MARGIN + (GAP_Y if entry is not None else 0)
        self.bottom = self._y(len(rows))
        self.entry_point, self.gutter = (0.0, float(MARGIN)), 0.0
        self.tail: list[Point] = []

    def _place_row(self, row: list[int], sources: Sequence[Sequence[int]]) -> None:
        """Order the row and place each box below its sources, at least `GAP_X` apart."""
        wish = {}
        for node in row:
            above = [self.middle[s] for s in sources[node] if s in self.middle]
            wish[node] = sum(above) / len(above) if above else 0.0
        row.sort(key=lambda node: wish[node])
        at: list[float] = []
        for node in row:
            at.append(max(at[-1] + BOX_WIDTH + GAP_X, wish[node]) if at else wish[node])
        shift = sum(wish[node] - x for node, x in zip(row, at, strict=True)) / len(row)
        self.middle.update((node, x + shift) for node, x in zip(row, at, strict=True))

    def draw(self, layout: Layout, left: float) -> None:
        """Add the column to the drawing, with its left end at `left`."""
        shift = left + BOX_WIDTH / 2 - min(self.middle.values())
        self.middle = {node: x + shift for node, x in self.middle.items()}
        for node, middle in self.middle.items():
            layout.corners[node] = (middle - BOX_WIDTH / 2, self._y(self.row_of[node]))
        first = [self.middle[node] for node in self.rows[0]]
        self.entry_point = (sum(first) / len(first), float(MARGIN))
        right = max(self.middle.values()) + BOX_WIDTH / 2 + GAP_X / 2
        lanes = self._lanes()
        self.gutter = right + (max(lanes.values(), default=-1) + 2) * LANE
        for node in self.readers:
            layout.lines += self._short_lines(node)
            if node in lanes:
                layout.lines += self._long_lines(node, right + lanes[node] * LANE)
        if self.leaving is not None and not self.tail:
            self._end_with([self._below(self.leaving)])

    def _y(self, row: int) -> float:
        return self.top + row * (BOX_HEIGHT + GAP_Y)

    def _row(self, node: int) -> int:
        """Return the node's row; -1 for the value that enters, above the first row."""
        return self.row_of.get(node, -1)

    def _below(self, node: int) -> Point:
        """Return the middle of the box's lower side, or the entry point."""
        if node not in self.row_of:
            return self.entry_point
        return self.middle[node], self._y(self.row_of[node]) + BOX_HEIGHT

    def _is_last(self, node: int) -> bool:
        """Return whether there is no other box between the box and the lanes."""
        return node in self.row_of and self.rows[self.row_of[node]][-1] == node

    def _distant(self, node: int) -> list[int]:
        return [r for r in self.readers[node] if self.row_of[r] > self._row(node) + 1]

    def _lanes(self) -> dict[int, int]:
        """Return the lane of each node with distant readers; short spans use the inner lanes."""
        spans = {}
        for node in self.readers:
            ends = [self.row_of[reader] for reader in self._distant(node)]
            if node == self.leaving and self._row(node) < len(self.rows) - 1:
                ends.append(len(self.rows))
            if ends:
                spans[node] = (self._row(node), max(ends))
        taken: list[list[tuple[int, int]]] = []
        lanes = {}
        for node, span in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
            lane = next((i for i, used in enumerate(taken) if _free(used, span)), len(taken))
            if lane == len(taken):
                taken.append([])
            taken[lane].append(span)
            lanes[node] = lane
        return lanes

    def _short_lines(self, node: int) -> list[Line]:
        """Return the lines to the readers in the next row."""
        start = self._below(node)
        near = (r for r in self.readers[node] if self.row_of[r] == self._row(node) + 1)
        ends = ((r, (self.middle[r], self._y(self.row_of[r]))) for r in near)
        return [Line(node, r, [start, end], curved=start[0] != end[0]) for r, end in ends]

    def _long_lines(self, node: int, x: float) -> list[Line]:
        """Return the lines through the lane at `x` to the readers further down."""
        if self._is_last(node):
            y = self._y(self.row_of[node]) + BOX_HEIGHT * 0.7
            start = [(self.middle[node] + BOX_WIDTH / 2, y), (x, y)]
        else:
            middle, y = self._below(node)
            start = [(middle, y), (middle, y + GAP_Y * 0.3), (x, y + GAP_Y * 0.3)]
        if node == self.leaving and self._row(node) < len(self.rows) - 1:
            self._end_with(start)
        return [Line(node, r, [*start, *self._branch(r, x)]) for r in self._distant(node)]

    def _branch(self, reader: int, x: float) -> list[Point]:
        """Return the points from the lane at `x` into the reader's box."""
        top, middle = self._y(self.row_of[reader]), self.middle[reader]
        if self._is_last(reader):
            y = top + BOX_HEIGHT * 0.3
            return [(x, y), (middle + BOX_WIDTH / 2, y)]
        bend, side = top - GAP_Y * 0.4, middle + BOX_WIDTH / 4
        return [(x, bend), (side, bend), (side, top)]

    def _end_with(self, start: list[Point]) -> None:
        """Set the path of the leaving value from `start` down and to the gutter."""
        y = self.bottom - GAP_Y / 2
        self.tail = [*start, (start[-1][0], y), (self.gutter, y)]


def _free(used: list[tuple[int, int]], span: tuple[int, int]) -> bool:
    return all(span[1] < start or end < span[0] for start, end in used)
