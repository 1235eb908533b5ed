"""Partition of a graph into groups of ops that run on one device."""

from __future__ import annotations

from collections.abc import Callable

from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op


def partition(graph: Graph) -> list[tuple[str, list[Op]]]:
    """Return groups of ops with their devices, in execution order.

    An op's stage is the number of device changes on the path to it. Connected ops of the same stage
    and device form a group; each user input is a separate group, as in AMD's files. Ops that depend
    on no input belong to the group of their first reader.
    """
    constants = constant_ops(graph)
    stages: dict[Op, int] = {}
    stretches: dict[Op, list[Op]] = {}  # by the op that opened them
    home: dict[Op, Op] = {}
    for op in graph.toposort():
        if op in constants:
            continue
        moving = [source for source in _sources(op) if source not in constants]
        stages[op] = max((stages[s] + (_device(s) != _device(op)) for s in moving), default=0)
        here = [s for s in moving if (stages[s], _device(s)) == (stages[op], _device(op))]
        near = list(dict.fromkeys(home[source] for source in here))
        first = near[0] if near else op
        for other in near[1:]:
            home |= dict.fromkeys(stretches[other], first)
            stretches[first] += stretches.pop(other)
        needed = [*_needed(op, constants, home), op]
        stretches.setdefault(first, []).extend(needed)
        home |= dict.fromkeys(needed, first)
    ordered = sorted(stretches.values(), key=lambda ops: stages[ops[-1]])
    return [(_device(ops[-1]), ops) for ops in ordered]


def separated(
    stretches: list[tuple[str, list[Op]]],
    download: Callable[[Op], Op],
    upload: Callable[[Op, int], Op],
) -> list[tuple[str, list[Op]]]:
    """Insert copies from and to the DPU for values that one DPU group reads from another.

    Such a value is read both before and after an op of the CPU. An upload is repeated.

    Parameters
    ----------
    download, upload : add a copy of a value; an upload also takes the number of its group
    """
    homes = {op: number for number, (_, ops) in enumerate(stretches) for op in ops}
    for number, (device, ops) in enumerate(stretches):
        readers = [op for op in ops if device == "DPU" and op.get_type() != "upload"]
        for source in dict.fromkeys(source for op in readers for source in _sources(op)):
            there, before = stretches[homes[source]]
            if before is ops or there != "DPU":
                continue
            if source.get_type() == "upload":  # of a value that another device has
                copied = source.get_input_op("input")
            else:
                copied = _downloaded(source, before, download)
            again = upload(copied, number)
            ops.insert(0, again)
            for op in readers:
                if source in _sources(op):
                    op.replace_input_ops(source, again)
    return stretches


def _downloaded(source: Op, group: list[Op], download: Callable[[Op], Op]) -> Op:
    """Return the copy from the DPU of a value of this group, added to the group if necessary."""
    copies = (op for op in source.get_fanout_ops() if op.get_type() == "download")
    copied = next(copies, None)
    if copied is None:
        copied = download(source)
        group.append(copied)
    return copied


def constant_ops(graph: Graph) -> set[Op]:
    """Return the ops that depend on no input of the graph."""
    found: set[Op] = set()
    for op in graph.toposort():
        sources = _sources(op)
        if type_of(op).source == "constant" or (sources and found.issuperset(sources)):
            found.add(op)
    return found


def _needed(op: Op, constants: set[Op], home: dict[Op, Op]) -> list[Op]:
    """Return the constants that an op needs and that are in no group yet, producers first."""
    found: list[Op] = []
    for source in _sources(op):
        if source in constants and source not in home and source not in found:
            found += [*_needed(source, constants, home), source]
    return found


def _sources(op: Op) -> list[Op]:
    return [source for sources in op.get_input_ops().values() for source in sources]


def _device(op: Op) -> str:
    return str(op.get_attr("device"))
