"""Connections: how long they may go without a request, and how many there may be of which kind.

uvicorn gives a request's head any time, and counts all connections alike: idle ones, from anybody,
would take the places of readers.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

REQUEST_SECONDS = 10.0
"""How long a connection may go without a whole request."""

MOST_UNKNOWN = 32
"""Connections that have made no accepted request; the oldest makes room for one more."""

MOST_AT_ONCE = 8
"""Connections that are accepted in one go, a few times before the first one is read from.

Were these more than `MOST_UNKNOWN`, a reader's would make room before its request is seen."""

MOST_READERS = 64
"""Connections that have; one more is refused."""


class Connection(H11Protocol):
    """One connection of uvicorn's, which it finds as `scope["state"]["connection"]`.

    Attributes
    ----------
    known : it has made a request that was accepted, with the token where one is needed
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
        """Count this connection as a reader's; False where there are too many of them."""
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
            # Rather one that has asked for nothing than one whose request is being looked at.
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
        """Limit the time until the next request is whole; single bytes do not prolong it."""
        if self._answers or self.transport.is_closing():
            self._set_deadline(None)
        elif self._deadline is None:
            self._set_deadline(self.loop.call_later(REQUEST_SECONDS, self.transport.abort))

    def _set_deadline(self, deadline: asyncio.TimerHandle | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = deadline
