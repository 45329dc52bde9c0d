"""What is sent: each message once, however many endpoints it goes to and however often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement, insert
from lifecycle_engine.store.tables import webhook_message


class MessageRow(NamedTuple):
    """One message; `change` and `customer` are None where it is not about a customer, `body` None once it is pruned.

    Times are in microseconds since the epoch: `recorded_at` is that of what the message tells.
    """

    id: str
    type: str
    change: int | None
    customer: int | None
    lifecycle: str | None
    subject: str | None
    recorded_at: int
    created_at: int
    body: bytes | None


_ADD = insert(webhook_message, MessageRow._fields)
_FIND = Statement(
    f"SELECT {', '.join(f'webhook_message.{name}' for name in MessageRow._fields)} "
    "FROM {given} JOIN webhook_message ON webhook_message.id = given.id",
    webhook_message,
    ["id"],
)
_OF_CHANGES = Statement(
    "SELECT webhook_message.change AS change, webhook_message.id AS id "
    "FROM {given} JOIN webhook_message ON webhook_message.change = given.change",
    webhook_message,
    ["change"],
)
_ADD_MISSING = Statement(
    "INSERT INTO webhook_message ({names}) SELECT {names} FROM {given} WHERE true ON CONFLICT (change) DO NOTHING",
    webhook_message,
    MessageRow._fields,
)


async def add_messages(connection: AsyncConnection, rows: Sequence[MessageRow]) -> None:
    await _ADD(connection, rows)


async def find_messages(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, MessageRow]:
    """The messages of these ids, by their ids."""
    rows = await _FIND(connection, [(id_,) for id_ in sorted(set(ids))])
    return {row.id: row for row in map(MessageRow._make, rows)}


async def messages_of(connection: AsyncConnection, changes: Iterable[int]) -> dict[int, str]:
    """The ids of the messages that tell of changes, by these; a change that nobody was to be told of has none."""
    rows = await _OF_CHANGES(connection, [(change,) for change in sorted(set(changes))])
    return {change: id_ for change, id_ in rows}


async def add_missing_messages(connection: AsyncConnection, rows: Sequence[MessageRow]) -> None:
    """Adds messages that tell of changes, but for those that somebody else has added meanwhile."""
    await _ADD_MISSING(connection, rows)
