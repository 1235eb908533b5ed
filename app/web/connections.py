"""Limits on connections: their number, and the time until a request is complete.

uvicorn waits for a request's header without a limit and counts all connections alike, so that idle
ones, which anyone can open, would keep readers out.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

REQUEST_SECONDS = 10.0
"""Longest time that a connection may take to send a complete request."""

MOST_UNKNOWN = 32
"""Largest number of connections without an accepted request; a new one closes the oldest."""

MOST_AT_ONCE = 8
"""Connections that are accepted in one batch, a few times before the first one is read from.

If it exceeded `MOST_UNKNOWN`, a reader's connection could be closed before its request is read."""

MOST_READERS = 64
"""Largest number of connections with an accepted request; further ones are refused."""


class Connection(H11Protocol):
    """A connection of uvicorn's; requests have it as `scope["state"]["connection"]`.

    Attributes
    ----------
    known : whether a request on it was accepted, with the token if one is needed
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.known = False
        self._since = time.monotonic()
        self._deadline: asyncio.TimerHandle | None = None

    def admit(self) -> bool:
        """Count this connection as a reader's; return False if there are too many of them."""
        if not self.known:
            self.known = len(self._others(known=True)) < MOST_READERS
        return self.known

    def _others(self, known: bool) -> list[Connection]:
        return [
            each
            for each in self.connections
            if isinstance(each, Connection)
            and each is not self
            and each.known is known
            and not each.transport.is_closing()
        ]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        unknown = self._others(known=False)
        if len(unknown) >= MOST_UNKNOWN:
            # Prefer a connection without a request to one whose request is being answered.
            min(unknown, key=lambda each: (each._answers, each._since)).transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._set_deadline(None)

    @property
    def _answers(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Limit the time until the next request is complete; single bytes do not extend it."""
        if self._answers or self.transport.is_closing():
            self._set_deadline(None)
        elif self._deadline is None:
            self._set_deadline(self.loop.call_later(REQUEST_SECONDS, self.transport.abort))

    def _set_deadline(self, deadline: asyncio.TimerHandle | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = deadline
