"""The formats of data sets that there are, by name.

A format is one file of this folder: a class derived from
`tutelage.host.train.data.formats.format.DataFormat`, an instance of which is registered here:

    register_format(IdxFormat())
"""

from __future__ import annotations

from functools import cache

from tutelage.core.discovery import import_modules
from tutelage.host.train.data.formats.format import DataFormat

_formats: dict[str, DataFormat] = {}


def register_format(entry: DataFormat) -> None:
    """Make a format known by its name."""
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
