"""What the application says on standard error, one line each."""

from __future__ import annotations

from functools import partial

from tutelage.core import messages

PROGRAM = "classify"

say = partial(messages.say, PROGRAM)
"""Print one line."""
