"""Where each partition of the log is read on from; moved only together with the effects of what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import log_position

_MOVE = Statement(
    "UPDATE log_position SET next = given.upto FROM {given} "
    "WHERE log_position.log = given.log AND log_position.partition = given.partition "
    "AND log_position.next = given.first RETURNING log_position.partition",
    log_position,
    ["log", "partition", ("first", "next"), ("upto", "next")],
)
_BEGIN = Statement(
    "INSERT INTO log_position (log, partition, next) SELECT log, partition, next FROM {given} WHERE true "
    "ON CONFLICT DO NOTHING",
    log_position,
    ["log", "partition", "next"],
)


class PositionMovedError(Exception):
    """Another worker has moved a position in the meantime: this transaction must not commit."""


async def read_positions(connection: AsyncConnection, log: str, partitions: Sequence[int]) -> dict[int, int]:
    """The stored next positions; a partition that was never read is left out."""
    query = select(log_position.c.partition, log_position.c.next).where(
        log_position.c.log == log, log_position.c.partition.in_(partitions)
    )
    return {partition: next_ for partition, next_ in (await connection.execute(query)).all()}


async def read_all_positions(connection: AsyncConnection, log: str) -> dict[int, int]:
    """The stored next positions of all partitions."""
    query = select(log_position.c.partition, log_position.c.next).where(log_position.c.log == log)
    return {partition: next_ for partition, next_ in (await connection.execute(query)).all()}


async def move_positions(connection: AsyncConnection, log: str, moves: Mapping[int, tuple[int, int]]) -> None:
    """Compare-and-set of partition -> (expected, new). PositionMovedError if any was not where it was expected."""
    moved = await _MOVE(connection, [(log, partition, *moves[partition]) for partition in sorted(moves)])
    if len(moved) != len(moves):
        raise PositionMovedError(f"expected {log} at {dict(moves)}")


async def begin_positions(connection: AsyncConnection, log: str, positions: Mapping[int, int]) -> None:
    """Stores the first position of partitions that have none."""
    await _BEGIN(connection, [(log, partition, next_) for partition, next_ in sorted(positions.items())])
