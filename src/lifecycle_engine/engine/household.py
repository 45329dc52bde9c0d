"""Whose facts they are: the rows that a transaction locks, and what its facts change about who belongs to whom.

A customer's history stands under one row, the root; rows that belong to it have facts, and no history of their own.
Rows are locked in one order, anonymous ids before customer_ids, each by its value, and new ones are made after
that; whoever needs another one on the way begins anew with it, rather than lock it out of order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.engine.identities import is_link, linked_to, roots
from lifecycle_engine.engine.refold import END
from lifecycle_engine.engine.work import Task
from lifecycle_engine.lifecycle.touchpoints import LINK, MERGE, RETRACT, UNLINK, UNMERGE, Place, is_folded
from lifecycle_engine.log.message import Fact, decode_body
from lifecycle_engine.store.customers import CustomerRow, Identity, lock_customers, make_customers, names_of
from lifecycle_engine.store.ownership import (
    Membership,
    links_of,
    members_named,
    merges_of,
    named_before,
    owned_by,
    record_memberships,
    set_owners,
)
from lifecycle_engine.store.touchpoints import NOBODY, StoredFact, find_facts

_MERGES = (MERGE, UNMERGE)


class WiderError(Exception):
    """More rows have to be locked than were: begin anew with these identities besides."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        super().__init__("more customers are concerned")
        self.identities = set(identities)


class Removal(NamedTuple):
    """A row that belongs to another root from now on."""

    row: CustomerRow
    was: CustomerRow
    root: CustomerRow
    muted: bool

    @property
    def joins(self) -> bool:
        """Whether it had been a customer of its own, of whom something was known, and is none any more."""
        return self.was.id == self.row.id and not self.row.is_new


def identity_of(fact: Fact) -> Identity:
    """The identity that a fact is stored under: a customer_id, where it names one."""
    if fact.touchpoint.customer_id is not None:
        return Identity("customer_id", fact.touchpoint.customer_id)
    return Identity("anonymous_id", fact.touchpoint.anonymous_id or "")


def anonymous_id_of(fact: Fact) -> str | None:
    """The anonymous id that a fact names beside the customer_id that it is stored under."""
    return fact.touchpoint.anonymous_id if fact.touchpoint.customer_id is not None else None


async def lock_household(
    connection: AsyncConnection, facts: Sequence[Fact], also: Iterable[Identity], definitions: int
) -> Household:
    """Locks the rows of all whom these facts concern, and of those they belong to. Raises WiderError."""
    named = {identity_of(fact) for fact in facts if fact.touchpoint.type != RETRACT} | set(also)
    named |= {Identity("anonymous_id", one) for fact in facts if (one := anonymous_id_of(fact)) is not None}
    reserved = [fact for fact in facts if fact.touchpoint.type[0] == "$"]
    if reserved:
        named |= await _concerned(connection, reserved)
    anonymous = {identity for identity in named if identity.kind == "anonymous_id"}
    rows = await lock_customers(connection, anonymous)
    owners = {row.owner for row in rows.values() if row.owner is not None}
    named |= set((await names_of(connection, owners)).values()) if owners else set()
    rows |= await lock_customers(connection, named - anonymous)
    if missing := named - rows.keys():
        rows |= await make_customers(connection, missing, definitions)
        if others := missing - rows.keys():
            # Another transaction has made them in the meantime; to lock them now would be out of order.
            raise WiderError(others)
    household = Household(rows)
    await household.require(connection, [row.owner for row in rows.values() if row.owner is not None])
    return household


async def _concerned(connection: AsyncConnection, reserved: Sequence[Fact]) -> set[Identity]:
    """Whom facts that are not touchpoints may concern besides those they name; a guess, as nothing is locked yet."""
    named: set[Identity] = set()
    unlinked: set[str] = set()
    merged: set[Identity] = set()
    retracted = []
    for fact in reserved:
        type_, properties = fact.touchpoint.type, fact.touchpoint.properties
        if type_ in _MERGES:
            merged.add(identity_of(fact))
            if type_ == MERGE:
                merged.add(Identity("customer_id", properties["into"]))
        elif type_ == UNLINK:
            unlinked.add(fact.touchpoint.anonymous_id or "")
        elif type_ == RETRACT:
            retracted.append((properties["source"], properties["id"]))
    for stored in await find_facts(connection, retracted) if retracted else []:
        if stored.customer == NOBODY:
            continue
        name = (await names_of(connection, [stored.customer]))[stored.customer]
        named.add(name)
        if stored.anonymous_id is not None:
            unlinked.add(stored.anonymous_id)
        if stored.type in _MERGES:
            merged.add(name)
            if stored.type == MERGE:
                merged.add(_into(stored.body))
    if unlinked:
        named |= {Identity("anonymous_id", one) for one in unlinked}
        named |= set(
            (await names_of(connection, {link.customer for link in await links_of(connection, unlinked)})).values()
        )
    if merged:
        named |= merged
        found = await members_named(connection, merged)
        owners = {member.owner or member.id for member in found}
        named |= set((await names_of(connection, owners)).values())
        named |= {member.identity for member in await owned_by(connection, owners)}
    return named


class Household:
    """The locked rows, and whom each of them belongs to, before and after the facts of this transaction."""

    def __init__(self, rows: dict[Identity, CustomerRow]) -> None:
        self._rows = rows
        self._customers = {identity.value: row for identity, row in rows.items() if identity.kind == "customer_id"}
        self._by_id = {row.id: row for row in rows.values()}
        self._owners = {row.id: row.owner for row in rows.values()}

    def row(self, identity: Identity) -> CustomerRow:
        return self._rows[identity]

    def row_of(self, fact: Fact) -> CustomerRow:
        """The row that a fact is stored under."""
        customer_id = fact.touchpoint.customer_id
        return self._rows[identity_of(fact)] if customer_id is None else self._customers[customer_id]

    def root(self, row: CustomerRow) -> CustomerRow:
        """The row that has the history of a row's customer."""
        owner = self._owners[row.id]
        return row if owner is None else self._by_id[owner]

    async def require(self, connection: AsyncConnection, ids: Iterable[int], anonymous_ids: Iterable[str] = ()) -> None:
        """Sees to it that these rows are locked. Raises WiderError."""
        missing = {Identity("anonymous_id", value) for value in anonymous_ids} - self._rows.keys()
        if unlocked := set(ids) - self._by_id.keys():
            missing |= set((await names_of(connection, unlocked)).values())
        if missing:
            raise WiderError(missing)

    async def settle(
        self, connection: AsyncConnection, facts: Sequence[Fact], retracted: Sequence[StoredFact], now: int
    ) -> tuple[list[Removal], int]:
        """Decides anew who belongs to whom, where facts say something about it, and records it.

        Also gives the instant at which all of it is known. Raises WiderError.
        """
        customers = {self.row_of(fact).id for fact in facts if fact.touchpoint.type in _MERGES}
        customers |= {fact.customer for fact in retracted if fact.type in _MERGES}
        anonymous = {fact.anonymous_id for fact in retracted if fact.anonymous_id is not None}
        # What is retracted may have come only after the rows were locked.
        await self.require(connection, [fact.customer for fact in retracted], anonymous)
        anonymous |= await self._relinked(connection, facts)
        if not customers and not anonymous:
            return [], now
        owners: dict[int, int | None] = {}
        if customers:
            owners, besides = await self._merged(connection, customers)
            anonymous |= besides
        linked = linked_to(await links_of(connection, anonymous))
        await self.require(connection, linked.values())
        for value in anonymous:
            owner = linked.get(value)
            if owner is not None:
                owner = (owners[owner] if owner in owners else self._by_id[owner].owner) or owner
            owners[self.row(Identity("anonymous_id", value)).id] = owner
        removals = []
        for id_, owner in sorted(owners.items()):
            row = self._by_id[id_]
            if owner != row.owner:
                root = self._by_id[id_ if owner is None else owner]
                removals.append(Removal(row, self.root(row), root, _is_muted(row.identity, facts)))
        self._owners.update(owners)
        if removals:
            # Of one instant for all, so that nobody ever sees somebody in two households, or in none.
            now = max(now, *(row.recorded_at + 1 for row in self._rows.values()))
            memberships = [Membership(one.row.id, owners[one.row.id], now) for one in removals]
            await record_memberships(connection, memberships)
            await set_owners(connection, memberships)
        return removals, now

    async def _relinked(self, connection: AsyncConnection, facts: Sequence[Fact]) -> set[str]:
        """The anonymous ids that these facts may give to somebody else."""
        anonymous: set[str] = set()
        named: dict[tuple[str, int], Place] = {}
        for fact in facts:
            value, type_ = anonymous_id_of(fact), fact.touchpoint.type
            if value is None or not (type_ == UNLINK or is_link(type_)):
                continue
            row = self.row_of(fact)
            if type_ == UNLINK or (type_ == LINK and not self._are_one(value, row)):
                anonymous.add(value)
            elif not self._are_one(value, row):
                place = fact.touchpoint.place
                named[value, row.id] = min(place, named.get((value, row.id), place))
        if named:
            # After another link of the pair it can't be the first one, and after an unlink it doesn't count.
            known = await named_before(connection, named)
            anonymous |= {value for value, row in named.keys() - known}
        return anonymous

    def _are_one(self, anonymous_id: str, row: CustomerRow) -> bool:
        return self._owners[self.row(Identity("anonymous_id", anonymous_id)).id] == (row.owner or row.id)

    async def _merged(self, connection: AsyncConnection, customers: set[int]) -> tuple[dict[int, int | None], set[str]]:
        """Whom each customer_id of these households belongs to now, and the anonymous ids in them."""
        merges = await merges_of(connection, customers)
        targets = {_into(one.body) for one in merges if one.type == MERGE}
        if missing := [target for target in targets if target not in self._rows]:
            raise WiderError(missing)
        concerned = customers | {self._rows[target].id for target in targets}
        households = {self.root(self._by_id[id_]).id for id_ in concerned}
        members = await owned_by(connection, households)
        await self.require(connection, [*households, *(member.id for member in members)])
        within = households | {member.id for member in members if member.identity.kind == "customer_id"}
        last = {}
        for one in sorted(await merges_of(connection, within), key=lambda one: one.place):
            last[one.customer] = one
        into: dict[int, tuple[Place, int]] = {}
        for id_, one in last.items():
            if one.type == MERGE:
                if (target := _into(one.body)) not in self._rows:
                    raise WiderError([target])
                into[id_] = one.place, self._rows[target].id
        merged = roots(into)
        owners = {id_: merged.get(id_) for id_ in within if self._by_id[id_].identity.kind == "customer_id"}
        return owners, {member.identity.value for member in members if member.identity.kind == "anonymous_id"}

    def tasks(self, facts: Sequence[Fact], retracted: Sequence[StoredFact], removals: Sequence[Removal]) -> list[Task]:
        """What is to be folded: for each customer its new facts, and whether it has to be folded again."""
        new: dict[int, list[Fact]] = defaultdict(list)
        for fact in facts:
            if is_folded(fact.touchpoint.type):
                new[self.root(self.row_of(fact)).id].append(fact)
        dirty: dict[int, Place] = {}
        for stored in retracted:
            if is_folded(stored.type):
                root = self.root(self._by_id[stored.customer]).id
                dirty[root] = min(dirty.get(root, stored.place), stored.place)
        upset: dict[int, bool] = {}
        for removal in removals:
            if not removal.row.is_new:
                for row in (removal.was, removal.root, removal.row):
                    upset[row.id] = upset.get(row.id, True) and removal.muted
        new_rows = {one.row.id for one in removals if one.row.is_new}
        # What a retraction changes is as muted as the retraction itself.
        retracts_muted = all(fact.muted for fact in facts if fact.touchpoint.type == RETRACT)
        upto = self._worked_through(upset)
        return [
            Task(
                self._by_id[id_],
                new.get(id_, []),
                owns=self._owners[id_] is None,
                dirty=dirty.get(id_),
                anew=id_ in upset,
                upto=upto if id_ in upset else None,
                muted=upset.get(id_, id_ not in dirty or retracts_muted),
            )
            for id_ in sorted({*new, *dirty, *upset, *new_rows})
        ]

    def _worked_through(self, ids: Iterable[int]) -> Place | None:
        """How far the histories had come that now are cut or joined."""
        rows = [self._by_id[id_] for id_ in ids]
        if any(row.state is None and not row.is_new for row in rows):
            return END
        return max((row.state.place for row in rows if row.state is not None and row.state.place), default=None)


def _is_muted(identity: Identity, facts: Iterable[Fact]) -> bool:
    """Whether all that may have moved somebody to another household was muted."""
    moving = [
        fact.muted
        for fact in facts
        if fact.touchpoint.type in (*_MERGES, RETRACT)
        or (identity.kind == "anonymous_id" and anonymous_id_of(fact) == identity.value)
    ]
    return bool(moving) and all(moving)


def _into(body: bytes) -> Identity:
    return Identity("customer_id", decode_body(body)[0]["into"])
