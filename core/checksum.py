"""SHA-256 of files of any size."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BYTES_AT_ONCE = 1 << 20  # an xclbin or an hour of frames need not be in memory as a whole


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal.

    Raises
    ------
    OSError
        It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
