"""Who belongs to whom: the facts that decide it, and what was known of it when.

The facts are rows of `touchpoint`: those that name an anonymous id beside a customer_id, and merges. `customer.owner`
is who it is now, `ownership` what was known of it when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.touchpoints import MERGE, OVERRIDE, UNMERGE, Place
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.rows import Statement
from lifecycle_engine.store.tables import customer, ownership, touchpoint


class LinkFact(NamedTuple):
    """A fact that names an anonymous id and a customer_id, the latter by its row."""

    anonymous_id: str
    customer: int
    type: str
    place: Place


class MergeFact(NamedTuple):
    """A merge or unmerge of a customer_id, by its row; `body` says into which."""

    customer: int
    type: str
    place: Place
    body: bytes


class Membership(NamedTuple):
    """From an instant on (microseconds since the epoch) a row belongs to another; None: to nobody."""

    identity: int
    owner: int | None
    recorded_at: int


_LINKS = Statement(
    "SELECT touchpoint.anonymous_id, touchpoint.customer, touchpoint.type, touchpoint.occurred_at, touchpoint.id, "
    "touchpoint.source FROM {given} JOIN touchpoint ON touchpoint.anonymous_id = given.anonymous_id "
    "WHERE touchpoint.retracted_at IS NULL",
    touchpoint,
    ["anonymous_id"],
)
_NAMED_BEFORE = Statement(
    "SELECT given.anonymous_id, given.customer FROM {given} WHERE EXISTS (SELECT 1 FROM touchpoint AS earlier "
    "WHERE earlier.anonymous_id = given.anonymous_id AND earlier.customer = given.customer "
    f"AND earlier.type <> '{OVERRIDE}' AND earlier.retracted_at IS NULL "
    "AND (earlier.occurred_at, earlier.id, earlier.source) < (given.occurred_at, given.id, given.source))",
    touchpoint,
    ["anonymous_id", "customer", "occurred_at", "id", "source"],
)
_MERGES = Statement(
    "SELECT touchpoint.customer, touchpoint.type, touchpoint.occurred_at, touchpoint.id, touchpoint.source, "
    "touchpoint.body FROM {given} JOIN touchpoint ON touchpoint.customer = given.customer "
    f"WHERE touchpoint.type IN ('{MERGE}', '{UNMERGE}') AND touchpoint.retracted_at IS NULL",
    touchpoint,
    ["customer"],
)
_OWNED = Statement(
    "SELECT customer.id, customer.kind, customer.value, customer.owner FROM {given} "
    "JOIN customer ON customer.owner = given.owner",
    customer,
    ["owner"],
)
_OWNER_OF = Statement(
    "SELECT customer.id, customer.kind, customer.value, customer.owner FROM {given} "
    "JOIN customer ON customer.kind = given.kind AND customer.value = given.value",
    customer,
    ["kind", "value"],
)
_SUPERSEDE = Statement(
    "UPDATE ownership SET superseded_at = given.recorded_at FROM {given} "
    "WHERE ownership.identity = given.identity AND ownership.superseded_at IS NULL",
    ownership,
    ["identity", "recorded_at"],
)
_ADD = Statement(
    "INSERT INTO ownership (identity, owner, recorded_at) SELECT identity, owner, recorded_at FROM {given}",
    ownership,
    ["identity", "owner", "recorded_at"],
)


_SET_OWNER = Statement(
    "UPDATE customer SET owner = given.owner FROM {given} WHERE customer.id = given.identity",
    ownership,
    ["identity", "owner"],
)


class Member(NamedTuple):
    """A row and whom it belongs to now; None: to nobody."""

    id: int
    identity: Identity
    owner: int | None


async def links_of(connection: AsyncConnection, anonymous_ids: Iterable[str]) -> list[LinkFact]:
    """Every link and unlink of these anonymous ids, in no order."""
    rows = await _LINKS(connection, [(value,) for value in sorted(set(anonymous_ids))])
    return [LinkFact(value, row, type_, Place(*place)) for value, row, type_, *place in rows]


async def named_before(connection: AsyncConnection, pairs: Mapping[tuple[str, int], Place]) -> set[tuple[str, int]]:
    """Those of these pairs, of an anonymous id and a row, that a link or an unlink names before a place."""
    given = [(*pair, *place) for pair, place in pairs.items()]
    return {(value, row) for value, row in await _NAMED_BEFORE(connection, given)}


async def merges_of(connection: AsyncConnection, customers: Iterable[int]) -> list[MergeFact]:
    """Every merge and unmerge of these rows, in no order."""
    rows = await _MERGES(connection, [(row,) for row in sorted(set(customers))])
    return [MergeFact(row, type_, Place(at, id_, source), body) for row, type_, at, id_, source, body in rows]


async def owned_by(connection: AsyncConnection, owners: Iterable[int]) -> list[Member]:
    """Every row that belongs to one of these now."""
    rows = await _OWNED(connection, [(owner,) for owner in sorted(set(owners))])
    return [Member(id_, Identity(kind, value), owner) for id_, kind, value, owner in rows]


async def members_named(connection: AsyncConnection, identities: Iterable[Identity]) -> list[Member]:
    """The rows of these identities, unlocked, where there are any."""
    rows = await _OWNER_OF(connection, sorted(set(identities)))
    return [Member(id_, Identity(kind, value), owner) for id_, kind, value, owner in rows]


async def record_memberships(connection: AsyncConnection, memberships: Sequence[Membership]) -> None:
    """Supersedes what was known of whom these rows belong to."""
    await _SUPERSEDE(connection, [(one.identity, one.recorded_at) for one in memberships])
    await _ADD(connection, [one for one in memberships if one.owner is not None])


async def set_owners(connection: AsyncConnection, memberships: Sequence[Membership]) -> None:
    """Says whom these rows, which must be locked, belong to now."""
    await _SET_OWNER(connection, [(one.identity, one.owner) for one in memberships])
