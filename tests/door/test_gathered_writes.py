"""An answer goes out in one piece, and nothing that was written is lost or held for long."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from lifecycle_engine.api.door.protocol import HttpProtocol, Limits
from lifecycle_engine.api.door.transport import MOST, Gathered


class Sent(asyncio.Transport):
    """A transport that notes what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said.append(bytes(data))

    def write_eof(self) -> None:
        self.said.append("end of what is written")

    def close(self) -> None:
        self.said.append("closed")

    def abort(self) -> None:
        self.said.append("aborted")


@pytest.fixture
async def sent() -> Sent:
    return Sent()


async def test_what_is_written_in_one_turn_is_sent_together(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"head")
    gathered.write(b"body")
    assert sent.said == []
    await asyncio.sleep(0)
    assert sent.said == [b"headbody"]
    gathered.write(b"more")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sent.said == [b"headbody", b"more"]


async def test_what_is_written_comes_before_the_end(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"answer")
    gathered.write_eof()
    gathered.write(b"late")
    gathered.close()
    await asyncio.sleep(0)
    assert sent.said == [b"answer", "end of what is written", b"late", "closed"]


async def test_what_is_aborted_is_sent_no_more(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"answer")
    gathered.abort()
    await asyncio.sleep(0)
    assert sent.said == ["aborted"]


async def test_much_is_not_held_back(sent: Sent) -> None:
    """Else whoever writes without end would never be told to wait."""
    gathered = Gathered(sent, asyncio.get_running_loop())
    for _ in range(4):
        gathered.write(b"x" * (MOST // 2))
    assert [len(piece) for piece in sent.said] == [MOST + MOST // 2]
    await asyncio.sleep(0)
    assert sum(map(len, sent.said)) == 2 * MOST


async def unasked(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that no request comes to."""


class BrokenOff(HttpProtocol):
    """A connection that the client breaks off while the answer is written, in the same turn."""

    def __init__(self) -> None:
        super().__init__(Limits(), uvicorn.Config(unasked, log_config=None), ServerState(), {})
        self.made, self.lost = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.write(b"answer")
        super().connection_lost(exc)
        self.transport.write(b"more of it")
        self.lost.set()


def test_what_is_written_to_a_connection_that_is_broken_off_goes_nowhere() -> None:
    """On the loop that serves: a transport of uvloop's does not take it then."""
    mistakes: list[dict[str, Any]] = []

    async def break_off() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: mistakes.append(context))
        protocol = BrokenOff()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            await protocol.made.wait()
            # Closed like this, it is reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await protocol.lost.wait()
        await asyncio.sleep(0.01)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(break_off())
    assert mistakes == []


async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers before anything else can happen."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def test_who_sends_no_more_gets_the_answer_that_there_is() -> None:
    """On the loop that serves: it looks at its sockets before what was called to be done soon."""

    async def ask() -> bytes:
        config, state = uvicorn.Config(at_once, log_config=None), ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(Limits(), config, state, {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = [runner.run(ask()) for _ in range(20)]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 204"] * 20
