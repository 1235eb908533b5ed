"""Decode untrusted JSON into dataclasses: check every field, and name the one that is wrong.

    decode(RunResults, json_table(path))

Fields may be bool, int, float, str, ``X | None``, ``list[X]``, ``tuple[X, ...]``,
``dict[str, X]``, other dataclasses, and Any. A field with a default may be missing. Keys that a
dataclass does not have are ignored. A class with a method ``from_json(value, place)`` decodes
itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tutelage.core.errors import DpuError
from tutelage.core.files import read_bounded

MAX_JSON_BYTES = 16 << 20
"""Largest file of results that is read: a run of a hundred windows takes 1 MB."""

MOST_LEVELS = 100
"""Largest depth of nested objects and lists: Python reads deeper JSON than it writes."""

_NESTED = (dict, list)

T = TypeVar("T")


class ResultsError(DpuError):
    """A file of results cannot be used; the message, one line, names the file and the problem."""


class MismatchError(ValueError):
    """A value does not have the expected type; the message names its place."""


def read_results(kind: type[T], path: Path, what: str) -> T:
    """Return the content of a JSON file as a dataclass.

    Parameters
    ----------
    kind : dataclass
    what : the kind of file, such as "a measured run", for the message

    Raises
    ------
    ResultsError
        The file is missing, larger than `MAX_JSON_BYTES`, not JSON, or not of the type `kind`.
    """
    try:
        data = read_bounded(path, MAX_JSON_BYTES)
    except OSError as error:
        raise ResultsError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_JSON_BYTES:
        raise ResultsError(f"{path}: larger than the limit of {MAX_JSON_BYTES >> 20} MiB")
    try:
        return decode(kind, json_value(data))
    except MismatchError as error:
        raise ResultsError(f"{path}: not {what}: {error}") from error


def json_value(data: str | bytes) -> Any:
    """Return the value of a JSON text; raises MismatchError if it is not JSON, or too deep."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise MismatchError("it is nested too deeply") from None
    except ValueError as error:
        raise MismatchError(f"it is not JSON: {error}".split("\n", 1)[0]) from None
    if _is_deep(value):
        raise MismatchError("it is nested too deeply")
    return value


def _is_deep(value: Any) -> bool:
    """Return whether a JSON value has more than `MOST_LEVELS` levels."""
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, _NESTED)]
        level = [child for children in inner for child in children]
    return bool(level)


def decode(kind: Any, value: object, place: str = "") -> Any:
    """Return a JSON value as `kind`, one of the types listed in the module's docstring.

    Parameters
    ----------
    place : path of the value in its file, such as "steps[0].fps"; "" for the whole file

    Raises
    ------
    MismatchError
        The value is not of the type `kind`.
    """
    if kind is Any:
        return value
    own = getattr(kind, "from_json", None)
    if own is not None:
        return own(value, place)
    if is_dataclass(kind):
        return decode_fields(kind, value, place)
    if kind in _SCALARS:
        return _SCALARS[kind](value, place)
    return _CONTAINERS[get_origin(kind)](get_args(kind), value, place)


def decode_fields(kind: Any, value: object, place: str) -> Any:
    """Return a JSON object as the dataclass `kind`, field by field; raises MismatchError."""
    table = _object(value, place)
    found = {}
    for field, hint in _fields(kind):
        if field.name in table:
            found[field.name] = decode(hint, table[field.name], _inside(place, field.name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MismatchError(f"{place or 'it'} lacks '{field.name}'")
    return kind(**found)


@cache
def _fields(kind: Any) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(kind)
    return [(field, hints[field.name]) for field in fields(kind)]


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _mismatch(place: str, expected: str) -> MismatchError:
    return MismatchError(f"{place or 'it'} is not {expected}")


def _bool(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(place, "true or false")
    return value


def _int(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise _mismatch(place, "an integer")
    return value


def _float(value: object, place: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # an integer out of the range of float
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise _mismatch(place, "a number")
    return number


def _str(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(place, "a string")
    return value


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(place, "an object")
    return value


def _optional(kinds: tuple[Any, ...], value: object, place: str) -> Any:
    (kind,) = (each for each in kinds if each is not NoneType)
    return None if value is None else decode(kind, value, place)


def _list(kinds: tuple[Any, ...], value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _mismatch(place, "a list")
    return [decode(kinds[0], each, f"{place}[{k}]") for k, each in enumerate(value)]


def _tuple(kinds: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    return tuple(_list(kinds, value, place))


def _dict(kinds: tuple[Any, ...], value: object, place: str) -> dict[str, Any]:
    return {name: decode(kinds[1], each, _inside(place, name[:40]))
            for name, each in _object(value, place).items()}  # fmt: skip


_SCALARS: dict[Any, Callable[[object, str], Any]] = {
    bool: _bool, int: _int, float: _float, str: _str,
}  # fmt: skip
_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], object, str], Any]] = {
    UnionType: _optional, list: _list, tuple: _tuple, dict: _dict,
}  # fmt: skip
