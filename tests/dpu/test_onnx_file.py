"""ONNX files of the fast engine, read by the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import helper, numpy_helper

from tutelage.dpu.engine import onnx_file

INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    INTEGERS,
    st.lists(INTEGERS),
    st.floats(width=32, allow_nan=False),
    st.sampled_from(["", "nearest", "größer" * 40]),
)


def _read(nodes: Sequence[bytes] = (), constants: Sequence[bytes] = ()) -> Any:
    return onnx.load_from_string(onnx_file.model(nodes, constants, [], []))


@given(attrs=st.dictionaries(st.sampled_from(["axis", "pads", "mode"]), VALUES))
def test_nodes(attrs: dict[str, Any]) -> None:
    (found,) = _read([onnx_file.node("Conv", ["a", "b"], "c", **attrs)]).graph.node
    assert (found.op_type, list(found.input), list(found.output)) == ("Conv", ["a", "b"], ["c"])
    for attribute in found.attribute:
        value = helper.get_attribute_value(attribute)
        assert attrs[attribute.name] == (value.decode() if isinstance(value, bytes) else value)
    assert {attribute.name for attribute in found.attribute} == set(attrs)


@pytest.mark.parametrize("dtype", onnx_file.ELEMENT_TYPES)
@given(data=st.data())
def test_constants(dtype: Any, data: st.DataObject) -> None:
    array = data.draw(arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0)))
    (found,) = _read(constants=[onnx_file.tensor(array, "w")]).graph.initializer
    assert found.name == "w"
    np.testing.assert_array_equal(numpy_helper.to_array(found), array)
    assert numpy_helper.to_array(found).dtype == dtype


def test_a_graph_that_onnx_accepts() -> None:
    nodes = [onnx_file.node("Conv", ["x", "w"], "y", group=2, pads=[0, 1, 0, 1])]
    weights = onnx_file.tensor(np.ones((4, 3, 1, 3), np.float32), "w")
    ends = [
        onnx_file.value(n, np.float32, dims) for n, dims in (("x", (6, 5, 5)), ("y", (4, 5, 5)))
    ]
    model = onnx.load_from_string(onnx_file.model(nodes, [weights], ends[:1], ends[1:]))
    onnx.checker.check_model(model, full_check=True)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["N", 6, 5, 5]
