"""The role `dispatcher`: sends what is due, and writes down what came of it. Any number of replicas can run.

One transaction after the other, a turn each: it writes the results that have come in and claims what there is room
for. The attempts themselves are made between turns, side by side, and no transaction is open for any of them. A claim
is a lease with a token; whoever is killed leaves leases that run out, and others go on from there with the same
`webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox.leftovers import BATCH, Depth, depth, end_leftovers, find_leftovers
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.queue import Claim, Result, Written, claim_due, write_results
from lifecycle_engine.outbox.retry import SECOND, Again, Answer, Delivered
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.runners import pause
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.store.deliveries import give_back
from lifecycle_engine.webhook.figures import Done
from lifecycle_engine.webhook.request import headers
from lifecycle_engine.webhook.signing import Secret

SLOTS = 200
"""Attempts that one process has under way at a time."""
PERIOD = 0.1
"""Seconds between looks while nothing comes in."""
GATHER = 0.005
"""Seconds that results are gathered, so that many share a transaction."""
LEFTOVERS = 5.0
"""Seconds between looks at what will not be attempted, and at how much there is to do."""
PATIENCE = 5.0
"""Seconds after being told to stop until attempts under way are broken off and their leases given back."""
_PAUSE = 0.5
"""Seconds after the database did not answer."""

logger = logging.getLogger(__name__)


class Exchange(Protocol):
    """What came of a request: an answer, a failure, or both where the answer broke off."""

    @property
    def status(self) -> int | None: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def response(self) -> bytes: ...
    @property
    def seconds(self) -> float: ...


class Sender(Protocol):
    """The client that requests are made with; it raises nothing, whatever the other side does."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, deadline: float) -> Exchange:
        """POSTs a body within `deadline` seconds."""


Keyring = Callable[[AsyncConnection, Iterable[str], int], Awaitable[Mapping[str, Sequence[Secret]]]]
"""Reads what deliveries to these endpoints are signed with at an instant; an endpoint whose secrets cannot be read is
missing."""


class _Ours(NamedTuple):
    """A failure before anything was sent."""

    failure: str
    status: int | None = None
    headers: Mapping[str, str] = {}
    response: bytes = b""
    seconds: float = 0.0


class Dispatcher:
    """The runner."""

    name = "dispatcher"

    def __init__(
        self, database: Database, sender: Sender, keyring: Keyring, policy: Policy | None = None, slots: int = SLOTS
    ) -> None:
        self._database = database
        self._sender = sender
        self._keyring = keyring
        self._policy = policy or Policy()
        self._slots = slots
        self._subscriptions = Subscriptions()
        self._held: Counter[str] = Counter()
        self._attempts: dict[asyncio.Task[None], Claim] = {}
        self._results: list[Result] = []
        self._came_in = asyncio.Event()
        self._is_running = False
        self._is_stopping = False
        self.done = Done()
        self.depth = Depth({}, [])

    async def ready(self) -> bool:
        """Whether it runs, and its database answers."""
        return self._is_running and await self._database.answers()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set; then what is under way is finished, or given back to others."""
        self._is_running = True
        logger.info("the dispatcher runs")
        leftovers = asyncio.create_task(self._end_leftovers(stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                if leftovers.done():
                    leftovers.result()
                await self._turn(self._slots)
                await self._until_more(stopping)
            await self._finish()
        finally:
            self._is_running = False
            for task in (leftovers, stopping, *self._attempts):
                task.cancel()
            await asyncio.gather(leftovers, stopping, *self._attempts, return_exceptions=True)

    async def _until_more(self, stopping: asyncio.Task[bool]) -> None:
        """Waits until a result has come in or it is time to look for what is due."""
        coming = asyncio.create_task(self._came_in.wait())
        try:
            timeout = PERIOD * random.uniform(0.5, 1.5)  # Replicas should not look in step.
            done, _ = await asyncio.wait({coming, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if coming in done:
                await asyncio.sleep(GATHER)
        finally:
            coming.cancel()

    async def _turn(self, slots: int) -> None:
        """One transaction: writes the results that are there, and claims what there is room for."""
        results, self._results = self._results, []
        self._came_in.clear()
        held = self._held.copy()
        for result in results:
            held[result.claim.endpoint.id] -= 1
        began = asyncio.get_running_loop().time()
        try:
            async with self._database.transaction() as connection:
                now = await self._database.clock(connection)
                written = await write_results(
                    connection, self._policy, self._subscriptions, results, now, random.random
                )
                claims = await claim_due(connection, self._policy, now, slots, held) if slots else []
                endpoints = {claim.endpoint.id for claim in claims}
                secrets = await self._keyring(connection, endpoints, now) if endpoints else {}
        except Exception as error:
            # Whether it was committed is unknown. What was written is not ours any more and will not be written twice;
            # what was claimed comes back when its lease has run out.
            self._results = results + self._results
            if not is_transient(error):
                raise
            logger.warning("deliveries stand still, since the database did not answer: %s", type(error).__name__)
            await asyncio.sleep(_PAUSE)
            return
        self._held = +held
        self._count(written, now)
        for claim in claims:
            self._held[claim.endpoint.id] += 1
            attempt = self._attempt(claim, secrets.get(claim.endpoint.id), began, now)
            self._attempts[asyncio.create_task(attempt)] = claim

    async def _attempt(self, claim: Claim, secrets: Sequence[Secret] | None, began: float, now: int) -> None:
        """Makes an attempt; `now` is what the database's clock showed not before the loop's showed `began`."""
        loop = asyncio.get_running_loop()
        if claim.begins_at > now:
            await asyncio.sleep((claim.begins_at - now) / SECOND)
        at = now + int((loop.time() - began) * SECOND)
        exchange: Exchange
        if at + self._policy.deadline > claim.until:
            # This process stood still. Somebody else may be about to send it.
            exchange = _Ours("local")
        elif secrets is None:
            exchange = _Ours("unsigned")
        else:
            try:
                exchange = await self._send(claim, secrets, at)
            except Exception:
                logger.exception("an attempt for %s failed in a way that nobody has foreseen", claim.message.id)
                exchange = _Ours("unexpected")
        answer = Answer(
            exchange.status,
            None if exchange.failure is None else str(exchange.failure),
            exchange.headers.get("retry-after"),
            exchange.headers.get("webhook-delivery"),
        )
        response = exchange.response or None
        self._results.append(Result(claim, answer, at, int(exchange.seconds * 1000), response))
        self._attempts.pop(asyncio.current_task())  # type: ignore[arg-type]
        self._came_in.set()

    async def _send(self, claim: Claim, secrets: Sequence[Secret], at: int) -> Exchange:
        body, message_id, timestamp = claim.message.body or b"", claim.message.id, at // SECOND
        head = headers(secrets, message_id, timestamp, body)
        return await self._sender.send(claim.endpoint.url, head, body, deadline=self._policy.deadline / SECOND)

    def _count(self, written: Iterable[Written], now: int) -> None:
        for result, decision in written:
            if decision is None:
                logger.warning("what came of %s was not written: its lease had run out", result.claim.message.id)
                continue
            claim = result.claim
            if result.answer.is_success:
                self.done.attempts["succeeded"] += 1
            else:
                self.done.attempts["failed" if result.answer.counts else "ours"] += 1
            if isinstance(decision, Delivered):
                self.done.deliveries["delivered"] += 1
            elif not isinstance(decision, Again):
                self.done.deliveries[decision.reason] += 1
            if claim.delivery.attempts == 0 and claim.delivery.trigger == "change" and result.answer.counts:
                self.done.first_attempts.add((result.at - claim.message.recorded_at) / SECOND)

    async def _finish(self) -> None:
        """Waits for what is under way and writes it; what takes too long is broken off and given back."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while (self._attempts or self._results) and (left := deadline - loop.time()) > 0:
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=min(left, GATHER * 4), return_when=asyncio.FIRST_COMPLETED)
            if self._results:
                await self._turn(0)
        leases = [(claim.delivery.id, claim.lease) for claim in self._attempts.values()]
        for task in list(self._attempts):
            task.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        if leases:
            logger.info("%d attempts are left to others", len(leases))
            async with self._database.transaction() as connection:
                await give_back(connection, leases)

    async def _end_leftovers(self, stop: asyncio.Event) -> None:
        """Now and then ends what is pending and will not be attempted, and looks how much there is to do."""
        while not stop.is_set():
            try:
                await self._end_leftovers_once(stop)
            except Exception as error:
                if not is_transient(error):
                    raise
                logger.warning("what is left over was not ended: %s", type(error).__name__)
            await pause(stop, LEFTOVERS * random.uniform(0.5, 1.5))

    async def _end_leftovers_once(self, stop: asyncio.Event) -> None:
        async with self._database.transaction() as connection:
            leftovers = await find_leftovers(connection)
        for leftover in leftovers:
            ended = BATCH
            while ended == BATCH and not stop.is_set():
                async with self._database.transaction() as connection:
                    now = await self._database.clock(connection)
                    ended = await end_leftovers(connection, self._policy, self._subscriptions, leftover, now)
                self.done.deliveries[leftover.reason] += ended
        async with self._database.transaction() as connection:
            self.depth = await depth(connection)
