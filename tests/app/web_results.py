"""Synthetic results, gauges and requests for the tests of the live page."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame
from tutelage.app.web import WebOutput

FACTS = {
    "provider": "emulation (no vart/xir on this machine)",
    "model": {
        "name": "fashion-densenet",
        "target": "TUTELAGE_EMULATOR",
        "input": [1, 28, 28, 1],
        "classes": 10,
        "colour": "grey",
        "path": "/home/someone/a/rather/long/path/to/models/fashion-densenet/model.xmodel",
    },
    "source": "/dev/video0",
    "threads": 2,
    "board": {"board": "ZynqMP ZCU104 RevC", "machine": "aarch64", "image": "PynqLinux"},
}
LABELS = ["Ankle boot", "Sneaker", "Sandal", "Bag", "Trouser"]


def image(index: int, size: int = 28) -> np.ndarray:
    """A disc that moves over a gradient: uint8 (size, size, 3)."""
    ramp = np.linspace(40, 120, size, dtype=np.uint8)
    canvas = np.dstack(
        [np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), ramp + ramp[:, None]]
    )
    canvas = np.ascontiguousarray(canvas)
    angle = index / 20
    centre = int(size * (0.5 + 0.25 * math.cos(angle))), int(size * (0.5 + 0.25 * math.sin(angle)))
    cv2.circle(canvas, centre, size // 6, (90, 200, 250), -1, cv2.LINE_AA)
    return canvas


def result(
    index: int, label: str | None = None, error: str | None = None, size: int = 28
) -> Result:
    frame = Frame(index, f"photos/{index:05d}.png", None if error else image(index, size))
    if error is not None:
        return Result(frame, error=error)
    sure = 0.8 + 0.15 * math.sin(index / 50)
    others = [(name, (1 - sure) / 2**place) for place, name in enumerate(LABELS[1:], 1)]
    wave = 3 + math.sin(index / 90) + (4 if index % 97 == 0 else 0)
    times = {"read": 0.1, "wait": 0.2, "preprocess": 0.1, "infer": 0.8 * wave, "total": wave}
    return Result(frame, [(label or LABELS[0], sure), *others], None, None, times)


def gauges() -> dict[str, Any]:
    return {
        "dropped": 3,
        "queues": {"waiting": 1, "in_flight": 4, "done": 0},
        "dpu_utilisation": 0.62,
        "cpu_percent": 41.5,
        "memory_bytes": 149 << 20,
        "temperature_c": 48.25,
        "watts": {"VCCINT": 3.2, "VCCAUX": 0.9},
        "total_watts": 11.5,
    }


def labelled(true: str, found: str, index: int = 0) -> Result:
    """Return a result whose true label is known, found with a confidence of 0.9."""
    made = result(index, found)
    made.top = [(found, 0.9), *made.top[1:]]
    made.true_label = true
    return made


@contextmanager
def served(**options: Any) -> Iterator[WebOutput]:
    """A WebOutput on a free port of this machine."""
    given = {"host": "127.0.0.1", "port": 0, "token": None, "facts": FACTS}
    output = WebOutput(**{**given, "gauges": gauges, "length": None, **options})
    try:
        yield output
    finally:
        output.close()


class Feeder(threading.Thread):
    """Passes results to an output at a constant rate, like a pipeline, until it is stopped."""

    def __init__(self, output: WebOutput, label: str | None = None, size: int = 28) -> None:
        super().__init__(daemon=True)
        self._output, self._label, self._size = output, label, size
        self._stopped = threading.Event()
        self.count = 0

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            self._output.add(result(self.count, self._label, size=self._size))
            self.count += 1

    def __enter__(self) -> Feeder:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


def ask(
    output: WebOutput, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body."""
    connection = http.client.HTTPConnection(str(urlsplit(output.url).netloc), timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, names, answer.read()
    finally:
        connection.close()


def ask_json(output: WebOutput, path: str, method: str = "GET") -> Any:
    headers = {"X-Tutelage": "1"} if method == "POST" else None
    return json.loads(ask(output, path, method, headers)[2])
