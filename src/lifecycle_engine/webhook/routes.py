"""Where the connections to one host go, and the pools in which they are kept between exchanges."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpcore

from lifecycle_engine.webhook.connections import Connection

LANE = 4
"""Exchanges that share a pool. A pool looks through all that it holds at each request: many small ones cost less."""
LANES_KEPT = 8
"""Pools of one host that are kept while nobody uses them, with at most `LANE` open connections each."""

Dial = Callable[[], Awaitable[Connection]]


class Route:
    """The connections to one host, all to the addresses that were checked when it was made."""

    def __init__(self, dial: Dial, tls: ssl.SSLContext, idle: float, until: float) -> None:
        """`idle`: seconds that a connection is kept for; `until`: the loop's time until which the addresses hold."""
        self.until = until
        self.users = 0
        self.used = 0.0
        """When it was let go of last, by the loop's clock."""
        self._retired = False
        self._network = _Network(dial)
        self._tls = tls
        self._idle = idle
        self._lanes: list[_Lane] = []

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[httpcore.AsyncConnectionPool]:
        """A pool with room for one more exchange, which must end before this does."""
        # The first one that has room, so that the last ones fall idle when there is less to do.
        lane = next((one for one in self._lanes if one.users < LANE), None)
        if lane is None:
            lane = _Lane(self._network, self._tls, self._idle)
            self._lanes.append(lane)
        self.users += 1
        lane.users += 1
        try:
            yield lane.pool
        finally:
            self.users -= 1
            lane.users -= 1
            self.used = asyncio.get_running_loop().time()
            if not lane.users and (self._retired or lane in self._lanes[LANES_KEPT:]):
                self._lanes.remove(lane)
                await lane.pool.aclose()

    @property
    def connections(self) -> int:
        """Open, whether used or not."""
        return sum(len(lane.pool.connections) for lane in self._lanes)

    async def retire(self) -> None:
        """Closes what is idle now, and the rest when it is let go of. Nothing new is to be sent here."""
        self._retired = True
        for lane in [one for one in self._lanes if not one.users]:
            self._lanes.remove(lane)
            await lane.pool.aclose()


class _Lane:
    """A small pool, and how many exchanges use it."""

    def __init__(self, network: _Network, tls: ssl.SSLContext, idle: float) -> None:
        self.users = 0
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,  # as many as there are exchanges, and those are limited by whoever sends
            max_keepalive_connections=LANE,
            keepalive_expiry=idle,
            http1=True,
            http2=False,
            retries=0,
            network_backend=network,
        )


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
