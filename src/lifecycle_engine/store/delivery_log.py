"""Questions about what was sent and what was answered, and the forgetting of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Table, and_, case, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.attempts import AttemptRow
from lifecycle_engine.store.deliveries import PENDING, NewDelivery
from lifecycle_engine.store.tables import webhook_attempt, webhook_delivery, webhook_job, webhook_message


class LoggedAttempt(NamedTuple):
    """An attempt under its id; `response` only where it was asked for by that."""

    id: int
    attempt: AttemptRow


class LoggedDelivery(NamedTuple):
    """A delivery and what its message is; times are in microseconds since the epoch."""

    id: int
    endpoint: str
    message: str
    type: str
    customer: int | None
    status: str
    trigger: str
    attempts: int
    due_at: int
    reason: str | None
    created_at: int
    finished_at: int | None


class AttemptsWanted(NamedTuple):
    """Which attempts are asked for; None means any. `code_class` 2 is what was answered with 2xx, 0 with nothing."""

    status: str | None = None
    code_class: int | None = None
    type: str | None = None
    message: str | None = None
    since: int | None = None
    until: int | None = None


class DeliveriesWanted(NamedTuple):
    """Which deliveries are asked for; None means any. The instants are those at which they were queued."""

    status: str | None = None
    type: str | None = None
    since: int | None = None
    until: int | None = None


class AttemptFigures(NamedTuple):
    """Attempts within some time: how many succeeded and failed, and how long they took, in milliseconds."""

    succeeded: int
    failed: int
    average: int | None
    slowest: int | None


_attempt, _delivery, _message = webhook_attempt.c, webhook_delivery.c, webhook_message.c
_ATTEMPT = [_attempt[name] for name in AttemptRow._fields[:-1]]  # all but the response
_DELIVERY = select(
    _delivery.id,
    _delivery.endpoint,
    _delivery.message,
    _message.type,
    _message.customer,
    _delivery.status,
    _delivery.trigger,
    _delivery.attempts,
    _delivery.due_at,
    _delivery.reason,
    _delivery.created_at,
    _delivery.finished_at,
).join_from(webhook_delivery, webhook_message, _message.id == _delivery.message)


async def newest_attempts(
    connection: AsyncConnection, endpoint: str, wanted: AttemptsWanted, before: tuple[int, int] | None, limit: int
) -> list[LoggedAttempt]:
    """An endpoint's attempts without their responses, the newest first, from one before an instant and an id on."""
    query = select(_attempt.id, *_ATTEMPT).where(_attempt.endpoint == endpoint)
    if wanted.status is not None:
        query = query.where(_attempt.status == wanted.status)
    if wanted.code_class is not None:
        query = query.where(_of_class(wanted.code_class))
    if wanted.type is not None:
        query = query.where(_attempt.type == wanted.type)
    if wanted.message is not None:
        query = query.where(_attempt.message == wanted.message)
    query = _page(query, _attempt.at, _attempt.id, wanted.since, wanted.until, before, limit)
    rows = await connection.execute(query)
    return [LoggedAttempt(row[0], AttemptRow._make((*row[1:], None))) for row in rows]


async def find_attempt(connection: AsyncConnection, endpoint: str, id_: int) -> LoggedAttempt | None:
    """One attempt with its response."""
    query = select(_attempt.id, *_ATTEMPT, _attempt.response).where(_attempt.id == id_, _attempt.endpoint == endpoint)
    row = (await connection.execute(query)).first()
    return None if row is None else LoggedAttempt(row[0], AttemptRow._make(row[1:]))


async def newest_deliveries(
    connection: AsyncConnection, endpoint: str, wanted: DeliveriesWanted, before: tuple[int, int] | None, limit: int
) -> list[LoggedDelivery]:
    """An endpoint's deliveries, those that were queued last first, from one before an instant and an id on."""
    query = _DELIVERY.where(_delivery.endpoint == endpoint)
    if wanted.status is not None:
        query = query.where(_delivery.status == wanted.status)
    if wanted.type is not None:
        query = query.where(_message.type == wanted.type)
    query = _page(query, _delivery.created_at, _delivery.id, wanted.since, wanted.until, before, limit)
    return [LoggedDelivery._make(row) for row in await connection.execute(query)]


async def deliveries_of(connection: AsyncConnection, message: str) -> list[LoggedDelivery]:
    """Every delivery of a message, in the order in which they were queued."""
    query = _DELIVERY.where(_delivery.message == message).order_by(_delivery.id)
    return [LoggedDelivery._make(row) for row in await connection.execute(query)]


async def pending_delivery(connection: AsyncConnection, endpoint: str, message: str) -> LoggedDelivery | None:
    """The delivery of a message to an endpoint that is on its way, where there is one."""
    query = _DELIVERY.where(
        _delivery.message == message, _delivery.endpoint == endpoint, _delivery.status == PENDING
    ).order_by(_delivery.id)
    row = (await connection.execute(query.limit(1))).first()
    return None if row is None else LoggedDelivery._make(row)


async def hasten(connection: AsyncConnection, id_: int, now: int) -> None:
    """Lets a delivery that is on its way be attempted now, unless it is so already."""
    await connection.execute(
        update(webhook_delivery)
        .where(_delivery.id == id_, _delivery.status == PENDING, _delivery.due_at > now)
        .values(due_at=now)
    )


async def add_ended_delivery(connection: AsyncConnection, row: NewDelivery, status: str, finished_at: int) -> int:
    """Adds a delivery that has come to its end already, after one attempt; gives its id."""
    values = {**row._asdict(), "status": status, "attempts": 1, "finished_at": finished_at}
    added = await connection.execute(webhook_delivery.insert().values(values).returning(_delivery.id))
    return int(added.scalar_one())


async def attempt_figures(connection: AsyncConnection, endpoint: str, since: int) -> AttemptFigures:
    """An endpoint's attempts from an instant on."""
    succeeded = func.sum(case((_attempt.status == "succeeded", 1), else_=0))
    query = select(func.count(), succeeded, func.avg(_attempt.milliseconds), func.max(_attempt.milliseconds)).where(
        _attempt.endpoint == endpoint, _attempt.at >= since
    )
    count, good, average, slowest = (await connection.execute(query)).one()
    good = int(good or 0)
    return AttemptFigures(good, count - good, None if average is None else round(average), slowest)


async def attempts_by_code(connection: AsyncConnection, endpoint: str, since: int) -> dict[str, int]:
    """How often an endpoint has answered with which status from an instant on; what was no answer by its failure."""
    query = (
        select(_attempt.status_code, _attempt.failure, func.count())
        .where(_attempt.endpoint == endpoint, _attempt.at >= since)
        .group_by(_attempt.status_code, _attempt.failure)
    )
    found: dict[str, int] = {}
    for code, failure, count in await connection.execute(query):
        name = failure or str(code)
        found[name] = found.get(name, 0) + count
    return dict(sorted(found.items()))


async def deliveries_by_status(connection: AsyncConnection, endpoint: str, since: int) -> dict[str, int]:
    """How many of an endpoint's deliveries that were queued from an instant on have come to what."""
    query = (
        select(_delivery.status, func.count())
        .where(_delivery.endpoint == endpoint, _delivery.created_at >= since)
        .group_by(_delivery.status)
    )
    return {status: count for status, count in await connection.execute(query)}


async def oldest_pending(connection: AsyncConnection, endpoint: str) -> tuple[int, int | None]:
    """How many of an endpoint's deliveries are on their way, and since when the first of them."""
    query = select(func.count(), func.min(_delivery.created_at)).where(
        _delivery.endpoint == endpoint, _delivery.status == PENDING
    )
    count, first = (await connection.execute(query)).one()
    return int(count), first


async def drop_attempts(connection: AsyncConnection, before: int, limit: int) -> int:
    """Forgets at most so many attempts that began before an instant; how many there were."""
    return await _drop(connection, webhook_attempt, _attempt.id, _attempt.at < before, limit)


async def drop_messages(connection: AsyncConnection, before: int, limit: int) -> int:
    """Forgets at most so many messages that were made before an instant, and their deliveries, but for what is on its
    way; how many messages there were."""
    on_its_way = select(_delivery.id).where(_delivery.message == _message.id, _delivery.status == PENDING).exists()
    of_late = select(_delivery.id).where(_delivery.message == _message.id, _delivery.created_at >= before).exists()
    query = (
        select(_message.id)
        .where(_message.created_at < before, ~on_its_way, ~of_late)
        .order_by(_message.created_at)
        .limit(limit)
    )
    ids = list((await connection.execute(query)).scalars())
    if ids:
        await connection.execute(delete(webhook_delivery).where(_delivery.message.in_(ids)))
        await connection.execute(delete(webhook_message).where(_message.id.in_(ids)))
    return len(ids)


async def drop_jobs(connection: AsyncConnection, before: int) -> int:
    """Forgets jobs that finished before an instant."""
    result = await connection.execute(delete(webhook_job).where(webhook_job.c.finished_at < before))
    return int(result.rowcount)


def _of_class(code_class: int) -> ColumnElement[bool]:
    if code_class == 0:
        return _attempt.status_code.is_(None)
    return and_(_attempt.status_code >= code_class * 100, _attempt.status_code < (code_class + 1) * 100)


def _page(
    query: Select[Any],
    at: ColumnElement[int],
    id_: ColumnElement[int],
    since: int | None,
    until: int | None,
    before: tuple[int, int] | None,
    limit: int,
) -> Select[Any]:
    if since is not None:
        query = query.where(at >= since)
    if until is not None:
        query = query.where(at < until)
    if before is not None:
        query = query.where(or_(at < before[0], and_(at == before[0], id_ < before[1])), at <= before[0])
    return query.order_by(at.desc(), id_.desc()).limit(limit)


async def _drop(
    connection: AsyncConnection, table: Table, key: ColumnElement[int], of: ColumnElement[bool], limit: int
) -> int:
    ids: Sequence[int] = (await connection.execute(select(key).where(of).limit(limit))).scalars().all()
    if ids:
        await connection.execute(delete(table).where(key.in_(ids)))
    return len(ids)
