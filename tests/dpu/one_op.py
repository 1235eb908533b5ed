"""Graphs of one op, for tests of op types."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.runtime import xir

RNG = np.random.default_rng(9)


def _fixed(tensor: xir.Tensor, point: int) -> None:
    tensor.set_attrs({"fix_point": point, "bit_width": 8, "if_signed": True})


def fix_graph(
    kind: str, attrs: dict[str, Any], inputs: list[tuple[list[int], int]], point: int,
    constants: dict[str, tuple[np.ndarray, int]] | None = None,
) -> xir.Graph:  # fmt: skip
    """One -fix op on int8 inputs (dims, fix point) and int8 constants (values, fix point)."""
    graph = xir.Graph("one op")
    sources = []
    for number, (dims, input_point) in enumerate(inputs):
        kind_attrs = {"shape": dims, "data_type": "XINT8"}
        sources.append(graph.create_op(f"x{number}", "data-fix", kind_attrs))
        _fixed(sources[-1].get_output_tensor(), input_point)
    arguments = {"input": sources}
    for name, (values, constant_point) in (constants or {}).items():
        const_attrs = {"shape": list(values.shape), "data_type": "XINT8", "data": values.tobytes()}
        arguments[name] = [graph.create_op(name, "const-fix", const_attrs)]
        _fixed(arguments[name][0].get_output_tensor(), constant_point)
    _fixed(graph.create_op("y", kind, attrs, arguments).get_output_tensor(), point)
    return graph


def run(graph: xir.Graph, *arrays: np.ndarray) -> np.ndarray:
    """The op's output in both engines, which must agree."""
    found = [load_engine(graph, e, trace=True).trace(*arrays)["y"] for e in ("fast", "reference")]
    np.testing.assert_array_equal(found[0], found[1])
    return found[1]


def int8(*dims: int) -> np.ndarray:
    """Random values."""
    return RNG.integers(-128, 128, dims, dtype=np.int8)


def real_graph(
    kind: str,
    attrs: dict[str, Any],
    inputs: list[list[int]],
    constants: dict[str, np.ndarray] | None = None,
) -> xir.Graph:
    """One op on float32 inputs of these dims, and constants."""
    graph = xir.Graph("one op")
    sources = [
        graph.create_op(f"x{i}", "data", {"shape": dims, "data_type": "FLOAT32"})
        for i, dims in enumerate(inputs)
    ]
    arguments = {"input": sources}
    for name, values in (constants or {}).items():
        arguments[name] = [graph.create_const_op(name, values)]
    graph.create_op("y", kind, attrs, arguments)
    return graph


def real_values(*dims: int) -> np.ndarray:
    """Random values, float32."""
    return RNG.standard_normal(dims).astype(np.float32)
