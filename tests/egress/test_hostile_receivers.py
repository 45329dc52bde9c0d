"""Receivers that do everything but answer: each exchange ends in time, with a reason, and leaves nothing behind."""

import asyncio
import contextlib
import gc
import gzip
import random
import time
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable

import psutil
import pytest

from lifecycle_engine.webhook.connections import BODY_MOST
from lifecycle_engine.webhook.exchange import Exchange, Failure
from tests.egress.receivers import HEADERS, OK, Script, receiver, request_of, reset, sender

DEADLINE = 0.4
BODY = b'{"type":"stage.changed"}'


def answering(answer: bytes) -> Script:
    """Answers each connection's first request so, and closes."""

    async def script(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return script


def endless(start: bytes, more: bytes) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()

    return script


def dripping(at_once: bytes, drops: bytes) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        writer.write(at_once)
        for drop in drops:
            writer.write(bytes([drop]))
            await writer.drain()
            await asyncio.sleep(0.02)

    return script


async def deaf(reader: Reader, writer: Writer) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


async def mute(reader: Reader, writer: Writer) -> None:
    await request_of(reader)
    await asyncio.sleep(60)


async def resetting_at_once(reader: Reader, writer: Writer) -> None:
    reset(writer)


async def resetting_after_the_request(reader: Reader, writer: Writer) -> None:
    await request_of(reader)
    reset(writer)


async def resetting_in_the_body(reader: Reader, writer: Writer) -> None:
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.05)
    reset(writer)


async def greeting(reader: Reader, writer: Writer) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await asyncio.sleep(60)


def noise() -> bytes:
    return random.Random(6).randbytes(4096)


HOSTILE: dict[str, tuple[Script, Failure | None, int | None]] = {
    "deaf": (deaf, Failure.TIMEOUT, None),
    "mute": (mute, Failure.TIMEOUT, None),
    "dripping headers": (dripping(b"", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99), Failure.TIMEOUT, None),
    "dripping body": (dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 99), Failure.TIMEOUT, 200),
    "dripping interim": (dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9), Failure.TIMEOUT, None),
    "interim only": (answering(b"HTTP/1.1 102 Processing\r\n\r\n"), Failure.RESET, None),
    "endless interim": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500), Failure.TOO_LARGE, None),
    "switching": (
        answering(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
        Failure.PROTOCOL,
        None,
    ),
    "closing at once": (answering(b""), Failure.RESET, None),
    "resetting at once": (resetting_at_once, Failure.RESET, None),
    "resetting after the request": (resetting_after_the_request, Failure.RESET, None),
    "resetting in the body": (resetting_in_the_body, Failure.RESET, 200),
    "closing in the headers": (answering(b"HTTP/1.1 200 OK\r\nx: "), Failure.RESET, None),
    "closing in the body": (answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), Failure.RESET, 200),
    "closing in a chunk": (
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf"),
        Failure.RESET,
        200,
    ),
    "noise": (answering(noise()), Failure.PROTOCOL, None),
    "endless noise": (endless(b"", noise()), Failure.PROTOCOL, None),
    "SMTP": (greeting, Failure.PROTOCOL, None),
    "a page without headers": (answering(b"<html>\r\n<body>Welcome\r\n\r\n"), Failure.PROTOCOL, None),
    "HTTP/2": (answering(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\r\n\r\n"), Failure.PROTOCOL, None),
    "an absurd status": (answering(b"HTTP/1.1 20 OK\r\n\r\n"), Failure.PROTOCOL, None),
    "an absurd length": (answering(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"), Failure.PROTOCOL, None),
    "a negative length": (answering(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), Failure.PROTOCOL, None),
    "an immense length": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\nx"),
        Failure.PROTOCOL,
        None,
    ),
    "two lengths": (
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        Failure.PROTOCOL,
        None,
    ),
    "an absurd chunk": (
        answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        Failure.PROTOCOL,
        200,
    ),
    "NUL in a header": (answering(b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n"), Failure.PROTOCOL, None),
    "an immense header": (answering(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000), Failure.TOO_LARGE, None),
    "an endless header": (endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 10_000), Failure.TOO_LARGE, None),
    "endless headers": (endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), Failure.TOO_LARGE, None),
    "endless trailers": (
        endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 1000),
        Failure.TOO_LARGE,
        200,
    ),
    "an endless body": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 65536), None, 200),
    "an endless body in crumbs": (
        endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nz\r\n" * 1000),
        None,
        200,
    ),
    "an endless chunk extension": (
        endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x" * 10_000),
        Failure.TOO_LARGE,
        200,
    ),
}


async def exchange(script: Script, deadline: float = 10.0) -> Exchange:
    async with receiver(script) as bad, sender() as ours:
        return await ours.send(bad.url(), HEADERS, BODY, deadline=deadline)


@pytest.mark.parametrize("kind", HOSTILE)
async def test_every_exchange_ends_in_time_with_a_reason(kind: str) -> None:
    script, failure, status = HOSTILE[kind]
    deadline = DEADLINE if failure is Failure.TIMEOUT else 10.0
    async with receiver(script) as bad, sender() as ours:
        started = time.monotonic()
        result = await ours.send(bad.url(), HEADERS, BODY, deadline=deadline)
        assert time.monotonic() - started < deadline + 2
    assert (result.failure, result.status) == (failure, status), result
    assert result.succeeded is (failure is None)
    assert bool(result.detail) is (failure is not None)
    assert len(result.response) <= BODY_MOST
    assert not result.ours
    assert bad.connections == 1


@pytest.mark.parametrize(
    "status", [200, 201, 202, 204, 299, 300, 302, 304, 307, 400, 410, 418, 429, 500, 503, 599, 999]
)
async def test_only_2xx_is_success(status: int) -> None:
    result = await exchange(answering(b"HTTP/1.1 %d Whatever\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n" % status))
    assert (result.status, result.failure, result.succeeded) == (status, None, 200 <= status < 300)
    assert result.headers == {"retry-after": "7"}


async def test_some_interim_answers_are_passed_over() -> None:
    result = await exchange(answering(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + OK))
    assert (result.status, result.response) == (200, b"ok")


async def test_a_redirect_is_an_answer_that_nobody_follows(dialled: list[object]) -> None:
    async with receiver() as target:
        location = f"HTTP/1.1 301 Moved\r\nlocation: {target.url()}\r\ncontent-length: 0\r\n\r\n".encode()
        elsewhere = location.replace(target.url().encode(), b"http://169.254.169.254/latest/meta-data/")
        for answer in (location, elsewhere, location.replace(b"301", b"302"), location.replace(b"301", b"307")):
            result = await exchange(answering(answer))
            assert result.status in (301, 302, 307)
            assert not result.succeeded
        assert target.connections == 0
    assert all(isinstance(address, tuple) and address[0] == "127.0.0.1" for address in dialled)


async def test_a_compressed_answer_is_kept_as_it_came() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), compresslevel=1)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with receiver(answering(head + bomb)) as bad, sender() as ours:
        process = psutil.Process()
        before = process.memory_info().rss
        for _ in range(20):
            result = await ours.send(bad.url(), HEADERS, BODY)
            assert result.succeeded
            assert result.response == bomb[:BODY_MOST]
        assert process.memory_info().rss - before < 16 * 1024 * 1024


async def test_headers_that_are_kept_are_cut() -> None:
    result = await exchange(answering(b"HTTP/1.1 503 No\r\nretry-after: " + b"9" * 10_000 + b"\r\n\r\n"))
    assert result.status == 503
    assert result.headers["retry-after"] == "9" * 256


async def test_what_has_come_before_a_failure_is_kept() -> None:
    result = await exchange(HOSTILE["closing in the body"][0])
    assert (result.failure, result.status, result.response) == (Failure.RESET, 200, b"half")
    assert not result.succeeded


@pytest.mark.parametrize("kind", ["endless interim", "an endless body in crumbs"])
async def test_nobody_keeps_the_loop_to_himself(kind: str) -> None:
    stints: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()  # of this thread's work alone, so that a busy machine makes no difference
            await asyncio.sleep(0)
            stints.append(time.thread_time() - before)

    async with receiver(HOSTILE[kind][0]) as bad, sender() as ours:
        gc.disable()
        watching = asyncio.create_task(watch())
        await ours.send(bad.url(), HEADERS, BODY)
        watching.cancel()
        gc.enable()
    assert max(stints) < 0.1
    assert max(stints) < sum(stints) / 2


async def test_answers_that_were_garbled_on_the_way() -> None:
    """Whatever comes is foreseen: an answer, or one of the failures that a receiver can cause."""
    chance = random.Random(8)
    answers = [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 3\r\nretry-after: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n",
    ]

    def garbled() -> bytes:
        answer = bytearray(chance.choice(answers))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(answer))
            match chance.randrange(4):
                case 0:
                    answer[place] = chance.randrange(256)
                case 1:
                    del answer[place : place + chance.randint(1, 8)]
                case 2:
                    answer[place:place] = chance.randbytes(chance.randint(1, 8))
                case _:
                    answer[place:place] = answer[chance.randrange(len(answer)) :]
            answer = answer or bytearray(b"\r\n")
        return bytes(answer)

    async def script(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await request_of(reader)
                await reader.readexactly(len(BODY))
                writer.write(garbled())
                if chance.random() < 0.7:
                    break
        writer.close()

    expected = {None, Failure.RESET, Failure.PROTOCOL, Failure.TIMEOUT}
    seen = set()
    async with receiver(script) as bad, sender() as ours:
        for _ in range(10):
            batch = await asyncio.gather(*[ours.send(bad.url(), HEADERS, BODY, deadline=0.3) for _ in range(60)])
            seen |= {result.failure for result in batch}
    assert seen == expected


async def test_hundreds_of_bad_exchanges_leave_nothing_behind(tls_answers_nothing: Script) -> None:
    process = psutil.Process()
    scripts = [script for script, _, _ in HOSTILE.values()]
    refused = await _free_port()
    gc.collect()
    sockets, files, tasks = len(process.net_connections()), process.num_fds(), len(asyncio.all_tasks())
    memory = []
    async with sender() as ours:
        for _ in range(4):
            await _all_at_once(scripts * 2, ours.send, f"http://127.0.0.1:{refused}/")
            gc.collect()
            memory.append(process.memory_info().rss)
    await _settled(lambda: len(asyncio.all_tasks()) <= tasks)
    await _settled(lambda: len(process.net_connections()) <= sockets)
    await _settled(lambda: process.num_fds() <= files)
    assert memory[-1] - memory[1] < 16 * 1024 * 1024


async def test_cancelling_leaves_nothing_behind() -> None:
    process = psutil.Process()
    moments = random.Random(7)
    sockets, tasks = len(process.net_connections()), len(asyncio.all_tasks())
    async with sender() as ours:
        async with receiver(dripping(b"", OK)) as slow, receiver() as good:
            sending = [asyncio.create_task(ours.send(slow.url(), HEADERS, BODY)) for _ in range(60)]
            sending += [asyncio.create_task(ours.send(good.url(), HEADERS, BODY)) for _ in range(60)]
            moments.shuffle(sending)
            for task in sending:
                await asyncio.sleep(moments.random() * 0.005)
                task.cancel()
            ended = await asyncio.gather(*sending, return_exceptions=True)
            assert any(isinstance(end, asyncio.CancelledError) for end in ended)
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
    await _settled(lambda: len(process.net_connections()) <= sockets)
    await _settled(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_cancelled_exchange_s_connection_is_not_used_again() -> None:
    late = asyncio.Event()

    async def slow_once(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        await late.wait()
        writer.write(OK)
        await writer.drain()

    async with receiver(slow_once) as bad, sender() as ours:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ours.send(bad.url(), HEADERS, BODY), 0.1)
        late.set()
        assert (await ours.send(bad.url(), HEADERS, BODY)).succeeded
        assert bad.connections == 2


@pytest.fixture
def tls_answers_nothing() -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        await asyncio.sleep(60)

    return script


async def test_a_handshake_that_never_ends_is_given_up(tls_answers_nothing: Script) -> None:
    async with receiver(tls_answers_nothing) as bad, sender() as ours:
        result = await ours.send(bad.url(scheme="https"), HEADERS, BODY)
    assert result.failure is Failure.TIMEOUT
    assert result.seconds < 3


async def test_what_is_no_tls_is_said() -> None:
    async with receiver(answering(OK)) as plain, sender() as ours:
        result = await ours.send(plain.url(scheme="https"), HEADERS, BODY)
    assert result.failure in (Failure.TLS, Failure.RESET, Failure.TIMEOUT)
    async with receiver(greeting) as plain, sender() as ours:
        result = await ours.send(plain.url(scheme="https"), HEADERS, BODY)
    assert result.failure is Failure.TLS


async def _all_at_once(scripts: list[Script], send: Callable[..., Awaitable[Exchange]], refused: str) -> None:
    async def one(script: Script) -> None:
        async with receiver(script) as bad:
            await send(bad.url(), HEADERS, BODY, deadline=DEADLINE)
            await send(bad.url(scheme="https"), HEADERS, BODY, deadline=DEADLINE)
            assert (await send(refused, HEADERS, BODY, deadline=DEADLINE)).failure is not None

    await asyncio.gather(*map(one, scripts))


async def _free_port() -> int:
    async with receiver() as gone:
        return gone.port


async def _settled(condition: Callable[[], bool]) -> None:
    """Sockets that were aborted are closed in the loop's next turns."""
    for _ in range(100):
        gc.collect()
        if condition():
            return
        await asyncio.sleep(0.02)
    assert condition()
