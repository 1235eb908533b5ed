"""The power sources that there are, and the choice of one by name.

A source is one file of this folder: a class derived from
`tutelage.board.power.sources.source.PowerSource`, and the function that opens it, registered here:

    @register_source("rapl", preference=30)
    def open_rapl(profile: Profile, sysfs: Path) -> PowerSource: ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tutelage.board.power.sources.source import PowerError, PowerSource
from tutelage.core.board_profile import Profile, load_profile
from tutelage.core.discovery import import_modules

Opener = Callable[[Profile, Path], PowerSource]


class _Entry(NamedTuple):
    preference: int
    name: str
    open: Opener


_entries: list[_Entry] = []


def register_source(name: str, preference: int) -> Callable[[Opener], Opener]:
    """Register a function that opens a power source.

    Parameters
    ----------
    name : as `--power` takes it
    preference : "auto" takes the source with the lowest one that is there
    """

    def register(opener: Opener) -> Opener:
        _entries.append(_Entry(preference, name, opener))
        return opener

    return register


@cache
def _openers() -> dict[str, Opener]:
    """Return what opens each source, the preferred one first."""
    import_modules("tutelage.board.power.sources")
    return {entry.name: entry.open for entry in sorted(_entries, key=lambda entry: entry[:2])}


def source_names() -> tuple[str, ...]:
    """Return the names of all sources, the preferred one first."""
    return tuple(_openers())


def open_source(name: str, board: str, sysfs: Path) -> PowerSource:
    """Open a power source.

    Parameters
    ----------
    name : one of `source_names`; "auto" takes the first that is there, or a source without rails
        that gives the reasons; "none" is such a source, too
    board : profile that names the board's rails
    sysfs : where Linux's class directories are

    Raises
    ------
    PowerError
        There is no source of that name, or it is not there.
    TomlError
        There is no such board.
    """
    openers = _openers()
    if name not in ("auto", *openers, "none"):
        raise PowerError(f"no power source {name!r}, but {', '.join(('auto', *openers, 'none'))}")
    if name == "none":
        return PowerSource("power is not measured: switched off")
    profile = load_profile(board)
    if name != "auto":
        try:
            return openers[name](profile, sysfs)
        except PowerError as error:
            raise PowerError(f"power source {name}: {error}") from error
    return _first_source(openers, profile, sysfs)


def _first_source(openers: dict[str, Opener], profile: Profile, sysfs: Path) -> PowerSource:
    absent = []
    for candidate, opener in openers.items():
        try:
            source = opener(profile, sysfs)
        except PowerError as error:
            absent.append(f"{candidate}: {error}")
            continue
        if absent:
            source.text += f" (not taken: {'; '.join(absent)})"
        return source
    return PowerSource(f"power is not measured: {'; '.join(absent)}")
