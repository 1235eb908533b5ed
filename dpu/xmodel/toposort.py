"""Topological sorting."""

from __future__ import annotations

import heapq

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.op import Op


def toposort(ops: dict[str, Op]) -> list[Op]:
    """Return the ops, producers before consumers, otherwise in the given order.

    Raises
    ------
    DpuError
        Some ops depend on each other.
    """
    place = {name: index for index, name in enumerate(ops)}
    by_place = list(ops.values())
    # An op that reads another twice counts once.
    readers = [{place[r.get_name()] for r in op.get_fanout_ops()} for op in by_place]
    order = [by_place[index] for index in first_ready(readers)]
    if len(order) < len(ops):
        done = set(order)
        stuck = next(op.get_name() for op in by_place if op not in done)
        raise DpuError(f"the graph has a cycle through op {stuck!r}")
    return order


def first_ready(readers: list[set[int]]) -> list[int]:
    """Return the indices 0, 1, ... after their dependencies, else in order, without cyclic ones."""
    waiting = [0] * len(readers)
    for places in readers:
        for reader in places:
            waiting[reader] += 1
    ready = [place for place, count in enumerate(waiting) if not count]  # sorted: a valid heap
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order
