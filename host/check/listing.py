"""The result of a check as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.text import counted
from tutelage.dpu.predict.prediction import BASIS

_SHOWN = 3
"""Most modules that a line names."""


def check_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for the result of `tutelage.host.check.check.check`."""
    yield f"{facts['model']} on {facts['board']}: {_verdict(facts)}"
    yield from _refusal_lines(facts["refusals"])
    for op, found in facts["on_cpu"].items():
        remedy = f"; {found['remedy']}" if found["remedy"] else ""
        yield f"  on the CPU  {op}: {found['reason']}{remedy}"
    if facts["input"]:
        yield f"  input       {'x'.join(map(str, facts['input']))}"
    macs = "" if facts["macs"] is None else f", {facts['macs']:,} MACs"
    yield f"  size        {counted(facts['parameters'], 'parameter')}{macs}"
    if facts["parts"]:
        yield from _cost_lines(facts)
    yield from _accuracy_lines(facts["accuracy"])
    for text in facts["notes"]:
        yield f"  note        {text}"
    for text in facts["advice"]:
        yield f"  advice      {text}"
    if facts["parts"]:
        yield from (f"  {line}" for line in BASIS.split("\n"))


def _verdict(facts: dict[str, Any]) -> str:
    if not facts["accepted"]:
        return "not accepted"
    outside = len(facts["on_cpu"])
    return f"accepted, {counted(outside, 'op')} on the CPU" if outside else "accepted"


def _refusal_lines(refusals: list[dict[str, Any]]) -> Iterator[str]:
    """Yield one line for each reason and line of code, which may be of several modules."""
    places: dict[tuple[str, ...], list[str]] = {}
    for refused in refusals:
        line = f"{refused['file']}:{refused['line']}: " if refused["file"] else ""
        remedy = f": {refused['remedy']}" if refused["remedy"] else ""
        places.setdefault((line, refused["text"], remedy), []).append(refused["at"])
    for (line, text, remedy), names in places.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        at = f" at {', '.join(names[:_SHOWN])}{more}" if names[0] else ""
        yield f"  refused     {line}{text}{at}{remedy}"


def _cost_lines(facts: dict[str, Any]) -> Iterator[str]:
    memory = ", ".join(f"{use.replace('_', ' ')} {_bytes(size)}"
                       for use, size in facts["memory"].items() if size)  # fmt: skip
    parts = facts["parts"]
    yield f"  DPU         {counted(parts, 'subgraph')}; memory: {memory}"
    latency, fps = facts["latency_ms"], facts["fps"]
    yield (
        f"  predicted   {digits(latency['value'])} ms ({_range(latency)}) per image with one "
        f"thread, {digits(fps['value'])} fps ({_range(fps)}) with enough threads"
        + ("; not counting the ops on the CPU, which are slower" if facts["on_cpu"] else "")
    )


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _range(figure: dict[str, Any]) -> str:
    return f"{digits(figure['low'])} to {digits(figure['high'])}"


def _accuracy_lines(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    images = counted(found["images"], "image")
    as_float = ("float", found["agreement"])
    if found["float_accuracy"] is not None:
        yield f"  float       {found['float_accuracy']:.2f} % of {images} correct"
    if found["replaced_agreement"] is None:
        same = [as_float]
    else:
        of_float = [("float", found["replaced_agreement"])]
        words = _shares(found["replaced_accuracy"], of_float)
        yield f"  replaced    float, with the replacements: {words} of {images}"
        same = [("replaced", found["quantised_agreement"]), as_float]
    words = _shares(found["quantised_accuracy"], same)
    yield f"  quantised   without training: {words} of {images}"


def _shares(accuracy: float | None, same: Sequence[tuple[str, float]]) -> str:
    """Describe a network's predictions: its accuracy, and its agreement with other networks."""
    right = [] if accuracy is None else [f"{accuracy:.2f} % correct"]
    return ", ".join(
        [*right, *(f"same class as the {name} network for {share:.2f} %" for name, share in same)]
    )
