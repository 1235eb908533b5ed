"""The application's messages on standard error."""

from __future__ import annotations

from functools import partial

from tutelage.core import messages

PROGRAM = "classify"

say = partial(messages.say, PROGRAM)
"""Print one line to standard error, after the program's name."""
