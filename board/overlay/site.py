"""A board and the place of its overlay's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import OverlayProfile, Profile, UnknownBoardError, load_profile
from tutelage.core.errors import OverlayError, OverlayUsageError
from tutelage.core.files import replaced


@dataclass(frozen=True)
class OverlaySite:
    """A board and the place of an overlay's files.

    Attributes
    ----------
    profile : the board's
    overlay : the same board's overlay
    folder : directory with the overlay's files
    root : stands for / in all paths of the system
    """

    profile: Profile
    overlay: OverlayProfile
    folder: Path
    root: Path = Path("/")

    def system(self, path: str) -> Path:
        """A path of the board's system below `root`."""
        return self.root / path.lstrip("/")

    @property
    def firmware(self) -> Path:
        return self.system(self.overlay.firmware)

    @property
    def config(self) -> Path:
        return self.system(self.overlay.config)


def site_of(board: str, folder: Path, root: Path = Path("/")) -> OverlaySite:
    """The overlay of a board, whose files are in `folder`.

    Raises
    ------
    OverlayUsageError
        There is no such board, or its profile names no overlay.
    """
    try:
        profile = load_profile(board)
    except UnknownBoardError as error:
        raise OverlayUsageError(str(error)) from error
    if profile.overlay is None:
        raise OverlayUsageError(f"the profile of the {profile.name} names no overlay")
    return OverlaySite(profile, profile.overlay, folder, root)


def in_one_line(path: Path, action: Any) -> Any:
    """Call `action`; what the system refuses is reported in one line with the path."""
    try:
        return action()
    except OSError as error:
        raise OverlayError(f"{error.filename or path}: {error.strerror or error}") from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a system file so that a reader, or a cut of the power, finds the old or the new one."""
    with replaced(path, durable=True, mode=0o644) as partial:
        partial.write_bytes(content)
