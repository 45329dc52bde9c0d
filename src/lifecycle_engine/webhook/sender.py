"""Sends requests to the URLs that strangers have given, and to nowhere else: the guarded client.

Creating an endpoint, testing it and delivering to it all come through here. A host is resolved once, refused if any of
its addresses may not be reached, and then dialled at the very addresses that were checked, so that a name server has no
second chance to answer. Redirects are answers like any other, and proxies of the environment are not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import certifi
import h11

from lifecycle_engine.webhook.addresses import Address, Guard, Network
from lifecycle_engine.webhook.connections import Connection, dial
from lifecycle_engine.webhook.exchange import Answer, Exchange, ExchangeError, Failure
from lifecycle_engine.webhook.proxy import Proxy
from lifecycle_engine.webhook.resolver import Lookup, Resolver, system_lookup
from lifecycle_engine.webhook.urls import Target, URLError, parse

DEADLINE = 15.0
"""Seconds for a whole exchange, from resolving to the last byte that is read."""
USER_AGENT = "lifecycle-engine"
ADDRESSES_MOST = 4
"""Addresses of one host that are tried."""
IDLE_MOST = 128
"""Connections that are kept open for a next exchange; with TLS each holds 256 KiB."""

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
        self._routes: dict[tuple[str, str, int], _Route] = {}
        self._idle: dict[Connection, _Route] = {}  # longest idle first
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

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
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()
        self._routes.clear()
        await self._resolver.close()

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> None:
        try:
            target = parse(url)
        except URLError as error:
            raise ExchangeError(Failure.INVALID_URL, str(error)) from None
        request = _request(target, headers, body)
        route = await self._route(target)
        if (connection := self._take(route)) is not None:
            if await self._exchange(connection, route, request, body, answer):
                return
        # Closed by the other end before it saw this request: no failure of anybody's, so once more on a new one.
        connection = await self._dial(target, route)
        await self._exchange(connection, route, request, body, answer)

    async def _exchange(
        self, connection: Connection, route: _Route, request: h11.Request, body: bytes, answer: Answer
    ) -> bool:
        """False where the connection turned out to have been closed while it was idle."""
        reusable = False
        try:
            reusable = await connection.exchange(request, body, answer)
        except ExchangeError:
            if connection.went_stale:
                return False
            raise
        finally:
            if reusable:
                self._keep(connection, route)
            else:
                connection.abort()
        return True

    async def _addresses(self, target: Target) -> tuple[Address, ...]:
        """The addresses of the target's host, all of which may be dialled. Raises ExchangeError."""
        # Without networks of our own there is no need to resolve what could not be sent to anyhow.
        if not target.is_public and not self._guard.allows_networks:
            raise _not_public(target)
        if target.address is not None:
            addresses: tuple[Address, ...] = (target.address,)
        else:
            addresses = await self._resolve(target)
        if any(self._guard.is_denied(address) for address in addresses):
            # Which address is not said: it would tell strangers what our own network looks like.
            raise ExchangeError(Failure.DENIED_ADDRESS, "leads to an address that webhooks are not sent to")
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

    async def _route(self, target: Target) -> _Route:
        key = target.scheme, target.host, target.port
        if (route := self._fresh(key)) is None:
            addresses = await self._addresses(target)
            if (route := self._fresh(key)) is None:  # others may have asked at the same time
                self._forget(key)
                until = asyncio.get_running_loop().time() + self._patience.pinned
                route = self._routes[key] = _Route(addresses, until, [])
        return route

    def _fresh(self, key: tuple[str, str, int]) -> _Route | None:
        route = self._routes.get(key)
        return route if route is not None and asyncio.get_running_loop().time() < route.until else None

    def _forget(self, key: tuple[str, str, int]) -> None:
        if (route := self._routes.pop(key, None)) is not None:
            route.until = 0.0
            for connection in route.idle:
                del self._idle[connection]
                connection.abort()
            route.idle.clear()

    async def _dial(self, target: Target, route: _Route) -> Connection:
        tls = self._tls if target.scheme == "https" else None
        way = (route.addresses, target.port, tls, target.host, self._patience.connect)
        try:
            if self._proxy is None or all(map(self._guard.is_allowed_network, route.addresses)):
                return await dial(*way)
            return await self._proxy.dial(self._resolver, *way)
        except ExchangeError:
            # Perhaps it has moved: the next exchange resolves anew.
            self._forget((target.scheme, target.host, target.port))
            raise

    def _take(self, route: _Route) -> Connection | None:
        """The connection that was used last, as its other end is the likeliest to have it open still."""
        while route.idle:
            connection = route.idle.pop()
            del self._idle[connection]
            if connection.is_open:
                return connection
        return None

    def _keep(self, connection: Connection, route: _Route) -> None:
        now = asyncio.get_running_loop().time()
        if self._closed or now >= route.until:
            connection.abort()
            return
        connection.idle_since = now
        route.idle.append(connection)
        self._idle[connection] = route
        if len(self._idle) > IDLE_MOST:
            self._drop(next(iter(self._idle)))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._patience.idle, self._sweep_idle)

    def _drop(self, connection: Connection) -> None:
        self._idle.pop(connection).idle.remove(connection)
        connection.abort()

    def _sweep_idle(self) -> None:
        """Closes what has been idle for too long, and forgets what is known of hosts that nobody sends to."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, route in list(self._idle.items()):
            if now >= min(connection.idle_since + self._patience.idle, route.until) or not connection.is_open:
                self._drop(connection)
        for key in [key for key, route in self._routes.items() if now >= route.until]:
            self._forget(key)
        self._sweep = loop.call_later(self._patience.idle, self._sweep_idle) if self._routes else None


@dataclass(slots=True, eq=False)
class _Route:
    """Where a host's connections go: the addresses that were checked, and until when they hold."""

    addresses: tuple[Address, ...]
    until: float
    """By the loop's clock."""
    idle: list[Connection]


def default_tls() -> ssl.SSLContext:
    """Verifies against the system's authorities (`SSL_CERT_FILE` adds one's own) and Mozilla's."""
    context = ssl.create_default_context(cafile=None)
    context.load_verify_locations(certifi.where())
    return context


def _not_public(target: Target) -> ExchangeError:
    wrong = "must begin with https://" if target.scheme != "https" else "must have the port 443 or 8443"
    return ExchangeError(Failure.INVALID_URL, f"{wrong}, outside of the networks that the settings allow")


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> h11.Request:
    own = [
        ("host", target.authority),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("content-length", str(len(body))),
    ]
    if not any(name.lower() == "user-agent" for name in headers):
        own.append(("user-agent", USER_AGENT))
    for name in headers:
        if name.lower() in _OWN_HEADERS:
            raise ExchangeError(Failure.INVALID_HEADER, f"the header {name} is the sender's own")
    try:
        return h11.Request(method="POST", target=target.path, headers=[*own, *headers.items()])
    except (h11.LocalProtocolError, UnicodeError):
        raise ExchangeError(Failure.INVALID_HEADER, "a header has characters that HTTP does not allow") from None
