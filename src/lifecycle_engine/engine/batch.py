"""The transaction: a batch of the log becomes facts, states, history, notices and the next position, or nothing does.

The steps, in the order in which they must come:

1. hold the set of definitions, so that nothing is committed under an older one;
2. lock the customers in their sorted order: from here on each has one writer;
3. read the clock: what is recorded now is known from now on;
4. store the facts; those whose id is taken are duplicates or conflicts and go no further;
5. fold: what is in order is applied one by one, what is late re-folds its customer;
6. write the history, the notices and the states;
7. move the positions by compare-and-set; where another worker has been, all of it is rolled back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.engine.definitions import DefinitionSet, DefinitionSetMovedError
from lifecycle_engine.engine.notices import history_corrected, stage_changed
from lifecycle_engine.engine.refold import Refold, place_of, refold
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.log.message import Fact, InvalidMessageError, decode
from lifecycle_engine.log.port import Delivery
from lifecycle_engine.store.changes import ChangeRow, add_changes
from lifecycle_engine.store.checkpoints import keep_checkpoints
from lifecycle_engine.store.customers import (
    CustomerRow,
    Identity,
    lock_customers,
    lock_customers_by_id,
    write_customers,
)
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.dead_letters import DeadLetter, add_dead_letters
from lifecycle_engine.store.history import Line, append_lines, supersede_lines
from lifecycle_engine.store.lifecycles import clock_and_definitions, hold_definitions
from lifecycle_engine.store.positions import begin_positions, move_positions
from lifecycle_engine.store.states import Sequences
from lifecycle_engine.store.touchpoints import (
    TouchpointRow,
    add_conflicts,
    add_touchpoints,
    contents,
    count_repeats,
    mark_late,
)


class Outcome(NamedTuple):
    """What a committed batch came to, for the figures: records, new facts, late ones, dead letters."""

    records: int
    accepted: int
    late: int
    dead: int


class _Decoded(NamedTuple):
    delivery: Delivery
    fact: Fact


async def apply_batch(
    database: Database,
    definitions: DefinitionSet,
    log: str,
    deliveries: Sequence[Delivery],
    begun: Container[int] = (),
) -> Outcome:
    """Applies deliveries, in order and without gaps within each partition, in one transaction.

    `begun` are the partitions known to have a stored position. Raises PositionMovedError or DefinitionSetMovedError,
    and then nothing has happened.
    """
    decoded, unreadable = _decode(deliveries)
    async with database.transaction() as connection:
        await hold_definitions(connection)
        work = _Work(definitions)
        identities = {_identity(item.fact) for item in decoded}
        customers = await lock_customers(connection, identities, definitions.number)
        now, number = await clock_and_definitions(database, connection)
        if number != definitions.number:
            raise DefinitionSetMovedError
        accepted = await _store(connection, decoded, customers, now)
        by_customer: dict[Identity, list[Fact]] = defaultdict(list)
        for item in accepted:
            by_customer[_identity(item.fact)].append(item.fact)
        late = await work.fold(
            connection, [(customers[identity], by_customer[identity]) for identity in by_customer], now
        )
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


async def catch_up(database: Database, definitions: DefinitionSet, ids: Sequence[int]) -> None:
    """Folds customers that are behind the active definitions anew, telling nobody; rows by id, in one transaction."""
    async with database.transaction() as connection:
        await hold_definitions(connection)
        customers = await lock_customers_by_id(connection, ids)
        now, number = await clock_and_definitions(database, connection)
        if number != definitions.number:
            raise DefinitionSetMovedError
        work = _Work(definitions)
        behind = [customer for customer in customers if customer.definitions != definitions.number]
        await work.fold(connection, [(customer, []) for customer in behind], now)
        await work.write(connection)


class _Work:
    """What one transaction is going to write."""

    def __init__(self, definitions: DefinitionSet) -> None:
        self._definitions = definitions
        self._lines: list[Line] = []
        self._superseded: list[tuple[Line, int]] = []
        self._changes: list[ChangeRow] = []
        self._checkpoints: list[tuple[int, CustomerState]] = []
        self._customers: list[tuple[int, int, CustomerState, Sequences, int]] = []
        self._late: list[tuple[str, str]] = []

    async def fold(
        self, connection: AsyncConnection, work: Sequence[tuple[CustomerRow, Sequence[Fact]]], now: int
    ) -> int:
        """Folds each customer's new facts into its locked row; gives how many facts were late."""
        again: list[tuple[CustomerRow, Place | None, Place]] = []
        plans: list[tuple[CustomerRow, list[Fact], list[Fact]]] = []
        for customer, facts in work:
            ordered = sorted(facts, key=lambda fact: fact.touchpoint.place)
            is_new = customer.recorded_at == 0
            if customer.state is None:
                place = None if is_new else _END
            else:
                place = customer.state.place
            late = [fact for fact in ordered if place is not None and fact.touchpoint.place < place]
            plans.append((customer, late, ordered[len(late) :]))
            if place is not None and (customer.state is None or customer.definitions != self._definitions.number):
                again.append((customer, None, place))
            elif place is not None and late:
                again.append((customer, late[0].touchpoint.place, place))
        refolds = await refold(connection, self._definitions.active, again) if again else {}
        for customer, late, ordered in plans:
            self._one(customer, refolds.get(customer.id), late, ordered, max(now, customer.recorded_at + 1))
        return sum(len(late) for _, late, _ in plans)

    def _one(
        self,
        customer: CustomerRow,
        again: Refold | None,
        late: Sequence[Fact],
        ordered: Sequence[Fact],
        recorded_at: int,
    ) -> None:
        state = customer.state or UNKNOWN
        if again is not None:
            self._correct(customer, again, late, recorded_at)
            state = again.state
            self._checkpoints += [(customer.id, checkpoint) for checkpoint in again.checkpoints]
        events: list[Event] = []
        state = fold(
            self._definitions.active,
            [fact.touchpoint for fact in ordered],
            state,
            events.append,
            lambda checkpoint: self._checkpoints.append((customer.id, checkpoint)),
        )
        muted = {_name(fact) for fact in ordered if fact.muted}
        for event in events:
            self._line(customer, event, recorded_at)
            if event.is_stay:
                is_muted = (event.source, event.touchpoint) in muted
                self._changes.append(
                    stage_changed(customer, event, event.origin, customer.sequences, recorded_at, muted=is_muted)
                )
        self._customers.append((customer.id, self._definitions.number, state, customer.sequences, recorded_at))

    def _correct(self, customer: CustomerRow, again: Refold, late: Sequence[Fact], recorded_at: int) -> None:
        """Records what differs, and tells of each journey whose stays changed."""
        self._superseded += [(line, recorded_at) for line in again.superseded]
        journeys: dict[tuple[str, str | None], tuple[list[Event], list[Event]]] = {}
        for line in sorted(again.superseded, key=lambda line: place_of(line.event)):
            if line.event.is_stay:
                journeys.setdefault((line.event.lifecycle, line.event.subject), ([], []))[0].append(line.event)
        for event in again.added:
            self._line(customer, event, recorded_at)
            if event.is_stay:
                journeys.setdefault((event.lifecycle, event.subject), ([], []))[1].append(event)
        if journeys:
            self._late += [(fact.touchpoint.source, fact.touchpoint.id) for fact in late]
        for (lifecycle, subject), (replaced, by) in journeys.items():
            # What a newly activated lifecycle makes of the past is history, and no news.
            news = self._definitions.activated_in[lifecycle] <= customer.definitions
            muted = not news or all(fact.muted for fact in late)
            self._changes.append(history_corrected(customer, replaced, by, recorded_at, muted=muted))
            was, now = again.stage_before(lifecycle, subject), again.state.journey(lifecycle, subject)
            if now is not None and was != now.stage:
                self._changes.append(
                    stage_changed(customer, by[-1], was, customer.sequences, recorded_at, muted=muted, correction=True)
                )

    def _line(self, customer: CustomerRow, event: Event, recorded_at: int) -> None:
        self._lines.append(Line(customer.id, recorded_at, len(self._lines), event))

    async def write(self, connection: AsyncConnection) -> None:
        await supersede_lines(connection, self._superseded)
        await append_lines(connection, self._lines)
        await add_changes(connection, self._changes)
        await keep_checkpoints(connection, self._checkpoints)
        await mark_late(connection, sorted(self._late))
        await write_customers(connection, self._customers)


_END = Place(1 << 62, "", "")


async def _store(
    connection: AsyncConnection, decoded: Sequence[_Decoded], customers: dict[Identity, CustomerRow], now: int
) -> list[_Decoded]:
    """Stores the facts whose id is new and gives them; the rest is counted as duplicates or recorded as conflicts."""
    first: dict[tuple[str, str], _Decoded] = {}
    repeats: list[_Decoded] = []
    for item in decoded:
        if first.setdefault(_name(item.fact), item) is not item:
            repeats.append(item)
    # In one order, so that two transactions that bring the same ids wait for each other and never in a circle.
    rows = [_row(first[name].fact, customers[_identity(first[name].fact)], now) for name in sorted(first)]
    fresh = await add_touchpoints(connection, rows)
    repeats += [item for name, item in first.items() if name not in fresh]
    if repeats:
        standing = await contents(connection, [_name(item.fact) for item in repeats])
        counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        conflicts = []
        for item in repeats:
            name = _name(item.fact)
            if item.fact.content == standing[name]:
                counts[name][0] += 1
            else:
                counts[name][1] += 1
                conflicts.append((*name, item.fact.content, item.delivery.value or b"", now))
        await count_repeats(connection, [(*name, same, other) for name, (same, other) in sorted(counts.items())])
        await add_conflicts(connection, conflicts)
    return [item for name, item in first.items() if name in fresh]


async def _move(
    connection: AsyncConnection, log: str, deliveries: Sequence[Delivery], begun: Container[int] = ()
) -> None:
    first = {delivery.partition: delivery.follows for delivery in reversed(deliveries)}
    upto = {delivery.partition: delivery.position + 1 for delivery in deliveries}
    await begin_positions(connection, log, {p: position for p, position in first.items() if p not in begun})
    await move_positions(connection, log, {p: (first[p], upto[p]) for p in upto})


def _decode(deliveries: Sequence[Delivery]) -> tuple[list[_Decoded], list[tuple[Delivery, InvalidMessageError]]]:
    decoded, unreadable = [], []
    for delivery in deliveries:
        try:
            decoded.append(_Decoded(delivery, decode(delivery.value or b"")))
        except InvalidMessageError as error:
            unreadable.append((delivery, error))
    return decoded, unreadable


def _dead_letter(log: str, delivery: Delivery, error: Exception, now: int) -> DeadLetter:
    code = error.code if isinstance(error, InvalidMessageError) else "cannot_be_processed"
    reason = str(error) or type(error).__name__
    source = id_ = None
    if not isinstance(error, InvalidMessageError):
        source, id_ = _name(decode(delivery.value or b""))
    return DeadLetter(
        log, delivery.partition, delivery.position, delivery.key, delivery.value, source, id_, code, reason[:2000], now
    )


def _name(fact: Fact) -> tuple[str, str]:
    return fact.touchpoint.source, fact.touchpoint.id


def _identity(fact: Fact) -> Identity:
    """The identity that a fact is stored under: a customer_id, where it names one."""
    if fact.touchpoint.customer_id is not None:
        return Identity("customer_id", fact.touchpoint.customer_id)
    return Identity("anonymous_id", fact.touchpoint.anonymous_id or "")


def _row(fact: Fact, customer: CustomerRow, now: int) -> TouchpointRow:
    touchpoint = fact.touchpoint
    also = touchpoint.anonymous_id if touchpoint.customer_id is not None else None
    return TouchpointRow(
        touchpoint.source, touchpoint.id, customer.id, also, touchpoint.type, touchpoint.occurred_at,
        fact.received_at, max(now, customer.recorded_at + 1), fact.content, fact.body, fact.muted,
    )  # fmt: skip
