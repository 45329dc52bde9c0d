"""The accepted facts: each stored once, read back in the order of the fold, and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import conflict, touchpoint


class TouchpointRow(NamedTuple):
    """One accepted fact as it is stored; `customer` is the row of the identity that it named first."""

    source: str
    id: str
    customer: int
    anonymous_id: str | None
    type: str
    occurred_at: int
    received_at: int
    recorded_at: int
    content: bytes
    body: bytes
    muted: bool


_COLUMNS = TouchpointRow._fields
_ADD = Statement(
    "INSERT INTO touchpoint ({names}) SELECT {names} FROM {given} WHERE true ON CONFLICT DO NOTHING "
    "RETURNING source, id",
    touchpoint,
    _COLUMNS,
)
_CONTENTS = Statement(
    "SELECT touchpoint.source, touchpoint.id, touchpoint.content FROM {given} JOIN touchpoint "
    "ON touchpoint.source = given.source AND touchpoint.id = given.id",
    touchpoint,
    ["source", "id"],
)
_REPEATED = Statement(
    "UPDATE touchpoint SET duplicates = touchpoint.duplicates + given.duplicates, "
    "conflicts = touchpoint.conflicts + given.conflicts FROM {given} "
    "WHERE touchpoint.source = given.source AND touchpoint.id = given.id",
    touchpoint,
    ["source", "id", "duplicates", "conflicts"],
)
_CONFLICT = Statement(
    "INSERT INTO conflict ({names}) SELECT {names} FROM {given} WHERE true ON CONFLICT DO NOTHING",
    conflict,
    ["source", "id", "content", "message", "recorded_at"],
)
_LATE = Statement(
    "UPDATE touchpoint SET late = true FROM {given} "
    "WHERE touchpoint.source = given.source AND touchpoint.id = given.id",
    touchpoint,
    ["source", "id"],
)
_FROM = Statement(
    "SELECT touchpoint.customer, touchpoint.id, touchpoint.source, touchpoint.type, touchpoint.occurred_at, "
    "touchpoint.anonymous_id, touchpoint.body FROM {given} JOIN touchpoint "
    "ON touchpoint.customer = given.customer AND touchpoint.occurred_at >= given.occurred_at",
    touchpoint,
    ["customer", "occurred_at"],
)


class StoredFact(NamedTuple):
    """What the fold needs of a stored fact; the body is decoded by whoever folds it."""

    customer: int
    id: str
    source: str
    type: str
    occurred_at: int
    anonymous_id: str | None
    body: bytes

    @property
    def place(self) -> Place:
        return Place(self.occurred_at, self.id, self.source)


async def add_touchpoints(connection: AsyncConnection, rows: Sequence[TouchpointRow]) -> set[tuple[str, str]]:
    """Stores those whose (source, id) is new, and tells which were."""
    return {(source, id_) for source, id_ in await _ADD(connection, rows)}


async def contents(connection: AsyncConnection, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """The content hash that stands under each (source, id)."""
    return {(source, id_): content for source, id_, content in await _CONTENTS(connection, sorted(set(ids)))}


async def count_repeats(connection: AsyncConnection, counts: Sequence[tuple[str, str, int, int]]) -> None:
    """Adds (source, id, duplicates, conflicts) to the receipts."""
    await _REPEATED(connection, counts)


async def add_conflicts(connection: AsyncConnection, rows: Sequence[tuple[str, str, bytes, bytes, int]]) -> None:
    """Records what was not taken: (source, id, content hash, message, recorded_at)."""
    await _CONFLICT(connection, rows)


async def mark_late(connection: AsyncConnection, ids: Sequence[tuple[str, str]]) -> None:
    """Marks (source, id) as having changed what was already told."""
    await _LATE(connection, ids)


async def facts_from(connection: AsyncConnection, starts: Sequence[tuple[int, int]]) -> list[StoredFact]:
    """All facts of each (customer, from instant on), in no order."""
    return [StoredFact(*row) for row in await _FROM(connection, starts)]
