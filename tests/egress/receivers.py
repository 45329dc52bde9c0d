"""Receivers that do as a script says, on loopback, and keep count of who came."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from lifecycle_engine.webhook.sender import Patience, Sender, default_tls

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LOOPBACK = ip_network("127.0.0.0/8")
HEADERS = {"content-type": "application/json", "webhook-id": "msg_1"}
_TLS = default_tls()  # reading the authorities takes a while
IMPATIENT = Patience(resolve=1.0, connect=1.0, idle=0.3, pinned=60.0)


@dataclass
class Request:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A listening receiver."""

    host: str
    port: int
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """What TLS was told each time."""

    def url(self, path: str = "/hooks", scheme: str = "http", host: str | None = None) -> str:
        return f"{scheme}://{host or self.host}:{self.port}{path}"

    async def read(self, reader: asyncio.StreamReader) -> Request:
        """The next request. Raises IncompleteReadError where there is none any more."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        request = Request(head[0], headers, await reader.readexactly(int(headers.get("content-length", "0"))))
        self.requests.append(request)
        return request


@contextlib.asynccontextmanager
async def receiver(
    script: Script | bytes = OK, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Receiver]:
    """Listens, on a free port unless told one. Bytes are the answer to each request; a script gets the connection."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        served.connections += 1
        try:
            if not isinstance(script, bytes):
                await script(reader, writer)
                return
            while True:
                await served.read(reader)
                writer.write(script)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, RuntimeError):
            pass  # whoever called has gone; uvloop says so with a RuntimeError
        finally:
            tasks.discard(task)
            writer.transport.abort()

    def named(_: object, name: str | None, __: object) -> None:
        served.names.append(name)

    if tls is not None:
        tls.sni_callback = named
    server = await asyncio.start_server(serve, host, port, ssl=tls)
    served = Receiver(host, server.sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))


@contextlib.asynccontextmanager
async def sender(*networks: str, **options: Any) -> AsyncIterator[Sender]:
    """A sender that may reach these networks; without any, loopback."""
    allowed = [ip_network(network) for network in networks] or [LOOPBACK]
    made = Sender(allowed, **{"patience": IMPATIENT, "tls": _TLS, **options})
    try:
        yield made
    finally:
        await made.close()


async def request_of(reader: asyncio.StreamReader) -> None:
    """Reads one request's headers, and leaves its body."""
    await reader.readuntil(b"\r\n\r\n")


@contextlib.contextmanager
def silent(host: str) -> Iterator[int]:
    """The port of a host that lets nobody in, and refuses nobody: its queue is full."""
    with socket.create_server((host, 0), backlog=0) as listening, contextlib.ExitStack() as queue:
        address = listening.getsockname()
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address[1]


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes with an RST."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
