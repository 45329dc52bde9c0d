"""When customers have to be looked at though no fact comes.

The instant is never later than what is due. It is moved when something is due earlier, and otherwise left as it is:
whoever looks then finds nothing to do and sets it anew, which is rarer than the touchpoints that start a clock anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import wake

_SET = Statement(
    "INSERT INTO wake (customer, at) SELECT customer, at FROM {given} WHERE true "
    "ON CONFLICT (customer) DO UPDATE SET at = excluded.at",
    wake,
    ["customer", "at"],
)
_CLEAR = Statement("DELETE FROM wake WHERE customer IN (SELECT customer FROM {given})", wake, ["customer"])


_MIRROR = Statement(
    "UPDATE customer SET wake = given.at FROM {given} WHERE customer.id = given.customer", wake, ["customer", "at"]
)


async def set_wakes(connection: AsyncConnection, wakes: Sequence[tuple[int, int | None]]) -> None:
    """For each customer, whose row must be locked and be told the same, when it is looked at; None: never."""
    await _SET(connection, [(customer, at) for customer, at in wakes if at is not None])
    await _CLEAR(connection, [(customer,) for customer, at in wakes if at is None])


async def move_wakes(connection: AsyncConnection, wakes: Sequence[tuple[int, int | None]]) -> None:
    """The same, and tells their rows, which need not be locked yet."""
    await _MIRROR(connection, wakes)
    await set_wakes(connection, wakes)


async def due_customers(
    connection: AsyncConnection, before: int, after: tuple[int, int], limit: int
) -> list[tuple[int, int]]:
    """(at, customer) of those to look at before an instant, the longest due first, from beyond one of them on."""
    query = (
        select(wake.c.at, wake.c.customer)
        .where(wake.c.at < before, tuple_(wake.c.at, wake.c.customer) > tuple_(*after))
        .order_by(wake.c.at, wake.c.customer)
        .limit(limit)
    )
    return [(at, customer) for at, customer in await connection.execute(query)]


async def next_wake(connection: AsyncConnection) -> int | None:
    """When the first customer has to be looked at."""
    at = (await connection.execute(select(func.min(wake.c.at)))).scalar()
    return None if at is None else int(at)
