"""Leaving the network through a proxy (CONNECT, RFC 9110 section 9.3.6), and telling its failures from the receiver's.

The proxy is asked for the address that was checked, never for the name, so that what it resolves doesn't matter. What
it lets through is its own affair: a second guard behind ours.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import httpcore

from lifecycle_engine.webhook.addresses import Address
from lifecycle_engine.webhook.connections import Connection, dial
from lifecycle_engine.webhook.exchange import ExchangeError, Failure
from lifecycle_engine.webhook.resolver import Resolver

_UNREACHED = {
    502: (Failure.REFUSED, "does not take connections from the proxy"),
    503: (Failure.REFUSED, "does not take connections from the proxy"),
    504: (Failure.TIMEOUT, "did not take the connection of the proxy in time"),
}
"""Answers of a proxy that works and has not got through. Were they its own failures, a dead receiver would be tried
for ever."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy listens. Not guarded: whoever runs the service has chosen it."""

    host: str
    port: int
    authorization: str | None
    """The value of `Proxy-Authorization`."""

    @classmethod
    def at(cls, url: str) -> Proxy:
        """Of http://[USER:PASSWORD@]HOST[:PORT], as the settings have checked it."""
        parts = urlsplit(url)
        authorization = None
        if parts.username is not None:
            name, password = unquote(parts.username), unquote(parts.password or "")
            authorization = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode("ascii")
        return cls(parts.hostname or "", parts.port or 80, authorization)

    async def dial(self, resolver: Resolver, addresses: Sequence[Address], port: int, end: float) -> Connection:
        """Connects as `connections.dial` does, through a tunnel. Raises ExchangeError."""
        loop = asyncio.get_running_loop()
        own = await self._addresses(resolver, end)
        failed = ExchangeError(Failure.REFUSED, "has no address")
        for position, address in enumerate(addresses):
            share = (end - loop.time()) / (len(addresses) - position)
            try:
                return await self._tunnel(own, address, port, loop.time() + share, end)
            except ExchangeError as error:
                failed = error
                if error.failure not in (Failure.REFUSED, Failure.TIMEOUT):
                    break
        raise failed

    async def _addresses(self, resolver: Resolver, end: float) -> tuple[Address, ...]:
        try:
            async with asyncio.timeout_at(end):
                return await resolver.resolve(self.host, self.port)
        except OSError:
            raise ExchangeError(Failure.PROXY, "was not tried, as our own proxy's host does not resolve") from None

    async def _tunnel(
        self, own: Sequence[Address], address: Address, port: int, end: float, connected_by: float
    ) -> Connection:
        try:
            connection = await dial(own, self.port, end)
        except ExchangeError as error:
            if error.failure is Failure.LOCAL:
                raise
            raise ExchangeError(Failure.PROXY, "was not tried, as our own proxy cannot be reached") from None
        through = Connection(connected_by)
        try:
            async with asyncio.timeout_at(end):
                await self._ask(connection, f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
            if not connection.succeeded_by(through):
                raise ExchangeError(Failure.PROXY, "was not tried: our own proxy's tunnel is none")
        except BaseException as error:
            await connection.aclose()
            if isinstance(error, TimeoutError):
                raise ExchangeError(Failure.TIMEOUT, "did not take the connection of the proxy in time") from None
            raise
        return through

    async def _ask(self, connection: Connection, authority: str) -> None:
        """Returns once the proxy has made the tunnel."""
        headers = [("host", authority)]
        if self.authorization is not None:
            headers.append(("proxy-authorization", self.authorization))
        url = httpcore.URL(scheme="http", host=self.host, port=self.port, target=authority)
        http = httpcore.AsyncHTTP11Connection(url.origin, connection)
        try:
            response = await http.handle_async_request(httpcore.Request("CONNECT", url, headers=headers))
        except ExchangeError as error:
            raise ExchangeError(Failure.PROXY, f"was not tried: our own proxy {error.detail}") from None
        except httpcore.ProtocolError:
            raise ExchangeError(Failure.PROXY, "was not tried: our own proxy does not speak HTTP/1.1") from None
        if 200 <= response.status < 300:
            return
        if response.status in _UNREACHED:
            raise ExchangeError(*_UNREACHED[response.status])
        # Smokescreen says 407 also to what its rules deny, and marks that.
        if response.status == 403 or any(name.lower() == b"x-smokescreen-error" for name, _ in response.headers):
            raise ExchangeError(Failure.DENIED_ADDRESS, "leads to an address that the proxy does not connect to")
        raise ExchangeError(Failure.PROXY, f"was not tried: our own proxy answered {response.status}")
