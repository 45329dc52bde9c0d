"""A receiver of webhooks on loopback: answers as it is told, keeps connections open, and hands on what came in.

It reads requests as the dispatcher writes them, with a content-length, and is quick, so that it measures others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self


class Request(NamedTuple):
    """One request; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    """The answer, and after how many seconds it is given; `headers` are whole lines."""

    status: int = 204
    seconds: float = 0.0
    headers: tuple[str, ...] = ()
    body: bytes = b""


Answering = Callable[[Request], Reply]


class Receiver:
    """Serves on a free port of 127.0.0.1, or on the one named, while its `async with` lasts."""

    def __init__(self, answering: Answering, port: int = 0) -> None:
        self._answering = answering
        self.port = port
        self._connections: set[asyncio.Transport] = set()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._answering, self._connections), "127.0.0.1", self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for transport in list(self._connections):
            transport.abort()
        await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    def __init__(self, answering: Answering, connections: set[asyncio.Transport]) -> None:
        self._answering = answering
        self._connections = connections
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := self._request()) is not None:
            reply = self._answering(request)
            if reply.seconds:
                asyncio.get_running_loop().call_later(reply.seconds, self._reply, reply)
            else:
                self._reply(reply)

    def _request(self) -> Request | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        whole = end + 4 + int(headers.get("content-length", "0"))
        if len(self._received) < whole:
            return None
        body = bytes(self._received[end + 4 : whole])
        del self._received[:whole]
        return Request(first.split(" ")[1], headers, body)

    def _reply(self, reply: Reply) -> None:
        lines = [f"HTTP/1.1 {reply.status} Answer", *reply.headers]
        if reply.status != 204:
            lines.append(f"content-length: {len(reply.body)}")
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + reply.body)
