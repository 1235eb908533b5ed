"""Cutting of a stage's layers into pieces: what each strip of columns computes and reads.

A strip has one piece of each layer. In a chain of layers a piece has the columns that the next
layer's piece reads. Layers that read the same rows all compute the same columns. A dilated layer is
cut into its phases instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tutelage.dpu.compiler.board.extent import phase_of, result_size, strip_columns, whole_walk
from tutelage.dpu.compiler.board.network import Node
from tutelage.dpu.compiler.board.residence import Residence
from tutelage.dpu.compiler.board.walk import Feed, Walk, columns, dilated, feed, walk_of
from tutelage.dpu.ops.engine_layers import Phase, WindowLayer


@dataclass(frozen=True)
class Piece:
    """Columns of a layer's result.

    Attributes
    ----------
    place : number of the node in the network
    height : rows of the result
    column, columns : first column and number of columns of the result
    phase : rows and columns of the layer's output that the result consists of
    walk : walk of a layer with a kernel
    feed : how that layer's map is loaded; None if its rows are on the chip
    """

    place: int
    node: Node
    height: int
    column: int
    columns: int
    phase: Phase
    walk: Walk | None
    feed: Feed | None


class NotShared(Exception):
    """Layers do not read the same rows after all."""


_Range = tuple[int, int]
"""First column and number of columns."""


def cut_chain(residence: Residence, places: Sequence[int], strips: int) -> Iterator[list[Piece]]:
    """Yield the pieces of each strip of layers that pass rows from one to the next.

    A dilated layer has one strip per phase; `strips` is 1.
    """
    last = residence.network.nodes[places[-1]]
    if isinstance(last.layer, WindowLayer) and last.layer.is_dilated:
        yield from _phases(places[-1], last, last.layer)
        return
    for wanted in _ranges(result_size(last)[1], strips):
        pieces: list[Piece] = []
        for place in reversed(places):
            piece = _piece(residence, place, wanted)
            pieces.insert(0, piece)
            if wanted is not None and piece.walk is not None:
                _, column = whole_walk(piece.node).columns(*wanted)
                wanted = column, piece.walk.size[1]
        yield pieces


def cut_siblings(residence: Residence, places: Sequence[int], strips: int) -> Iterator[list[Piece]]:
    """Yield the pieces of each strip of layers that read the same rows.

    Raises
    ------
    NotShared
        Rows that are loaded once do not serve all of them.
    """
    widths = [result_size(residence.network.nodes[place])[1] for place in places]
    for wanted in _ranges(widths[-1], strips):
        pieces = [_piece(residence, place, wanted) for place in places]
        if any(piece.feed != pieces[0].feed for piece in pieces):
            raise NotShared
        if strips > 1 and len(set(widths)) > 1:
            raise NotShared
        yield pieces


def _ranges(width: int, strips: int) -> Iterator[_Range | None]:
    """Yield the columns of each strip; None for a single one, which has all columns of each layer,
    even if their numbers differ."""
    if strips == 1:
        yield None
        return
    yield from strip_columns(width, strips)


def _piece(residence: Residence, place: int, wanted: _Range | None) -> Piece:
    """Return a layer's piece with the columns wanted, or with all."""
    node = residence.network.nodes[place]
    height, width = result_size(node)
    walk, fed = _walk(residence, place, node)
    column, count = wanted or (0, width)
    if wanted is not None and walk is not None:
        if fed is None:
            walk, _ = walk.columns(column, count)
        else:
            walk, fed = columns(walk, fed, column, count)
    return Piece(place, node, height, column, count, phase_of(node), walk, fed)


def _walk(residence: Residence, place: int, node: Node) -> tuple[Walk | None, Feed | None]:
    """Return the walk of a layer with a kernel over its whole map, and how the map is loaded."""
    if not isinstance(node.layer, WindowLayer):
        return None, None
    view = node.inputs[0]
    if not residence.is_loaded(view.store, place):
        return walk_of(node.layer, view), None
    from_input = view.store in residence.network.inputs.values()
    return feed(node.layer, view, residence.shape.width, from_input)


def _phases(place: int, node: Node, layer: WindowLayer) -> Iterator[list[Piece]]:
    """Yield a piece for each phase of a dilated layer."""
    for walk, fed, phase in dilated(layer, node.inputs[0]):
        height, width = walk.output
        yield [Piece(place, node, height, 0, width, phase, walk, fed)]
