"""The HTTP side as a runner: uvicorn on a socket that is bound already, and stopped by an event instead of a signal."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from lifecycle_engine.api.door.protocol import CHECK_EVERY, HttpProtocol, Limits
from lifecycle_engine.api.health import Health

DEFAULT_LIMITS = Limits()
GRACE = 5
"""Seconds that requests which are under way still have once the process is told to stop."""


class HttpServer:
    """Serves an application on a socket that is bound already; `announce` is given the address once it does."""

    name = "http"

    def __init__(
        self,
        app: FastAPI,
        health: Health,
        bound: socket.socket,
        announce: Callable[[str], object],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._app = app
        self._health = health
        self._socket = bound
        self._announce = announce
        self._limits = limits

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set: not ready at once, then no new connections, then out when all are answered."""
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            # Nobody asks where a request came from.
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE,
            lifespan="on",
            # It is called like the class that uvicorn wants.
            http=functools.partial(HttpProtocol, self._limits),  # type: ignore[arg-type]
            timeout_keep_alive=self._limits.keep_alive_seconds,
            ws="none",
        )
        server = _Server(config, lambda: self._announce(self._address()))
        serving = asyncio.create_task(server.serve([self._socket]))
        stopping = asyncio.create_task(stop.wait())
        checking = asyncio.create_task(_check(server))
        await asyncio.wait({serving, stopping, checking}, return_when=asyncio.FIRST_COMPLETED)
        self._health.draining.set()
        server.should_exit = True
        stopping.cancel()
        try:
            await serving
        finally:
            checking.cancel()

    def _address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _check(server: uvicorn.Server) -> None:
    """Ends what takes too long, on every connection."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(CHECK_EVERY)
        now = loop.time()
        for connection in list(server.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.check(now)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are heard by this module."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)
