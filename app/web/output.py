"""The output that serves the live page, in a separate thread."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.pipeline.result import Result
from tutelage.app.web.address import bind, needs_token, reachable_host
from tutelage.app.web.monitor import Monitor

if TYPE_CHECKING:
    import uvicorn

ROW_SECONDS = 1.0

_START_SECONDS = 10.0
_STREAMS_END_SECONDS = 0.5  # time for readers to receive the last rows
_FORCED_END_SECONDS = 0.4
_LAST_ROW_SECONDS = 0.25
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class WebOutput(Output):
    """Server of the live page, until it is closed.

    Parameters
    ----------
    host, port : address to serve on; port 0 selects any free port
    token : token that every reader needs; None if none is needed
    facts : facts about model and board, nested, in types that JSON has
    gauges : function that is called once per second, in a thread of this output. Returns the
        current values of dropped, queues {waiting, in_flight, done}, dpu_utilisation (0..1),
        cpu_percent, memory_bytes, temperature_c, watts {rail: W}, total_watts. A value that is
        missing or None was not measured.
    length : number of frames of the source, None if unknown

    Attributes
    ----------
    address : the page's URL without the token
    url : the page's URL with the token

    Raises
    ------
    OutputError
        The address cannot be used, or Starlette or uvicorn is not installed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        facts: Mapping[str, Any],
        gauges: Callable[[], Mapping[str, Any]],
        length: int | None,
    ) -> None:
        try:
            import starlette  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError:
            raise OutputError(
                "--web needs Starlette and uvicorn: pip install starlette uvicorn"
            ) from None
        try:
            listener = bind(host, port)
        except (OSError, ValueError) as error:  # ValueError: not a host name
            reason = getattr(error, "strerror", None) or error
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            advice = "; choose another port, or 0 for a free one" if in_use else ""
            raise OutputError(f"--web {host}:{port}: {reason}{advice}") from error
        port = listener.getsockname()[1]
        self.address = f"http://{reachable_host(host)}:{port}/"
        self.url = self.address + (f"?token={quote(token, safe='')}" if token is not None else "")
        self._monitor = Monitor(gauges, length)
        self._server = _Server(listener, self._monitor, _plain(facts), token, host)
        self._stopped = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="web-rows", daemon=True)
        self._ticker.start()

    def add(self, result: Result) -> None:
        """Show one result; takes microseconds, however many viewers there are."""
        self._monitor.add(result)

    def _tick(self) -> None:
        due = time.monotonic() + ROW_SECONDS
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self._monitor.tick()
            due = max(due + ROW_SECONDS, time.monotonic())
        self._monitor.tick()  # in this thread too, since a gauge may hang

    @property
    def visited(self) -> bool:
        """Whether anyone has opened the page."""
        return self._server.visits > 0

    @property
    def unseen_seconds(self) -> float:
        """Seconds since the page was last open or requested."""
        return self._server.unseen_seconds

    def end_run(self, error: str | None = None) -> None:
        """Show all readers that no more results come; the page and its recordings stay.

        Parameters
        ----------
        error : why the run was aborted; None if it ended normally
        """
        self._stop_rows()
        self._monitor.end_run(error)

    def _stop_rows(self) -> None:
        self._stopped.set()
        self._ticker.join(_LAST_ROW_SECONDS)  # bounded, since a gauge may hang

    def close(self) -> None:
        """Show all readers that the run has ended, and stop within about a second."""
        self._stop_rows()
        self._server.close()


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts in JSON's types: dates and paths as text, NaN as text too."""
    plain: dict[str, Any] = json.loads(
        json.dumps(dict(facts), default=str), parse_constant=lambda name: name
    )
    return plain


class _Server:
    """uvicorn in a thread with its own event loop."""

    def __init__(
        self,
        listener: Any,
        monitor: Monitor,
        facts: dict[str, Any],
        token: str | None,
        host: str,
    ) -> None:
        from tutelage.app.web.access import guarded
        from tutelage.app.web.live_page import LivePage

        self._page = LivePage(monitor, facts)
        hosts = None if needs_token(host) else [*_LOOPBACK_NAMES, reachable_host(host).lower()]
        app = guarded(self._page.app(), token, listener.getsockname()[1], hosts)
        self._uvicorn = _uvicorn(app)
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web-server", daemon=True)
        self._thread.start()
        self._running.wait(_START_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await self._uvicorn.serve(sockets=[self._listener])

    @property
    def visits(self) -> int:
        return self._page.visits

    @property
    def unseen_seconds(self) -> float:
        return time.monotonic() - self._page.seen

    def close(self) -> None:
        if self._loop is None or not self._thread.is_alive():
            self._listener.close()
            return
        self._loop.call_soon_threadsafe(self._page.closing.set)
        self._uvicorn.should_exit = True
        self._thread.join(_STREAMS_END_SECONDS)
        if self._thread.is_alive():  # a reader does not read
            self._uvicorn.force_exit = True
            with suppress(RuntimeError):  # it has ended after all
                self._loop.call_soon_threadsafe(self._break_off)
            self._thread.join(_FORCED_END_SECONDS)

    def _break_off(self) -> None:
        """Abort all connections: since Python 3.12 a server waits for them without a limit."""
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()


def _uvicorn(app: Any) -> uvicorn.Server:
    """Return a server that logs nothing, since the application uses the terminal."""
    import uvicorn

    from tutelage.app.web.connections import MOST_AT_ONCE, Connection

    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=MOST_AT_ONCE,
    )
    return uvicorn.Server(config)
