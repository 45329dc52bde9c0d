"""What others are to be told, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Append, Statement
from lifecycle_engine.store.tables import change

SKEW = 600_000_000
"""Microseconds by which a change may have been recorded before another one whose position is earlier: more than any
transaction lasts."""


class ChangeRow(NamedTuple):
    """One event to tell; `body` is the JSON of its data, `sequence` is set on `stage.changed` only.

    `lifecycle` is None where it is about the customer as a whole.
    """

    customer: int
    type: str
    lifecycle: str | None
    subject: str | None
    sequence: int | None
    muted: bool
    recorded_at: int
    body: bytes


class SequencedChange(NamedTuple):
    """A committed change and its position in the feed; the rest as in `ChangeRow`."""

    position: int
    id: int
    customer: int
    type: str
    lifecycle: str | None
    subject: str | None
    sequence: int | None
    muted: bool
    recorded_at: int
    body: bytes


_ADD = Append(change, ChangeRow._fields)
_PLACE = Statement(
    "UPDATE change SET position = given.position FROM {given} WHERE change.id = given.id", change, ["id", "position"]
)
_COLUMNS = [change.c[name] for name in SequencedChange._fields]


async def add_changes(connection: AsyncConnection, rows: Sequence[ChangeRow]) -> None:
    await _ADD(connection, rows)


async def give_positions(connection: AsyncConnection, first: int, limit: int) -> list[SequencedChange]:
    """Gives the committed changes that have no position the next ones from `first` on, and returns them in that order.

    The caller holds the feed's row. In the order of their ids, which within a journey is that of `sequence`: an id is
    taken while the customer's row is locked, so after whatever had the lock before was committed.
    """
    waiting = select(*_COLUMNS).where(change.c.position.is_(None)).order_by(change.c.id).limit(limit)
    found = [
        SequencedChange(position, *row[1:])
        for position, row in enumerate((await connection.execute(waiting)).all(), first)
    ]
    await _PLACE(connection, [(one.id, one.position) for one in found])
    return found


class FeedFilter(NamedTuple):
    """Which changes of the feed are asked for; None and an empty `types` mean any."""

    types: tuple[str, ...] = ()
    lifecycle: str | None = None
    muted: bool | None = None


async def read_feed(
    connection: AsyncConnection, after: int, upto: int, wanted: FeedFilter, limit: int
) -> list[SequencedChange]:
    """At most `limit` changes whose positions are beyond `after` and not beyond `upto`, in that order."""
    query = select(*_COLUMNS).where(change.c.position > after, change.c.position <= upto)
    if wanted.types:
        query = query.where(change.c.type.in_(wanted.types))
    if wanted.lifecycle is not None:
        query = query.where(change.c.lifecycle == wanted.lifecycle)
    if wanted.muted is not None:
        query = query.where(change.c.muted == wanted.muted)
    rows = await connection.execute(query.order_by(change.c.position).limit(limit))
    return [SequencedChange(*row) for row in rows.all()]


_RECORDED_AT = (
    select(change.c.recorded_at)
    .where(change.c.position >= bindparam("position", type_=BigInteger))
    .order_by(change.c.position)
    .limit(1)
)


async def position_of(connection: AsyncConnection, instant: int, end: int) -> int:
    """The first position, or `end`, from which on changes were recorded at an instant or later; all but for `SKEW`.

    Positions follow the commits, and so the instants at which changes were recorded only roughly. Found by halving.
    """
    first, last = 1, end
    while first < last:
        middle = (first + last) // 2
        recorded_at = (await connection.execute(_RECORDED_AT, {"position": middle})).scalar()
        if recorded_at is None or recorded_at >= instant:
            last = middle
        else:
            first = middle + 1
    return first
