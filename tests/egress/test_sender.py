"""The guarded client among receivers that mean well, and in front of addresses that it must not reach."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence

import pytest

from lifecycle_engine.webhook.exchange import Failure
from lifecycle_engine.webhook.sender import Patience, Sender
from tests.egress.receivers import HEADERS, OK, receiver, request_of, sender, silent

BODY = b'{"type":"stage.changed"}'
METADATA = "169.254.169.254"


class Lies:
    """A resolver that answers each question with the next of these; the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def test_a_request_arrives_as_it_was_given() -> None:
    async with receiver() as good, sender() as ours:
        result = await ours.send(good.url("/hooks?x=1"), HEADERS, BODY)
    assert (result.status, result.failure, result.detail, result.response) == (200, None, "", b"ok")
    assert result.succeeded
    assert 0 < result.seconds < 1
    (request,) = good.requests
    assert request.line == "POST /hooks?x=1 HTTP/1.1"
    assert request.body == BODY
    assert request.headers == {
        "host": f"127.0.0.1:{good.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-length": str(len(BODY)),
        "user-agent": "lifecycle-engine",
        **HEADERS,
    }


async def test_an_empty_and_a_large_body_arrive() -> None:
    async with receiver() as good, sender() as ours:
        for body in (b"", b"x" * 65536):
            assert (await ours.send(good.url(), {"user-agent": "mine"}, body)).succeeded
    assert [len(request.body) for request in good.requests] == [0, 65536]
    assert good.requests[0].headers["user-agent"] == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nInjected: 1"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\x00b"),
        ("x", "é"),
        ("x\r\nInjected", "1"),
        ("x y", "1"),
        ("", "1"),
        ("é", "1"),
        ("Host", "elsewhere"),
        ("content-length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Accept-Encoding", "gzip"),
        ("connection", "upgrade"),
    ],
)
async def test_a_header_that_would_say_more_is_refused(name: str, value: str) -> None:
    async with receiver() as good, sender() as ours:
        result = await ours.send(good.url(), {name: value}, BODY)
        assert result.failure is Failure.INVALID_HEADER
        assert result.detail
        assert good.connections == 0


async def test_connections_are_used_again() -> None:
    async with receiver() as good, sender() as ours:
        for _ in range(20):
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
        assert good.connections == 1
        await asyncio.gather(*[ours.send(good.url(), HEADERS, BODY) for _ in range(5)])
        assert good.connections == 5
        assert len(good.requests) == 25


async def test_a_connection_that_the_receiver_closed_is_no_failure() -> None:
    async def closing_when_asked_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await good.read(reader)
        writer.write(OK)
        await reader.read(1)  # the next request, to which the answer is the end
        writer.close()

    async with receiver(closing_when_asked_again) as good, sender() as ours:
        for _ in range(5):
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
        assert good.connections == 5


async def test_a_fresh_connection_that_closes_is_a_failure() -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.close()

    async with receiver(closing) as bad, sender() as ours:
        assert (await ours.send(bad.url(), HEADERS, BODY)).failure is Failure.RESET
        assert bad.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\na body all the same",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_an_answer_that_goes_on_is_not_taken_for_the_next_one_s(answer: bytes) -> None:
    async with receiver(answer) as good, sender() as ours:
        for _ in range(3):
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
            await asyncio.sleep(0.01)
        assert good.connections == len(good.requests) == 3


async def test_an_answer_that_comes_unasked_closes_the_connection() -> None:
    async def saying_it_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await good.read(reader)
            writer.write(OK)
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(OK)

    async with receiver(saying_it_twice) as good, sender() as ours:
        for _ in range(3):
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
            await asyncio.sleep(0.05)
        assert good.connections == len(good.requests) == 3


async def test_an_idle_connection_is_closed_by_us() -> None:
    closed = asyncio.Event()

    async def waiting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await good.read(reader)
        writer.write(OK)
        await reader.read()
        closed.set()

    async with receiver(waiting) as good, sender(patience=Patience(idle=0.05)) as ours:
        assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
        await asyncio.wait_for(closed.wait(), 2)


async def test_closing_closes_what_is_idle_and_what_is_in_use_when_it_is_done() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await good.read(reader)
        asked.set()
        await asyncio.sleep(0.1)
        writer.write(OK)
        await reader.read()
        ended.set()

    async with receiver(slow) as good, sender() as ours:
        under_way = asyncio.create_task(ours.send(good.url(), HEADERS, BODY))
        await asked.wait()
        await ours.close()
        assert (await under_way).succeeded
        await asyncio.wait_for(ended.wait(), 2)


async def test_nothing_listens() -> None:
    async with receiver() as gone:
        url = gone.url()
    async with sender() as ours:
        result = await ours.send(url, HEADERS, BODY)
    assert result.failure is Failure.REFUSED
    assert (result.status, result.response, result.ours) == (None, b"", False)


# Addresses that must not be reached. 127.0.0.2 stands for one outside, 127.0.0.1 for one inside.


async def test_the_next_address_is_dialled_where_the_first_refuses() -> None:
    async with receiver(host="127.0.0.2") as good, sender(lookup=Lies(["127.0.0.3", "127.0.0.2"])) as ours:
        assert (await ours.send(good.url(host="receiver.test"), HEADERS, BODY)).succeeded
        assert good.requests[0].headers["host"] == f"receiver.test:{good.port}"


async def test_a_silent_address_leaves_the_next_its_share_of_the_time() -> None:
    with silent("127.0.0.3") as port:
        async with (
            receiver(host="127.0.0.2", port=port) as good,
            sender(lookup=Lies(["127.0.0.3", "127.0.0.2"])) as ours,
        ):
            assert (await ours.send(good.url(host="receiver.test"), HEADERS, BODY)).succeeded


async def test_a_name_that_changes_its_mind_sends_nothing_inside() -> None:
    async with receiver(host="127.0.0.1") as inside:
        lies = Lies(["127.0.0.2"], ["127.0.0.1"])
        async with sender("127.0.0.2/32", lookup=lies) as ours:
            url = inside.url(host="rebinding.test")
            assert await ours.check(url) is None
            result = await ours.send(url, HEADERS, BODY)
        assert result.failure is Failure.DENIED_ADDRESS
        assert inside.connections == 0
        assert lies.asked == ["rebinding.test"] * 2


@pytest.mark.parametrize("answers", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "::1"]])
async def test_a_name_with_one_address_inside_sends_nothing_anywhere(answers: list[str]) -> None:
    async with receiver(host="127.0.0.1") as inside:
        async with receiver(host="127.0.0.2", port=inside.port) as outside:
            async with sender("127.0.0.2/32", lookup=Lies(answers)) as ours:
                url = inside.url(host="both.test")
                problem = await ours.check(url)
                assert problem is not None
                assert problem.code is Failure.DENIED_ADDRESS
                assert (await ours.send(url, HEADERS, BODY)).failure is Failure.DENIED_ADDRESS
            assert inside.connections == outside.connections == 0


async def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    """Had the client resolved again on its own when it connects, it would have come to the inside."""
    async with receiver(host="127.0.0.1") as inside:
        async with receiver(host="127.0.0.2", port=inside.port) as outside:
            lies = Lies(["127.0.0.2"], ["127.0.0.1"])
            async with sender("127.0.0.2/32", lookup=lies) as ours:
                sent = await asyncio.gather(*[ours.send(outside.url(host="x.test"), HEADERS, BODY) for _ in range(5)])
            assert all(result.succeeded for result in sent)
            assert outside.connections == 5
            assert inside.connections == 0
            assert lies.asked == ["x.test"]


async def test_no_connection_outlives_the_answer_that_it_was_dialled_under() -> None:
    async with receiver(host="127.0.0.2") as outside:
        lies = Lies(["127.0.0.2"], ["127.0.0.1"])
        async with sender("127.0.0.2/32", lookup=lies, patience=Patience(pinned=0.2)) as ours:
            url = outside.url(host="x.test")
            ended = time.monotonic() + 0.2
            assert (await ours.send(url, HEADERS, BODY)).succeeded
            while time.monotonic() < ended + 0.1:
                result = await ours.send(url, HEADERS, BODY)
                await asyncio.sleep(0.02)
            assert result.failure is Failure.DENIED_ADDRESS


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("10.0.0.1", "LIFECYCLE_WEBHOOK_ALLOW_NETWORKS can allow it"),
        ("127.0.0.1", "LIFECYCLE_WEBHOOK_ALLOW_NETWORKS can allow it"),
        (METADATA, "no setting allows it"),
        ("100.100.100.200", "no setting allows it"),
        ("[ff02::1]", "no setting allows it"),
    ],
)
async def test_a_remedy_is_named_where_there_is_one(host: str, remedy: str) -> None:
    async with sender("192.0.2.0/24") as ours:
        problem = await ours.check(f"https://{host}/")
    assert problem is not None
    assert problem.detail.endswith(remedy)


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        (METADATA, []),
        ("100.100.100.200", []),
        ("[fd00:ec2::254]", []),
        ("[::ffff:a9fe:a9fe]", []),
        ("[64:ff9b::a9fe:a9fe]", []),
        ("10.0.0.1", []),
        ("127.0.0.1", []),
        ("[::1]", []),
        ("0.0.0.0", []),
        ("metadata.google.internal", [METADATA]),
        ("public.test", ["93.184.215.14", METADATA]),
        ("mapped.test", ["::ffff:10.0.0.1"]),
        ("zoned.test", ["fe80::1%lo"]),
        ("localhost", ["127.0.0.1", "::1"]),
    ],
)
async def test_what_leads_inside_is_not_dialled(host: str, answers: list[str], dialled: list[object]) -> None:
    async with sender("192.0.2.0/24", "100.64.0.0/10", "fc00::/7", lookup=Lies(answers)) as ours:
        url = f"https://{host}/"
        problem = await ours.check(url)
        assert problem is not None
        assert problem.code is Failure.DENIED_ADDRESS
        result = await ours.send(url, HEADERS, BODY)
    assert result.failure is Failure.DENIED_ADDRESS
    assert "169.254" not in result.detail  # what a name leads to is not for strangers to learn
    assert dialled == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://2130706433/", "IPv4"),
        ("https://0x7f000001/", "IPv4"),
        ("https://127.1/", "IPv4"),
        ("https://0/", "IPv4"),
        ("https://1.1.1.1@127.0.0.1/", "user name"),
        ("file:///etc/passwd", "https://"),
        ("http://public.test/", "https://"),
        ("https://public.test:25/", "port"),
        ("http://93.184.215.14/", "https://"),
        ("https://93.184.215.14:22/", "port"),
    ],
)
async def test_what_may_not_be_an_endpoint_s_url_is_not_dialled(url: str, says: str, dialled: list[object]) -> None:
    async with sender(lookup=Lies(["93.184.215.14"])) as ours:
        problem = await ours.check(url)
        assert problem is not None
        assert problem.code is Failure.INVALID_URL
        assert says in problem.detail
        result = await ours.send(url, HEADERS, BODY)
    assert (result.failure, result.detail) == (Failure.INVALID_URL, problem.detail)
    assert dialled == []


async def test_http_and_any_port_are_for_allowed_networks_only() -> None:
    async with sender("10.0.0.0/8", lookup=Lies(["10.0.0.1"])) as ours:
        assert await ours.check("http://inside.test:8080/") is None
    async with sender("10.0.0.0/8", lookup=Lies(["10.0.0.1", "93.184.215.14"])) as ours:
        assert await ours.check("https://half.test/") is None
        problem = await ours.check("http://half.test/")
        assert problem is not None
        assert problem.code is Failure.INVALID_URL


async def test_without_networks_of_ours_http_is_refused_unresolved() -> None:
    lies = Lies(["10.0.0.1"])
    ours = Sender(lookup=lies)
    problem = await ours.check("http://inside.test/")
    await ours.close()
    assert problem is not None
    assert lies.asked == []


async def test_proxies_of_the_environment_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as good:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
            monkeypatch.setenv(name.lower(), proxy.url())
        async with sender() as ours:
            assert (await ours.send(good.url(), HEADERS, BODY)).succeeded
        assert proxy.connections == 0


# Names.


async def test_a_name_that_does_not_resolve() -> None:
    def nothing(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with sender(lookup=nothing) as ours:
        problem = await ours.check("https://nowhere.test/")
        assert problem is not None
        assert problem.code is Failure.DNS
        assert (await ours.send("https://nowhere.test/", HEADERS, BODY)).failure is Failure.DNS
    async with sender(lookup=Lies([])) as ours:
        assert (await ours.send("https://nowhere.test/", HEADERS, BODY)).failure is Failure.DNS


async def test_a_resolver_that_fails_in_its_own_way_is_a_failure_too() -> None:
    def odd(host: str, port: int) -> Sequence[str]:
        raise UnicodeError("label too long")

    for lookup in (odd, Lies(["no address"])):
        async with sender(lookup=lookup) as ours:
            assert (await ours.send("https://odd.test/", HEADERS, BODY)).failure is Failure.DNS


async def test_a_name_server_that_hangs_holds_up_its_own_names_only() -> None:
    threads: set[int] = set()
    released = threading.Event()

    def hanging(host: str, port: int) -> Sequence[str]:
        if host == "hanging.test":
            threads.add(threading.get_ident())
            released.wait(10)
        return ["127.0.0.2"]

    async with receiver(host="127.0.0.2") as good, sender(lookup=hanging, patience=Patience()) as ours:
        urls = [good.url(host="hanging.test")] * 100
        waiting = [asyncio.create_task(ours.send(url, HEADERS, BODY)) for url in urls]
        result = await ours.send(good.url(host="prompt.test"), HEADERS, BODY)
        assert result.succeeded
        assert not any(task.done() for task in waiting)
        released.set()
        assert all(end.succeeded for end in await asyncio.gather(*waiting))
        assert len(threads) == 1


async def test_a_name_server_that_hangs_is_not_waited_for() -> None:
    released = threading.Event()

    def hanging(host: str, port: int) -> Sequence[str]:
        released.wait(10)
        return []

    async with sender(lookup=hanging, patience=Patience(resolve=0.1)) as ours:
        assert (await ours.send("https://hanging.test/", HEADERS, BODY)).failure is Failure.DNS
    released.set()


async def test_a_host_that_has_moved_is_found_at_the_next_attempt() -> None:
    lies = Lies(["127.0.0.3"], ["127.0.0.2"])
    async with receiver(host="127.0.0.2") as good, sender(lookup=lies) as ours:
        assert (await ours.send(good.url(host="moving.test"), HEADERS, BODY)).failure is Failure.REFUSED
        assert (await ours.send(good.url(host="moving.test"), HEADERS, BODY)).succeeded
