"""Late facts: the customer is folded again from the nearest checkpoint, and what differs is corrected.

The same serves a customer whose state is behind the active definitions, and one to whom other identities now belong;
there the fold begins at the beginning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.fold import Definitions, fold
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Place, Touchpoint, is_folded
from lifecycle_engine.log.message import decode_body
from lifecycle_engine.store.checkpoints import drop_checkpoints, nearest_checkpoints
from lifecycle_engine.store.customers import CustomerRow
from lifecycle_engine.store.history import Line, visible_lines
from lifecycle_engine.store.ownership import owned_by
from lifecycle_engine.store.touchpoints import StoredFact, facts_from

BEGINNING = Place(-(1 << 62), "", "")
END = Place(1 << 62, "", "")


class Again(NamedTuple):
    """A customer to be folded again: from before `first` on (None: from the beginning), up to and at `upto`.

    `owns` tells whether it is a customer of its own; one that belongs to somebody has no history.
    """

    customer: CustomerRow
    first: Place | None
    upto: Place
    owns: bool = True


class Refold(NamedTuple):
    """What folding a customer again from `base` on came to; `before` are the stays that stood there, in order."""

    base: CustomerState
    before: list[Event]
    state: CustomerState
    superseded: list[Line]
    added: list[Event]
    events: list[Event]
    checkpoints: list[CustomerState]
    openings: list[Event]

    def stage_before(self, lifecycle: str, subject: str | None) -> str | None:
        """The journey's current stage before this."""
        for event in reversed(self.before):
            if (event.lifecycle, event.subject) == (lifecycle, subject):
                return event.stage
        journey = self.base.journey(lifecycle, subject)
        return journey.current.stage if journey else None

    def opening(self, lifecycle: str, subject: str | None) -> Event:
        """The line that opened the journey's current stay."""
        return next(
            event
            for event in reversed(self.openings)
            if event.is_stay and (event.lifecycle, event.subject) == (lifecycle, subject)
        )


async def refold(connection: AsyncConnection, definitions: Definitions, again: Sequence[Again]) -> dict[int, Refold]:
    """Folds customers again, with all that now belongs to them; the facts are stored already.

    Checkpoints that this makes untrue are forgotten.
    """
    near = [(one.customer.id, one.first) for one in again if one.first is not None]
    found = await nearest_checkpoints(connection, near)
    bases = {one.customer.id: found.get(one.customer.id, UNKNOWN) for one in again}
    facts = await _facts_of(connection, [(one, _begin(bases[one.customer.id]).occurred_at) for one in again])
    lines: dict[int, list[Line]] = defaultdict(list)
    for line in await visible_lines(connection, [(id_, _since(base)) for id_, base in bases.items()]):
        lines[line.customer].append(line)
    await drop_checkpoints(connection, [(id_, _begin(base)) for id_, base in bases.items()])
    return {
        one.customer.id: _refold(
            definitions, bases[one.customer.id], one.upto, facts[one.customer.id], lines[one.customer.id]
        )
        for one in again
    }


async def _facts_of(connection: AsyncConnection, starts: Sequence[tuple[Again, int]]) -> dict[int, list[StoredFact]]:
    """The facts of each customer and of all that belongs to it, from an instant on, by the customer's row."""
    since = {one.customer.id: instant for one, instant in starts if one.owns}
    owners = {id_: id_ for id_ in since}
    owners |= {member.id: member.owner for member in await owned_by(connection, since) if member.owner is not None}
    facts: dict[int, list[StoredFact]] = defaultdict(list)
    for fact in await facts_from(connection, [(member, since[owner]) for member, owner in owners.items()]):
        facts[owners[fact.customer]].append(fact)
    return facts


def _begin(base: CustomerState) -> Place:
    return base.place or BEGINNING


def _since(base: CustomerState) -> int:
    """From when on lines are read: those after the base, and those that opened what was current there."""
    entered = (journey.current.entered_at for subjects in base.journeys.values() for journey in subjects.values())
    return min((_begin(base).occurred_at, *entered))


def _refold(
    definitions: Definitions, base: CustomerState, upto: Place, facts: list[StoredFact], lines: Sequence[Line]
) -> Refold:
    begin = _begin(base)
    facts.sort()
    first, last = (bisect_right(facts, place, key=lambda fact: fact.place) for place in (begin, upto))
    standing = sorted((line for line in lines if _is_after(line.event, begin)), key=lambda line: line.event.order)
    opened = sorted((line.event for line in lines if not _is_after(line.event, begin)), key=lambda event: event.order)
    # What was due had been worked through up to there, and has to be again.
    until = standing[-1].event.at if upto == END and standing else upto.occurred_at
    events: list[Event] = []
    checkpoints: list[CustomerState] = []
    state = fold(
        definitions,
        folded(facts[first:last]),
        base,
        events.append,
        checkpoints.append,
        until=None if until == END.occurred_at else until,
    )
    superseded, added = _differences(standing, events)
    return Refold(
        base=base,
        before=[line.event for line in standing if line.event.is_stay],
        state=state,
        superseded=superseded,
        added=added,
        events=events,
        checkpoints=checkpoints,
        openings=[*opened, *events],
    )


def _is_after(event: Event, place: Place) -> bool:
    return event.at > place.occurred_at or (event.at == place.occurred_at and event.place > place)


def _differences(standing: Sequence[Line], events: Sequence[Event]) -> tuple[list[Line], list[Event]]:
    """The lines that are no more so, and what is so and was not."""
    pairs = list(zip(standing, events, strict=False))
    head = next((n for n, (line, event) in enumerate(pairs) if line.event != event), len(pairs))
    # Mostly it is one line in the midst of many: what is the same at both ends need not be looked for.
    ends = list(zip(reversed(standing[head:]), reversed(events[head:]), strict=False))
    tail = next((n for n, (line, event) in enumerate(ends) if line.event != event), len(ends))
    gone, come = standing[head : len(standing) - tail], events[head : len(events) - tail]
    stood, stands = {line.event for line in gone}, set(come)
    return [line for line in gone if line.event not in stands], [event for event in come if event not in stood]


def folded(facts: Iterable[StoredFact]) -> list[Touchpoint]:
    """Facts as the fold takes them, in its order; without those that decide only who belongs to whom."""
    return [
        Touchpoint(id_, source, type_, occurred_at, None, anonymous_id, *decode_body(body))
        for occurred_at, id_, source, _, type_, anonymous_id, body in sorted(facts)
        if is_folded(type_)
    ]
