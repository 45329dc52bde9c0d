"""Where the connections to one host go, and the pool in which they are kept between exchanges."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore

from lifecycle_engine.webhook.connections import Connection

KEPT_MOST = 16
"""Connections to one host that are kept open while nobody uses them."""

Dial = Callable[[], Awaitable[Connection]]


class Route:
    """A pool of connections to one host, all to the addresses that were checked when it was made."""

    def __init__(self, dial: Dial, tls: ssl.SSLContext, idle: float, until: float) -> None:
        """`idle`: seconds that a connection is kept for; `until`: the loop's time until which the addresses hold."""
        self.until = until
        self.users = 0
        self.used = 0.0
        """When it was let go of last, by the loop's clock."""
        self._retired = False
        # A pool looks through all that it holds at each request: one for a host stays small, one for all would not.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,  # as many as there are exchanges, and those are limited by whoever sends
            max_keepalive_connections=KEPT_MOST,
            keepalive_expiry=idle,
            http1=True,
            http2=False,
            retries=0,
            network_backend=_Network(dial),
        )

    async def request(self, request: httpcore.Request) -> httpcore.Response:
        """The answer's headers; its body is still to be read, and it to be closed."""
        return await self._pool.handle_async_request(request)

    @property
    def connections(self) -> int:
        """Open, whether used or not."""
        return len(self._pool.connections)

    async def retire(self) -> None:
        """Closes what is idle now, and the rest when it is let go of. Nothing new is to be sent here."""
        self._retired = True
        if not self.users:
            await self._pool.aclose()

    async def __aenter__(self) -> Route:
        self.users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.users -= 1
        self.used = asyncio.get_running_loop().time()
        if self._retired and not self.users:
            await self._pool.aclose()


class _Network(httpcore.AsyncNetworkBackend):
    """The only network that the pool knows: it leads to the checked addresses, whatever host it is asked for."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._dial()

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("a webhook goes to no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
