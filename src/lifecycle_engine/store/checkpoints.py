"""States along a customer's facts, so that a late one re-folds from near by."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.states import decode_state, encode_state
from lifecycle_engine.store.tables import checkpoint

_PLACE = "(checkpoint.occurred_at, checkpoint.id, checkpoint.source)"
_GIVEN = "(given.occurred_at, given.id, given.source)"
_NEAREST = Statement(
    "SELECT checkpoint.customer, checkpoint.state FROM {given} JOIN checkpoint "
    f"ON checkpoint.customer = given.customer AND {_PLACE} = ("
    "SELECT nearer.occurred_at, nearer.id, nearer.source FROM checkpoint AS nearer "
    f"WHERE nearer.customer = given.customer AND (nearer.occurred_at, nearer.id, nearer.source) < {_GIVEN} "
    "ORDER BY nearer.occurred_at DESC, nearer.id DESC, nearer.source DESC LIMIT 1)",
    checkpoint,
    ["customer", "occurred_at", "id", "source"],
)
_DROP_AFTER = Statement(
    "DELETE FROM checkpoint WHERE (customer, occurred_at, id, source) IN (SELECT later.customer, later.occurred_at, "
    "later.id, later.source FROM {given} JOIN checkpoint AS later ON later.customer = given.customer "
    f"AND (later.occurred_at, later.id, later.source) > {_GIVEN})",
    checkpoint,
    ["customer", "occurred_at", "id", "source"],
)
_KEEP = Statement(
    "INSERT INTO checkpoint (customer, occurred_at, id, source, state) "
    "SELECT customer, occurred_at, id, source, state FROM {given} WHERE true "
    "ON CONFLICT (customer, occurred_at, id, source) DO UPDATE SET state = excluded.state",
    checkpoint,
    ["customer", "occurred_at", "id", "source", "state"],
)


async def nearest_checkpoints(
    connection: AsyncConnection, places: Sequence[tuple[int, Place]]
) -> dict[int, CustomerState]:
    """For each (customer, place), the state after the last checkpoint before the place, where there is one."""
    rows = await _NEAREST(connection, [(customer, *place) for customer, place in places])
    states = ((customer, decode_state(state)) for customer, state in rows)
    return {customer: state for customer, state in states if state is not None}


async def drop_checkpoints(connection: AsyncConnection, places: Sequence[tuple[int, Place]]) -> None:
    """Forgets each customer's checkpoints after the place."""
    await _DROP_AFTER(connection, [(customer, *place) for customer, place in places])


async def keep_checkpoints(connection: AsyncConnection, states: Sequence[tuple[int, CustomerState]]) -> None:
    """Keeps states; each stands at its own place."""
    rows = [(customer, *state.place, encode_state(state)) for customer, state in states if state.place is not None]
    await _KEEP(connection, rows)
