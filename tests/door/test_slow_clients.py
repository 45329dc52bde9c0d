"""Clients that are slow, or take too much of a connection, over real sockets: they are told, and hung up on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from lifecycle_engine.api.door import server
from lifecycle_engine.api.door.protocol import Limits
from lifecycle_engine.api.door.server import HttpServer, bind
from lifecycle_engine.api.health import Health
from lifecycle_engine.store.database import Database
from tests.integration.apps import KEY, App, running
from tests.integration.test_ingest import Silent

LIMITS = Limits(
    connections=8,
    head_seconds=0.5,
    body_seconds=3,
    window_seconds=0.6,
    window_bytes=1000,
    unread_seconds=1,
    linger_seconds=0.5,
    keep_alive_seconds=1,
)
"""As by default, but sooner."""
HEAD = (
    f"POST /v1/touchpoints HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
)
TOUCHPOINT = b'{"id": "t1", "type": "purchase", "customer_id": "42"}'
QUESTION = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def answer(self) -> Answer:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, body)

    async def ends(self, within: float = 10) -> float:
        """Seconds until the other side has hung up, whatever came before."""
        began = time.monotonic()
        with suppress(ConnectionError):
            async with asyncio.timeout(within):
                while await self.reader.read(1 << 16):
                    pass
        return time.monotonic() - began

    async def drip(self, data: bytes, every: float) -> None:
        """Sends a byte now and then until nobody takes it."""
        with suppress(ConnectionError):
            for byte in data:
                await self.send(bytes([byte]))
                await asyncio.sleep(every)


class Served(NamedTuple):
    app: App
    port: int
    connections: list[Connection]

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection

    async def is_well(self) -> None:
        """A good request is answered within a second."""
        began = time.monotonic()
        connection = await self.connect()
        await connection.send(HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(TOUCHPOINT) + TOUCHPOINT)
        assert (await connection.answer()).status == 202
        assert time.monotonic() - began < 1
        await connection.close()


@asynccontextmanager
async def serving(app: Any, limits: Limits = LIMITS) -> AsyncIterator[int]:
    bound = bind("127.0.0.1", 0)
    stop, up = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(HttpServer(app, Health({}), bound, lambda _: up.set(), limits).run(stop))
    await asyncio.wait({running, asyncio.ensure_future(up.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield int(bound.getsockname()[1])
    finally:
        stop.set()
        await running


@pytest.fixture
async def served(installed_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(server, "CHECK_EVERY", 0.1)
    database = Database(installed_sqlite_url)
    mistakes: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))
    async with running(Silent(lambda records: [True] * len(records)), database) as app, serving(app.app) as port:
        served = Served(app, port, [])
        yield served
        for connection in served.connections:
            await connection.close()
    await database.close()
    assert mistakes == []


async def head_drip(connection: Connection) -> None:
    await connection.drip(HEAD.encode() + b"X: " + b"x" * 1000, 0.05)


async def head_stops(connection: Connection) -> None:
    await connection.send(HEAD.encode())


async def body_drip(connection: Connection) -> None:
    await connection.send(HEAD.encode() + b"Content-Length: 1000\r\n\r\n")
    await connection.drip(b" " * 1000, 0.05)


async def body_stops(connection: Connection) -> None:
    await connection.send(HEAD.encode() + b"Content-Length: 100000\r\n\r\n" + b" " * 50_000)


async def chunk_drip(connection: Connection) -> None:
    await connection.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    await connection.drip(b"1\r\n \r\n" * 200, 0.03)


async def never_ending_body(connection: Connection) -> None:
    """As fast as it must be, and without an end."""
    await connection.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        for _ in range(200):
            await connection.send(b"400\r\n" + b" " * 1024 + b"\r\n")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("client", "latest"),
    [(head_drip, 2), (head_stops, 2), (body_drip, 2), (body_stops, 3), (chunk_drip, 2), (never_ending_body, 5)],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_a_client_that_drips_is_told_and_hung_up_on(
    served: Served, client: Callable[[Connection], Awaitable[None]], latest: float
) -> None:
    connection = await served.connect()
    began = time.monotonic()
    sending = asyncio.ensure_future(client(connection))
    answer = await connection.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (408, "too_slow", "close")
    await connection.ends()
    assert time.monotonic() - began < latest
    await sending
    await served.is_well()


async def test_who_says_nothing_is_hung_up_on(served: Served) -> None:
    connection = await served.connect()
    assert await connection.ends() < 2
    for keeping in (b"", b"\r\n", b"\r\n\r\n"):
        connection = await served.connect()
        await connection.send(QUESTION)
        assert (await connection.answer()).status == 200
        if keeping:
            await connection.send(keeping)
        assert 0.3 < await connection.ends() < 3


async def test_who_goes_on_sending_after_the_answer_is_hung_up_on(served: Served) -> None:
    head = HEAD.replace(KEY, "wrong").encode()
    for size in (1000, 10_000_000_000):
        connection = await served.connect()
        await connection.send(head + b"Content-Length: %d\r\n\r\n" % size)
        assert (await connection.answer()).status == 401
        sending = asyncio.ensure_future(connection.drip(b" " * 1000, 0.01))
        assert await connection.ends() < 2
        await sending
    await served.is_well()


async def test_a_connection_is_kept_for_the_next_request(served: Served) -> None:
    connection = await served.connect()
    for _ in range(3):
        await connection.send(HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(TOUCHPOINT) + TOUCHPOINT)
        assert (await connection.answer()).status == 202
        await connection.send(HEAD.replace(KEY, "wrong").encode() + b"Content-Length: 2\r\n\r\n{}")
        assert (await connection.answer()).status == 401
        await asyncio.sleep(0.6)  # longer than a head may take
    await connection.send(QUESTION * 3)
    assert [(await connection.answer()).status for _ in range(3)] == [200, 200, 200]


async def test_garbage_behind_a_request_does_not_cost_it_its_answer(served: Served) -> None:
    connection = await served.connect()
    await connection.send(QUESTION + b"\x16\x03\x01garbage\r\n\r\n")
    assert (await connection.answer()).status == 200
    assert await connection.ends() < 3


HEADS: dict[str, tuple[bytes, int, str]] = {
    "a header of 100 KB": (b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n", 431, "too_large"),
    "a header of 10 MB": (b"X-Long: " + b"x" * 10_000_000 + b"\r\n\r\n", 431, "too_large"),
    "a name of 200 KB": (b"x" * 200_000 + b": 1\r\n\r\n", 431, "too_large"),
    "1000 headers": (b"X: 1\r\n" * 1000 + b"\r\n", 431, "too_large"),
    "no Host": (b"\r\n", 400, "ambiguous_host"),
    "two Hosts": (b"Host: a\r\nHost: b\r\n\r\n", 400, "ambiguous_host"),
    "two lengths": (b"Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "malformed_http"),
    "one length twice": (b"Host: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, "malformed_http"),
    "a length and chunks": (
        b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_http",
    ),
}


@pytest.mark.parametrize("head", HEADS)
async def test_heads_that_are_too_much_or_mean_two_things_are_refused(served: Served, head: str) -> None:
    sent, status, code = HEADS[head]
    connection = await served.connect()
    with suppress(ConnectionError):
        await connection.send(b"POST /v1/touchpoints HTTP/1.1\r\n" + sent)
    answer = await connection.answer()
    assert (answer.status, answer.code, answer.headers["content-type"]) == (status, code, "application/problem+json")
    await connection.ends()
    await served.is_well()


async def test_an_address_of_70_kb_is_refused(served: Served) -> None:
    connection = await served.connect()
    await connection.send(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: here\r\n\r\n")
    answer = await connection.answer()
    assert (answer.status, answer.code) == (414, "too_large")


async def test_a_trailer_is_no_header(served: Served) -> None:
    connection = await served.connect()
    head = HEAD.replace(f"Authorization: Bearer {KEY}\r\n", "").encode()
    await connection.send(
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(TOUCHPOINT) + TOUCHPOINT + b"\r\n0\r\n"
        b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    )
    assert (await connection.answer()).status == 401


TRAILERS = {
    "a value that does not end": b"0\r\nX-Long: " + b"x" * 10_000_000,
    "200,000 fields": b"0\r\n" + b"X: 1\r\n" * 200_000,
    "a chunk's extension that does not end": b"1;x=" + b"x" * 10_000_000,
}


@pytest.mark.parametrize("trailer", TRAILERS)
async def test_what_stands_around_a_body_comes_to_an_end(served: Served, trailer: str) -> None:
    connection = await served.connect()
    chunk = b"%x\r\n" % len(TOUCHPOINT) + TOUCHPOINT + b"\r\n"
    await connection.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    with suppress(ConnectionError):
        await connection.send(TRAILERS[trailer])
    answer = await connection.answer()
    assert (answer.status, answer.code) == (431, "too_large")
    await connection.ends()
    await served.is_well()


async def test_a_head_is_not_measured_with_the_body_before_it(installed_sqlite_url: str) -> None:
    database = Database(installed_sqlite_url)
    limits = LIMITS._replace(head_bytes=1000, url_bytes=1000)
    touchpoint = TOUCHPOINT[:-1] + b" " * 10_000 + b"}"
    request = HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(touchpoint) + touchpoint
    async with (
        running(Silent(lambda records: [True] * len(records)), database) as app,
        serving(app.app, limits) as port,
    ):
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        await connection.send(request + QUESTION[:10])
        assert (await connection.answer()).status == 202
        await connection.send(QUESTION[10:])
        assert (await connection.answer()).status == 200
        await connection.close()
    await database.close()


@pytest.mark.parametrize("rest", [b"no chunk\r\n", TRAILERS["a chunk's extension that does not end"]])
async def test_a_request_has_one_answer_whatever_follows_of_it(served: Served, rest: bytes) -> None:
    connection = await served.connect()
    head = b"POST /v1/touchpoints HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    await connection.send(head + b"2\r\n{}\r\n")
    assert (await connection.answer()).status == 401
    with suppress(ConnectionError):
        await connection.send(rest)
        assert await connection.reader.read() == b""
    await served.is_well()


async def test_chunks_of_one_byte_are_a_body_like_any_other(served: Served) -> None:
    connection = await served.connect()
    touchpoint = TOUCHPOINT[:-1] + b" " * 100_000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in touchpoint)
    await connection.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert (await connection.answer()).status == 202


async def test_a_request_to_speak_another_protocol_is_answered_in_this_one(served: Served) -> None:
    """As Java's own client asks with each of its first requests, those with a body too."""
    connection = await served.connect()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    await connection.send(HEAD.encode() + upgrade + b"Content-Length: %d\r\n\r\n" % len(TOUCHPOINT) + TOUCHPOINT)
    assert (await connection.answer()).status == 202
    await connection.send(QUESTION)
    assert (await connection.answer()).status == 200
    await connection.send(QUESTION[:-2] + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n")
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await connection.reader.read() == b""


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(served: Served) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(TOUCHPOINT)
    connection = await served.connect()
    await connection.send(HEAD.encode() + expecting)
    assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await connection.send(TOUCHPOINT)
    assert (await connection.answer()).status == 202
    # Whoever is refused before is told so without having sent it, and what comes then is no part of a body.
    connection = await served.connect()
    await connection.send(HEAD.replace(KEY, "wrong").encode() + expecting)
    answer = await connection.answer()
    assert (answer.status, answer.headers["connection"]) == (401, "close")


async def test_more_connections_than_there_may_be(served: Served) -> None:
    busy = []
    for _ in range(LIMITS.connections):
        connection = await served.connect()
        await connection.send(HEAD.encode()[:10])
        busy.append(connection)
    await asyncio.sleep(0.1)
    one_more = await served.connect()
    answer = await one_more.answer()
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "too_many_connections", "1")
    assert await one_more.ends() < 1
    for connection in [*busy, one_more]:
        await connection.ends()
        await connection.close()
    await asyncio.sleep(0.1)
    # One that is only kept open makes room.
    for _ in range(LIMITS.connections):
        connection = await served.connect()
        await connection.send(QUESTION)
        assert (await connection.answer()).status == 200
    await served.is_well()


async def test_who_does_not_read_the_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CHECK_EVERY", 0.1)
    sent = 0

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 65536

    async with serving(endless) as port:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1024))
        await connection.send(QUESTION)
        await asyncio.sleep(2.5)
        assert sent < 64 * 1024 * 1024
        received = 0
        with suppress(ConnectionError):
            while data := await asyncio.wait_for(connection.reader.read(1 << 20), 5):
                received += len(data)
        assert received <= sent
        await connection.close()


async def test_more_requests_than_are_worked_on_at_a_time(installed_sqlite_url: str) -> None:
    gate = asyncio.Event()

    class Slow(Silent):
        async def append(self, records: Any) -> list[bool]:
            await gate.wait()
            return [True] * len(records)

    database = Database(installed_sqlite_url)
    async with running(Slow(lambda records: []), database) as app:
        app.services.load.max_requests = 3
        waiting = [
            asyncio.create_task(app.client.post("/v1/touchpoints", content=TOUCHPOINT, headers=JSON)) for _ in "123"
        ]
        while app.services.load.requests < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        refused = await app.client.post("/v1/touchpoints", content=TOUCHPOINT, headers=JSON)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert (await app.client.get("/livez")).status_code == 200
        gate.set()
        assert [(await one).status_code for one in waiting] == [202, 202, 202]
        # And by the memory that their bodies take.
        app.services.load.max_bytes = 1000
        big = await app.client.post("/v1/touchpoints", content=b" " * 2000, headers=JSON)
        assert (big.status_code, big.json()["code"]) == (503, "overloaded")
        assert (await app.client.post("/v1/touchpoints", content=TOUCHPOINT, headers=JSON)).status_code == 202
        assert (app.services.load.requests, app.services.load.bytes) == (0, 0)
    await database.close()


async def test_what_outlasts_the_process_is_told_to_come_again(
    installed_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "GRACE", 1)

    class Stuck(Silent):
        async def append(self, records: Any) -> list[bool]:
            await asyncio.Event().wait()
            return []

    database = Database(installed_sqlite_url)
    async with running(Stuck(lambda records: []), database) as app:
        async with serving(app.app) as port:
            connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
            await connection.send(HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(TOUCHPOINT) + TOUCHPOINT)
            while app.services.load.requests == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (503, "stopping")
        await connection.close()
    await database.close()
    assert "Traceback" not in caplog.text


async def test_whoever_shows_no_key_takes_no_more_than_a_quarter_of_the_process(installed_sqlite_url: str) -> None:
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await gate.wait()

    database = Database(installed_sqlite_url)
    async with running(Silent(lambda records: [True] * len(records)), database) as app:
        app.services.load.max_requests = 8

        async def keyless() -> tuple[int, str]:
            request = app.client.build_request("POST", "/v1/batch", content=slowly(), headers=JSON)
            del request.headers["Authorization"]
            answer = await app.client.send(request)
            return answer.status_code, answer.json()["code"]

        slow = [asyncio.create_task(keyless()) for _ in range(20)]
        await asyncio.wait(slow, timeout=0.5)
        assert (await app.client.post("/v1/touchpoints", content=TOUCHPOINT, headers=JSON)).status_code == 202
        gate.set()
        answers = [await one for one in slow]
        assert answers.count((400, "malformed")) == 2
        assert answers.count((503, "overloaded")) == 18
        assert await keyless() == (400, "malformed")
    await database.close()


JSON = {"Content-Type": "application/json"}
