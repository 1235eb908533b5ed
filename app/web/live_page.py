"""Routes of the live page: page, results with images, video, events, state, recordings."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tutelage.app.web.live_video import BOUNDARY, MOST_VIEWERS, Video
from tutelage.app.web.monitor import Monitor
from tutelage.app.web.recordings import Recording, RecordingError
from tutelage.app.web.streams import EndlessResponse, pause

STATIC = Path(__file__).resolve().parent / "static"

_SIGN_SECONDS = 3.0  # after twice this time without an event, the page counts the server as lost
_LOOK_SECONDS = 0.25  # interval at which the newest result is sent as an event


class LivePage:
    """The page's routes, which serve a monitor's data.

    Attributes
    ----------
    closing : event of the server's loop that ends every stream; set when the server ends
    visits : number of requests for the page
    seen : monotonic time (s) at which the page was last open or requested
    """

    def __init__(self, monitor: Monitor, facts: dict[str, Any]) -> None:
        self._monitor = monitor
        self._facts = facts
        self.video = Video(monitor.newest)
        self.closing = asyncio.Event()
        self.visits = 0
        self.seen = time.monotonic()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/results", self._results),
                Route("/video", self._video),
                Route("/snapshot.jpg", self._snapshot),
                Route("/events", self._events),
                Route("/state.json", self._state),
                Route("/recordings", self._recordings, methods=["GET"]),
                Route("/recordings", self._start, methods=["POST"]),
                Route("/recordings/{number:int}/stop", self._stop, methods=["POST"]),
                Route("/recordings/{number:int}.json", self._json),
                Route("/recordings/{number:int}.csv", self._csv),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            exception_handlers={RecordingError: _conflict},
        )

    async def _page(self, _: Request) -> Response:
        self.visits += 1
        self.seen = time.monotonic()
        return FileResponse(STATIC / "index.html")

    async def _results(self, _: Request) -> Response:
        """Stream the results with their images, for the page."""
        return self._watch(self.video.records(self.closing), "application/octet-stream")

    async def _video(self, _: Request) -> Response:
        """Stream the images alone, as MJPEG for other programs."""
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return self._watch(self.video.parts(self.closing), kind)

    def _watch(self, content: AsyncIterator[bytes], media_type: str) -> Response:
        if self.video.viewers >= MOST_VIEWERS:
            return PlainTextResponse(f"{MOST_VIEWERS} viewers are watching already\n", 503)
        return EndlessResponse(content, media_type, self._watched)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self.video.viewers += 1
        try:
            yield
        finally:
            self.video.viewers -= 1

    async def _snapshot(self, _: Request) -> Response:
        jpeg = await self.video.jpeg()
        if jpeg is None:
            return PlainTextResponse("no image yet\n", 404)
        return Response(jpeg, media_type="image/jpeg")

    async def _events(self, _: Request) -> Response:
        return EndlessResponse(self._event_stream(), "text/event-stream")

    async def _event_stream(self) -> AsyncIterator[bytes]:
        """Yield what has changed, four times per second: `label`, `row`, `confusion` if there are
        new true labels, and `recordings`; finally `end`.

        If the page stays after the last result, `over` is repeated every few seconds.
        """
        monitor = self._monitor
        shown, changes = 0, monitor.recording_changes
        number = max((row["number"] for row in monitor.rows()), default=1) - 1
        labelled = 0
        ended, reported = False, -math.inf
        while not ended:
            ended = self.closing.is_set()
            self.seen = now = time.monotonic()
            verdict = monitor.verdict()
            if verdict is not None and verdict["number"] != shown:
                shown = verdict["number"]
                yield _event("label", verdict)
            for row in monitor.rows(after=number):
                number = row["number"]
                yield _event("row", row)
                if row["labelled"] > labelled:
                    labelled = row["labelled"]
                    yield _event("confusion", monitor.confusion())
            if changes != monitor.recording_changes:
                changes = monitor.recording_changes
                yield _event("recordings", {"changes": changes})
            if monitor.over and now - reported >= _SIGN_SECONDS:
                reported = now
                yield _event("over", monitor.counts())
            await pause(self.closing, 0 if ended else _LOOK_SECONDS)
        yield _event("end", monitor.counts())

    def _state(self, _: Request) -> Response:
        rows = self._monitor.rows()
        return _json_answer(
            {
                "facts": self._facts,
                "label": self._monitor.verdict(),
                "row": rows[-1] if rows else None,
                "history": rows,
                "confusion": self._monitor.confusion(),
                "recordings": self._monitor.recordings(),
            }
        )

    def _recordings(self, _: Request) -> Response:
        return _json_answer(self._monitor.recordings())

    def _start(self, _: Request) -> Response:
        return _json_answer(self._monitor.start_recording().summary(), 201)

    def _stop(self, request: Request) -> Response:
        recording = self._recording(request)
        self._monitor.stop_recording(recording)
        return _json_answer(recording.summary())

    def _json(self, request: Request) -> Response:
        recording = self._recording(request)
        return _download(recording, recording.json_chunks(self._facts), ".json")

    def _csv(self, request: Request) -> Response:
        recording = self._recording(request)
        return _download(recording, recording.csv_chunks(), ".csv")

    def _recording(self, request: Request) -> Recording:
        number = request.path_params["number"]
        recording = self._monitor.recording(number)
        if recording is None:
            raise HTTPException(404, f"recording {number} does not exist or was dropped\n")
        return recording


def _json_answer(content: Any, status: int = 200) -> Response:
    """Return a response in ASCII: names may have bytes that are no UTF-8, as lone surrogates."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


def _event(name: str, data: dict[str, Any] | None) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _download(recording: Recording, chunks: Iterator[str], suffix: str) -> Response:
    kind = {".json": "application/json", ".csv": "text/csv; charset=utf-8"}[suffix]
    disposition = f'attachment; filename="{recording.file_name(suffix)}"'
    return StreamingResponse(chunks, media_type=kind, headers={"Content-Disposition": disposition})


async def _conflict(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 409)
