"""The accepted facts: each stored once, read back in the order of the fold, and never edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from lifecycle_engine.lifecycle.touchpoints import RESERVED, RETRACT, Place
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


class StoredFact(NamedTuple):
    """What the fold needs of a stored fact; the body is decoded by whoever folds it.

    Facts sort by themselves into the order of the fold: what stands first in them is their place.
    """

    occurred_at: int
    id: str
    source: str
    customer: int
    type: str
    anonymous_id: str | None
    body: bytes

    @property
    def place(self) -> Place:
        return Place(self.occurred_at, self.id, self.source)


def is_touchpoint(facts: FromClause) -> ColumnElement[bool]:
    """Whether facts are touchpoints, by the reserved beginning of the others' types."""
    return ~facts.c.type.startswith(RESERVED)


NOBODY = 0
"""The customer of what is about no customer."""
ABSENT = "$absent"
"""The type of what stands in for a fact that was retracted before it came."""
_COLUMNS = TouchpointRow._fields
_FACT = ", ".join(f"touchpoint.{name}" for name in StoredFact._fields)
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
    f"SELECT {_FACT} FROM {{given}} JOIN touchpoint "
    "ON touchpoint.customer = given.customer AND touchpoint.occurred_at >= given.occurred_at "
    "WHERE touchpoint.retracted_at IS NULL",
    touchpoint,
    ["customer", "occurred_at"],
)
_KNOWN_BEFORE = Statement(
    "SELECT given.customer, given.recorded_at FROM {given} WHERE EXISTS (SELECT 1 FROM customer JOIN touchpoint "
    "ON touchpoint.customer = customer.id AND touchpoint.recorded_at < given.recorded_at "
    "WHERE customer.id = given.customer OR customer.owner = given.customer)",
    touchpoint,
    ["customer", "recorded_at"],
)
_RETRACT = Statement(
    "UPDATE touchpoint SET retracted_at = given.retracted_at FROM {given} WHERE touchpoint.source = given.source "
    f"AND touchpoint.id = given.id AND touchpoint.retracted_at IS NULL AND touchpoint.type <> '{RETRACT}' "
    f"RETURNING {_FACT}",
    touchpoint,
    ["source", "id", "retracted_at"],
)
_STAND_IN = Statement(
    "INSERT INTO touchpoint (source, id, customer, type, occurred_at, received_at, recorded_at, content, muted, "
    f"retracted_at) SELECT source, id, {NOBODY}, '{ABSENT}', at, at, at, content, muted, at FROM {{given}} "
    "WHERE true ON CONFLICT DO NOTHING RETURNING source, id",
    touchpoint,
    ["source", "id", ("at", "retracted_at"), "content", "muted"],
)
_TAKE_PLACE = Statement(
    "UPDATE touchpoint SET customer = given.customer, anonymous_id = given.anonymous_id, type = given.type, "
    "occurred_at = given.occurred_at, received_at = given.received_at, recorded_at = given.recorded_at, "
    "content = given.content, body = given.body, muted = given.muted FROM {given} "
    "WHERE touchpoint.source = given.source AND touchpoint.id = given.id "
    f"AND touchpoint.type = '{ABSENT}'",
    touchpoint,
    _COLUMNS,
)
_FIND = Statement(
    f"SELECT {_FACT} FROM {{given}} JOIN touchpoint ON touchpoint.source = given.source AND touchpoint.id = given.id",
    touchpoint,
    ["source", "id"],
)


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


async def retract(connection: AsyncConnection, ids: Sequence[tuple[str, str, int]]) -> list[StoredFact]:
    """Retracts each (source, id) as of an instant, and gives those that had counted until now.

    For what has not come yet something stands in, so that it is retracted when it comes.
    """
    # In one order, so that two transactions that name the same ids wait for each other and never in a circle.
    ordered = sorted(ids)
    await _STAND_IN(connection, [(source, id_, at, b"", False) for source, id_, at in ordered])
    return list(map(StoredFact._make, await _RETRACT(connection, ordered)))


async def take_place(connection: AsyncConnection, rows: Sequence[TouchpointRow]) -> None:
    """Stores facts that something stands in for; they stay retracted."""
    await _TAKE_PLACE(connection, rows)


async def find_facts(connection: AsyncConnection, ids: Iterable[tuple[str, str]]) -> list[StoredFact]:
    """The facts that are stored under these (source, id)."""
    return list(map(StoredFact._make, await _FIND(connection, sorted(set(ids)))))


async def facts_from(connection: AsyncConnection, starts: Sequence[tuple[int, int]]) -> list[StoredFact]:
    """All facts that count of each (customer, from instant on), in no order."""
    return list(map(StoredFact._make, await _FROM(connection, starts)))


async def known_before(connection: AsyncConnection, customers: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of (customer, instant) for which a fact of the customer, or of its members, was recorded before that."""
    return {(id_, instant) for id_, instant in await _KNOWN_BEFORE(connection, sorted(set(customers)))}
