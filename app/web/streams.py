"""Responses that continue until the run ends or the reader disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

SEND_SECONDS = 20.0
"""Longest time that a reader may take to receive a piece before its stream is closed."""


async def pause(closing: asyncio.Event, seconds: float) -> None:
    """Sleep, at most until the closing event."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(closing.wait(), seconds)


class EndlessResponse(StreamingResponse):
    """A stream that is closed if its reader stops reading.

    Parameters
    ----------
    content : pieces to send; the next one is requested when the last one was sent
    while_open : function that returns a context, which is entered while the stream is open
    """

    def __init__(
        self,
        content: AsyncIterator[bytes],
        media_type: str,
        while_open: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(content, media_type=media_type)
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            await asyncio.wait_for(send(message), SEND_SECONDS)

        with self._while_open():
            await super().__call__(scope, receive, send_in_time)
