"""What one transaction folds, and what it then writes: history, notices, states, checkpoints and wakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.engine.announcements import next_look, remember, remembered, to_announce, to_withdraw
from lifecycle_engine.engine.definitions import DefinitionSet
from lifecycle_engine.engine.notices import customer_merged, history_corrected, stage_changed, stage_expiring
from lifecycle_engine.engine.refold import END, Again, Refold, refold
from lifecycle_engine.lifecycle.fold import fold, subject_of
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, Place
from lifecycle_engine.log.message import Fact
from lifecycle_engine.store.changes import ChangeRow, add_changes
from lifecycle_engine.store.checkpoints import keep_checkpoints
from lifecycle_engine.store.customers import CustomerRow, CustomerUpdate, write_customers
from lifecycle_engine.store.history import Line, append_lines, supersede_lines
from lifecycle_engine.store.states import Announced
from lifecycle_engine.store.touchpoints import known_before, mark_late
from lifecycle_engine.store.wakes import set_wakes

QUIET = 5_000_000
"""Microseconds for which a customer must have been quiet before what was past when it was set takes effect."""


class Task(NamedTuple):
    """A customer, its new facts, and why it has to be folded again, if it has to.

    `dirty` is the place of the first fact that counts no more. `anew` folds all of it again, up to and at `upto`, as
    others belong to it now; `muted` then tells whether nobody is told. `owns` is false for a row that belongs to
    another one now. What is due is worked through up to and at `until` (microseconds since the epoch, UTC).
    """

    customer: CustomerRow
    facts: Sequence[Fact]
    owns: bool = True
    dirty: Place | None = None
    anew: bool = False
    upto: Place | None = None
    muted: bool = True
    until: int | None = None


class _Plan(NamedTuple):
    task: Task
    late: list[Fact]
    ordered: list[Fact]
    again: Again | None


class Work:
    """Collects what one transaction is going to write; `quiet` is in microseconds."""

    def __init__(self, definitions: DefinitionSet, quiet: int = QUIET) -> None:
        self._definitions = definitions
        self._quiet = quiet
        self._lines: list[Line] = []
        self._superseded: list[tuple[Line, int]] = []
        self._changes: list[ChangeRow] = []
        self._past: dict[int, tuple[int, int]] = {}
        """The places among the changes of moves before a lifecycle's activation: whose, and when that was."""
        self._checkpoints: list[tuple[int, CustomerState]] = []
        self._customers: list[CustomerUpdate] = []
        self._wakes: list[tuple[int, int | None]] = []
        self._late: list[tuple[str, str]] = []

    async def fold(self, connection: AsyncConnection, tasks: Sequence[Task], now: int) -> int:
        """Folds each task's new facts into its locked row; gives how many facts were late."""
        plans = [self._planned(task) for task in tasks]
        again = [plan.again for plan in plans if plan.again is not None]
        refolds = await refold(connection, self._definitions.active, again) if again else {}
        for plan in plans:
            customer = plan.task.customer
            self._one(plan, refolds.get(customer.id), max(now, customer.recorded_at + 1))
        return sum(len(plan.late) for plan in plans)

    async def write(self, connection: AsyncConnection) -> None:
        await self._mute_the_past(connection)
        await supersede_lines(connection, self._superseded)
        await append_lines(connection, self._lines)
        await add_changes(connection, self._changes)
        await keep_checkpoints(connection, self._checkpoints)
        await mark_late(connection, sorted(self._late))
        await set_wakes(connection, self._wakes)
        await write_customers(connection, self._customers)

    async def _mute_the_past(self, connection: AsyncConnection) -> None:
        """What a lifecycle brought about by itself before it was activated is no news, whenever that is worked through.

        Of customers who came after that it is: what led to it has been told.
        """
        known = await known_before(connection, self._past.values())
        for number, one in self._past.items():
            if one in known:
                self._changes[number] = self._changes[number]._replace(muted=True)

    def tell_of_merger(self, merged: CustomerRow, into: CustomerRow, now: int, *, muted: bool) -> None:
        """Who had been a customer of its own now belongs to another one."""
        recorded_at = max(now, merged.recorded_at + 1, into.recorded_at + 1)
        self._changes.append(customer_merged(merged, into, recorded_at, muted=muted))

    def _planned(self, task: Task) -> _Plan:
        customer = task.customer
        ordered = sorted(task.facts, key=lambda fact: fact.touchpoint.place)
        place = customer.state.place if customer.state is not None else None if customer.is_new else END
        if task.anew:
            place = task.upto if customer.state is not None or customer.is_new else END
        late = [] if place is None else [fact for fact in ordered if fact.touchpoint.place < place]
        again = None
        if place is not None:
            is_behind = customer.state is None or customer.definitions != self._definitions.number
            if task.anew or (is_behind and not customer.is_new):
                again = Again(customer, None, place, task.owns)
            elif late or task.dirty is not None:
                places = [fact.touchpoint.place for fact in late[:1]]
                places += [task.dirty] if task.dirty is not None else []
                again = Again(customer, min(places), place, task.owns)
        return _Plan(task, late, ordered[len(late) :], again)

    def _one(self, plan: _Plan, again: Refold | None, recorded_at: int) -> None:
        customer, ordered = plan.task.customer, plan.ordered
        state = customer.state or UNKNOWN
        events: list[Event] = []
        if again is not None:
            self._correct(plan, again, recorded_at)
            state = again.state
            events += again.events
            self._checkpoints += [(customer.id, checkpoint) for checkpoint in again.checkpoints]
        if ordered:
            following: list[Event] = []
            state = fold(
                self._definitions.active,
                [fact.touchpoint for fact in ordered],
                state,
                following.append,
                lambda checkpoint: self._checkpoints.append((customer.id, checkpoint)),
            )
            muted_places = [fact.touchpoint.place for fact in ordered if fact.muted]
            for event in following:
                muted = bool(muted_places) and _fact_after(ordered, event).muted
                self._apply(customer, event, recorded_at, muted=muted)
            events += following
        if plan.task.until is not None:
            due, state = self._pass_time(customer, state, plan.task.until, recorded_at)
            events += due
        announced, is_told = self._announce(plan.task, state, events, recorded_at)
        if plan.task.until is not None and again is None and not ordered and not due and not is_told:
            recorded_at = customer.recorded_at
        self._finish(plan.task, state, announced, recorded_at)

    def _pass_time(
        self, customer: CustomerRow, state: CustomerState, until: int, recorded_at: int
    ) -> tuple[list[Event], CustomerState]:
        """What is due for a quiet customer up to and at an instant."""
        events: list[Event] = []
        state = fold(self._definitions.active, (), state, events.append, until=until)
        for event in events:
            muted = _is_of_import(customer, event.at) or not self._is_news(customer, event.lifecycle)
            self._apply(customer, event, recorded_at, muted=muted)
        return events, state

    def _announce(
        self, task: Task, state: CustomerState, events: Iterable[Event], recorded_at: int
    ) -> tuple[Announced, bool]:
        """Withdraws what is not so any more, then announces what is; what stands now, and whether anything was told."""
        customer, active = task.customer, self._definitions.active
        announced, told = customer.announced, len(self._changes)
        if announced:
            muted = bool(task.facts) and all(fact.muted for fact in task.facts)
            for withdrawn in to_withdraw(active, state, announced, events):
                self._changes.append(stage_expiring(customer, withdrawn, recorded_at, muted=muted, withdrawn=True))
            announced = remembered(announced, active, state)
        if task.until is not None:
            for at, one in to_announce(active, state, announced, task.until):
                muted = _is_of_import(customer, at)
                self._changes.append(stage_expiring(customer, one, recorded_at, muted=muted))
                remember(announced, one)
        return announced, len(self._changes) > told

    def _correct(self, plan: _Plan, again: Refold, recorded_at: int) -> None:
        """Records what differs, and tells of each journey whose stays changed."""
        customer, late = plan.task.customer, plan.late
        self._superseded += [(line, recorded_at) for line in again.superseded]
        journeys: dict[tuple[str, str | None], tuple[list[Event], list[Event]]] = {}
        for line in again.superseded:
            if line.event.is_stay:
                journeys.setdefault((line.event.lifecycle, line.event.subject), ([], []))[0].append(line.event)
        for event in again.added:
            self._line(customer, event, recorded_at)
            if event.is_stay:
                journeys.setdefault((event.lifecycle, event.subject), ([], []))[1].append(event)
        ends = {journey: max(line.place for both in lines for line in both) for journey, lines in journeys.items()}
        self._late += [
            (fact.touchpoint.source, fact.touchpoint.id)
            for fact in late
            if any(self._bears_on(fact, *journey, end) for journey, end in ends.items())
        ]
        for (lifecycle, subject), (replaced, by) in journeys.items():
            # What a newly activated lifecycle makes of the past is history, and no news.
            is_muted = not self._is_news(customer, lifecycle) or (plan.task.muted and all(fact.muted for fact in late))
            self._changes.append(history_corrected(customer, replaced, by, recorded_at, muted=is_muted))
            was, now = again.stage_before(lifecycle, subject), again.state.journey(lifecycle, subject)
            if now is not None and was != now.current.stage:
                opening = again.opening(lifecycle, subject)
                self._changes.append(
                    stage_changed(
                        customer, opening, was, customer.sequences, recorded_at, muted=is_muted, correction=True
                    )
                )

    def _bears_on(self, fact: Fact, lifecycle: str, subject: str | None, end: Place) -> bool:
        """Whether a fact is about a journey, and comes before the end of what has changed in it."""
        touchpoint = fact.touchpoint
        if touchpoint.place > end:
            return False
        if touchpoint.type == OVERRIDE:
            about = touchpoint.properties["lifecycle"], touchpoint.properties.get("subject")
            return about == (lifecycle, subject)
        definition = self._definitions.active[lifecycle][0].definition
        return touchpoint.type == IDENTIFY or subject_of(definition, touchpoint) == subject

    def _apply(self, customer: CustomerRow, event: Event, recorded_at: int, *, muted: bool) -> None:
        self._line(customer, event, recorded_at)
        if event.is_stay:
            if not muted and event.touchpoint is None and event.at < self._definitions.activated_at[event.lifecycle]:
                self._past[len(self._changes)] = (customer.id, self._definitions.activated_at[event.lifecycle])
            self._changes.append(
                stage_changed(customer, event, event.origin, customer.sequences, recorded_at, muted=muted)
            )

    def _line(self, customer: CustomerRow, event: Event, recorded_at: int) -> None:
        self._lines.append(Line(customer.id, recorded_at, len(self._lines), event))

    def _finish(self, task: Task, state: CustomerState, announced: Announced, recorded_at: int) -> None:
        """Writes the row, and when it is looked at though no fact comes."""
        customer = task.customer
        wake = customer.wake
        look = next_look(self._definitions.active, state, announced)
        if look is not None and look <= recorded_at:
            look = recorded_at + self._quiet
        if task.until is not None or (look is not None and (wake is None or look < wake)):
            if look != wake:
                self._wakes.append((customer.id, look))
            wake = look
        self._customers.append(
            CustomerUpdate(
                customer.id,
                self._definitions.number,
                state,
                customer.sequences,
                announced,
                recorded_at,
                _is_muted(task),
                wake,
            )
        )

    def _is_news(self, customer: CustomerRow, lifecycle: str) -> bool:
        return self._definitions.activated_in[lifecycle] <= customer.definitions


def _is_muted(task: Task) -> bool:
    """Whether what the customer's history goes back to last was muted."""
    if not task.facts and not task.anew:
        return task.customer.muted
    return all(fact.muted for fact in task.facts) and (task.muted or not task.anew)


def _is_of_import(customer: CustomerRow, at: int) -> bool:
    """Whether what is due at an instant was past when an import, of which nobody is told, brought it about."""
    return customer.muted and at <= customer.recorded_at


def _fact_after(ordered: Sequence[Fact], event: Event) -> Fact:
    """The fact that brought an event about: the one that caused it, or the one that let time pass up to it."""
    return next(fact for fact in ordered if fact.touchpoint.place >= event.place)
