"""Differences of two .xmodels, for `tutelage diff`.

Two files of the same form are compared op by op, by name, with all attributes. A quantised and a
compiled file are compared layer by layer, in everything a compiler must keep (shapes, windows, fix
points, integers of weights and biases). Layers are matched by name, and those without a namesake by
computation order among layers of the same type and shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import contradictions
from tutelage.core.fingerprint import describe, foreign
from tutelage.core.fixed_point import Array, integers_of, saturate
from tutelage.core.text import LONGEST_NAME, clipped, counted, shown
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.inspect.layers import (
    Layer,
    dense_matrix,
    fix_point_of,
    is_dense,
    is_detour,
    is_shifted_bias,
    layers_of,
    origin,
)
from tutelage.dpu.ops.data import constant
from tutelage.dpu.ops.reference import run_op
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

MAX_LINES = 500
"""Most differences that are printed; JSON has all of them."""

_LONG, _PIECE, _CHAIN = 64, 1 << 22, 8
"""Most items of a list to show, values to compare at a time, ops between constant and reader."""

_ELSEWHERE = ("data", "reg_id", "ddr_addr", "reg_id_to_parameter_value")
"""Attributes with the data and location of constants, whose values are compared instead."""


def diff(a: Path, b: Path, by_layers: bool = False) -> dict[str, Any]:
    """Return the differences of two files, for JSON; `equal` is True if there are none.

    Parameters
    ----------
    by_layers : compare layer by layer, even if both files have the same form

    Raises
    ------
    XmodelError
        One of the files is not a usable .xmodel.
    """
    graphs = [Graph.deserialize(path) for path in (a, b)]
    forms = [_form(graph) for graph in graphs]
    by_layers = by_layers or forms[0] != forms[1]
    found: dict[str, Any] = {"a": str(a), "b": str(b), "forms": forms}
    found["compared"] = "layers" if by_layers else "ops"
    if by_layers:
        for path, graph in zip((a, b), graphs, strict=True):
            with contradictions(_called(path, graph)):
                layers_of(graph)
    with contradictions(f"{a}, {b}"):
        found |= _Layers(*graphs).compare() if by_layers else _Ops(*graphs).compare()
    return {"equal": not any(found[part] for part in (*_DIFFERENCES, "not_compared")), **found}


_DIFFERENCES = ("only_in_a", "only_in_b", "differences", "weights")


def _called(path: Path, graph: Graph) -> str:
    """Return the path, with the DPU that the file is for if it is not a DPUCZDX8G."""
    other = foreign(graph)
    return str(path) if other is None else f"{path}, for {other}"


def _form(graph: Graph) -> str:
    return "compiled" if graph.get_root_subgraph().get_children_num() else "quantised"


def lines(found: dict[str, Any]) -> list[str]:
    """Return the differences as lines for a terminal, with control characters escaped."""
    text = [f"{side.upper()}: {found[side]}, {form}" for side, form in _sides(found)]
    for side in ("a", "b"):
        text += [f"only in {side.upper()}: {item}" for item in found[f"only_in_{side}"]]
    for one in found["differences"]:
        name = shown(one["name"], LONGEST_NAME)
        text.append(f"{name}: {one['what']}: {_value(one['a'])} -> {_value(one['b'])}")
    for one in found["weights"]:
        text.append(
            f"{one['name']}: {one['count']:,} of {counted(one['of'], 'value')} differ, "
            f"by at most {one['largest']:g}"
        )
    text += [f"not compared: {what}" for what in found["not_compared"]]
    if not any(found[part] for part in _DIFFERENCES):
        rest = "the rest is " if found["not_compared"] else ""
        text.append(f"{rest}equal: {found['matched']:,} {found['compared']}")
    if len(text) > MAX_LINES:
        text[MAX_LINES:] = [f"... and {len(text) - MAX_LINES:,} more (--json has them all)"]
    return [shown(line) for line in text]


def _sides(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    return zip(("a", "b"), found["forms"], strict=True)


def _value(value: Any) -> str:
    return shown("none" if value is None else value, LONGEST_NAME)


class _Comparison:
    """Base of both comparisons, with the lists of differences."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self.a, self.b = a, b
        self.others = [foreign(graph) for graph in (a, b)]
        self.differences: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []

    def differ(self, name: str, what: str, a: Any, b: Any) -> None:
        """Record a difference in `what` of `name`, if any."""
        if a != b and repr(a) != repr(b):  # NaN is not equal to itself
            self.differences.append({"name": name, "what": what, "a": _plain(a), "b": _plain(b)})

    def differ_in_values(self, name: str, a: Array | None, b: Array | None) -> None:
        """Record how many values of two constants differ, and the largest difference."""
        if a is None or b is None or a.shape != b.shape:
            shapes = [None if array is None else list(array.shape) for array in (a, b)]
            self.differ(name, "shape of the values", *shapes)
            return
        count, largest = 0, 0.0
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        for start in range(0, flat_a.size, _PIECE):
            pieces = (flat[start : start + _PIECE] for flat in (flat_a, flat_b))
            some, most = _distance(*pieces)
            count, largest = count + some, max(largest, most)
        if count:
            self.weights.append({"name": name, "count": count, "of": a.size, "largest": largest})


def _distance(a: Array, b: Array) -> tuple[int, float]:
    """Return how many values differ, and the largest difference; NaN equals NaN."""
    apart = np.asarray(a != b) & ~((a != a) & (b != b))
    if not apart.any():
        return 0, 0.0
    gaps = np.abs(a[apart].astype(np.float64) - b[apart].astype(np.float64))
    return int(apart.sum()), float(np.nan_to_num(gaps, nan=np.inf).max())


def _plain(value: Any) -> Any:
    """Return a value for JSON, with bounded size."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, dict):
        items = sorted(value.items())[:_LONG]
        return ", ".join(f"{clipped(key, _LONG)}: {_plain(item)}" for key, item in items)
    if isinstance(value, list):
        more = ", ..." if len(value) > _LONG else ""
        return f"[{', '.join(str(_plain(item)) for item in value[:_LONG])}{more}]"
    return clipped(value, 1000) if isinstance(value, str) else value


class _Ops(_Comparison):
    """Comparison op by op, for files of the same form."""

    def compare(self) -> dict[str, Any]:
        """Return all differences, in the order of A."""
        self._attributes("graph", self.a.get_attrs(), self.b.get_attrs())
        self.differ("graph", "name", self.a.get_name(), self.b.get_name())
        self._subgraphs()
        ops_a = {op.get_name(): op for op in self.a.toposort()}
        ops_b = {op.get_name(): op for op in self.b.toposort()}
        both = [name for name in ops_a if name in ops_b]
        for name in both:
            self._op(name, ops_a[name], ops_b[name])
        return {
            "matched": len(both),
            "only_in_a": [_named(op) for name, op in ops_a.items() if name not in ops_b],
            "only_in_b": [_named(op) for name, op in ops_b.items() if name not in ops_a],
            "differences": self.differences,
            "weights": self.weights,
            "not_compared": [],
        }

    def _op(self, name: str, a: Op, b: Op) -> None:
        self.differ(name, "type", a.get_type(), b.get_type())
        self.differ(name, "inputs", _input_names(a), _input_names(b))
        out_a, out_b = a.get_output_tensor(), b.get_output_tensor()
        self.differ(name, "shape", out_a.dims, out_b.dims)
        self.differ(name, "element type", out_a.dtype, out_b.dtype)
        self.differ(name, "tensor name", out_a.name, out_b.name)
        self._attributes(name, out_a.get_attrs(), out_b.get_attrs(), "of the tensor ")
        self._attributes(name, a.get_attrs(), b.get_attrs())
        readable = self.others == [None, None]  # otherwise all parameters are one attribute
        if readable and type_of(a).source == "constant" and a.get_type() == b.get_type():
            self.differ_in_values(name, constant(self.a, a), constant(self.b, b))

    def _attributes(self, name: str, a: dict[str, Any], b: dict[str, Any], whose: str = "") -> None:
        hidden = set(_ELSEWHERE) if self.others == [None, None] else set()
        for key in sorted((a.keys() | b.keys()) - hidden):
            label = "fix point" if key == "fix_point" else f"attribute {whose}{key}"
            values = [a.get(key), b.get(key)]
            if key == "dpu_fingerprint":
                values = [describe(v) if isinstance(v, int) else v for v in values]
            self.differ(name, label, *values)

    def _subgraphs(self) -> None:
        """Compare the subgraphs in execution order, with their attributes."""
        parts_a, parts_b = (
            graph.get_root_subgraph().toposort_child_subgraph() for graph in (self.a, self.b)
        )
        self.differ("graph", "number of subgraphs", len(parts_a), len(parts_b))
        if len(parts_a) != len(parts_b):
            return
        for number, (a, b) in enumerate(zip(parts_a, parts_b, strict=True)):
            self.differ(f"subgraph {number}", "name", a.get_name(), b.get_name())
            self._attributes(f"subgraph {number}", a.get_attrs(), b.get_attrs())


def _input_names(op: Op) -> list[str]:
    return [f"{arg} {s.get_name()}" for arg, ops in op.get_input_ops().items() for s in ops]


def _named(op: Op) -> str:
    return f"{op.get_type()} {op.get_name()}"


class _Layers(_Comparison):
    """Comparison layer by layer, for files of different forms."""

    def compare(self) -> dict[str, Any]:
        """Return all differences, in the order of A."""
        layers_a, layers_b = layers_of(self.a), layers_of(self.b)
        partner = _partners(layers_a, layers_b)
        taken = set(partner.values())
        for a, b in partner.items():
            if is_detour(a) and is_detour(b):
                continue  # the same values in another form: their readers are compared
            # In B's names; layers without a partner are reported anyway.
            sources_a, sources_b = (map(origin, layer.sources) for layer in (a, b))
            read_a = [partner[s].name if s in partner else None for s in sources_a]
            read_b = [s.name if s in taken else None for s in sources_b]
            self.differ(a.name, "inputs", read_a, read_b)
            self._layer(a, b)
        self.differ("graph", "shapes of the outputs", _ends(self.a), _ends(self.b))
        # Layers that only change the form of values may be missing, or be elsewhere.
        lost_a = [a for a in layers_a if a not in partner and not is_detour(a)]
        lost_b = [b for b in layers_b if b not in taken and not is_detour(b)]
        return {
            "matched": len(partner),
            "matched_by_order": [[a.name, b.name] for a, b in partner.items() if a.name != b.name],
            "only_in_a": [f"{a.kind} {a.name}" for a in lost_a],
            "only_in_b": [f"{b.kind} {b.name}" for b in lost_b],
            "differences": self.differences,
            "weights": self.weights,
            "not_compared": [
                f"weights and biases, which {side} stores in the order of {other}"
                for side, other in zip("AB", self.others, strict=True)
                if other
            ],
        }

    def _layer(self, a: Layer, b: Layer) -> None:
        self.differ(a.name, "type", _alike(a), _alike(b))
        self.differ(a.name, "nonlinear", a.nonlinear, b.nonlinear)
        if is_dense(a) and is_dense(b):  # the matrix determines the rest, in any form
            self.differ(a.name, "outputs", a.dims[-1], b.dims[-1])
        else:
            self.differ(a.name, "shape", a.dims, b.dims)
            if a.kind == b.kind:  # a layer of another kind has its own window
                self.differ(a.name, "kernel", a.kernel, b.kernel)
                self.differ(a.name, "stride", _steps(a), _steps(b))
                self.differ(a.name, "pad left, top", _pad(a), _pad(b))
        self.differ(a.name, "fix point", a.fix_point, b.fix_point)
        for arg in sorted(a.constants.keys() | b.constants.keys()):
            self._constants(arg, a, b)

    def _constants(self, arg: str, a: Layer, b: Layer) -> None:
        name, ops_a, ops_b = f"{a.name} {arg}", a.constants.get(arg, []), b.constants.get(arg, [])
        self.differ(name, "number of constants", len(ops_a), len(ops_b))
        for one, other in zip(ops_a, ops_b, strict=False):
            self.differ(name, "fix point", fix_point_of(one), fix_point_of(other))
            if any(self.others):
                continue
            left, right = _integers(self.a, one), _integers(self.b, other)
            if left is not None and right is not None and left.size == right.size:
                if arg == "weights" and is_dense(a) and is_dense(b):
                    left, right = dense_matrix(a, left), dense_matrix(b, right)
                elif arg == "bias" and _form(self.a) != _form(self.b):
                    right = left if _shifted(a, b, left, right) else right
                # A matrix that became a 1x1 kernel has the same values in the same order.
                left, right = left.reshape(-1), right.reshape(-1)
            self.differ_in_values(name, left, right)


def _shifted(a: Layer, b: Layer, bias_a: Array, bias_b: Array) -> bool:
    """Return whether the bias of the quantised file was compiled to the other one."""
    if a.device is None:
        return is_shifted_bias(a, bias_a, bias_b)
    return is_shifted_bias(b, bias_b, bias_a)


def _ends(graph: Graph) -> list[list[int]]:
    return [op.get_output_tensor().dims for op in graph_outputs(graph)]


def _steps(layer: Layer) -> list[int | None]:
    """Return the stride [width, height]; None along a side with a single position."""
    sides = (layer.dims[2:3], layer.dims[1:2])
    return [
        step if side and side[0] > 1 else None
        for step, side in zip(layer.stride, sides, strict=False)
    ]


def _partners(a: Sequence[Layer], b: Sequence[Layer]) -> dict[Layer, Layer]:
    """Match layers of A and B by name, the rest by order among those of equal type and shape."""
    by_name = {layer.name: layer for layer in b}
    partner = {layer: by_name[layer.name] for layer in a if layer.name in by_name}
    taken = set(partner.values())
    waiting: dict[tuple[str, str], list[Layer]] = {}
    for layer in reversed(b):
        if layer not in taken and not is_detour(layer):
            waiting.setdefault(_likeness(layer), []).append(layer)
    for layer in a:
        likes = waiting.get(_likeness(layer))
        if layer not in partner and likes:
            partner[layer] = likes.pop()
    return {layer: partner[layer] for layer in a if layer in partner}


def _likeness(layer: Layer) -> tuple[str, str]:
    return _alike(layer), str(layer.dims[-1:] if is_dense(layer) else layer.dims)


def _alike(layer: Layer) -> str:
    return layer.type.becomes or layer.kind


def _pad(layer: Layer) -> list[int] | None:
    """Return the padding [left, top] by `pad_mode`; right and bottom follow from the output shape.

    A compiler drops padding that no window reaches: PointPillars' [1, 1, 1, 1] with stride 2
    becomes [1, 0, 1, 0].
    """
    if not layer.op.has_attr("kernel") or not layer.sources:
        return None
    window = layer.type.window(layer.op)
    return [window.pad_left, window.pad_top]


def _integers(graph: Graph, op: Op) -> Array | None:
    """Return the integers of a quantised constant, the values of another, None if computed."""
    chain: list[Op] = []
    while type_of(op).source != "constant":
        sources = [s for ops in op.get_input_ops().values() for s in ops]
        kind = type_of(op)
        real = kind.real is not None and kind.name == op.get_type()
        if not real or len(sources) != 1 or len(chain) == _CHAIN:
            return None  # computed from several constants, which no known file has
        chain.append(op)
        op = sources[0]
    values = constant(graph, op)
    for step in reversed(chain):
        values = run_op(step, {"input": [values]})
    point = fix_point_of(chain[0] if chain else op)
    if values.dtype == np.int8 or point is None:
        return values
    return saturate(integers_of(values.astype(np.float64), point))
