"""Sends requests to the URLs that strangers have given, and to nowhere else: the guarded client.

Creating an endpoint, testing it and delivering to it all come through here. A host is resolved once, refused if any of
its addresses may not be reached, and then dialled at the very addresses that were checked, so that a name server has no
second chance to answer. Redirects are answers like any other, and proxies of the environment are not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import certifi
import httpcore

from lifecycle_engine.webhook.addresses import Address, Guard, Network
from lifecycle_engine.webhook.connections import BODY_MOST, Connection, WentStale, dial
from lifecycle_engine.webhook.exchange import Answer, Exchange, ExchangeError, Failure
from lifecycle_engine.webhook.proxy import Proxy
from lifecycle_engine.webhook.resolver import Lookup, Resolver, system_lookup
from lifecycle_engine.webhook.routes import Route
from lifecycle_engine.webhook.urls import Target, URLError, parse

DEADLINE = 15.0
"""Seconds for a whole exchange, from resolving to the last byte that is read."""
USER_AGENT = "lifecycle-engine"
ADDRESSES_MOST = 4
"""Addresses of one host that are tried."""
CHUNKS_MOST = 512
"""Pieces of an answer's body that are read: a body in crumbs would cost more time than it is worth."""
CONNECTIONS_MOST = 256
"""Connections above which those to hosts that nobody sends to are closed; with TLS each holds 256 KiB."""

_Key = tuple[str, str, int]
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~]+([ \t]+[!-~]+)*")
_OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, each within the deadline of the whole exchange."""

    resolve: float = 5.0
    connect: float = 5.0
    idle: float = 10.0
    """How long a connection is kept open without being used."""
    pinned: float = 60.0
    """How long the addresses of a host are trusted once they have been checked: no connection is used that was dialled
    under an answer older than this."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a URL cannot be an endpoint's."""

    code: Failure
    detail: str
    """Goes on from "the URL"."""


class Sender:
    """The guarded client; one for a process. `lookup` and `tls` are the system's where they are not given.

    What is in one of the `allowed` networks is dialled directly, all else through the proxy where there is one.
    """

    def __init__(
        self,
        allowed: Iterable[Network] = (),
        proxy: Proxy | None = None,
        *,
        lookup: Lookup = system_lookup,
        tls: ssl.SSLContext | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._guard = Guard(allowed)
        self._proxy = proxy
        self._resolver = Resolver(lookup)
        self._tls = tls or default_tls()
        self._patience = patience or Patience()
        self._routes: dict[_Key, Route] = {}  # the one that was used last is last
        self._sweeping: asyncio.Task[None] | None = None

    async def check(self, url: str) -> Problem | None:
        """Why nothing would be sent to this URL now, or None. Resolves its host afresh; connects to nothing."""
        try:
            await self._addresses(parse(url))
        except URLError as error:
            return Problem(Failure.INVALID_URL, str(error))
        except ExchangeError as error:
            return Problem(error.failure, error.detail)
        return None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, deadline: float = DEADLINE) -> Exchange:
        """POSTs a body, and gives what came of it within `deadline` seconds. Raises nothing but CancelledError."""
        started = time.monotonic()  # finer than the loop's clock
        answer = Answer()
        failure, detail = None, ""
        try:
            async with asyncio.timeout(deadline):
                await self._send(url, headers, body, answer)
        except ExchangeError as error:
            failure, detail = error.failure, error.detail
        except TimeoutError:
            failure, detail = Failure.TIMEOUT, f"gave no complete answer within {deadline:g} s"
        except Exception:
            logger.exception("sending to a webhook's endpoint failed in a way that nobody has foreseen")
            failure, detail = Failure.UNEXPECTED, "an error of our own"
        seconds = time.monotonic() - started
        return Exchange(answer.status, failure, detail, answer.kept_headers(), bytes(answer.body), seconds)

    async def close(self) -> None:
        """Closes the connections that nobody uses; those that are in use close with their exchanges."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        for key in list(self._routes):
            await self._retire(key)
        await self._resolver.close()

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> None:
        try:
            target = parse(url)
        except URLError as error:
            raise ExchangeError(Failure.INVALID_URL, str(error)) from None
        request = _request(target, headers, body)
        while True:
            try:
                route = await self._route(target)
                async with route.lane() as pool:
                    return await self._exchange(pool, request, answer)
            except WentStale:
                # No failure of anybody's, so once more: each time one of the connections is gone, and a new one
                # does not go stale.
                continue
            except httpcore.ProtocolError as error:
                raise ExchangeError(Failure.PROTOCOL, f"did not answer in HTTP/1.1: {error}"[:200]) from None

    async def _exchange(self, pool: httpcore.AsyncConnectionPool, request: httpcore.Request, answer: Answer) -> None:
        response = await pool.handle_async_request(request)
        try:
            answer.status, answer.headers = response.status, response.headers
            connection = response.extensions["network_stream"]
            connection.expect_body(response.headers, response.status)
            assert isinstance(response.stream, AsyncIterable)
            async with contextlib.aclosing(cast(AsyncGenerator[bytes], aiter(response.stream))) as chunks:
                number = 0
                async for chunk in chunks:
                    number += 1
                    answer.body += chunk[: BODY_MOST + 1 - len(answer.body)]
                    if len(answer.body) > BODY_MOST or number == CHUNKS_MOST:
                        del answer.body[BODY_MOST:]
                        break
        finally:
            await response.aclose()

    async def _addresses(self, target: Target) -> tuple[Address, ...]:
        """The addresses of the target's host, all of which may be dialled. Raises ExchangeError."""
        # Without networks of our own there is no need to resolve what could not be sent to anyhow.
        if not target.is_public and not self._guard.allows_networks:
            raise _not_public(target)
        if target.address is not None:
            addresses: tuple[Address, ...] = (target.address,)
        else:
            addresses = await self._resolve(target)
        if denied := [address for address in addresses if self._guard.is_denied(address)]:
            # Which address is not said: it would tell strangers what our own network looks like.
            remedy = "LIFECYCLE_WEBHOOK_ALLOW_NETWORKS can allow it"
            if not all(self._guard.can_be_allowed(address) for address in denied):
                remedy = "no setting allows it"
            raise ExchangeError(Failure.DENIED_ADDRESS, f"leads to an address that webhooks are not sent to; {remedy}")
        if not target.is_public and not all(self._guard.is_allowed_network(address) for address in addresses):
            raise _not_public(target)
        return addresses[:ADDRESSES_MOST]

    async def _resolve(self, target: Target) -> tuple[Address, ...]:
        try:
            async with asyncio.timeout(self._patience.resolve):
                addresses = await self._resolver.resolve(target.host, target.port)
        except TimeoutError:
            raise ExchangeError(Failure.DNS, "has a host that was not resolved in time") from None
        except OSError:
            addresses = ()
        if not addresses:
            raise ExchangeError(Failure.DNS, "has a host that does not resolve")
        return addresses

    async def _route(self, target: Target) -> Route:
        key = _key(target)
        if (route := self._fresh(key)) is None:
            addresses = await self._addresses(target)
            if (route := self._fresh(key)) is None:  # others may have asked at the same time
                await self._retire(key)
                route = self._routes[key] = Route(
                    lambda: self._dial(target, addresses),
                    self._tls,
                    self._patience.idle,
                    asyncio.get_running_loop().time() + self._patience.pinned,
                )
                await self._make_room()
        self._routes[key] = self._routes.pop(key, route)
        return route

    async def _dial(self, target: Target, addresses: Sequence[Address]) -> Connection:
        end = asyncio.get_running_loop().time() + self._patience.connect
        try:
            if self._proxy is None or all(map(self._guard.is_allowed_network, addresses)):
                return await dial(addresses, target.port, end)
            return await self._proxy.dial(self._resolver, addresses, target.port, end)
        except ExchangeError:
            # Perhaps it has moved: the next exchange resolves anew.
            await self._retire(_key(target))
            raise

    def _fresh(self, key: _Key) -> Route | None:
        route = self._routes.get(key)
        return route if route is not None and asyncio.get_running_loop().time() < route.until else None

    async def _retire(self, key: _Key) -> None:
        if (route := self._routes.pop(key, None)) is not None:
            await route.retire()

    async def _make_room(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep())
        surplus = sum(route.connections for route in self._routes.values()) - CONNECTIONS_MOST
        for key, route in list(self._routes.items()):
            if surplus > 0 and not route.users:
                surplus -= route.connections
                await self._retire(key)

    async def _sweep(self) -> None:
        """Closes what nobody has used for a while, as the pools do it at their own next request only."""
        while self._routes:
            await asyncio.sleep(self._patience.idle)
            now = asyncio.get_running_loop().time()
            for key, route in list(self._routes.items()):
                if now >= route.until or (not route.users and now >= route.used + self._patience.idle):
                    await self._retire(key)
        self._sweeping = None


def default_tls() -> ssl.SSLContext:
    """Verifies against the system's authorities (`SSL_CERT_FILE` adds one's own) and Mozilla's."""
    context = ssl.create_default_context(cafile=None)
    context.load_verify_locations(certifi.where())
    return context


def _not_public(target: Target) -> ExchangeError:
    wrong = "must begin with https://" if target.scheme != "https" else "must have the port 443 or 8443"
    return ExchangeError(Failure.INVALID_URL, f"{wrong}, outside of the networks of LIFECYCLE_WEBHOOK_ALLOW_NETWORKS")


def _key(target: Target) -> _Key:
    return target.scheme, target.host, target.port


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
    own = {
        "host": target.authority,
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-length": str(len(body)),
        "user-agent": USER_AGENT,
    }
    for name, value in headers.items():
        if name.lower() in _OWN_HEADERS:
            raise ExchangeError(Failure.INVALID_HEADER, f"the header {name} is the sender's own")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ExchangeError(Failure.INVALID_HEADER, "a header has characters that HTTP does not allow")
        own[name.lower()] = value
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    return httpcore.Request("POST", url, headers=list(own.items()), content=body)
