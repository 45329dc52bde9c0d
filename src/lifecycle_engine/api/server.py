"""The HTTP side as a runner: uvicorn on a socket that is bound already, and stopped by an event instead of a signal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from lifecycle_engine.api.app import create_app
from lifecycle_engine.api.services import Services


class ApiServer:
    """The HTTP side, on a socket that is bound already."""

    name = "api"

    def __init__(self, services: Services, bound: socket.socket, first_key: str | None) -> None:
        self._services = services
        self._socket = bound
        self._first_key = first_key

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set: not ready at once, then no new connections, then out when all are answered."""
        config = uvicorn.Config(
            create_app(self._services),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=5,
            lifespan="on",
            http="httptools",
            ws="none",
        )
        server = _Server(config, self._announce)
        serving = asyncio.create_task(server.serve([self._socket]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._services.health.draining.set()
        server.should_exit = True
        stopping.cancel()
        await serving

    def _announce(self) -> None:
        host, port = self._socket.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        lines = [f"Lifecycle Engine listens on {address}", f"Documentation: {address}/docs"]
        if self._first_key:
            lines.append(f"First API key (shown once): {self._first_key}")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
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
