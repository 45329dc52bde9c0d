"""A dispatcher at work: signed, sent, marked; one bad receiver delays nobody; it stops without losing anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
from standardwebhooks import Webhook

from lifecycle_engine.outbox.breaker import Limits
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.retry import Schedule
from lifecycle_engine.outbox.vault import MasterKey, Vault
from lifecycle_engine.store.endpoints import EndpointRow
from lifecycle_engine.webhook.dispatch import Dispatcher
from lifecycle_engine.webhook.secrets import Keyring, create_secret
from lifecycle_engine.webhook.sender import Sender
from tests.hooks import SECOND, Outbox, clock
from tests.processes import wait_until
from tests.receiver import Receiver, Reply, Request
from tests.record import record

LOOPBACK = [ip_network("127.0.0.0/8")]
VAULT = Vault([MasterKey("k1", bytes(32))])
QUICK = Policy(
    schedule=Schedule(delays=(0, *[SECOND // 10] * 9), least=SECOND // 10),
    limits=Limits(probe=SECOND // 10, longest=SECOND // 2),
    deadline=2 * SECOND,
    margin=SECOND,
)
"""Time runs faster: seconds stand for minutes."""


class Hooks:
    """Endpoints that lead to one receiver, each at a path of its own; `replies` says how it answers there."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.replies: dict[str, Reply] = {}
        self.came: dict[str, list[Request]] = defaultdict(list)
        self.secrets: dict[str, str] = {}
        self.receiver = Receiver(self._answer)
        self.sender: Sender

    def _answer(self, request: Request) -> Reply:
        self.came[request.path].append(request)
        return self.replies.get(request.path, Reply())

    async def endpoint(self, path: str, **fields: object) -> EndpointRow:
        row = await self.outbox.endpoint(url=self.receiver.url(path), **fields)
        async with self.outbox.database.transaction() as connection:
            self.secrets[path] = await create_secret(connection, VAULT, row.id, "v1", clock())
        return row

    def dispatcher(self, policy: Policy = QUICK, slots: int = 200) -> Dispatcher:
        return Dispatcher(self.outbox.database, self.sender, Keyring(VAULT), policy, slots)

    @asynccontextmanager
    async def running(self, *dispatchers: Dispatcher) -> AsyncIterator[None]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(dispatcher.run(stop)) for dispatcher in dispatchers or [self.dispatcher()]]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def arrive(self, path: str, count: int, seconds: float = 20) -> list[dict[str, object]]:
        async def have() -> bool:
            return len(self.came[path]) >= count

        await wait_until(have, f"{count} requests at {path}", seconds)
        return [json.loads(request.body) for request in self.came[path]]


@pytest.fixture(params=["sqlite", "postgres"])
async def hooks(request: pytest.FixtureRequest) -> AsyncIterator[Hooks]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database:
        hooks = Hooks(Outbox(database))
        hooks.sender = Sender(LOOPBACK)
        async with hooks.receiver:
            yield hooks
        await hooks.sender.close()


async def test_what_is_sent_is_signed_and_marked(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/a")
    await hooks.outbox.record([1, 2])
    async with hooks.running():
        await hooks.arrive("/a", 2)
    for request in hooks.came["/a"]:
        assert Webhook(hooks.secrets["/a"]).verify(request.body.decode(), dict(request.headers))
        assert request.headers["content-type"] == "application/json"
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 30
    deliveries = await hooks.outbox.deliveries(endpoint)
    assert [(d["status"], d["attempts"]) for d in deliveries] == [("delivered", 1)] * 2
    attempts = await hooks.outbox.attempts(endpoint)
    assert [(a["status"], a["status_code"], a["failure"]) for a in attempts] == [("succeeded", 204, None)] * 2


async def test_every_attempt_has_the_same_id(hooks: Hooks) -> None:
    await hooks.endpoint("/a")
    hooks.replies["/a"] = Reply(500)
    await hooks.outbox.record([1])
    async with hooks.running():
        await hooks.arrive("/a", 3)
        hooks.replies["/a"] = Reply(200)
        await hooks.arrive("/a", 4)
    assert len({request.headers["webhook-id"] for request in hooks.came["/a"]}) == 1


async def test_bad_receivers_delay_nobody_else(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six receivers one is good; the others hang, refuse connections, or ask for patience."""
    monkeypatch.setattr("lifecycle_engine.webhook.dispatch.PATIENCE", 0.1)
    good = await hooks.endpoint("/good")
    for number in range(3):
        await hooks.endpoint(f"/hangs{number}")
        hooks.replies[f"/hangs{number}"] = Reply(200, seconds=30)
    await hooks.endpoint("/overloaded")
    hooks.replies["/overloaded"] = Reply(429, headers=("Retry-After: 3600",))
    dead = await hooks.outbox.endpoint(url="http://127.0.0.1:1/")
    async with hooks.outbox.database.transaction() as connection:
        await create_secret(connection, VAULT, dead.id, "v1", clock())
    await hooks.outbox.record(range(100))
    began = time.monotonic()
    async with hooks.running(hooks.dispatcher(QUICK._replace(deadline=15 * SECOND), slots=40)):
        await hooks.arrive("/good", 100, seconds=15)
        assert time.monotonic() - began < 14  # Before the first of those that hang has been given up.
        await hooks.outbox.record(range(20))
        await hooks.arrive("/good", 120, seconds=10)
    assert {d["status"] for d in await hooks.outbox.deliveries(good)} == {"delivered"}


async def test_an_unreadable_secret_sends_nothing_and_spends_nothing(hooks: Hooks) -> None:
    unsigned = await hooks.outbox.endpoint(url=hooks.receiver.url("/unsigned"))
    await hooks.endpoint("/a")
    await hooks.outbox.record([1])
    async with hooks.running():
        await hooks.arrive("/a", 1)

        async def tried() -> bool:
            return len(await hooks.outbox.attempts(unsigned)) > 0

        await wait_until(tried, "the attempt is on record")
    assert hooks.came["/unsigned"] == []
    (delivery,) = await hooks.outbox.deliveries(unsigned)
    assert (delivery["status"], delivery["attempts"]) == ("pending", 0)
    assert {a["failure"] for a in await hooks.outbox.attempts(unsigned)} == {"unsigned"}


async def test_dispatchers_share_the_work(hooks: Hooks) -> None:
    for path in ("/a", "/b", "/c"):
        await hooks.endpoint(path, ordering="per_customer" if path == "/c" else "none")
    await hooks.outbox.record(n % 20 for n in range(200))
    async with hooks.running(hooks.dispatcher(), hooks.dispatcher(), hooks.dispatcher()):
        for path in ("/a", "/b", "/c"):
            await hooks.arrive(path, 200)
        await asyncio.sleep(0.2)
    for path in ("/a", "/b", "/c"):
        ids = Counter(request.headers["webhook-id"] for request in hooks.came[path])
        assert len(ids) == 200
        assert set(ids.values()) == {1}
    told = defaultdict(list)
    for request in hooks.came["/c"]:
        data = json.loads(request.body)["data"]
        told[data["customer_id"]].append(data["sequence"])
    assert all(sequences == list(range(1, 11)) for sequences in told.values())


async def test_a_rate_is_kept_by_all_dispatchers_together(hooks: Hooks) -> None:
    await hooks.endpoint("/a", throttle_rate=25)
    times: list[float] = []
    hooks.receiver._answering = lambda request: times.append(time.monotonic()) or Reply()  # type: ignore[func-returns-value]
    await hooks.outbox.record(range(60))
    async with hooks.running(hooks.dispatcher(), hooks.dispatcher()):

        async def done() -> bool:
            return len(times) >= 60

        await wait_until(done, "all have arrived", 10)
    assert times[-1] - times[0] > 59 / 25 * 0.9


async def test_max_in_flight_is_kept_by_all_dispatchers_together(hooks: Hooks) -> None:
    await hooks.endpoint("/a", max_in_flight=3)
    under_way = most = 0

    def answer(request: Request) -> Reply:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        hooks.came["/a"].append(request)

        def done() -> None:
            nonlocal under_way
            under_way -= 1

        asyncio.get_running_loop().call_later(0.019, done)
        return Reply(204, seconds=0.02)

    hooks.receiver._answering = answer
    await hooks.outbox.record(range(60))
    async with hooks.running(hooks.dispatcher(), hooks.dispatcher()):
        await hooks.arrive("/a", 60)
    assert most == 3


async def test_a_stop_finishes_what_is_under_way_or_gives_it_back(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifecycle_engine.webhook.dispatch.PATIENCE", 0.5)
    slow, stuck = await hooks.endpoint("/slow"), await hooks.endpoint("/stuck")
    throttled = await hooks.endpoint("/throttled", throttle_rate=4)
    hooks.replies |= {"/slow": Reply(200, seconds=0.3), "/stuck": Reply(200, seconds=60)}
    await hooks.outbox.record(range(5))
    began = 0.0
    async with hooks.running():
        await hooks.arrive("/slow", 5)
        await hooks.arrive("/stuck", 5)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert {d["status"] for d in await hooks.outbox.deliveries(slow)} == {"delivered"}
    for endpoint in (stuck, throttled):
        left = [d for d in await hooks.outbox.deliveries(endpoint) if d["status"] == "pending"]
        assert left
        assert {(d["lease"], d["attempts"]) for d in left} == {(None, 0)}
    hooks.replies.clear()
    async with hooks.running():
        await hooks.arrive("/stuck", 10)
    assert {d["status"] for d in await hooks.outbox.deliveries(stuck)} == {"delivered"}
