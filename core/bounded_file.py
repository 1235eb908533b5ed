"""Files from strangers, read up to a bound."""

from __future__ import annotations

import os
from pathlib import Path


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a file, `most` + 1 of them where there are more: that is for the caller to see.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        # As many bytes as there are: Python takes memory for all that is asked for.
        size = min(os.fstat(file.fileno()).st_size, most)
        data = file.read(size + 1)
        if len(data) > size:  # it is larger, it grows, or it tells no size (pipes, /dev/zero)
            data += file.read(most + 1 - len(data))
    return data
