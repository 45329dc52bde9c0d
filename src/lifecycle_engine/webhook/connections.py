"""One connection to a receiver: dialled at an address that was checked, and spoken over in HTTP/1.1.

Nothing here trusts what comes in. It is read in small pieces up to a limit, never inflated, and given up at the first
byte that is not HTTP. Nothing here keeps time either, but for dialling: whoever calls bounds the whole exchange.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Sequence
from typing import cast

import h11

from lifecycle_engine.webhook.addresses import Address
from lifecycle_engine.webhook.exchange import Answer, ExchangeError, Failure

BODY_MOST = 16 * 1024
"""Bytes of an answer's body that are kept; what comes after them is not read."""
HEAD_MOST = 16 * 1024
"""Bytes of an answer's status line and headers."""
ANSWER_MOST = HEAD_MOST + 2 * BODY_MOST
"""Bytes of an answer in all, with what frames its chunks."""
INTERIM_MOST = 8
"""Answers with a status of 1xx before the final one."""
START = b"HTTP/1."
PIECE = 2048
"""Bytes that are parsed before others get their turn: a millisecond's or two's work, however they are cut up."""

# What our own process lacks, which is no news about the receiver.
_LOCAL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MOST)
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._bytes = 0  # of the present answer
        self._start = b""
        self._end_fed = False
        self._busy = True  # a greeting before the first request is judged as its answer
        self._over = False
        self._ended = False
        self._error: Exception | None = None
        self._arrival: asyncio.Future[None] | None = None
        self.exchanges = 0
        self.idle_since = 0.0
        """By the loop's clock; its keeper's business."""

    @property
    def is_open(self) -> bool:
        return not self._ended

    @property
    def went_stale(self) -> bool:
        """Whether it was used before, and gave not a byte of the present answer: the other end had closed it."""
        return self.exchanges > 1 and self._bytes == 0

    async def exchange(self, request: h11.Request, body: bytes, answer: Answer) -> bool:
        """Sends a request and reads its answer. Raises ExchangeError. Says whether the connection can be used again."""
        self._begin(request, body)
        await self._read_head(answer)
        if answer.status == 101:
            raise ExchangeError(Failure.PROTOCOL, "answered 101 though nothing was to be switched")
        if await self._read_body(answer.body):
            return self._is_reusable()
        return False

    async def tunnel(self, request: h11.Request, answer: Answer) -> asyncio.Transport:
        """Asks a proxy for a tunnel, and gives the transport, which is one if `answer` is 2xx. Raises ExchangeError."""
        self._begin(request, b"")
        await self._read_head(answer)
        if self._received or self._http.trailing_data[0]:
            raise ExchangeError(Failure.PROTOCOL, "speaks before it is spoken to")
        assert self._transport is not None
        return self._transport

    def abort(self) -> None:
        """Closes at once: nothing that is still to be sent matters, and no farewell is waited for."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        room = ANSWER_MOST - self._bytes
        self._bytes += len(data)
        self._received += data[:room]
        if len(data) > room:
            self._over = True
        if self._over or not self._busy:  # an answer without a question would be taken for the next one's
            self.abort()
        self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        self._arrived()

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _begin(self, request: h11.Request, body: bytes) -> None:
        assert self._transport is not None
        self.exchanges += 1
        self._bytes, self._start, self._busy = 0, b"", True
        if self._ended:
            raise ExchangeError(Failure.RESET, "closed the connection before the request")
        parts = [self._http.send(request)]
        if body:
            parts.append(self._http.send(h11.Data(data=body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        self._transport.write(b"".join(part for part in parts if part))

    async def _read_head(self, answer: Answer) -> None:
        interim = 0
        while not isinstance(event := await self._event(), h11.Response):
            interim += 1
            if interim > INTERIM_MOST:
                raise ExchangeError(Failure.TOO_LARGE, f"more than {INTERIM_MOST} interim answers (1xx)")
        answer.status, answer.headers = event.status_code, list(event.headers)

    async def _read_body(self, body: bytearray) -> bool:
        """Whether it came to its end within what is kept."""
        while True:
            if self._over and not self._received:
                return False
            event = await self._event()
            if isinstance(event, h11.Data):
                body += event.data[: BODY_MOST + 1 - len(body)]
                if len(body) > BODY_MOST:
                    del body[BODY_MOST:]
                    return False
            elif isinstance(event, h11.EndOfMessage):
                return True
            else:
                raise ExchangeError(Failure.PROTOCOL, "went on with something else than the answer's body")

    async def _event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise self._misspoken(error) from None
            if event is not h11.NEED_DATA:
                return event
            await self._feed()

    async def _feed(self) -> None:
        """Gives the parser a piece of what has come, or the end, once there is either."""
        if self._received:
            await asyncio.sleep(0)
        while not self._received:
            if self._over:
                raise ExchangeError(Failure.TOO_LARGE, f"headers of more than {HEAD_MOST} bytes")
            if self._ended:
                if isinstance(self._error, ssl.SSLError):
                    raise ExchangeError(Failure.TLS, tls_reason(self._error))
                if self._error is not None or self._http.their_state is h11.SEND_RESPONSE:
                    raise ExchangeError(Failure.RESET, "closed the connection before the end of its answer")
                self._end_fed = True
                self._http.receive_data(b"")
                return
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        piece = bytes(self._received[:PIECE])
        del self._received[:PIECE]
        if len(self._start) < len(START):
            # The parser would wait for the end of a line that need not come.
            self._start = (self._start + piece)[: len(START)]
            if not START.startswith(self._start):
                raise ExchangeError(Failure.PROTOCOL, "did not answer in HTTP/1.1")
        self._http.receive_data(piece)

    def _misspoken(self, error: h11.RemoteProtocolError) -> ExchangeError:
        if self._end_fed:
            return ExchangeError(Failure.RESET, "closed the connection before the end of its answer")
        if error.error_status_hint == 431:
            return ExchangeError(Failure.TOO_LARGE, f"headers of more than {HEAD_MOST} bytes")
        return ExchangeError(Failure.PROTOCOL, f"did not answer in HTTP/1.1: {error}"[:200])

    def _is_reusable(self) -> bool:
        both_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not both_done or self._ended or self._received or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        self._busy = False
        return True


async def dial(
    addresses: Sequence[Address], port: int, tls: ssl.SSLContext | None, name: str, seconds: float
) -> Connection:
    """Connects to the first of these addresses that lets us, within `seconds` for all of them. Raises ExchangeError.

    `name` is what TLS is told and what the certificate must be valid for, whatever the address.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    failed = ExchangeError(Failure.REFUSED, "has no address")
    for position, address in enumerate(addresses):
        # One that stays silent leaves the others their share of the time.
        share = (end - loop.time()) / (len(addresses) - position)
        try:
            async with asyncio.timeout(share):
                _, connection = await loop.create_connection(
                    Connection, str(address), port, ssl=tls, server_hostname=name if tls else None
                )
                return connection
        except (OSError, ssl.CertificateError) as error:
            failed = dial_failure(error)
            if failed.failure in (Failure.TLS, Failure.LOCAL):
                break
    raise failed


def dial_failure(error: OSError | ssl.CertificateError) -> ExchangeError:
    """What an exception while connecting means."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return ExchangeError(Failure.TLS, tls_reason(error))
    if isinstance(error, TimeoutError):
        return ExchangeError(Failure.TIMEOUT, "did not take the connection in time")
    if error.errno in _LOCAL:
        return ExchangeError(Failure.LOCAL, f"this process cannot connect anywhere: {error.strerror}")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return ExchangeError(Failure.RESET, "closed the connection while it was being set up")
    return ExchangeError(Failure.REFUSED, "does not take connections")


def tls_reason(error: ssl.SSLError | ssl.CertificateError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"[:200]
    reason = getattr(error, "reason", None) or "the handshake failed"
    return f"no TLS with it: {str(reason).replace('_', ' ').lower()}"[:200]
