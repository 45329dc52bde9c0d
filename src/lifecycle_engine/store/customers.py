"""The customer rows: found or made, locked in one order, and written back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.states import Sequences, decode_sequences, decode_state, encode_sequences, encode_state
from lifecycle_engine.store.tables import customer

IdentityKind = Literal["customer_id", "anonymous_id"]


class Identity(NamedTuple):
    """A name under which somebody is known. The same value of two kinds names two different ones."""

    kind: IdentityKind
    value: str


class CustomerRow(NamedTuple):
    """A customer as its locked row has it. `state` None: nothing is folded yet, or not in a format of today."""

    id: int
    identity: Identity
    definitions: int
    state: CustomerState | None
    sequences: Sequences
    recorded_at: int


_COLUMNS = (
    "locked.id, locked.kind, locked.value, locked.definitions, locked.state, locked.sequences, locked.recorded_at"
)
_LOCK = Statement(
    f"SELECT {_COLUMNS} FROM {{given}} "
    "JOIN customer AS locked ON locked.kind = given.kind AND locked.value = given.value "
    "ORDER BY locked.kind, locked.value {lock}",
    customer,
    ["kind", "value"],
)
_LOCK_BY_ID = Statement(
    f"SELECT {_COLUMNS} FROM {{given}} JOIN customer AS locked ON locked.id = given.id "
    "ORDER BY locked.kind, locked.value {lock}",
    customer,
    ["id"],
)
_MAKE = Statement(
    "INSERT INTO customer (kind, value, definitions, recorded_at) "
    "SELECT kind, value, definitions, 0 FROM {given} WHERE true ON CONFLICT DO NOTHING RETURNING id, kind, value",
    customer,
    ["kind", "value", "definitions"],
)
_WRITE = Statement(
    "UPDATE customer SET definitions = given.definitions, state = given.state, sequences = given.sequences, "
    "recorded_at = given.recorded_at FROM {given} WHERE customer.id = given.id",
    customer,
    ["id", "definitions", "state", "sequences", "recorded_at"],
)


async def lock_customers(
    connection: AsyncConnection, identities: Iterable[Identity], definitions: int
) -> dict[Identity, CustomerRow]:
    """Locks the rows of these identities in their sorted order until the transaction ends; makes those that are new."""
    missing = sorted(set(identities))
    rows: dict[Identity, CustomerRow] = {}
    while missing:
        for row in map(_row, await _LOCK(connection, missing)):
            rows[row.identity] = row
        if missing := [identity for identity in missing if identity not in rows]:
            for id_, kind, value in await _MAKE(connection, [(*identity, definitions) for identity in missing]):
                identity = Identity(kind, value)
                rows[identity] = CustomerRow(id_, identity, definitions, None, {}, 0)
            # What another transaction has made in the meantime is there to be locked now.
            missing = [identity for identity in missing if identity not in rows]
    return rows


async def lock_customers_by_id(connection: AsyncConnection, ids: Sequence[int]) -> list[CustomerRow]:
    """Locks these rows in the order of their identities."""
    return [_row(row) for row in await _LOCK_BY_ID(connection, [(id_,) for id_ in ids])]


async def write_customers(
    connection: AsyncConnection, rows: Sequence[tuple[int, int, CustomerState, Sequences, int]]
) -> None:
    """Writes back (id, number of the definitions, state, sequences, recorded_at)."""
    await _WRITE(
        connection,
        [
            (id_, definitions, encode_state(state), encode_sequences(sequences), recorded_at)
            for id_, definitions, state, sequences, recorded_at in rows
        ],
    )


async def customers_behind(connection: AsyncConnection, definitions: int, after: int, limit: int) -> list[int]:
    """Ids, beyond `after`, of customers whose state was folded under an older set of definitions."""
    query = (
        select(customer.c.id)
        .where(customer.c.id > after, customer.c.definitions < definitions)
        .order_by(customer.c.id)
        .limit(limit)
    )
    return list((await connection.execute(query)).scalars())


async def find_customer(connection: AsyncConnection, identity: Identity) -> CustomerRow | None:
    """The customer of an identity, unlocked; None for one of whom nothing was ever accepted."""
    columns = _COLUMNS.replace("locked.", "")
    query = text(f"SELECT {columns} FROM customer WHERE kind = :kind AND value = :value AND recorded_at > 0")
    row = (await connection.execute(query, identity._asdict())).first()
    return _row(row) if row else None


def _row(row: Sequence[Any]) -> CustomerRow:
    id_, kind, value, definitions, state, sequences, recorded_at = row
    return CustomerRow(
        id_,
        Identity(kind, value),
        definitions,
        decode_state(state),
        decode_sequences(sequences),
        recorded_at,
    )
