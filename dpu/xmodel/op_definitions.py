"""What XIR knows of an op type: arguments and attributes, as an .xmodel carries them in `op_defs`.

The real library writes a definition for each op type it knows. A file of ours carries those of the
types that it uses, without the prose. Facts read from the op_defs of files that AMD's exporter
wrote (XIR 2.5, Apache-2.0); a test compares them with such a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.attributes import AttrValue, encode, infer_kind
from tutelage.dpu.xmodel.schema import message_class

REQUIRED, OPTIONAL, REPEATED, REQUIRED_AND_REPEATED = range(4)
_FLOAT = 4  # data_type of an argument: its tensors are FLOAT

# Attributes: (name, occurrence, kind of its value, default, length of a list; 1 for scalars, 0 any)
_Attr = tuple[str, int, str, Any, int]

_KERNEL: tuple[_Attr, ...] = (
    ("kernel", REQUIRED, "int32_vec_value", [], 2),
    ("stride", REQUIRED, "int32_vec_value", [], 2),
)
_PADS: tuple[_Attr, ...] = (
    ("pad_mode", REQUIRED, "string_value", "", 1),
    ("pad", OPTIONAL, "int32_vec_value", [0, 0, 0, 0], 4),
)
_DILATION: _Attr = ("dilation", OPTIONAL, "int32_vec_value", [1, 1], 2)
_GLOBAL: _Attr = ("global", OPTIONAL, "bool_value", False, 1)
_VALUES: tuple[_Attr, ...] = (
    ("shape", REQUIRED, "int32_vec_value", [], 0),
    ("data_type", REQUIRED, "string_value", "", 1),
)
_X = (("input", REQUIRED),)
_XS = (("input", REQUIRED_AND_REPEATED),)
_CONVOLUTION = (("input", REQUIRED), ("weights", REQUIRED), ("bias", OPTIONAL))

_DEFINITIONS: dict[str, tuple[tuple[tuple[str, int], ...], tuple[_Attr, ...]]] = {
    "data": ((), _VALUES),
    "const": ((), (*_VALUES, ("data", REQUIRED, "bytes_value", b"", 0))),
    "fix": (
        _X,
        (
            ("fix_point", REQUIRED, "int32_value", 0, 1),
            ("bit_width", REQUIRED, "int32_value", 0, 1),
            ("round_mode", REQUIRED, "string_value", "", 1),
            ("if_signed", REQUIRED, "bool_value", False, 1),
        ),
    ),
    "conv2d": (_CONVOLUTION, (*_KERNEL, _DILATION, *_PADS)),
    "depthwise-conv2d": (_CONVOLUTION, (*_KERNEL, _DILATION, *_PADS)),
    "transposed-conv2d": (_CONVOLUTION, (*_KERNEL, _DILATION, *_PADS)),
    "maxpool2d": (_X, (*_KERNEL, *_PADS, _GLOBAL)),
    "avgpool2d": (
        _X,
        (
            *_KERNEL,
            *_PADS,
            _GLOBAL,
            ("count_include_pad", OPTIONAL, "bool_value", True, 1),
            ("count_include_invalid", OPTIONAL, "bool_value", True, 1),
        ),
    ),
    "relu": (_X, ()),
    "relu6": (_X, ()),
    "leaky-relu": (_X, (("alpha", REQUIRED, "float_value", 0.0, 1),)),
    "concat": (_XS, (("axis", REQUIRED, "int32_value", 0, 1),)),
    "add": (_XS, ()),
    "mul": (_XS, ()),
    "flatten": (
        _X,
        (
            ("start_axis", REQUIRED, "int32_value", 0, 1),
            ("end_axis", REQUIRED, "int32_value", 0, 1),
        ),
    ),
    "reshape": (
        (("input", REQUIRED), ("shape", OPTIONAL)),
        (("shape", OPTIONAL, "int32_vec_value", [0], 0),),
    ),
}

_INT_ARGUMENTS = {("reshape", "shape"): 0}
"""Arguments whose tensors are not FLOAT, with their data_type."""


def definitions(kinds: Iterable[str]) -> list[Any]:
    """The ``OpDef`` messages of the op types `kinds` that are known here, in the given order."""
    return [_definition(kind) for kind in kinds if kind in _DEFINITIONS]


def check_inputs(kind: str, counts: dict[str, int], what: str) -> None:
    """Check an op's numbers of inputs by argument; op types that are not known here pass.

    Raises
    ------
    DpuError
        `what` has no such argument, or the argument takes another number of inputs.
    """
    if kind not in _DEFINITIONS:
        return
    known = dict(_DEFINITIONS[kind][0])
    unknown = [name for name in counts if name not in known]
    if unknown:
        raise DpuError(f"{what} ({kind}) has no argument {unknown[0]!r}")
    for name, occurs in known.items():
        count = counts.get(name, 0)
        least, most, text = _TAKES[occurs]
        if not least <= count <= most:
            raise DpuError(f"{what} ({kind}): argument {name!r} takes {text}, not {count}")


_TAKES = {
    REQUIRED: (1, 1, "one input"),
    OPTIONAL: (0, 1, "one input at most"),
    REPEATED: (0, math.inf, "any number of inputs"),
    REQUIRED_AND_REPEATED: (1, math.inf, "one input at least"),
}


def complete(kind: str, attrs: dict[str, AttrValue], what: str) -> dict[str, tuple[str, AttrValue]]:
    """Attributes of an op of the type `kind` as (kind, value), with the defaults of optional ones.

    Raises
    ------
    DpuError
        A required attribute of `what` is missing, or has a value that an .xmodel cannot hold.
    """
    _, known = _DEFINITIONS.get(kind, ((), ()))
    kinds = {name: value_kind for name, _, value_kind, _, _ in known}
    missing = [name for name, occurs, *_ in known if occurs == REQUIRED and name not in attrs]
    if missing:
        raise DpuError(f"{what} ({kind}) needs the attribute {missing[0]!r}")
    defaults = {
        name: (value_kind, list(default) if isinstance(default, list) else default)
        for name, occurs, value_kind, default, _ in known
        if occurs == OPTIONAL and name not in attrs
    }
    given = {name: (kinds.get(name) or infer_kind(value), value) for name, value in attrs.items()}
    return given | defaults


def _definition(kind: str) -> Any:
    arguments, attributes = _DEFINITIONS[kind]
    proto = message_class("OpDef")(name=kind)
    for name, occurrence in arguments:
        data_type = _INT_ARGUMENTS.get((kind, name), _FLOAT)
        proto.input_args.add(name=name, occur_type=occurrence, data_type=data_type)
    for name, occurrence, value_kind, default, length in attributes:
        attribute = proto.attrs.add(name=name, occur_type=occurrence, list_length=length)
        encode(value_kind, default, attribute.default_value)
    return proto
