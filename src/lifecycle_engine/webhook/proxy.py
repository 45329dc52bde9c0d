"""Leaving the network through a proxy (CONNECT, RFC 9110 section 9.3.6), and telling its failures from the receiver's.

The proxy is asked for the address that was checked, never for the name, so that what it resolves doesn't matter. What
it lets through is its own affair: a second guard behind ours.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import h11

from lifecycle_engine.webhook.addresses import Address
from lifecycle_engine.webhook.connections import Connection, dial, dial_failure
from lifecycle_engine.webhook.exchange import Answer, ExchangeError, Failure
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

    async def dial(
        self,
        resolver: Resolver,
        addresses: Sequence[Address],
        port: int,
        tls: ssl.SSLContext | None,
        name: str,
        seconds: float,
    ) -> Connection:
        """Connects as `connections.dial` does, through tunnels. Raises ExchangeError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        own = await self._addresses(resolver, seconds)
        failed = ExchangeError(Failure.REFUSED, "has no address")
        for position, address in enumerate(addresses):
            share = (end - loop.time()) / (len(addresses) - position)
            try:
                return await self._tunnel(own, address, port, tls, name, share)
            except ExchangeError as error:
                failed = error
                if error.failure not in (Failure.REFUSED, Failure.TIMEOUT):
                    break
        raise failed

    async def _addresses(self, resolver: Resolver, seconds: float) -> tuple[Address, ...]:
        try:
            async with asyncio.timeout(seconds):
                return await resolver.resolve(self.host, self.port)
        except OSError:
            raise ExchangeError(Failure.PROXY, "was not tried, as our own proxy's host does not resolve") from None

    async def _tunnel(
        self,
        own: Sequence[Address],
        address: Address,
        port: int,
        tls: ssl.SSLContext | None,
        name: str,
        seconds: float,
    ) -> Connection:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            connection = await dial(own, self.port, None, "", seconds)
        except ExchangeError as error:
            if error.failure is Failure.LOCAL:
                raise
            raise ExchangeError(Failure.PROXY, "was not tried, as our own proxy cannot be reached") from None
        try:
            async with asyncio.timeout_at(end):
                transport = await self._ask(connection, address, port)
                through = Connection()
                if tls is None:
                    transport.set_protocol(through)
                    through.connection_made(transport)
                else:
                    encrypted = await loop.start_tls(transport, through, tls, server_hostname=name)
                    if encrypted is None:  # as typeshed has it, when the transport closes meanwhile
                        raise ConnectionResetError
                    through.connection_made(encrypted)
                return through
        except BaseException as error:
            connection.abort()
            if isinstance(error, OSError | ssl.CertificateError):
                raise dial_failure(error) from None
            raise

    async def _ask(self, connection: Connection, address: Address, port: int) -> asyncio.Transport:
        authority = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        headers = [("host", authority)]
        if self.authorization is not None:
            headers.append(("proxy-authorization", self.authorization))
        answer = Answer()
        try:
            transport = await connection.tunnel(
                h11.Request(method="CONNECT", target=authority, headers=headers), answer
            )
        except ExchangeError as error:
            raise ExchangeError(Failure.PROXY, f"was not tried: our own proxy {error.detail}") from None
        assert answer.status is not None
        if 200 <= answer.status < 300:
            return transport
        if answer.status in _UNREACHED:
            raise ExchangeError(*_UNREACHED[answer.status])
        # Smokescreen says 407 also to what its rules deny, and marks that.
        if answer.status == 403 or answer.header("x-smokescreen-error") is not None:
            raise ExchangeError(Failure.DENIED_ADDRESS, "leads to an address that the proxy does not connect to")
        raise ExchangeError(Failure.PROXY, f"was not tried: our own proxy answered {answer.status}")
