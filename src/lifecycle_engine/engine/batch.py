"""The transaction: a batch of the log becomes facts, states, history, notices and the next position, or nothing does.

The steps, in the order in which they must come:

1. hold the set of definitions, so that nothing is committed under an older one;
2. lock the customers in their sorted order: from here on each has one writer;
3. read the clock: what is recorded now is known from now on;
4. store the facts; those whose id is taken are duplicates or conflicts and go no further; retract what is retracted;
5. decide who belongs to whom, where a fact says something about that;
6. fold: what is in order is applied one by one, what is late re-folds its customer;
7. write the history, the notices and the states;
8. move the positions by compare-and-set; where another worker has been, all of it is rolled back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.engine.definitions import DefinitionSet, DefinitionSetMovedError
from lifecycle_engine.engine.flood import FloodError
from lifecycle_engine.engine.household import Household, WiderError, anonymous_id_of, lock_household
from lifecycle_engine.engine.work import QUIET, Work
from lifecycle_engine.lifecycle.touchpoints import RETRACT
from lifecycle_engine.log.message import Fact, InvalidMessageError, decode, find_name
from lifecycle_engine.log.port import Delivery
from lifecycle_engine.store.customers import Identity
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.dead_letters import DeadLetter, add_dead_letters
from lifecycle_engine.store.lifecycles import clock_and_definitions, hold_definitions
from lifecycle_engine.store.positions import begin_positions, move_positions
from lifecycle_engine.store.touchpoints import (
    NOBODY,
    StoredFact,
    TouchpointRow,
    add_conflicts,
    add_touchpoints,
    contents,
    count_repeats,
    retract,
    take_place,
)

UNPROCESSABLE = "cannot_be_processed"
"""The code of a record that could be read, and yet fails whenever it is tried."""


class Outcome(NamedTuple):
    """What a committed batch came to, for the figures: records, new facts, late ones, dead letters."""

    records: int
    accepted: int
    late: int
    dead: int


class _Decoded(NamedTuple):
    delivery: Delivery
    fact: Fact


_Unreadable = tuple[Delivery, InvalidMessageError]


async def apply_batch(
    database: Database,
    definitions: DefinitionSet,
    log: str,
    deliveries: Sequence[Delivery],
    begun: Container[int] = (),
    quiet: int = QUIET,
    room: int | None = None,
) -> Outcome:
    """Applies deliveries, in order and without gaps within each partition, in one transaction.

    `begun` are the partitions known to have a stored position; `quiet` is how long, in microseconds, a customer must be
    quiet before what was past when it was set takes effect; of what cannot be read, `room` records may be set
    aside (None: all).
    Raises PositionMovedError, DefinitionSetMovedError or FloodError, and then nothing has happened.
    """
    decoded, unreadable = _decode(deliveries)
    if room is not None and len(unreadable) > room:
        _, error = unreadable[room]
        raise FloodError(error.code, str(error))
    also: set[Identity] = set()
    while True:
        try:
            return await _apply(database, definitions, log, deliveries, decoded, unreadable, begun, also, quiet)
        except WiderError as wider:
            # Somebody's household has turned out to be larger; locks taken out of order could meet in a circle.
            also |= wider.identities


async def _apply(
    database: Database,
    definitions: DefinitionSet,
    log: str,
    deliveries: Sequence[Delivery],
    decoded: Sequence[_Decoded],
    unreadable: Sequence[_Unreadable],
    begun: Container[int],
    also: set[Identity],
    quiet: int,
) -> Outcome:
    async with database.transaction() as connection:
        await hold_definitions(connection)
        household = await lock_household(connection, [item.fact for item in decoded], also, definitions.number)
        now, number = await clock_and_definitions(database, connection)
        if number != definitions.number:
            raise DefinitionSetMovedError
        accepted = await _store(connection, decoded, household, now)
        retracted = await _retract(connection, accepted, now)
        gone = {(fact.source, fact.id) for fact in retracted}
        facts = [item.fact for item in accepted if _name(item.fact) not in gone]
        removals, now = await household.settle(connection, facts, retracted, now)
        tasks = household.tasks(facts, retracted, removals)
        work = Work(definitions, quiet)
        late = await work.fold(connection, tasks, now)
        for removal in removals:
            if removal.joins:
                work.tell_of_merger(removal.row, removal.root, now, muted=removal.muted)
        await work.write(connection)
        await add_dead_letters(connection, [_dead_letter(log, item, error, now) for item, error in unreadable])
        await _move(connection, log, deliveries, begun)
    return Outcome(len(deliveries), len(accepted), late, len(unreadable))


async def set_aside(database: Database, log: str, delivery: Delivery, error: Exception) -> None:
    """Sets one record aside that cannot be processed, and moves the position past it, in one transaction."""
    async with database.transaction() as connection:
        now = await database.clock(connection)
        await add_dead_letters(connection, [_dead_letter(log, delivery, error, now)])
        await _move(connection, log, [delivery])


async def _store(
    connection: AsyncConnection, decoded: Sequence[_Decoded], household: Household, now: int
) -> list[_Decoded]:
    """Stores the facts whose id is new and gives them; the rest is counted as duplicates or recorded as conflicts."""
    first: dict[tuple[str, str], _Decoded] = {}
    repeats: list[_Decoded] = []
    for item in decoded:
        if first.setdefault(_name(item.fact), item) is not item:
            repeats.append(item)
    # In one order, so that two transactions that bring the same ids wait for each other and never in a circle.
    rows = [_row(first[name].fact, household, now) for name in sorted(first)]
    fresh = await add_touchpoints(connection, rows)
    repeats += [item for name, item in first.items() if name not in fresh]
    if repeats:
        standing = await contents(connection, [_name(item.fact) for item in repeats])
        counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        conflicts, absent = [], {}
        for item in repeats:
            name = _name(item.fact)
            if not standing[name]:
                absent[name] = _row(item.fact, household, now)
            elif item.fact.content == standing[name]:
                counts[name][0] += 1
            else:
                counts[name][1] += 1
                conflicts.append((*name, item.fact.content, item.delivery.value or b"", now))
        await count_repeats(connection, [(*name, same, other) for name, (same, other) in sorted(counts.items())])
        await add_conflicts(connection, conflicts)
        await take_place(connection, list(absent.values()))
        # A retraction holds, also one that was retracted before it came.
        fresh |= {name for name, row in absent.items() if row.type == RETRACT}
    return [item for name, item in first.items() if name in fresh]


async def _retract(connection: AsyncConnection, accepted: Sequence[_Decoded], now: int) -> list[StoredFact]:
    """Retracts what the accepted facts say, and gives what had counted until now."""
    named = [item.fact.touchpoint.properties for item in accepted if item.fact.touchpoint.type == RETRACT]
    if not named:
        return []
    return await retract(connection, sorted({(one["source"], one["id"], now) for one in named}))


async def _move(
    connection: AsyncConnection, log: str, deliveries: Sequence[Delivery], begun: Container[int] = ()
) -> None:
    first = {delivery.partition: delivery.follows for delivery in reversed(deliveries)}
    upto = {delivery.partition: delivery.position + 1 for delivery in deliveries}
    await begin_positions(connection, log, {p: position for p, position in first.items() if p not in begun})
    await move_positions(connection, log, {p: (first[p], upto[p]) for p in upto})


def _decode(deliveries: Sequence[Delivery]) -> tuple[list[_Decoded], list[_Unreadable]]:
    decoded, unreadable = [], []
    for delivery in deliveries:
        try:
            decoded.append(_Decoded(delivery, decode(delivery.value or b"")))
        except InvalidMessageError as error:
            unreadable.append((delivery, error))
    return decoded, unreadable


def _dead_letter(log: str, delivery: Delivery, error: Exception, now: int) -> DeadLetter:
    code = error.code if isinstance(error, InvalidMessageError) else UNPROCESSABLE
    reason = str(error) or type(error).__name__
    source, id_ = find_name(delivery.value or b"")
    return DeadLetter(
        log, delivery.partition, delivery.position, delivery.key, delivery.value, source, id_, code, reason[:2000], now
    )


def _name(fact: Fact) -> tuple[str, str]:
    return fact.touchpoint.source, fact.touchpoint.id


def _row(fact: Fact, household: Household, now: int) -> TouchpointRow:
    touchpoint = fact.touchpoint
    customer, recorded_at = NOBODY, now
    if touchpoint.type != RETRACT:
        row = household.row_of(fact)
        customer, recorded_at = row.id, max(now, household.root(row).recorded_at + 1)
    return TouchpointRow(
        touchpoint.source, touchpoint.id, customer, anonymous_id_of(fact), touchpoint.type, touchpoint.occurred_at,
        fact.received_at, recorded_at, fact.content, fact.body, fact.muted,
    )  # fmt: skip
