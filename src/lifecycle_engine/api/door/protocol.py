"""HTTP/1.1 on a connection: uvicorn's, with an end to what a client may take of it.

uvicorn bounds neither the head of a request nor the time in which it comes, and waits for a body or for a reader for
ever. Here a request's head must be complete within 10 s, its body must go on and come to an end, and whoever does not
read the answer is hung up on. What is refused is told as a problem, like every other error.

No timer is set for any of it: each connection notes what it waits for and since when, and `check` is called on all of
them once a second.
"""

from __future__ import annotations

import asyncio
import sys
from enum import Enum
from typing import Any, NamedTuple

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lifecycle_engine.api.door.transport import Gathered
from lifecycle_engine.api.problems import ProblemError, unread_request_response

CHECK_EVERY = 1.0
_FRAMING = 16
"""Bytes of signs that a chunked body may have for each of its own; chunks of one byte have five."""


class Limits(NamedTuple):
    """What a client may take of a connection; times in seconds."""

    connections: int = 2000
    head_bytes: int = 32 * 1024
    url_bytes: int = 60 * 1024
    headers: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 120.0
    """For all of a body."""
    window_seconds: float = 10.0
    window_bytes: int = 10 * 1024
    """That must come in each window, until the body is complete."""
    unread_seconds: float = 30.0
    """For which nobody reads the answer."""
    linger_seconds: float = 5.0
    """For the rest of what is sent to end, once it has been answered without it."""
    keep_alive_seconds: int = 65


class _Waiting(Enum):
    """What the connection waits for."""

    HEAD = 1
    BODY = 2
    ANSWER = 3
    NOTHING = 4


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is closed once it was refused, since where the next request would begin is a guess."""

    def __init__(
        self, limits: Limits, config: Config, server_state: ServerState, app_state: dict[str, Any], **options: Any
    ) -> None:
        super().__init__(config, server_state, app_state, **options)
        self._limits = limits
        self._waiting = _Waiting.HEAD
        self._since = self.loop.time()
        self._checked = self._since
        self._got_anything = False
        self._data = b""
        self.url = b""
        self.headers = []
        self._head_bytes = 0
        self._other_bytes = 0
        self._framing_bytes = 0
        self._body_bytes = 0
        self._window_since = self._since
        self._window_bytes = 0
        self._refusal: ProblemError | None = None
        self._unread_since: float | None = None
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathered = Gathered(transport, self.loop)
        super().connection_made(self._gathered)
        if len(self.connections) <= self._limits.connections:
            return
        # One that nobody uses makes room.
        for other in self.connections:
            if isinstance(other, HttpProtocol) and other._waiting is _Waiting.NOTHING and not other.closing:
                return other.transport.close()
        detail = f"there are {self._limits.connections} connections open already; try again"
        self._refuse(ProblemError(503, "too_many_connections", detail, headers={"Retry-After": "1"}))
        return transport.close()

    def eof_received(self) -> None:
        """Called where the client will send no more, after which the transport closes; it may still read an answer."""
        self._gathered.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gathered.lose()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Called by uvicorn when the process is to end."""
        if self._refusal is not None and self._is_answered:
            self.transport.close()
        else:
            super().shutdown()

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete or self.cycle.disconnected

    @property
    def closing(self) -> bool:
        return self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._got_anything = True
        self._data = data
        cycle, was_body, before = self.cycle, self._waiting is _Waiting.BODY, self._body_bytes
        super().data_received(data)
        self._data = b""
        if self._refusal is not None:
            return
        if self._waiting is _Waiting.HEAD:
            self._head_bytes += len(data)
            if was_body or self.cycle is not cycle:
                # A request that came before it ended in the same piece.
                self._other_bytes = len(data)
            # What has not become a header yet was not counted as one: a name or a value that does not end.
            most = 2 * self._limits.head_bytes + self._limits.url_bytes
            if error := self._head_error() or (
                _too_large_head() if self._head_bytes - self._other_bytes > most else None
            ):
                self._refuse(error)
        elif self._waiting is _Waiting.BODY and was_body and self.cycle is cycle:
            self._framing_bytes += len(data) - (self._body_bytes - before)
            # The signs of a chunk may be some times what is in it, but neither they nor a trailer go on for ever.
            if self._framing_bytes > 2 * self._limits.head_bytes + _FRAMING * self._body_bytes:
                self._refuse(_too_large_head())
        elif self._waiting is _Waiting.NOTHING and self.timeout_keep_alive_task is None and not self.closing:
            # Line ends before a request, which the parser passes over; uvicorn has stopped its clock for them.
            self._wait_for(_Waiting.HEAD)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._waiting is not _Waiting.HEAD:
            self._wait_for(_Waiting.HEAD)
        self._head_bytes = self._other_bytes = 0

    def on_headers_complete(self) -> None:
        if error := self._head_error() or self._ambiguity():
            raise self._noted(error)
        if self._is_upgrade():
            return  # The parser stops here; see below.
        super().on_headers_complete()
        # A trailer comes when the head has been read and judged; it must not change that.
        self.headers = []
        if self.expect_100_continue or self.parser.should_upgrade():
            # Whether a body follows what is refused without it is the client's choice.
            self.cycle.keep_alive = False
        self._wait_for(_Waiting.BODY)

    def _head_error(self) -> ProblemError | None:
        """Whether as much of a head as is there is too much of it."""
        limits = self._limits
        if self._head_bytes + len(self._data) <= limits.head_bytes and len(self.headers) <= limits.headers:
            return None
        if len(self.url) > limits.url_bytes:
            return ProblemError(414, "too_large", f"the address has more than {limits.url_bytes // 1024} KiB")
        is_large = sum([len(name) + len(value) + 4 for name, value in self.headers]) > limits.head_bytes
        return _too_large_head() if is_large or len(self.headers) > limits.headers else None

    def _ambiguity(self) -> ProblemError | None:
        """Whether a head that is complete can be understood in more than one way."""
        version, hosts = self.parser.get_http_version(), [name for name, _ in self.headers].count(b"host")
        if version != "1.1" and version != "1.0":
            return ProblemError(400, "malformed_http", "this is answered in HTTP/1.1 only")
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            return ProblemError(400, "ambiguous_host", "send one Host")
        return None

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_upgrade():
            return
        super().on_message_complete()
        if self.cycle.response_complete and not self.pipeline:
            self._rest()
        else:
            self._waiting = _Waiting.ANSWER

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._waiting is _Waiting.ANSWER and not self.pipeline:
            self._waiting = _Waiting.NOTHING
        elif self._waiting is _Waiting.BODY:
            self._since = self.loop.time()

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def _unsupported_upgrade_warning(self) -> None:
        """Called by uvicorn where another protocol is asked for, such as HTTP/2 by Java's own client.

        Whoever asks is answered in this one, and so the request is read once more as if it had not been asked. The
        parser has taken its body for the other protocol.
        """
        stopped = sys.exc_info()[1]
        if not isinstance(stopped, httptools.HttpParserUpgrade) or not self._is_upgrade():
            return None
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in (b"upgrade", b"connection")]
        options = b",".join(value for name, value in self.headers if name == b"connection")
        if b"close" in (option.strip().lower() for option in options.split(b",")):
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        return super().data_received(b"\r\n".join([*lines, b"", b""]) + self._data[stopped.args[0] :])

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where its parser gives up; the message says no more than that it did."""
        self._refuse(
            self._refusal or ProblemError(400, "malformed_http", "what was sent is not HTTP/1.1 as RFC 9112 has it")
        )

    def _is_upgrade(self) -> bool:
        """Whether the request asks for another protocol beside what it asks; a CONNECT asks for nothing else."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def check(self, now: float) -> None:
        """Ends what has taken too long; `now` by the loop's clock."""
        limits, passed = self._limits, now - self._checked
        self._checked = now
        if self.closing:
            self._closing_since = self._closing_since or now
            if now - self._closing_since > limits.linger_seconds:
                self.transport.abort()
        elif self._unread_since is not None and now - self._unread_since > limits.unread_seconds:
            self.transport.abort()
        elif self._refusal is not None:
            if now - self._since > (limits.linger_seconds if self._is_answered else limits.unread_seconds):
                self.transport.abort()
        elif self._waiting is _Waiting.HEAD and now - self._since > limits.head_seconds:
            if self._got_anything:
                detail = f"the head of a request must be complete within {limits.head_seconds:.0f} s"
                self._refuse(ProblemError(408, "too_slow", detail))
            else:
                self.transport.close()
        elif self._waiting is _Waiting.BODY:
            self._check_body(now, passed)

    def _check_body(self, now: float, passed: float) -> None:
        limits = self._limits
        if self.cycle.response_complete:
            if now - self._since > limits.linger_seconds:
                self.transport.close()
        elif self.flow.read_paused:
            # It is we who do not read.
            self._since += passed
            self._window_since += passed
        elif now - self._since > limits.body_seconds:
            detail = f"a body must be complete within {limits.body_seconds:.0f} s"
            self._refuse(ProblemError(408, "too_slow", detail))
        elif now - self._window_since > limits.window_seconds:
            if self._body_bytes - self._window_bytes < limits.window_bytes:
                detail = f"{limits.window_bytes} bytes of a body must come every {limits.window_seconds:.0f} s"
                self._refuse(ProblemError(408, "too_slow", detail))
            self._window_since, self._window_bytes = now, self._body_bytes

    def _wait_for(self, what: _Waiting) -> None:
        self._waiting = what
        self._since = self._window_since = self.loop.time()
        self._body_bytes = self._window_bytes = self._framing_bytes = 0

    def _rest(self) -> None:
        """Waits for the next request, for as long as a connection may be idle."""
        self._waiting = _Waiting.NOTHING
        if not self.closing:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _noted(self, error: ProblemError) -> ProblemError:
        """Raised in a callback it becomes the parser's own error, which says nothing of it."""
        self._refusal = error
        return error

    def _refuse(self, error: ProblemError) -> None:
        """Answers what cannot be read on, and closes; behind the answers that are still to be given."""
        self._refusal = error
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._waiting is not _Waiting.BODY:
                # A request before this one is still being answered.
                cycle.keep_alive = False
                self.flow.pause_reading()
                self._since = self.loop.time()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                return self.transport.close()
        if self._waiting is not _Waiting.BODY or cycle is None or not cycle.response_complete:
            # Else the request has its answer already, and a second one would be taken for the next one's.
            self.transport.write(unread_request_response(error))
        # Were it closed while more is on its way here, the answer would be lost to whoever sends that.
        self.transport.write_eof()
        self._since = self.loop.time()
        return None


def _too_large_head() -> ProblemError:
    return ProblemError(431, "too_large", "the head of a request has at most 100 fields and 32 KiB")
