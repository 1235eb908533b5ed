"""The paths of a board's overlay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import OverlayProfile, Profile, UnknownBoardError, load_profile
from tutelage.core.errors import OverlayError, OverlayUsageError
from tutelage.core.files import replaced


@dataclass(frozen=True)
class OverlaySite:
    """A board and the paths of its overlay.

    Attributes
    ----------
    profile : profile of the board
    overlay : overlay of the profile
    folder : directory with the overlay's files
    root : directory that replaces / in all system paths
    """

    profile: Profile
    overlay: OverlayProfile
    folder: Path
    root: Path = Path("/")

    def system(self, path: str) -> Path:
        """Return a system path, relative to `root`."""
        return self.root / path.lstrip("/")

    @property
    def firmware(self) -> Path:
        return self.system(self.overlay.firmware)

    @property
    def config(self) -> Path:
        return self.system(self.overlay.config)


def site_of(board: str, folder: Path, root: Path = Path("/")) -> OverlaySite:
    """Return the overlay of a board, whose files are in `folder`.

    Raises
    ------
    OverlayUsageError
        The board is unknown, or its profile has no overlay.
    """
    try:
        profile = load_profile(board)
    except UnknownBoardError as error:
        raise OverlayUsageError(str(error)) from error
    if profile.overlay is None:
        raise OverlayUsageError(f"the profile of the {profile.name} has no overlay")
    return OverlaySite(profile, profile.overlay, folder, root)


def in_one_line(path: Path, action: Any) -> Any:
    """Call `action`, and raise an OSError as an OverlayError with the path."""
    try:
        return action()
    except OSError as error:
        raise OverlayError(f"{error.filename or path}: {error.strerror or error}") from error


def write_durably(path: Path, content: bytes) -> None:
    """Replace a system file atomically, also in case of a power failure."""
    with replaced(path, durable=True, mode=0o644) as partial:
        partial.write_bytes(content)
