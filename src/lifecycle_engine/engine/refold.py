"""Late facts: the customer is folded again from the nearest checkpoint, and what differs is corrected.

The same serves a customer whose state is behind the active definitions; there the fold begins at the beginning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.fold import Definitions, fold
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Place, Touchpoint
from lifecycle_engine.log.message import decode_body
from lifecycle_engine.store.checkpoints import drop_checkpoints, nearest_checkpoints
from lifecycle_engine.store.customers import CustomerRow
from lifecycle_engine.store.history import Line, visible_lines
from lifecycle_engine.store.touchpoints import StoredFact, facts_from

_BEGINNING = Place(-(1 << 62), "", "")


class Refold(NamedTuple):
    """What folding a customer again from `base` on came to; `before` are the stays that stood there, in order."""

    base: CustomerState
    before: list[Event]
    state: CustomerState
    superseded: list[Line]
    added: list[Event]
    checkpoints: list[CustomerState]

    def stage_before(self, lifecycle: str, subject: str | None) -> str | None:
        """The journey's current stage before this."""
        for event in reversed(self.before):
            if (event.lifecycle, event.subject) == (lifecycle, subject):
                return event.stage
        journey = self.base.journey(lifecycle, subject)
        return journey.stage if journey else None


async def refold(
    connection: AsyncConnection,
    definitions: Definitions,
    late: Sequence[tuple[CustomerRow, Place | None, Place]],
) -> dict[int, Refold]:
    """Folds each (customer, place of its first late fact, place to stop at) again; the facts are stored already.

    A first place of None means from the beginning. Checkpoints that this makes untrue are forgotten.
    """
    near = [(customer.id, first) for customer, first, _ in late if first is not None]
    bases = await nearest_checkpoints(connection, near)
    starts = [(customer.id, (bases.get(customer.id, UNKNOWN).place or _BEGINNING)) for customer, _, _ in late]
    instants = [(id_, place.occurred_at) for id_, place in starts]
    facts = _grouped(await facts_from(connection, instants))
    lines: dict[int, list[Line]] = defaultdict(list)
    for line in await visible_lines(connection, instants):
        lines[line.customer].append(line)
    await drop_checkpoints(connection, starts)
    begin = dict(starts)
    return {
        customer.id: _refold(
            definitions,
            customer,
            bases.get(customer.id, UNKNOWN),
            sorted(
                (fact for fact in facts[customer.id] if begin[customer.id] < fact.place <= upto),
                key=lambda fact: fact.place,
            ),
            [line for line in lines[customer.id] if place_of(line.event) > begin[customer.id]],
        )
        for customer, _, upto in late
    }


def place_of(event: Event) -> Place:
    """The place of the fact that caused a line."""
    return Place(event.at, event.touchpoint or "", event.source or "")


def _refold(
    definitions: Definitions,
    customer: CustomerRow,
    base: CustomerState,
    facts: Iterable[StoredFact],
    lines: Sequence[Line],
) -> Refold:
    events: dict[Event, None] = {}
    checkpoints: list[CustomerState] = []
    state = fold(
        definitions, (_touchpoint(customer, fact) for fact in facts), base, events.setdefault, checkpoints.append
    )
    standing = {line.event for line in lines}
    superseded = [line for line in lines if line.event not in events]
    added = [event for event in events if event not in standing]
    before = sorted((line.event for line in lines if line.event.is_stay), key=place_of)
    return Refold(base, before, state, superseded, added, checkpoints)


def _touchpoint(customer: CustomerRow, fact: StoredFact) -> Touchpoint:
    properties, context = decode_body(fact.body)
    customer_id = customer.identity.value if customer.identity.kind == "customer_id" else None
    return Touchpoint(
        fact.id, fact.source, fact.type, fact.occurred_at, customer_id, fact.anonymous_id, properties, context
    )


def _grouped(facts: Iterable[StoredFact]) -> dict[int, list[StoredFact]]:
    grouped: dict[int, list[StoredFact]] = defaultdict(list)
    for fact in facts:
        grouped[fact.customer].append(fact)
    return grouped
