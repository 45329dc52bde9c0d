"""How much is worked on at a time. What would be too much is told to come again, before it is read.

Whoever asks whether the process is well is answered in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifecycle_engine.api.problems import ProblemError

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})
_MAX_HELD = 16 * 1024 * 1024
"""Bytes of one request that are kept at most; what comes after them is thrown away as it comes."""


class Load:
    """What is being worked on, and the most that may be."""

    def __init__(self, max_requests: int = 1000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self._keyless = 0

    @contextmanager
    def without_key(self) -> Iterator[None]:
        """While a body is read that may hold the key: those who show none leave most of the room to those who do.

        Raises ProblemError 503.
        """
        if self._keyless >= max(self.max_requests // 4, 1):
            raise _overloaded("too many requests are being read that show no key in a header")
        self._keyless += 1
        try:
            yield
        finally:
            self._keyless -= 1


class Bounded:
    """Answers 503 to requests beyond the load that `app.state.services` names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            return await self._app(scope, receive, send)
        load: Load = scope["app"].state.services.load
        if load.requests >= load.max_requests:
            raise _overloaded(f"{load.max_requests} requests are being worked on")
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            if size and held < _MAX_HELD:
                if load.bytes + size > load.max_bytes:
                    raise _overloaded(
                        "the requests that are being worked on fill the memory that is set aside for them"
                    )
                held += size
                load.bytes += size
            return message

        load.requests += 1
        try:
            await self._app(scope, counted, send)
        finally:
            load.requests -= 1
            load.bytes -= held
        return None


def _overloaded(why: str) -> ProblemError:
    return ProblemError(503, "overloaded", f"{why}; try again", headers={"Retry-After": "1"})
