"""Timers that are announced before they fire (`warn`), and when a customer has to be looked at for that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lifecycle_engine.lifecycle.fold import Definitions
from lifecycle_engine.lifecycle.journeys import CustomerState, Event
from lifecycle_engine.store.states import Announced, Told


class Announcement(NamedTuple):
    """A timer of a journey whose clock runs, and what others are to be told of it."""

    lifecycle: str
    subject: str | None
    rule: int
    told: Told


def next_look(definitions: Definitions, state: CustomerState, announced: Announced) -> int | None:
    """The next instant at which something is due, or has to be announced; microseconds since the epoch, UTC."""
    if state.wake is None:
        return None
    coming = (at for at, one in _running(definitions, state) if not _is_told(announced, one))
    return min((state.wake, *coming))


def to_announce(
    definitions: Definitions, state: CustomerState, announced: Announced, until: int
) -> list[tuple[int, Announcement]]:
    """The timers of which others have to be told by an instant, each with when."""
    return [
        (at, one)
        for at, one in _running(definitions, state)
        if at <= until < one.told.due and not _is_told(announced, one)
    ]


def to_withdraw(
    definitions: Definitions, state: CustomerState, announced: Announced, events: Iterable[Event]
) -> list[Announcement]:
    """What was announced and is not so any more; `events` tell what has fired, which is not withdrawn."""
    is_so = {one for _, one in _running(definitions, state)}
    fired = {
        (event.lifecycle, event.subject, event.rule, event.at)
        for event in events
        if event.cause == "timer" and event.is_stay
    }
    return [
        one
        for one in _told(announced)
        if one not in is_so and (one.lifecycle, one.subject, one.rule, one.told.due) not in fired
    ]


def remembered(announced: Announced, definitions: Definitions, state: CustomerState) -> Announced:
    """What was announced and is still so."""
    is_so = {one for _, one in _running(definitions, state)}
    kept: Announced = {}
    for one in _told(announced):
        if one in is_so:
            remember(kept, one)
    return kept


def remember(announced: Announced, one: Announcement) -> None:
    """Adds to what has been announced."""
    announced.setdefault(one.lifecycle, {}).setdefault(one.subject, {})[one.rule] = one.told


def _running(definitions: Definitions, state: CustomerState) -> Iterator[tuple[int, Announcement]]:
    """The timers with a `warn` whose clock runs, each with the instant from which on it is announced.

    Beneath a pin nothing is announced: nobody will see it fire.
    """
    for key, subjects in state.journeys.items():
        for subject, journey in subjects.items():
            active = definitions[key][journey.epoch]
            for (rule, timer), started in zip(active.definition.timers, journey.clocks, strict=True):
                if (
                    timer.warn is not None
                    and started is not None
                    and not journey.is_pinned
                    and (rule.to != journey.stage or rule.reenter)
                ):
                    due = started + timer.after
                    told = Told(due, active.version, journey.stage, rule.to)
                    yield due - timer.warn, Announcement(key, subject, rule.index, told)


def _is_told(announced: Announced, one: Announcement) -> bool:
    return announced.get(one.lifecycle, {}).get(one.subject, {}).get(one.rule) == one.told


def _told(announced: Announced) -> Iterator[Announcement]:
    for lifecycle, subjects in announced.items():
        for subject, rules in subjects.items():
            for rule, told in rules.items():
                yield Announcement(lifecycle, subject, rule, told)
