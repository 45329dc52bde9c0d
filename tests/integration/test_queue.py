"""The outbox on both databases: what is queued for whom, who claims it, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import insert, update

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.outbox.leftovers import end_leftovers, find_leftovers
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.retry import HOUR, MINUTE, Again, Answer, Delivered, GivenUp, Schedule
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.store.endpoints import change_endpoint, disable_endpoints, remove_endpoint
from lifecycle_engine.store.states import encode_state
from lifecycle_engine.store.tables import customer, webhook_message
from tests.hooks import SECOND, Outbox, clock, sequences
from tests.record import record

OK, DOWN = Answer(200), Answer(500)
DAY = 24 * HOUR


@pytest.fixture(params=["sqlite", "postgres"])
async def outbox(request: pytest.FixtureRequest) -> AsyncIterator[Outbox]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database:
        yield Outbox(database)


# -- fan-out ----


async def test_a_change_becomes_one_message_and_a_delivery_for_each_who_wants_it(outbox: Outbox) -> None:
    everything = await outbox.endpoint()
    advances = await outbox.endpoint(filter={"move": "advance"})
    backward = await outbox.endpoint(filter={"move": "back"})
    off = await outbox.endpoint(disabled_at=1, disabled_reason="by_request")
    await outbox.record([1, 2])
    await outbox.record([1], muted=True)
    assert [len(await outbox.deliveries(one)) for one in (everything, advances, backward, off)] == [2, 2, 0, 0]
    messages = await outbox.messages()
    assert len(messages) == 2
    body = json.loads(messages[0]["body"])
    assert list(body) == ["type", "timestamp", "data"]
    assert body["type"] == "stage.changed"
    assert body["timestamp"] == body["data"]["recorded_at"]
    assert body["data"]["customer_id"] == "c1"
    assert await outbox.messages() == messages


async def test_what_nobody_wants_is_not_queued(outbox: Outbox) -> None:
    await outbox.endpoint(filter={"lifecycle": "another"})
    await outbox.record([1, 2, 3])
    assert await outbox.messages() == []


async def test_traits_are_looked_at(outbox: Outbox) -> None:
    pros = await outbox.endpoint(filter={"traits": {"plan": "pro"}})
    async with outbox.database.transaction() as connection:
        for id_, plan in ((1, "pro"), (2, "free")):
            await connection.execute(
                insert(customer).values(
                    id=id_,
                    kind="customer_id",
                    value=f"c{id_}",
                    definitions=1,
                    recorded_at=1,
                    state=encode_state(CustomerState(None, 0, {}, {"plan": plan})),
                )
            )
    await outbox.record([1, 2, 3])
    assert sequences(await outbox.claim(clock())) == [(1, 1)]
    assert len(await outbox.deliveries(pros)) == 1


# -- leases ----


async def test_what_is_claimed_is_nobody_elses_until_the_lease_runs_out(outbox: Outbox) -> None:
    await outbox.endpoint()
    await outbox.record([1, 2, 3])
    now = clock()
    first = await outbox.claim(now)
    assert len(first) == 3
    assert await outbox.claim(now + outbox.policy.lease - 1) == []
    again = await outbox.claim(now + outbox.policy.lease)
    assert [claim.message.id for claim in again] == [claim.message.id for claim in first]
    # Whoever had it first comes too late, and changes nothing.
    assert [one.decision for one in await outbox.answer(first, DOWN, now)] == [None] * 3
    assert [one.decision for one in await outbox.answer(again, OK, now)] == [Delivered()] * 3
    assert await outbox.claim(now + 100 * DAY) == []


def test_a_lease_is_longer_than_an_exchange_and_short_enough() -> None:
    policy = Policy()
    assert policy.deadline + 5 * SECOND < policy.lease <= 28 * SECOND


async def test_dispatchers_beside_each_other_claim_each_delivery_once(outbox: Outbox) -> None:
    for _ in range(4):
        await outbox.endpoint()
    await outbox.record(range(50))
    now = clock()
    claimed = await asyncio.gather(*(outbox.claim(now, slots=60) for _ in range(12)))
    counts = Counter((claim.delivery.id) for claims in claimed for claim in claims)
    assert set(counts.values()) == {1}
    while more := await outbox.claim(now):
        counts.update(claim.delivery.id for claim in more)
    assert set(counts.values()) == {1}
    assert len(counts) == 200


async def test_a_failure_is_tried_again_on_schedule_until_it_is_given_up(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    now = clock()
    ids: set[str] = set()
    delays = []
    for _ in range(9):
        claims = await outbox.claim(now)
        ids.update(claim.message.id for claim in claims)
        (written,) = await outbox.answer(claims, DOWN, now)
        assert isinstance(written.decision, Again)
        assert await outbox.claim(written.decision.due_at - 1) == []
        delays.append((written.decision.due_at - now) // SECOND)
        now = written.decision.due_at
    (written,) = await outbox.answer(await outbox.claim(now), DOWN, now)
    assert written.decision == GivenUp("exhausted")
    assert delays == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert len(ids) == 1
    (delivery,) = await outbox.deliveries(endpoint)
    assert (delivery["status"], delivery["reason"], delivery["attempts"]) == ("failed", "exhausted", 10)
    assert [attempt["number"] for attempt in await outbox.attempts(endpoint)] == list(range(1, 11))
    # It can be sent again, under the same id.
    await outbox.send_again(endpoint, delivery["message"])
    claims = await outbox.claim(clock() + 100 * DAY)
    assert [claim.message.id for claim in claims] == list(ids)
    assert [one.decision for one in await outbox.answer(claims, OK, clock())] == [Delivered()]


async def test_our_own_failures_spend_nothing(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    now = clock()
    for _ in range(30):
        (written,) = await outbox.answer(await outbox.claim(now), Answer(None, "proxy"), now)
        assert isinstance(written.decision, Again)
        now = written.decision.due_at
    (delivery,) = await outbox.deliveries(endpoint)
    assert delivery["attempts"] == 0
    assert (await outbox.health(endpoint)).failing_since is None
    assert {attempt["number"] for attempt in await outbox.attempts(endpoint)} == {0}


async def test_a_test_is_made_once_and_says_nothing_about_the_endpoint(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    (message,) = await outbox.messages()
    await outbox.answer(await outbox.claim(clock()), OK, clock())
    await outbox.send_again(endpoint, message["id"], "test")
    (written,) = await outbox.answer(await outbox.claim(clock()), DOWN, clock())
    assert written.decision == GivenUp("test")
    assert (await outbox.health(endpoint)).failing_since is None


async def test_a_message_whose_body_was_pruned_is_dropped(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    async with outbox.database.transaction() as connection:
        await connection.execute(update(webhook_message).values(body=None))
    assert await outbox.claim(clock()) == []
    (delivery,) = await outbox.deliveries(endpoint)
    assert (delivery["status"], delivery["reason"]) == ("dropped", "pruned")


# -- fairness and limits ----


async def test_a_flooded_endpoint_leaves_room_for_others(outbox: Outbox) -> None:
    flooded = await outbox.endpoint(filter={"move": "advance"})
    await outbox.record(range(300))
    quiet = await outbox.endpoint(filter={"move": "back"})
    await outbox.record([1000], move="back")
    counts = Counter(claim.endpoint.id for claim in await outbox.claim(clock(), slots=20))
    assert counts[quiet.id] == 1
    assert 5 <= counts[flooded.id] <= 10


async def test_max_in_flight_holds_for_all_dispatchers_together(outbox: Outbox) -> None:
    await outbox.endpoint(max_in_flight=3)
    await outbox.record(range(20))
    now = clock()
    first = await outbox.claim(now)
    assert len(first) == 3
    assert await outbox.claim(now) == []
    await outbox.answer(first[:2], OK, now)
    assert len(await outbox.claim(now)) == 2
    # What a dispatcher held that was killed counts no more once its lease has run out.
    assert len(await outbox.claim(now + outbox.policy.lease)) == 3


async def test_a_rate_holds_for_all_dispatchers_together(outbox: Outbox) -> None:
    await outbox.endpoint(throttle_rate=20)
    await outbox.record(range(100))
    now = clock()
    starts: list[int] = []
    for step in range(0, 2 * SECOND, SECOND // 10):
        # Two dispatchers, one after the other.
        for _ in range(2):
            starts += [claim.begins_at for claim in await outbox.claim(now + step)]
    assert starts == sorted(starts)
    within = [start for start in starts if start < now + 2 * SECOND]
    assert len(within) == 40
    assert all(later - earlier >= SECOND for earlier, later in zip(starts, starts[20:], strict=False))


async def test_an_ordered_endpoint_gets_each_customers_changes_one_after_the_other(outbox: Outbox) -> None:
    await outbox.endpoint(ordering="per_customer")
    await outbox.record([1, 1, 2, 1, 3, 3])
    now = clock()
    first = await outbox.claim(now)
    assert sequences(first) == [(1, 1), (2, 1), (3, 1)]
    assert await outbox.claim(now) == []
    failed, *others = first
    await outbox.answer(others, OK, now)
    (written,) = await outbox.answer([failed], DOWN, now)
    assert isinstance(written.decision, Again)
    assert sequences(await outbox.claim(now)) == [(3, 2)]
    await outbox.record([1, 4])
    # Only the lane of the one that failed waits; what has come since waits behind it too.
    assert sequences(await outbox.claim(clock())) == [(4, 1)]
    now = written.decision.due_at
    for expected in range(1, 5):
        claims = [claim for claim in await outbox.claim(now) if sequences([claim])[0][0] == 1]
        assert sequences(claims) == [(1, expected)]
        await outbox.answer(claims, OK, now)


async def test_what_is_given_up_lets_its_lane_go_on(outbox: Outbox) -> None:
    await outbox.endpoint(ordering="per_customer")
    await outbox.record([1, 1])
    now = clock()
    await outbox.answer(await outbox.claim(now), Answer(500, directive="abort-message"), now)
    assert sequences(await outbox.claim(now)) == [(1, 2)]


# -- the breaker ----


async def park(outbox: Outbox, now: int, claims: int = 10) -> None:
    taken = await outbox.claim(now)
    await outbox.answer(taken[:claims], Answer(None, "refused"), now)
    await outbox.answer(taken[claims:], Answer(None, "proxy"), now)


async def test_a_dead_endpoint_is_parked_and_probed_and_spends_nothing(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    watcher = await outbox.endpoint(filter={"event_types": ["endpoint.*"]})
    await outbox.record(range(12))
    now = clock()
    await park(outbox, now)
    spent = Counter(delivery["attempts"] for delivery in await outbox.deliveries(endpoint))
    assert spent == {1: 10, 0: 2}
    assert [one["type"] for one in await outbox.deliveries(watcher)] == ["endpoint.failing"]
    probed = []
    for wait in (30, 60, 120, 240, 480, 600, 600):
        mine = [c for c in await outbox.claim(now + wait * SECOND - 1) if c.endpoint.id == endpoint.id]
        assert mine == []
        now += wait * SECOND
        (probe,) = [c for c in await outbox.claim(now) if c.endpoint.id == endpoint.id]
        assert probe.is_probe
        assert [c for c in await outbox.claim(now) if c.endpoint.id == endpoint.id] == []
        probed.append(probe.message.id)
        await outbox.answer([probe], DOWN, now)
    assert len(set(probed)) > 1
    assert Counter(delivery["attempts"] for delivery in await outbox.deliveries(endpoint)) == spent
    now += 600 * SECOND
    (probe,) = [c for c in await outbox.claim(now) if c.endpoint.id == endpoint.id]
    await outbox.answer([probe], OK, now)
    assert len([c for c in await outbox.claim(now + HOUR) if c.endpoint.id == endpoint.id]) == 11
    told = [json.loads(m["body"]) for m in await outbox.messages() if m["type"].startswith("endpoint.")]
    assert [one["type"] for one in told] == ["endpoint.failing", "endpoint.recovered"]
    assert told[1]["data"]["endpoint_id"] == endpoint.id
    assert told[1]["data"]["message"]["id"] == probe.message.id
    assert told[1]["data"]["message"]["type"] == "stage.changed"


async def test_what_waits_behind_a_parked_endpoint_for_too_long_is_given_up(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    watcher = await outbox.endpoint(filter={"event_types": ["endpoint.exhausted", "endpoint.disabled"]})
    await outbox.record(range(12))
    now = clock()
    await park(outbox, now)
    span = outbox.policy.schedule.span
    assert await outbox.end_leftovers(now + span - MINUTE) == 0
    assert await outbox.end_leftovers(now + span + MINUTE) == 12
    assert {(d["status"], d["reason"]) for d in await outbox.deliveries(endpoint)} == {("failed", "exhausted")}
    assert Counter(d["type"] for d in await outbox.deliveries(watcher)) == {"endpoint.exhausted": 12}
    assert (await outbox.find(endpoint)).disabled_at is None
    # Five days without a success, and another message given up half a day later.
    await outbox.record([50])
    assert await outbox.end_leftovers(now + 10 * DAY) == 1
    disabled = await outbox.find(endpoint)
    assert (disabled.disabled_reason, disabled.version) == ("failing", 2)
    assert Counter(d["type"] for d in await outbox.deliveries(watcher))["endpoint.disabled"] == 1


async def test_what_is_old_is_still_tried_where_the_endpoint_was_well_until_now(outbox: Outbox) -> None:
    """As when no dispatcher has run for a week, and the first attempts after that fail."""
    endpoint = await outbox.endpoint()
    await outbox.record(range(12))
    now = clock() + 7 * DAY
    await park(outbox, now)
    assert (await outbox.health(endpoint)).parked_until is not None
    assert await outbox.end_leftovers(now + HOUR) == 0
    assert {d["status"] for d in await outbox.deliveries(endpoint)} == {"pending"}


@pytest.mark.parametrize(
    ("answer", "reason", "delivery"),
    [
        (Answer(410), "gone", ("failed", "gone")),
        (Answer(503, directive="disable"), "asked_to_stop", ("failed", "disabled")),
        (Answer(200, directive="disable"), "asked_to_stop", ("delivered", None)),
    ],
)
async def test_a_receiver_can_disable_itself(
    outbox: Outbox, answer: Answer, reason: str, delivery: tuple[str, str | None]
) -> None:
    endpoint = await outbox.endpoint()
    watcher = await outbox.endpoint(filter={"event_types": "endpoint.disabled"})
    await outbox.record([1, 2])
    now = clock()
    claims = await outbox.claim(now)
    await outbox.answer(claims[:1], answer, now)
    assert (await outbox.find(endpoint)).disabled_reason == reason
    first, second = await outbox.deliveries(endpoint)
    assert (first["status"], first["reason"]) == delivery
    (told,) = await outbox.deliveries(watcher)
    data = json.loads(next(m["body"] for m in await outbox.messages() if m["id"] == told["message"]))["data"]
    assert (data["reason"], data["message"]["status_code"]) == (reason, answer.status)
    # What was pending is visible as failed, once nobody is about to send it.
    assert await outbox.end_leftovers(now) == 0
    assert await outbox.end_leftovers(now + outbox.policy.lease) == 1
    (_, second) = await outbox.deliveries(endpoint)
    assert (second["status"], second["reason"]) == ("failed", "disabled")
    await outbox.record([3])
    assert len(await outbox.deliveries(endpoint)) == 2


async def test_five_days_of_failures_disable(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    start = now = clock() + SECOND
    for _ in range(2):
        await outbox.record([1])
        while isinstance((decision := await _fail_one(outbox, now)), Again):
            now = decision.due_at
    assert now - start > 5 * DAY
    assert (await outbox.find(endpoint)).disabled_reason == "failing"


async def _fail_one(outbox: Outbox, now: int) -> Any:
    claims = await outbox.claim(now)
    return (await outbox.answer(claims, DOWN, now))[0].decision if claims else None


async def test_nothing_is_given_up_once_an_endpoint_is_enabled_again(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    async with outbox.database.transaction() as connection:
        await disable_endpoints(connection, [(endpoint.id, "by_request")], clock())
    async with outbox.database.transaction() as connection:
        (leftover,) = await find_leftovers(connection)
    async with outbox.database.transaction() as connection:
        await change_endpoint(connection, endpoint)
    await outbox.record([2])
    async with outbox.database.transaction() as connection:
        assert await end_leftovers(connection, outbox.policy, Subscriptions(), leftover, clock()) == 0
    assert [delivery["status"] for delivery in await outbox.deliveries(endpoint)] == ["pending", "pending"]


async def test_what_is_pending_for_an_endpoint_that_is_removed_is_dropped(outbox: Outbox) -> None:
    kept = await outbox.endpoint()
    removed = await outbox.endpoint()
    await outbox.record([1])
    now = clock()
    under_way = [claim for claim in await outbox.claim(now) if claim.endpoint.id == removed.id]
    await outbox.record([2])
    async with outbox.database.transaction() as connection:
        await remove_endpoint(connection, removed.id)
    await outbox.record([3])
    await outbox.answer(under_way, DOWN, now)
    assert {claim.endpoint.id for claim in await outbox.claim(now + HOUR)} == {kept.id}
    assert await outbox.end_leftovers(now + HOUR) == 2
    assert {(d["status"], d["reason"]) for d in await outbox.deliveries(removed)} == {("dropped", "removed")}


async def test_endpoints_that_tell_of_each_other_come_to_an_end(outbox: Outbox) -> None:
    outbox.policy = Policy(schedule=Schedule(delays=(0,)))
    one = await outbox.endpoint(filter={"event_types": "*"})
    other = await outbox.endpoint(filter={"event_types": "*"})
    await outbox.record([1])
    now = clock()
    for _ in range(5):
        await outbox.answer(await outbox.claim(now), DOWN, now)
        now += SECOND
    kinds = [Counter(d["type"] for d in await outbox.deliveries(endpoint)) for endpoint in (one, other)]
    assert kinds == [{"stage.changed": 1, "endpoint.exhausted": 1}] * 2


async def test_an_endpoint_disabled_by_hand_keeps_its_reason(outbox: Outbox) -> None:
    endpoint = await outbox.endpoint()
    await outbox.record([1])
    claims = await outbox.claim(clock())
    async with outbox.database.transaction() as connection:
        assert await disable_endpoints(connection, [(endpoint.id, "by_request")], clock()) == [endpoint.id]
    await outbox.answer(claims, Answer(410), clock())
    assert (await outbox.find(endpoint)).disabled_reason == "by_request"
