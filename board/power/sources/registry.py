"""Registry of power sources by name.

A source is one file of this folder: a class derived from
`tutelage.board.power.sources.source.PowerSource`, and a function that opens it, registered as
follows:

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
    name : name for `--power`
    preference : "auto" selects the available source with the lowest number
    """

    def register(opener: Opener) -> Opener:
        _entries.append(_Entry(preference, name, opener))
        return opener

    return register


@cache
def _openers() -> dict[str, Opener]:
    """Return the openers of all sources by name, the preferred one first."""
    import_modules("tutelage.board.power.sources")
    return {entry.name: entry.open for entry in sorted(_entries, key=lambda entry: entry[:2])}


def source_names() -> tuple[str, ...]:
    """Return the names of all sources, the preferred one first."""
    return tuple(_openers())


def open_source(name: str, board: str, sysfs: Path) -> PowerSource:
    """Open a power source.

    Parameters
    ----------
    name : one of `source_names`; "auto" selects the first available one, or else a source without
        rails whose text gives the reasons; "none" is a source without rails
    board : profile with the board's rails
    sysfs : mount point of Linux's sysfs

    Raises
    ------
    PowerError
        The source is unknown or not available.
    TomlError
        The board is unknown.
    """
    openers = _openers()
    if name not in ("auto", *openers, "none"):
        raise PowerError(
            f"no power source {name!r}; choose from {', '.join(('auto', *openers, 'none'))}"
        )
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
            source.text += f" (not available: {'; '.join(absent)})"
        return source
    return PowerSource(f"power is not measured: {'; '.join(absent)}")
