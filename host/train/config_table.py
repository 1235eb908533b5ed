"""Conversion of TOML tables to dataclasses, with every key and type checked."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tutelage.core import toml_file
from tutelage.core.errors import TutelageError

T = TypeVar("T")


class ConfigError(TutelageError, ValueError):
    """The configuration is not valid; the text is one line that names the table and the key."""


def apply_change(table: dict[str, Any], change: str) -> None:
    """Apply a change "table.key=value", the value in TOML's notation, to a table.

    Raises
    ------
    ConfigError
        `change` does not have that form, or goes through a key whose value is not a table.
    """
    key, equals, text = change.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {change}: write table.key=value")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change}: {name} is not a table")
    table[last] = toml_file.parse_value(text)


def check_keys(table: Any, known: Collection[str], where: str) -> None:
    """Raise ConfigError if a value is not a table, or has a key that is not known."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} must be a table, not {type(table).__name__}")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")


def from_table(cls: type[T], table: Any, where: str) -> T:
    """Return the dataclass that a table describes, including nested dataclasses.

    Parameters
    ----------
    where : the place that error messages begin with, such as the file's name

    Raises
    ------
    ConfigError
        A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    check_keys(table, [f.name for f in fields(cls)], where)  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return cls(**values)
    except ConfigError:
        raise
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).partition('() ')[2] or error}") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return from_table(hint, value, where)
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    lists = [kind for kind in kinds if get_origin(kind) is list]
    if len(kinds) > 1 and isinstance(value, list) and lists:
        return _value(lists[0], value, where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        return [_value(get_args(hint)[0], item, where) for item in value]
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table")
        return value
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = tuple(kind for kind in kinds if kind not in lists)
    if not isinstance(value, plain) or (isinstance(value, bool) and bool not in kinds):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        names |= dict.fromkeys(lists, "a list")
        wanted = " or ".join(names.get(kind, str(kind)) for kind in kinds)
        raise ConfigError(f"{where} must be {wanted}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):  # comparisons with NaN are false
        raise ConfigError(f"{where} must be a finite number, not {value}")
    return value
