"""The lines of a customer's history as they were known: the stay at an instant, and all of them page by page.

The lines of one journey come in the order of the fold: by instant and phase, what no fact caused by its rule, what
facts caused by their ids and sources. A stay ends where the next one that stands begins; one that was superseded ends
where it did while it stood.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, String, bindparam, case, exists, func, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.store.aggregates import KNOWN_AT, MEMBER, OWNER, visible
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.history import Line, line_of
from lifecycle_engine.store.tables import customer, history, lifecycle, touchpoint


class LineKey(NamedTuple):
    """Names one line of a customer, for ever."""

    at: int
    recorded_at: int
    number: int


class KnownLine(NamedTuple):
    """A line as it was known, without a later `superseded_at`. `left_at` is None for current stays and refusals."""

    line: Line
    left_at: int | None

    @property
    def key(self) -> LineKey:
        return LineKey(self.line.event.at, self.line.recorded_at, self.line.number)


class JourneyAnswer(NamedTuple):
    """What was known of a journey. `stay` None: it had not opened yet, or the customer never had it."""

    customer: Identity
    is_known_customer: bool
    is_known_lifecycle: bool
    stay: KnownLine | None


def _place(lines: FromClause) -> tuple[ColumnElement[Any], ...]:
    return (
        lines.c.at,
        lines.c.phase,
        func.coalesce(lines.c.touchpoint, ""),
        func.coalesce(lines.c.source, ""),
        func.coalesce(lines.c.rule, -1),
    )


def _position(lines: FromClause) -> tuple[ColumnElement[Any], ...]:
    subject = func.coalesce(lines.c.subject, "")
    return (lines.c.lifecycle, subject, *_place(lines), lines.c.recorded_at, lines.c.number)


_POSITION = _position(history)
_SUPERSEDED_AT = case((history.c.superseded_at <= KNOWN_AT, history.c.superseded_at)).label("superseded_at")
_COLUMNS = (
    history.c.customer,
    history.c.recorded_at,
    history.c.number,
    *(history.c[name] for name in Event._fields),
    _SUPERSEDED_AT,
)


def _left_at(lines: FromClause) -> ColumnElement[int | None]:
    """The instant at which the next stay begins, of those that stood when the line last did."""
    later = history.alias("later")
    stood_at = func.coalesce(lines.c.superseded_at - 1, KNOWN_AT)
    begins = (
        select(later.c.at)
        .where(
            later.c.customer == lines.c.customer,
            later.c.lifecycle == lines.c.lifecycle,
            later.c.subject.is_not_distinct_from(lines.c.subject),
            later.c.move != "refused",
            later.c.at >= lines.c.at,
            tuple_(*_place(later)) > tuple_(*_place(lines)),
            visible(later, stood_at),
        )
        .order_by(later.c.at)
        .limit(1)
        .scalar_subquery()
    )
    return case((lines.c.move != "refused", begins)).label("left_at")


def _lifecycle_is_known(key: ColumnElement[str]) -> ColumnElement[bool]:
    return exists().where(lifecycle.c.key == key, lifecycle.c.created_at <= KNOWN_AT)


_LIFECYCLE: ColumnElement[str] = bindparam("lifecycle", type_=String)
_STAY = (
    select(*_COLUMNS)
    .where(
        history.c.customer == select(OWNER.c.id).scalar_subquery(),
        history.c.lifecycle == _LIFECYCLE,
        history.c.subject.is_not_distinct_from(bindparam("subject", type_=String)),
        history.c.move != "refused",
        history.c.at <= bindparam("as_of", type_=BigInteger),
        visible(history, KNOWN_AT),
    )
    .order_by(*(column.desc() for column in _place(history)))
    .limit(1)
    .subquery("stay")
)
_JOURNEY = select(
    customer.c.kind,
    customer.c.value,
    exists()
    .where(touchpoint.c.customer.in_(select(MEMBER.c.id)), touchpoint.c.recorded_at <= KNOWN_AT)
    .label("is_known_customer"),
    _lifecycle_is_known(_LIFECYCLE).label("is_known_lifecycle"),
    *_STAY.c,
    _left_at(_STAY),
).select_from(OWNER.join(customer, customer.c.id == OWNER.c.id).outerjoin(_STAY, true()))


async def find_stay(
    connection: AsyncConnection, identity: Identity, lifecycle: str, subject: str | None, as_of: int, known_at: int
) -> JourneyAnswer | None:
    """The stay in which a journey was at an instant, as known at another; None where the customer has no row."""
    named = {
        **identity._asdict(),
        "lifecycle": lifecycle,
        "subject": subject,
        "as_of": as_of,
        "known_at": known_at,
    }
    row = (await connection.execute(_JOURNEY, named)).first()
    if row is None:
        return None
    kind, value, is_known_customer, is_known_lifecycle, *line, left_at = row
    stay = None if line[0] is None else KnownLine(line_of(line), left_at)
    return JourneyAnswer(Identity(kind, value), is_known_customer, is_known_lifecycle, stay)


async def lifecycle_is_known(connection: AsyncConnection, key: str, known_at: int) -> bool:
    """Whether there was a lifecycle of this key."""
    query = select(_lifecycle_is_known(_LIFECYCLE))
    return bool((await connection.execute(query, {"lifecycle": key, "known_at": known_at})).scalar_one())


class LineFilter(NamedTuple):
    """Which lines are wanted; None means any. `causes` are places of the fact that caused them."""

    lifecycle: str | None = None
    subject: str | None = None
    causes: tuple[Place, ...] | None = None
    superseded: bool = False
    refusals: bool = False


async def find_lines(
    connection: AsyncConnection,
    customer_id: int,
    known_at: int,
    wanted: LineFilter,
    after: LineKey | None = None,
    limit: int | None = None,
) -> list[KnownLine]:
    """A customer's lines, from after one of them on, ordered by lifecycle, subject and the order of the fold.

    Raises LookupError where there is no line `after`.
    """
    query = select(*_COLUMNS).where(history.c.customer == customer_id)
    query = query.where(history.c.recorded_at <= KNOWN_AT if wanted.superseded else visible(history, KNOWN_AT))
    if not wanted.refusals:
        query = query.where(history.c.move != "refused")
    if wanted.lifecycle is not None:
        query = query.where(history.c.lifecycle == wanted.lifecycle)
    if wanted.subject is not None:
        query = query.where(history.c.subject == wanted.subject)
    if wanted.causes is not None:
        query = query.where(tuple_(history.c.at, history.c.touchpoint, history.c.source).in_(wanted.causes))
    if after is not None:
        key = tuple_(history.c.at, history.c.recorded_at, history.c.number) == tuple_(*after)
        found = await connection.execute(select(*_POSITION).where(history.c.customer == customer_id, key))
        if (position := found.first()) is None:
            raise LookupError(f"customer {customer_id} has no line {after}")
        query = query.where(tuple_(*_POSITION) > tuple_(*position))
    page = query.order_by(*_POSITION).limit(limit).subquery("page")
    ordered = select(page, _left_at(page)).order_by(*_position(page))
    rows = await connection.execute(ordered, {"known_at": known_at})
    return [KnownLine(line_of(row[:-1]), row[-1]) for row in rows]
