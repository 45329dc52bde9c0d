"""Leaving through a proxy: it is asked for the address that was checked, and its failures are not the receiver's."""

import asyncio
import base64
import ssl
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Sequence

import psutil
import pytest
import trustme

from lifecycle_engine.webhook.exchange import Exchange, Failure
from lifecycle_engine.webhook.proxy import Proxy
from lifecycle_engine.webhook.sender import Sender, default_tls
from tests.egress.receivers import HEADERS, IMPATIENT, Receiver, Script, receiver, sender, silent

PUBLIC = "93.184.215.14"


def lookup(host: str, port: int) -> Sequence[str]:
    if host == "proxy.test":
        return ["127.0.0.1"]
    return {"receiver.test": [PUBLIC], "six.test": ["2606:4700::1111"], "two.test": [PUBLIC, "93.184.215.15"]}[host]


class Tunnels:
    """A proxy that leads every tunnel to one receiver, wherever it was to go."""

    def __init__(self, to: Receiver) -> None:
        self._to = to
        self.heads: list[str] = []

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        there, back = await asyncio.open_connection(self._to.host, self._to.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.transport.abort()


async def _pump(source: Reader, sink: Writer) -> None:
    while data := await source.read(65536):
        sink.write(data)
    sink.close()


def answering(answer: bytes) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await reader.read()

    return script


def through(proxy: Receiver, trusting: ssl.SSLContext, credentials: str = "") -> Sender:
    at = Proxy.at(f"http://{credentials}proxy.test:{proxy.port}")
    return Sender((), at, lookup=lookup, tls=trusting, patience=IMPATIENT)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = default_tls()
    authority.configure_trust(context)
    return context


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("receiver.test", "six.test").configure_cert(context)
    return context


async def test_a_request_goes_through_to_the_address_that_was_checked(
    trusting: ssl.SSLContext, tls: ssl.SSLContext, dialled: list[object]
) -> None:
    async with receiver(tls=tls) as good:
        tunnels = Tunnels(good)
        async with receiver(tunnels) as proxy:
            ours = through(proxy, trusting, "who:h%40sh@")
            for _ in range(3):
                result = await ours.send("https://receiver.test/hooks", HEADERS, b"{}")
                assert result.succeeded, result
            assert (await ours.send("https://six.test:8443/", HEADERS, b"{}")).succeeded
            await ours.close()
            assert proxy.connections == 2
    first, second = tunnels.heads
    assert first.startswith(f"CONNECT {PUBLIC}:443 HTTP/1.1\r\n")
    assert base64.b64encode(b"who:h@sh").decode() in first
    assert second.startswith("CONNECT [2606:4700::1111]:8443 HTTP/1.1\r\n")
    assert good.names == ["receiver.test", "six.test"]
    assert [request.headers["host"] for request in good.requests] == ["receiver.test"] * 3 + ["six.test:8443"]
    assert "proxy-authorization" not in good.requests[0].headers
    assert all(isinstance(address, tuple) and address[0] == "127.0.0.1" for address in dialled)


async def test_what_is_denied_is_not_asked_of_the_proxy(trusting: ssl.SSLContext) -> None:
    async with receiver() as proxy:
        ours = through(proxy, trusting)
        assert (await ours.send("https://169.254.169.254/", HEADERS, b"{}")).failure is Failure.DENIED_ADDRESS
        assert (await ours.send("http://receiver.test/", HEADERS, b"{}")).failure is Failure.INVALID_URL
        await ours.close()
        assert proxy.connections == 0


async def test_an_allowed_network_is_dialled_directly() -> None:
    async with receiver() as proxy, receiver() as inside:
        async with sender("127.0.0.1/32", proxy=Proxy("127.0.0.1", proxy.port, None)) as ours:
            assert (await ours.send(inside.url(), HEADERS, b"{}")).succeeded
        assert (proxy.connections, inside.connections) == (0, 1)


async def test_another_s_certificate_is_refused_through_a_proxy_too(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(wrong)
    async with receiver(tls=wrong) as bad, receiver(Tunnels(bad)) as proxy:
        result = await send(proxy, trusting)
    assert result.failure is Failure.TLS
    assert not result.ours


@pytest.mark.parametrize(
    ("answer", "failure", "ours"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", Failure.PROXY, True),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", Failure.PROXY, True),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", Failure.PROXY, True),
        (b"HTTP/1.1 301 Moved\r\nlocation: http://elsewhere/\r\n\r\n", Failure.PROXY, True),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Failure.PROXY, True),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, Failure.PROXY, True),
        (b"HTTP/1.1 200 OK\r\n\r\nspeaking before it is spoken to", Failure.PROXY, True),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", Failure.REFUSED, False),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", Failure.REFUSED, False),
        (b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n", Failure.TIMEOUT, False),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", Failure.DENIED_ADDRESS, False),
        (b"HTTP/1.1 407 No\r\nX-Smokescreen-Error: denied\r\n\r\n", Failure.DENIED_ADDRESS, False),
    ],
)
async def test_whose_failure_it_is(answer: bytes, failure: Failure, ours: bool, trusting: ssl.SSLContext) -> None:
    async with receiver(answering(answer)) as proxy:
        result = await send(proxy, trusting)
    assert (result.failure, result.ours, result.status) == (failure, ours, None), result
    assert result.detail


async def test_a_proxy_that_is_not_there_is_our_own_failure(trusting: ssl.SSLContext) -> None:
    async with receiver() as gone:
        pass
    assert (await send(gone, trusting)).failure is Failure.PROXY
    with silent("127.0.0.1") as port:
        assert (await send(Receiver("127.0.0.1", port), trusting)).failure is Failure.PROXY
    ours = Sender((), Proxy("nowhere.test", 1, None), lookup=_knows_no_proxy, tls=trusting, patience=IMPATIENT)
    assert (await ours.send("https://receiver.test/", HEADERS, b"{}")).failure is Failure.PROXY
    await ours.close()


async def test_a_proxy_that_closes_is_our_own_failure(trusting: ssl.SSLContext) -> None:
    async def closing(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with receiver(closing) as proxy:
        result = await send(proxy, trusting)
    assert (result.failure, result.ours) == (Failure.PROXY, True)


async def test_the_next_address_is_asked_for_where_the_first_refuses(
    trusting: ssl.SSLContext, tls: ssl.SSLContext
) -> None:
    async with receiver(tls=tls) as good:
        tunnels = Tunnels(good)

        async def refusing_the_first(reader: Reader, writer: Writer) -> None:
            if proxy.connections == 1:
                await answering(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")(reader, writer)
            else:
                await tunnels(reader, writer)

        async with receiver(refusing_the_first) as proxy:
            result = await send(proxy, trusting, "https://two.test/")
    assert result.failure is Failure.TLS  # its certificate names others: the second address was reached
    assert tunnels.heads[0].startswith("CONNECT 93.184.215.15:443 ")


async def test_tunnels_that_fail_leave_nothing_behind(trusting: ssl.SSLContext) -> None:
    answers = [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 407 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\x15\x03\x01\x00\x02\x02\x28",
    ]
    process = psutil.Process()
    before = len(process.net_connections())
    for answer in answers:
        async with receiver(answering(answer)) as proxy:
            ours = through(proxy, trusting)
            await asyncio.gather(
                *[ours.send("https://receiver.test/", HEADERS, b"{}", deadline=0.3) for _ in range(20)]
            )
            await ours.close()
    for _ in range(50):
        if len(process.net_connections()) <= before:
            break
        await asyncio.sleep(0.02)
    assert len(process.net_connections()) <= before


async def send(proxy: Receiver, trusting: ssl.SSLContext, url: str = "https://receiver.test/") -> Exchange:
    ours = through(proxy, trusting)
    try:
        return await ours.send(url, HEADERS, b"{}", deadline=3)
    finally:
        await ours.close()


def _knows_no_proxy(host: str, port: int) -> Sequence[str]:
    if host == "nowhere.test":
        raise OSError("no such name")
    return [PUBLIC]
