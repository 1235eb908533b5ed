"""The token that readers of the page need: random for each run, or the same for a service."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

from tutelage.app.options import TOKEN_VARIABLE
from tutelage.app.outputs.output import OutputError
from tutelage.app.web.address import needs_token

_RANDOM_BYTES = 18
_SHORTEST, _LONGEST = 16, 256  # characters
_OTHERS = stat.S_IRWXO | stat.S_IWGRP  # permissions that a token file must not have


class Token(NamedTuple):
    """A token and whether to print it.

    Attributes
    ----------
    text : printable ASCII without spaces
    shown : whether to print it; True for a random token, which its reader cannot know otherwise
    """

    text: str
    shown: bool = True


def find_token(host: str, path: Path | None, variable: str | None = None) -> Token | None:
    """Return the token for a page: from a file, from the environment, or a random one.

    Parameters
    ----------
    host : host on which the page is served; loopback needs no token unless one is given
    path : file with the token; if it does not exist, it is created with a random token
    variable : value of TOKEN_VARIABLE, None if it is not set

    Raises
    ------
    OutputError
        The file cannot be read or created, others can read it, or the token is invalid.
    """
    if path is not None:
        return Token(_of_file(path), shown=False)
    if variable is not None:
        return Token(_checked(variable, TOKEN_VARIABLE), shown=False)
    return Token(_random()) if needs_token(host) else None


def _random() -> str:
    return secrets.token_urlsafe(_RANDOM_BYTES)


def _of_file(path: Path) -> str:
    try:
        # If it is a pipe, do not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return _make_file(path)
    except OSError as error:
        raise OutputError(f"--web-token-file {path}: {error.strerror or error}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OutputError(f"--web-token-file {path}: not a regular file")
        if mode & _OTHERS:
            raise OutputError(
                f"--web-token-file {path}: others can read or replace it; try: chmod 600 {path}"
            )
        data = os.read(descriptor, _LONGEST + 3)  # a line's end, and one character too many
    finally:
        os.close(descriptor)
    return _checked(data.decode("latin-1"), f"--web-token-file {path}")


def _make_file(path: Path) -> str:
    token = _random()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
    except OSError as error:
        raise OutputError(f"--web-token-file {path}: {error.strerror or error}") from error
    return token


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not (_SHORTEST <= len(token) <= _LONGEST and token.isascii() and token.isprintable()):
        raise OutputError(
            f"{where}: a token has {_SHORTEST} to {_LONGEST} printable ASCII characters; "
            f"create one with: openssl rand -hex {_RANDOM_BYTES}"
        )
    if " " in token:
        raise OutputError(f"{where}: a token contains no space")
    return token
