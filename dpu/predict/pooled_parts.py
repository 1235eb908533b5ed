"""Model AMD's compiler, which pools the parts of a concat before joining them.

Found in its SqueezeNet: a max pool that is the only reader of a concat is computed on each part,
whose rows it reads on the chip, and the pooled parts are saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.predict.operations import Operation


def pools_first(operations: Sequence[Operation]) -> list[Operation]:
    """Return the network with such pools moved to each part of the concat that they read."""
    readers: dict[int, list[int]] = {}
    for place, operation in enumerate(operations):
        for source in operation.sources:
            readers.setdefault(source, []).append(place)
    moved = {o.sources[0]: o for o in operations if _moves(o, operations, readers)}
    pool_of_part = {part: pool for at, pool in moved.items() for part in operations[at].sources}
    found: list[Operation] = []
    where: dict[int, int] = {}
    for place, operation in enumerate(operations):
        if operation.sources and moved.get(operation.sources[0]) is operation:
            where[place] = where[operation.sources[0]]
            continue
        if place in moved:
            operation = _sized(operation, moved[place])
        found.append(replace(operation, sources=tuple(where[s] for s in operation.sources)))
        where[place] = len(found) - 1
        if place in pool_of_part:
            pool = pool_of_part[place]
            channels = operation.output[2]
            part = replace(pool, output=(*pool.output[:2], channels), sources=(where[place],))
            found.append(part)
            where[place] = len(found) - 1
    return found


def _sized(joint: Operation, pool: Operation) -> Operation:
    return replace(joint, output=(*pool.output[:2], joint.output[2]))


def _moves(pool: Operation, operations: Sequence[Operation], readers: dict[int, list[int]]) -> bool:
    """Return whether a pool is the only reader of a concat whose parts have no other reader."""
    kind = op_type(pool.kind)
    if not (kind.takes_rows and kind.family == "pool" and pool.on_dpu):
        return False
    joint = operations[pool.sources[0]]
    if not op_type(joint.kind).joins or not joint.on_dpu or len(readers[pool.sources[0]]) > 1:
        return False
    parts = [operations[part] for part in joint.sources]
    alone = all(len(readers[part]) == 1 for part in joint.sources)
    return alone and all(part.on_dpu and not op_type(part.kind).free for part in parts)
