"""Registry of the data set formats.

A format is a module of this folder that derives a class from
`tutelage.host.train.data.formats.format.DataFormat` and registers an instance:

    register_format(IdxFormat())
"""

from __future__ import annotations

from functools import cache

from tutelage.core.discovery import import_modules
from tutelage.host.train.data.formats.format import DataFormat

_formats: dict[str, DataFormat] = {}


def register_format(entry: DataFormat) -> None:
    """Register a format under its name."""
    _formats[entry.name] = entry


@cache
def _discovered() -> dict[str, DataFormat]:
    import_modules("tutelage.host.train.data.formats")
    return dict(sorted(_formats.items()))


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(_discovered())


def data_format(name: str) -> DataFormat:
    """Return a format by its name.

    Raises
    ------
    ValueError
        There is no such format.
    """
    if name not in _discovered():
        raise ValueError(f"kind {name!r} is not one of {', '.join(format_names())}")
    return _discovered()[name]
