"""The order of ops in a file: AMD's XIR crashes on one in which an op is before those it reads."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.dpu.runtime import xir
from tutelage.dpu.xmodel.file import read_graph, write_graph


def _in_order(path: Path) -> bool:
    """Return whether each op of a file is after those that it reads, as XIR's reader requires."""
    seen: set[str] = set()
    for node in read_graph(path).op_node:
        if not seen.issuperset(name for arg in node.args for name in arg.arg_ops):
            return False
        seen.add(node.op_name)
    return True


@settings(deadline=None)
@given(st.permutations(range(6)), st.integers(0, 2**15 - 1))
def test_files_are_written_in_topological_order(order: list[int], edges: int) -> None:
    """For any order in which ops were added or replaced; ops in order stay in order."""
    graph, ops = xir.Graph("net"), list[xir.Op]()
    head: dict[str, Any] = {"shape": [1, 2], "data_type": "FLOAT32"}
    for number in range(6):
        first = number * (number - 1) // 2  # of the bits that choose its inputs
        sources = [op for n, op in enumerate(ops) if edges >> (first + n) & 1]
        kind, attrs = ("concat", {"axis": 0}) if sources else ("data", head)
        inputs = {"input": sources} if sources else {}
        ops.append(graph.create_op(f"op{number}", kind, attrs, inputs))
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "a.xmodel", Path(folder) / "b.xmodel"
        graph.serialize(path)
        assert graph.is_sorted and _in_order(path)
        proto = read_graph(path)
        nodes = list(proto.op_node)
        del proto.op_node[:]
        proto.op_node.extend(nodes[number] for number in order)
        write_graph(proto, copy)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            shuffled = xir.Graph.deserialize(copy)
        assert shuffled.is_sorted == _in_order(copy) == (not found)
        if shuffled.is_sorted:
            assert shuffled.to_proto() == proto
        shuffled.serialize(copy)
        assert _in_order(copy) and xir.Graph.deserialize(copy).is_sorted
