"""The customer rows: found or made, locked in one order, and written back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.states import (
    Announced,
    Sequences,
    decode_announced,
    decode_sequences,
    decode_state,
    encode_announced,
    encode_sequences,
    encode_state,
)
from lifecycle_engine.store.tables import customer

IdentityKind = Literal["customer_id", "anonymous_id"]


class Identity(NamedTuple):
    """A name under which somebody is known. The same value of two kinds names two different ones."""

    kind: IdentityKind
    value: str


class CustomerRow(NamedTuple):
    """A customer as its locked row has it. `state` None: nothing is folded yet, or not in a format of today.

    `owner` is the row of whom it belongs to; such a row has touchpoints, and no history of its own. `wake` is when it
    will be looked at though no fact comes, `muted` whether what was accepted last was.
    """

    id: int
    identity: Identity
    definitions: int
    state: CustomerState | None
    sequences: Sequences
    announced: Announced
    recorded_at: int
    muted: bool
    owner: int | None
    wake: int | None

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever recorded of it."""
        return self.recorded_at == 0


class CustomerUpdate(NamedTuple):
    """What a transaction makes of a customer's row."""

    id: int
    definitions: int
    state: CustomerState
    sequences: Sequences
    announced: Announced
    recorded_at: int
    muted: bool
    wake: int | None


_NAMES = (
    "id",
    "kind",
    "value",
    "definitions",
    "state",
    "sequences",
    "announced",
    "recorded_at",
    "muted",
    "owner",
    "wake",
)
_COLUMNS = ", ".join(f"locked.{name}" for name in _NAMES)
_LOCK = Statement(
    f"SELECT {_COLUMNS} FROM customer AS locked JOIN {{given}} "
    "ON locked.kind = given.kind AND locked.value = given.value ORDER BY locked.kind, locked.value {lock}",
    customer,
    ["kind", "value"],
)
_LOCK_BY_ID = Statement(
    f"SELECT {_COLUMNS} FROM customer AS locked JOIN {{given}} ON locked.id = given.id "
    "ORDER BY locked.kind, locked.value {lock}",
    customer,
    ["id"],
)
_LOCK_FREE = Statement(
    f"SELECT {_COLUMNS} FROM customer AS locked JOIN {{given}} ON locked.id = given.id "
    "ORDER BY locked.kind, locked.value {lock_free}",
    customer,
    ["id"],
)
_NAMES_OF = Statement(
    "SELECT customer.id, customer.kind, customer.value FROM customer JOIN {given} ON customer.id = given.id",
    customer,
    ["id"],
)
_STATES = Statement(
    "SELECT customer.id, customer.state FROM customer JOIN {given} ON customer.id = given.id", customer, ["id"]
)
_MAKE = Statement(
    "INSERT INTO customer (kind, value, definitions, recorded_at) "
    "SELECT kind, value, definitions, 0 FROM {given} WHERE true ON CONFLICT DO NOTHING RETURNING id, kind, value",
    customer,
    ["kind", "value", "definitions"],
)
_WRITE = Statement(
    "UPDATE customer SET definitions = given.definitions, state = given.state, sequences = given.sequences, "
    "announced = given.announced, recorded_at = given.recorded_at, muted = given.muted, wake = given.wake "
    "FROM {given} WHERE customer.id = given.id",
    customer,
    CustomerUpdate._fields,
)


async def lock_customers(connection: AsyncConnection, identities: Iterable[Identity]) -> dict[Identity, CustomerRow]:
    """Locks the rows that there are of these identities, in their sorted order, until the transaction ends."""
    return {row.identity: row for row in map(_row, await _LOCK(connection, sorted(set(identities))))}


async def make_customers(
    connection: AsyncConnection, identities: Iterable[Identity], definitions: int
) -> dict[Identity, CustomerRow]:
    """Makes rows, which are locked with that, for those of these identities that have none, in their sorted order.

    Waits for other transactions that make the same ones. So that nobody waits in a circle, this comes after all locks.
    """
    rows: dict[Identity, CustomerRow] = {}
    made = await _MAKE(connection, [(*identity, definitions) for identity in sorted(set(identities))])
    for id_, kind, value in made:
        identity = Identity(kind, value)
        rows[identity] = CustomerRow(id_, identity, definitions, None, {}, {}, 0, False, None, None)
    return rows


async def lock_customers_by_id(
    connection: AsyncConnection, ids: Iterable[int], *, skip_locked: bool = False
) -> list[CustomerRow]:
    """Locks these rows in the order of their identities; `skip_locked` leaves out those that others hold."""
    lock = _LOCK_FREE if skip_locked else _LOCK_BY_ID
    return [_row(row) for row in await lock(connection, [(id_,) for id_ in ids])]


async def names_of(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, Identity]:
    """The identities of rows."""
    return {id_: Identity(kind, value) for id_, kind, value in await _NAMES_OF(connection, [(id_,) for id_ in ids])}


async def write_customers(connection: AsyncConnection, rows: Sequence[CustomerUpdate]) -> None:
    """Writes rows back."""
    await _WRITE(
        connection,
        [
            (
                row.id,
                row.definitions,
                encode_state(row.state),
                encode_sequences(row.sequences),
                encode_announced(row.announced),
                *row[5:],
            )
            for row in rows
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
    """The row of an identity, unlocked; None for one of whom nothing was ever accepted."""
    columns = _COLUMNS.replace("locked.", "")
    query = text(f"SELECT {columns} FROM customer WHERE kind = :kind AND value = :value AND recorded_at > 0")
    row = (await connection.execute(query, identity._asdict())).first()
    return _row(row) if row else None


def _row(row: Sequence[Any]) -> CustomerRow:
    id_, kind, value, definitions, state, sequences, announced, recorded_at, muted, owner, wake = row
    return CustomerRow(
        id_,
        Identity(kind, value),
        definitions,
        decode_state(state),
        decode_sequences(sequences),
        decode_announced(announced),
        recorded_at,
        bool(muted),
        owner,
        wake,
    )


async def traits_of(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The traits of customers as they are now, by their rows; of those about whom nothing is folded, none."""
    rows = await _STATES(connection, [(id_,) for id_ in sorted(set(ids))])
    states = ((id_, decode_state(state)) for id_, state in rows)
    return {id_: state.traits if state is not None else {} for id_, state in states}
