"""Claims what is due, and writes what came of it. Between the two lies the sending, outside of any transaction.

Both hold the health of the endpoints concerned. Results lock theirs in one order and wait; claims, which come after
them in a transaction, take only what nobody holds: so no two dispatchers wait for each other in a circle, and limits
that an endpoint has hold for all of them together.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.outbox import breaker
from lifecycle_engine.outbox.events import (
    DISABLED,
    EXHAUSTED,
    FAILING,
    RECOVERED,
    Alert,
    Cause,
    is_about_an_endpoint,
)
from lifecycle_engine.outbox.fan_out import queue_alerts
from lifecycle_engine.outbox.policy import Policy
from lifecycle_engine.outbox.retry import Again, Answer, Decision, Delivered, GivenUp, decide
from lifecycle_engine.outbox.shares import share
from lifecycle_engine.outbox.subscriptions import Subscriptions
from lifecycle_engine.outbox.throttle import begins, taken
from lifecycle_engine.store import deliveries as store
from lifecycle_engine.store.attempts import FAILED, SUCCEEDED, AttemptRow, add_attempts
from lifecycle_engine.store.deliveries import Delivery, Finish
from lifecycle_engine.store.endpoints import EndpointRow, disable_endpoints
from lifecycle_engine.store.health import Claimable, Health, lock_claimable, lock_health, set_health
from lifecycle_engine.store.messages import MessageRow, find_messages

TEST = "test"


class Claim(NamedTuple):
    """A delivery to be attempted at `begins_at` (microseconds since the epoch, the database's clock).

    It is ours until `until`, as long as nobody else has claimed it since: the lease is a token.
    """

    delivery: Delivery
    endpoint: EndpointRow
    message: MessageRow
    lease: int
    begins_at: int
    until: int
    is_probe: bool


class Result(NamedTuple):
    """What came of an attempt: when it began (microseconds since the epoch), how long it took, what was answered."""

    claim: Claim
    answer: Answer
    at: int
    milliseconds: int
    response: bytes | None


class Written(NamedTuple):
    """A result that was written. `decision` is None where the lease had passed to somebody else."""

    result: Result
    decision: Decision | None


async def claim_due(
    connection: AsyncConnection, policy: Policy, now: int, slots: int, held: Mapping[str, int]
) -> list[Claim]:
    """Claims what is due at `now` for as many of `slots` as are free; `held` says who has how many of them."""
    if sum(held.values()) >= slots:
        return []
    lease, until = secrets.randbits(62), now + policy.lease
    claimable = {one.endpoint.id: one for one in await lock_claimable(connection, now)}
    wanted = {id_: await _wanted(connection, policy, one, now, held.get(id_, 0)) for id_, one in claimable.items()}
    claimed: list[tuple[Claimable, Delivery, int]] = []
    changed: list[Health] = []
    for id_, count in share(slots, held, wanted).items():
        one = claimable[id_]
        found = await store.claim(connection, id_, now, count, lease, until)
        if not found:
            continue
        starts, health = _starts(one, policy, now, len(found))
        if one.health.parked_until is not None:
            health = breaker.probing(health, until)
        if health is not one.health:
            changed.append(health)
        claimed += [(one, delivery, start) for delivery, start in zip(found, starts, strict=True)]
    await set_health(connection, changed)
    messages = await find_messages(connection, {delivery.message for _, delivery, _ in claimed})
    claims, pruned = [], []
    for one, delivery, start in claimed:
        message = messages.get(delivery.message)
        if message is None or message.body is None:
            pruned.append(Finish(delivery.id, lease, store.DROPPED, delivery.attempts, now, "pruned", now))
        else:
            is_probe = one.health.parked_until is not None
            claims.append(Claim(delivery, one.endpoint, message, lease, start, until, is_probe))
    await store.finish(connection, pruned)
    return claims


async def write_results(
    connection: AsyncConnection,
    policy: Policy,
    subscriptions: Subscriptions,
    results: Sequence[Result],
    now: int,
    chance: Callable[[], float],
) -> list[Written]:
    """Writes what came of attempts: the delivery's next step, the attempt, and what it says about the endpoint."""
    if not results:
        return []
    healths = await lock_health(connection, {result.claim.endpoint.id for result in results})
    decided = [(result, _decide(policy, result, healths, now, chance())) for result in results]
    ours = await store.finish(connection, [_finish(result, decision, now) for result, decision in decided])
    written = [Written(result, decision if result.claim.delivery.id in ours else None) for result, decision in decided]
    await add_attempts(connection, [_attempt(one.result, one.decision) for one in written if one.decision is not None])
    await store.defer_lanes(connection, _heads(written))
    await _judge(connection, policy, subscriptions, healths, written, now)
    return written


async def _wanted(connection: AsyncConnection, policy: Policy, one: Claimable, now: int, held: int) -> int:
    """How many attempts the endpoint may begin, were there room for all."""
    endpoint, health = one
    if health.parked_until is not None:
        return 1
    most = policy.at_a_time - held
    if endpoint.max_in_flight is not None:
        most = max(policy.at_a_time, endpoint.max_in_flight) - held
        most = min(most, endpoint.max_in_flight - await store.in_flight(connection, endpoint.id, now))
    if endpoint.throttle_rate is not None:
        most = min(most, len(begins(endpoint.throttle_rate, health.throttled_until, now, now + policy.ahead)))
    return max(most, 0)


def _starts(one: Claimable, policy: Policy, now: int, count: int) -> tuple[list[int], Health]:
    """When so many attempts may begin, and the endpoint's health after that."""
    endpoint, health = one
    if endpoint.throttle_rate is None:
        return [now] * count, health
    # A probe comes when it is due, whatever was given out before.
    starts = begins(endpoint.throttle_rate, health.throttled_until, now, now + policy.ahead)[:count] or [now]
    return starts, health._replace(throttled_until=taken(endpoint.throttle_rate, starts[-1]))


def _decide(policy: Policy, result: Result, healths: Mapping[str, Health], now: int, chance: float) -> Decision:
    claim, answer = result.claim, result.answer
    is_test = claim.delivery.trigger == TEST
    decision = decide(policy.schedule, claim.delivery.attempts, answer, now, chance, is_test=is_test)
    fails = isinstance(decision, Again) or decision == GivenUp("exhausted")
    if claim.is_probe and answer.counts and fails and not is_test:
        # A probe spends nothing, and the next one is made with another delivery.
        health = healths.get(claim.endpoint.id) or Health(claim.endpoint.id)
        wait = policy.limits.wait(health.probes + 1)
        return Again(max(now + wait, decision.due_at if isinstance(decision, Again) else 0), spent=False)
    return decision


def _finish(result: Result, decision: Decision, now: int) -> Finish:
    delivery, lease = result.claim.delivery, result.claim.lease
    if isinstance(decision, Again):
        spent = delivery.attempts + decision.spent
        return Finish(delivery.id, lease, store.PENDING, spent, decision.due_at, None, None)
    made = delivery.attempts + 1
    if isinstance(decision, Delivered):
        return Finish(delivery.id, lease, store.DELIVERED, made, result.at, None, now)
    return Finish(delivery.id, lease, store.FAILED, made, result.at, decision.reason, now)


def _attempt(result: Result, decision: Decision) -> AttemptRow:
    claim, answer = result.claim, result.answer
    counts = not isinstance(decision, Again) or decision.spent
    return AttemptRow(
        delivery=claim.delivery.id,
        number=claim.delivery.attempts + 1 if counts else 0,
        endpoint=claim.endpoint.id,
        message=claim.message.id,
        type=claim.message.type,
        trigger=claim.delivery.trigger,
        at=result.at,
        milliseconds=result.milliseconds,
        status=SUCCEEDED if answer.is_success else FAILED,
        status_code=answer.status,
        failure=answer.failure,
        response=result.response,
    )


def _heads(written: Sequence[Written]) -> list[tuple[str, int, int, int]]:
    """The heads of lanes that are tried again."""
    return [
        (delivery.endpoint, delivery.customer, delivery.id, decision.due_at)
        for delivery, decision in ((one.result.claim.delivery, one.decision) for one in written)
        if delivery.customer is not None and isinstance(decision, Again)
    ]


async def _judge(
    connection: AsyncConnection,
    policy: Policy,
    subscriptions: Subscriptions,
    healths: Mapping[str, Health],
    written: Sequence[Written],
    now: int,
) -> None:
    """Draws the consequences for the endpoints, and lets others be told of them."""
    by_endpoint: dict[str, list[Written]] = defaultdict(list)
    for one in written:
        if one.decision is not None and one.result.claim.endpoint.id in healths:
            by_endpoint[one.result.claim.endpoint.id].append(one)
    changed: list[Health] = []
    alerts: list[Alert] = []
    disabled: dict[str, tuple[str, Cause]] = {}
    for endpoint, ended in by_endpoint.items():
        health = healths[endpoint]
        for result, decision in ended:
            cause = _cause(result)
            health, found, reason = _judged(policy, health, result, decision, cause, now)
            alerts += found
            if reason is not None:
                disabled.setdefault(endpoint, (reason, cause))
        changed.append(health)
    await set_health(connection, [health for health in changed if health != healths[health.endpoint]])
    if disabled:
        reasons = [(endpoint, reason) for endpoint, (reason, _) in sorted(disabled.items())]
        for endpoint in sorted(await disable_endpoints(connection, reasons, now)):
            reason, cause = disabled[endpoint]
            alerts.append(Alert(DISABLED, endpoint, now, cause, reason))
    await queue_alerts(connection, subscriptions, alerts, now)


def _judged(
    policy: Policy, health: Health, result: Result, decision: Decision | None, cause: Cause, now: int
) -> tuple[Health, list[Alert], str | None]:
    """An endpoint's health after one result; what is to be told of it; and why it has to be disabled, if it has."""
    claim, answer = result.claim, result.answer
    reason = answer.disables
    if claim.delivery.trigger == TEST or not answer.counts:
        return health, [], reason
    health = breaker.counted(health, policy.limits, now, 1, int(not answer.is_success))
    seen = (
        breaker.after_success(health, now)
        if answer.is_success
        else breaker.after_failure(health, policy.limits, now, is_probe=claim.is_probe)
    )
    health = seen.health
    alerts = []
    if seen.news is not None:
        alerts.append(Alert(FAILING if seen.news == "failing" else RECOVERED, claim.endpoint.id, now, cause))
    if decision == GivenUp("exhausted"):
        health, is_away = breaker.after_giving_up(health, policy.limits, now)
        if not is_about_an_endpoint(claim.message.type):
            # Or two endpoints that tell of each other would never come to an end.
            alerts.append(Alert(EXHAUSTED, claim.endpoint.id, now, cause))
        if is_away:
            reason = reason or "failing"
    return health, alerts, reason


def _cause(result: Result) -> Cause:
    claim, answer = result.claim, result.answer
    return Cause(claim.message.id, claim.message.type, claim.delivery.attempts + 1, answer.status, answer.failure)
