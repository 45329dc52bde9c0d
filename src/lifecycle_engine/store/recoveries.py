"""Jobs that send again what an endpoint has missed, and how far they have come."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.tables import webhook_job


class RecoveryRow(NamedTuple):
    """A job for what was recorded from `since` on and before `until`; instants in microseconds since the epoch.

    It has looked at `done` of the `total` changes that may be meant, the last of them at the position `cursor` of the
    feed, and `queued` of them were to be sent again.
    """

    id: str
    endpoint: str
    since: int
    until: int
    cursor: int
    total: int
    done: int
    queued: int
    created_at: int
    finished_at: int | None

    @property
    def last(self) -> int:
        """The position that it looks at last."""
        return self.cursor + self.total - self.done


_table = webhook_job.c
_COLUMNS = [_table[name] for name in RecoveryRow._fields]


async def add_recovery(connection: AsyncConnection, row: RecoveryRow) -> None:
    """Adds a job, which some dispatcher will see to."""
    await connection.execute(insert(webhook_job).values(row._asdict()))


async def find_recovery(connection: AsyncConnection, id_: str) -> RecoveryRow | None:
    """The job of this id."""
    row = (await connection.execute(select(*_COLUMNS).where(_table.id == id_))).first()
    return None if row is None else RecoveryRow(*row)


async def newest_recoveries(
    connection: AsyncConnection, before: tuple[int, str] | None, limit: int
) -> list[RecoveryRow]:
    """The jobs, the newest first, from one before an instant and an id on."""
    query = select(*_COLUMNS).order_by(_table.created_at.desc(), _table.id.desc()).limit(limit)
    if before is not None:
        at, id_ = before
        query = query.where(or_(_table.created_at < at, and_(_table.created_at == at, _table.id < id_)))
    return [RecoveryRow(*row) for row in await connection.execute(query)]


async def unfinished_recovery(connection: AsyncConnection, endpoint: str) -> RecoveryRow | None:
    """A job of an endpoint that is not done."""
    query = select(*_COLUMNS).where(_table.endpoint == endpoint, _table.finished_at.is_(None)).limit(1)
    row = (await connection.execute(query)).first()
    return None if row is None else RecoveryRow(*row)


async def take_recovery(connection: AsyncConnection) -> RecoveryRow | None:
    """The oldest job that is not done, and that nobody else is at; its row is locked."""
    query = select(*_COLUMNS).where(_table.finished_at.is_(None)).order_by(_table.created_at, _table.id).limit(1)
    row = (await connection.execute(query.with_for_update(skip_locked=True))).first()
    return None if row is None else RecoveryRow(*row)


async def note_progress(connection: AsyncConnection, row: RecoveryRow) -> None:
    """Writes how far a job has come; the caller holds its row."""
    await connection.execute(
        update(webhook_job)
        .where(_table.id == row.id)
        .values(cursor=row.cursor, done=row.done, queued=row.queued, finished_at=row.finished_at)
    )
