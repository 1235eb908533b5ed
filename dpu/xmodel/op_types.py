"""Knowledge about op types that graphs need: XIR's definitions, output shapes, element types.

It is implemented in dpu/ops, a layer above this package. dpu/engine, which imports both, installs
it on import. Graphs can be read and written without it, but no op can be created.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.attributes import AttrValue, encode, infer_kind
from tutelage.dpu.xmodel.schema import message_class


class Definition(Protocol):
    """XIR's definition of an op type: `tutelage.dpu.ops.definition.Definition`."""

    @property
    def arguments(self) -> Sequence[tuple[str, int, int]]:
        """Name, occurrence and data type of each argument, as stored in the file."""

    @property
    def attributes(self) -> Sequence[tuple[str, int, str, Any, int]]:
        """Name, occurrence, kind, default and list length of each attribute."""

    def check_inputs(self, counts: Mapping[str, int], what: str) -> None:
        """Raise DpuError for input counts that the op type does not take."""

    def check_attributes(self, given: Iterable[str], what: str) -> None:
        """Raise DpuError if a required attribute is missing."""

    def kinds(self) -> dict[str, str]:
        """Return the value kind of each attribute."""

    def defaults(self) -> dict[str, Any]:
        """Return the default values of optional attributes."""


class OpTypes(Protocol):
    """Interface of the installed knowledge about op types."""

    def definition(self, type_: str) -> Definition | None:
        """Return the definition of an op type, or None if it has none."""

    def infer_dims(self, op: Any) -> list[int]:
        """Return the dims of an op's output."""

    def infer_dtype(self, op: Any) -> str:
        """Return the element type of an op's output."""


_installed: OpTypes | None = None


def install(op_types: OpTypes) -> None:
    """Make the knowledge about op types available to all graphs."""
    global _installed
    _installed = op_types


def _known() -> OpTypes:
    if _installed is None:
        raise DpuError("no op types are installed; import tutelage.dpu.engine first")
    return _installed


def infer_dims(op: Any) -> list[int]:
    """Return the dims of an op's output.

    Raises
    ------
    UnsupportedError
        The op type has no rule and no attribute `shape`, or the inputs do not fit the op.
    """
    return _known().infer_dims(op)


def infer_dtype(op: Any) -> str:
    """Return the element type of an op's output."""
    return _known().infer_dtype(op)


def check_inputs(type_: str, counts: Mapping[str, int], what: str) -> None:
    """Verify an op's input counts by argument; op types without a definition pass.

    Raises
    ------
    DpuError
        `what` has no such argument, or the argument takes another number of inputs.
    """
    definition = _known().definition(type_)
    if definition is not None:
        definition.check_inputs(counts, f"{what} ({type_})")


def complete(
    type_: str, attrs: dict[str, AttrValue], what: str
) -> dict[str, tuple[str, AttrValue]]:
    """Return the attributes of an op as (kind, value), with defaults for missing optional ones.

    Raises
    ------
    DpuError
        A required attribute of `what` is missing, or a value has a type that an .xmodel cannot
                store.
    """
    definition = _known().definition(type_)
    if definition is None:
        return {name: (infer_kind(value), value) for name, value in attrs.items()}
    definition.check_attributes(attrs, f"{what} ({type_})")
    kinds, defaults = definition.kinds(), definition.defaults()
    given = {name: (kinds.get(name) or infer_kind(value), value) for name, value in attrs.items()}
    missing = {name: (kinds[name], value) for name, value in defaults.items() if name not in attrs}
    return given | missing


def definitions(types: Iterable[str]) -> list[Any]:
    """Return the ``OpDef`` messages of the op types that have a definition, in the given order."""
    found = ((type_, _known().definition(type_)) for type_ in types)
    return [_message(type_, definition) for type_, definition in found if definition is not None]


def _message(type_: str, definition: Definition) -> Any:
    proto = message_class("OpDef")(name=type_)
    for name, occurrence, data_type in definition.arguments:
        proto.input_args.add(name=name, occur_type=occurrence, data_type=data_type)
    for name, occurrence, kind, default, length in definition.attributes:
        attribute = proto.attrs.add(name=name, occur_type=occurrence, list_length=length)
        encode(kind, default, attribute.default_value)
    return proto
