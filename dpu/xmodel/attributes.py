"""Attributes of graphs, subgraphs, ops and tensors: Python values with .xmodel types.

An .xmodel distinguishes int32 from uint64 and float from double; Python does not. So
each value is stored with its kind, the name of the protobuf field that it came
from, and a file that is read and written again gives the same message.
"""

from __future__ import annotations

from typing import Any, TypeVar

from tutelage.core.errors import DpuError, not_emulated

_INT32_MAX = (1 << 31) - 1

AttrValue = Any
"""bool, int, float, str, bytes, a list of one of these, or a dict from str to one of these."""


def decode(proto: Any) -> tuple[str, AttrValue]:
    """Return the kind and the Python value of an AttrValue message."""
    kind = proto.WhichOneof("value")
    if kind is None:
        return "", None
    value = getattr(proto, kind)
    if not hasattr(value, "DESCRIPTOR"):
        return kind, value
    payload = value.value
    if kind.startswith("map_"):
        if kind.endswith("_vec_value"):
            return kind, {key: list(item.value) for key, item in payload.items()}
        if kind == "map_string_2_bytes_value":
            return kind, {key: item.value for key, item in payload.items()}
        return kind, dict(payload)
    return kind, payload if isinstance(payload, bytes) else list(payload)


def encode(kind: str, value: AttrValue, proto: Any) -> None:
    """Write `value` as `kind` into the AttrValue message `proto`."""
    if not kind:
        return
    if not kind.startswith("map_") and not kind.endswith("_vec_value") and kind != "bytes_value":
        setattr(proto, kind, value)
        return
    field = getattr(proto, kind)
    field.SetInParent()
    if kind == "bytes_value":
        field.value = value
    elif not kind.startswith("map_"):
        field.value.extend(value)
    elif kind.endswith("_vec_value"):
        for key, item in value.items():
            field.value[key].value.extend(item)
    elif kind == "map_string_2_bytes_value":
        for key, item in value.items():
            field.value[key].value = item
    else:
        field.value.update(value)


def infer_kind(value: AttrValue) -> str:
    """Return the kind that XIR's Python binding gives to a value of this type.

    Raises
    ------
    DpuError
        The value has a type that an .xmodel cannot store.
    """
    if isinstance(value, dict):
        items = list(value.values())
        inner = infer_kind(items[0]) if items else "string_value"
        inner = "int32_value" if inner == "int64_value" else inner
        return f"map_string_2_{inner}"
    if isinstance(value, (list, tuple)):
        kinds = {infer_kind(item) for item in value} or {"int32_value"}
        kind = "int64_value" if kinds == {"int32_value", "int64_value"} else kinds.pop()
        return kind.replace("_value", "_vec_value")
    if isinstance(value, int) and not isinstance(value, bool):
        return _int_kind(value)
    for type_, kind in _SCALAR_KINDS:
        if isinstance(value, type_):
            return kind
    raise DpuError(f"an attribute cannot have a value of type {type(value).__name__}")


def _int_kind(value: int) -> str:
    if -_INT32_MAX - 1 <= value <= _INT32_MAX:
        return "int32_value"
    return "int64_value" if value < 1 << 63 else "uint64_value"


_SCALAR_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "bool_value"),
    (float, "double_value"),
    (str, "string_value"),
    (bytes, "bytes_value"),
)


Self = TypeVar("Self", bound="AttrHolder")


class AttrHolder:
    """The attribute methods common to all XIR classes."""

    def __init__(self) -> None:
        self._attrs: dict[str, tuple[str, AttrValue]] = {}

    def has_attr(self, name: str) -> bool:
        """Return whether the attribute `name` is set."""
        return name in self._attrs

    def get_attr(self, name: str) -> AttrValue:
        """Return the value of the attribute `name`; raises DpuError if it is not set."""
        if name not in self._attrs:
            raise DpuError(f"{self!r} has no attribute {name!r}")
        return self._attrs[name][1]

    def get_attrs(self) -> dict[str, AttrValue]:
        """Return all attributes, as a new dict."""
        return {name: value for name, (_, value) in self._attrs.items()}

    def set_attr(self: Self, name: str, value: AttrValue, kind: str = "") -> Self:
        """Set one attribute; `kind` (an AttrValue field name) overrides the inferred kind."""
        self._attrs[name] = (kind or infer_kind(value), value)
        return self

    def set_attrs(self: Self, attrs: dict[str, AttrValue]) -> Self:
        """Replace all attributes."""
        self._attrs = {name: (infer_kind(value), value) for name, value in attrs.items()}
        return self

    def __getattr__(self, name: str) -> Any:
        raise not_emulated(f"xir.{type(self).__name__}", name)

    def _load_attrs(self, proto_map: Any) -> None:
        self._attrs = {name: decode(value) for name, value in proto_map.items()}

    def _store_attrs(self, proto_map: Any) -> None:
        for name, (kind, value) in self._attrs.items():
            encode(kind, value, proto_map[name])
