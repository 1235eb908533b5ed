"""Output of the commands: results to standard output, notes to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from tutelage.core.text import shown


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))


def print_lines(*lines: object) -> None:
    """Print lines for a reader, with control characters of untrusted names escaped."""
    print("\n".join(map(shown, lines)))


def note(text: str) -> None:
    """Print a line of progress or a remark to standard error."""
    print(shown(text), file=sys.stderr, flush=True)
