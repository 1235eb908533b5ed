"""Display of a measurement's progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tutelage.core.results.typed_json import json_value


class MeasurementProgress:
    """Converter of the lines of progress.jsonl to lines for the user."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._steps = 0

    def take(self, line: str) -> None:
        """Display an event; ignore a line that is incomplete or not an event of a measurement."""
        try:
            event = json_value(line)
            text = self._text(event)
            at = f"{event['at']:7.0f} s"
        except (ValueError, LookupError, TypeError, OverflowError):
            return
        if text:
            self._say(f"{at}  {text}")

    def _text(self, event: dict[str, Any]) -> str:
        kind = event["event"]
        if kind == "plan":
            self._steps = len(event["steps"])
            return f"{self._steps} windows, about {event['seconds'] / 60:.1f} minutes"
        if kind == "phase":
            number = f"{event['step'] + 1}/{self._steps} " if "step" in event else ""
            return f"{number}{event['name']}, {event['seconds']:g} s"
        if kind == "step":
            watts = "" if event["watts"] is None else f", {event['watts']:.2f} W"
            latency = "" if event["latency_ms"] is None else f", p50 {event['latency_ms']:.2f} ms"
            marks = "".join(f" [{name}]" for name in event["concerns"])
            return f"    {event['fps']:.1f} fps{latency}{watts}{marks}"
        if kind == "end":
            return f"{event['state']}{': ' + event['error'] if event['error'] else ''}"
        return ""
