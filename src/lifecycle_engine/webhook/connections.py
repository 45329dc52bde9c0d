"""Connections to receivers: dialled at addresses that were checked, and given to the HTTP client as its network.

Nothing here trusts what comes in. The client is handed small pieces, never more than the present answer, and only up to
a limit. Nothing here keeps time either, but for dialling: whoever calls bounds the whole exchange.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, cast

import httpcore

from lifecycle_engine.webhook.addresses import Address
from lifecycle_engine.webhook.exchange import ExchangeError, Failure

BODY_MOST = 16 * 1024
"""Bytes of an answer's body that are kept; what comes after them is not read."""
HEAD_MOST = 16 * 1024
"""Bytes of an answer's status line and headers, with those of the interim answers before it."""
ANSWER_MOST = HEAD_MOST + 2 * BODY_MOST
"""Bytes of an answer in all, with what frames its chunks."""
PIECE = 512
"""Bytes that are parsed before others get their turn: some milliseconds of work at most, however they are cut up."""

_START = b"HTTP/1."
_BLANK_LINE = b"\r\n\r\n"
# What our own process lacks, which is no news about the receiver.
_LOCAL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class WentStale(Exception):
    """A connection was closed by its other end while nobody used it; what was to be sent was not seen there."""


class Connection(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection. Raises ExchangeError for what the other end does, and WentStale."""

    def __init__(self, connected_by: float) -> None:
        """`connected_by` is the time of the loop's clock by which TLS must have been agreed on."""
        self._transport: asyncio.Transport | None = None
        self._connected_by = connected_by
        self._received = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._exchanges = 0
        # Of the present answer:
        self._sending = False
        self._arrived_bytes = 0
        self._handed = 0
        self._last = b""
        self._in_body = False
        self._left: int | None = None
        self._until_close = False

    # As asyncio's loop calls it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        self._arrived_bytes += len(data)
        self._received += data[: max(0, ANSWER_MOST - self._handed - len(self._received))]
        if self._arrived_bytes > ANSWER_MOST:
            self._abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._ended = True
        self._wake()

    # As the HTTP client calls it.

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._sending:
            self._begin()
        if self._ended:
            raise httpcore.WriteError  # after which the client looks whether there was an answer all the same
        assert self._transport is not None
        self._transport.write(buffer)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sending = False
        if self._received:
            await asyncio.sleep(0)  # whoever sends much in crumbs keeps nobody waiting
        while not self._received or self._left == 0:
            if self._arrived_bytes > ANSWER_MOST:
                raise _too_large()
            if self._ended:
                return self._nothing_more()
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        piece = self._piece(min(max_bytes, PIECE if self._left is None else min(PIECE, self._left)))
        del self._received[: len(piece)]
        # Until the end of a first line that need not come, the parser would wait.
        if self._handed < len(_START) and not _START.startswith((self._last + piece)[: len(_START)]):
            raise ExchangeError(Failure.PROTOCOL, "did not answer in HTTP/1.1")
        if not self._in_body and self._handed + len(piece) > HEAD_MOST:
            raise _too_large()
        self._handed += len(piece)
        self._last = (self._last + piece)[-len(_START) :]
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def expect_body(self, headers: Iterable[tuple[bytes, bytes]], status: int) -> None:
        """Told once the answer's headers are there: how far the client may be handed what comes."""
        found = {name.lower(): value for name, value in headers}
        self._in_body = True
        if b"transfer-encoding" in found:
            self._left = None
        elif status in (204, 304):
            self._left = 0
        elif b"content-length" in found:
            self._left = int(found[b"content-length"].partition(b",")[0])
        else:
            self._until_close = True

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        encrypted = Connection(self._connected_by)
        try:
            async with asyncio.timeout_at(self._connected_by):
                transport = await loop.start_tls(
                    self._transport, encrypted, ssl_context, server_hostname=server_hostname
                )
                if transport is None:  # it was closed meanwhile
                    raise ConnectionResetError
        except BaseException as error:
            self._abort()
            if isinstance(error, OSError | ssl.CertificateError):
                raise dial_failure(error) from None
            raise
        encrypted.connection_made(transport)
        return encrypted

    async def aclose(self) -> None:
        """Closes at once: nothing that is still to be sent matters, and no farewell is waited for."""
        self._abort()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # what comes unasked, be it the end, makes an idle connection useless
            return self._ended or bool(self._received)
        if info == "ssl_object" and self._transport is not None:
            return self._transport.get_extra_info("ssl_object")
        return None

    def succeeded_by(self, other: Connection) -> bool:
        """Hands its transport over. False where something has come already, or the end."""
        if self._ended or self._received or self._transport is None:
            return False
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        return True

    def _begin(self) -> None:
        self._sending = True
        self._exchanges += 1
        if self._received and self._exchanges > 1:  # what came unasked is no answer to this
            self._received.clear()
            self._abort()
        self._arrived_bytes = self._handed = 0
        self._last, self._in_body, self._left, self._until_close = b"", False, None, False

    def _piece(self, most: int) -> bytes:
        """What comes next, and not past a blank line: behind it may be an answer that nobody asked for yet."""
        before = self._last[-len(_BLANK_LINE) + 1 :]
        found = (before + self._received[:most]).find(_BLANK_LINE)
        end = most if found < 0 else found + len(_BLANK_LINE) - len(before)
        return bytes(self._received[: min(most, end)])

    def _nothing_more(self) -> bytes:
        if self._exchanges > 1 and self._arrived_bytes == 0:
            raise WentStale
        if isinstance(self._error, ssl.SSLError):
            raise ExchangeError(Failure.TLS, tls_reason(self._error))
        if self._until_close and self._error is None:
            return b""
        raise ExchangeError(Failure.RESET, "closed the connection before the end of its answer")

    def _abort(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


async def dial(addresses: Sequence[Address], port: int, end: float) -> Connection:
    """Connects to the first of these addresses that lets us, by `end` of the loop's clock. Raises ExchangeError."""
    loop = asyncio.get_running_loop()
    failed = ExchangeError(Failure.REFUSED, "has no address")
    for position, address in enumerate(addresses):
        # One that stays silent leaves the others their share of the time.
        share = (end - loop.time()) / (len(addresses) - position)
        try:
            async with asyncio.timeout(share):
                _, connection = await loop.create_connection(lambda: Connection(end), str(address), port)
        except OSError as error:
            failed = dial_failure(error)
            if failed.failure is Failure.LOCAL:
                break
        else:
            return connection
    raise failed


def dial_failure(error: OSError | ssl.CertificateError) -> ExchangeError:
    """What an exception while connecting means."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return ExchangeError(Failure.TLS, tls_reason(error))
    if isinstance(error, TimeoutError):
        return ExchangeError(Failure.TIMEOUT, "did not take the connection in time")
    if error.errno in _LOCAL:
        return ExchangeError(Failure.LOCAL, f"was not tried, as this process cannot connect: {error.strerror}")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return ExchangeError(Failure.RESET, "closed the connection while it was being set up")
    return ExchangeError(Failure.REFUSED, "does not take connections")


def tls_reason(error: ssl.SSLError | ssl.CertificateError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"[:200]
    reason = getattr(error, "reason", None) or "the handshake failed"
    return f"no TLS with it: {str(reason).replace('_', ' ').lower()}"[:200]


def _too_large() -> ExchangeError:
    return ExchangeError(Failure.TOO_LARGE, f"sent headers of more than {HEAD_MOST} bytes, or no end of chunks")
