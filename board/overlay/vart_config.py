"""vart.conf, which names the firmware that VART loads."""

from __future__ import annotations

from pathlib import Path

from tutelage.board.overlay.site import OverlaySite, in_one_line, write_durably
from tutelage.core.errors import OverlayError

_BACKUP = ".before-tutelage"
_MOST_CONFIG_BYTES = 64 * 1024


def check_config(site: OverlaySite, fix: bool = False) -> str:
    """Check that vart.conf is the required line; return a line with the outcome.

    Parameters
    ----------
    fix : replace a wrong file, and keep a backup beside it

    Raises
    ------
    OverlayError
        The file is wrong, or cannot be read or written.
    """
    wanted = site.overlay.config_line
    found = _config_text(site.config)
    if found is not None and found.splitlines() == [wanted]:
        return f"{site.config}: {wanted}"
    what = "missing" if found is None else f"must be the line {wanted!r}, is {_short(found)}"
    if not fix:
        raise OverlayError(f"{site.config}: {what}; this can crash the board: repair it with --fix")
    kept = "" if found is None else f"; backup: {_keep(site.config)}"
    in_one_line(site.config, lambda: write_durably(site.config, f"{wanted}\n".encode()))
    return f"{site.config}: repaired{kept}"


def _config_text(path: Path) -> str | None:
    """Return the file's text, up to 64 KiB; None if there is no file."""
    if not path.exists():
        return None

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(_MOST_CONFIG_BYTES)

    content: bytes = in_one_line(path, read)
    return content.decode(errors="replace")


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "...")


def _keep(path: Path) -> Path:
    """Copy a file to a free name beside it."""

    def keep() -> Path:
        for number in range(1000):
            copy = path.with_name(f"{path.name}{_BACKUP}{f'.{number}' if number else ''}")
            if not copy.exists():
                write_durably(copy, path.read_bytes())
                return copy
        raise OSError(f"{path}: has a thousand backups")

    kept: Path = in_one_line(path, keep)
    return kept
