"""The law: what a customer's touchpoints, in the order of their places, make of each lifecycle.

Everything that decides a stage lives here. This module knows no clock, no store and no arrival order: given the same
definitions and the same set of touchpoints, sorted, it gives the same history, however they came. The rules are those
of "The fold, precisely" in the project's contract; the numbers in comments are its paragraphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.definitions import ActiveDefinition, Definition, Rule
from lifecycle_engine.lifecycle.guards import Values
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CauseKind, CustomerState, Decision, Event, JourneyState, Move
from lifecycle_engine.lifecycle.measures import Total, value_at
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Definitions = Mapping[str, ActiveDefinition]
"""The active lifecycles by key."""


def step(
    definitions: Definitions, state: CustomerState, touchpoint: Touchpoint
) -> tuple[CustomerState, tuple[Event, ...]]:
    """Folds one touchpoint that sorts after everything in `state`; ValueError if it does not."""
    events: list[Event] = []
    state = fold(definitions, (touchpoint,), state, events.append)
    return state, tuple(events)


def fold(
    definitions: Definitions,
    touchpoints: Iterable[Touchpoint],
    state: CustomerState = UNKNOWN,
    tell: Callable[[Event], object] = lambda _: None,
    checkpoint: Callable[[CustomerState], object] | None = None,
    every: int = 16,
) -> CustomerState:
    """Folds touchpoints, sorted by place and all after `state.place`, and tells each line of history as it comes.

    `checkpoint` is given the state each time that another `every` touchpoints of the customer have been folded.
    ValueError where the order is broken: whoever calls this out of order would write an untrue history.
    """
    place, facts, journeys = state
    journeys = {key: dict(subjects) for key, subjects in journeys.items()}
    for touchpoint in touchpoints:
        before, place = place, touchpoint.place
        if before is not None and place <= before:
            raise ValueError(f"{place} does not sort after {before}")
        facts += 1
        for key, active in definitions.items():
            subject = _subject(active.definition, touchpoint)
            if subject is _NO_SUBJECT:
                continue
            subjects = journeys.get(key)
            journey = subjects.get(subject) if subjects else None
            if (after := _take(active, subject, journey, touchpoint, tell)) is not None:
                if subjects is None:
                    subjects = journeys[key] = {}
                subjects[subject] = after
        if checkpoint is not None and facts % every == 0:
            checkpoint(CustomerState(place, facts, {key: dict(subjects) for key, subjects in journeys.items()}))
    return CustomerState(place, facts, journeys)


_NO_SUBJECT: Any = object()


def _subject(definition: Definition, touchpoint: Touchpoint) -> str | None:
    """2: strings as they are, integers in decimal, anything else counts as none."""
    if definition.subject_path is None:
        return None
    value = value_at(touchpoint, definition.subject_path)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _NO_SUBJECT


class _Situation(NamedTuple):
    """What guards can ask about: a journey (None before it opens) at one touchpoint, which the totals hold already."""

    definition: Definition
    stage: str
    journey: JourneyState | None
    totals: tuple[Total, ...]
    touchpoint: Touchpoint


def _take(
    active: ActiveDefinition,
    subject: str | None,
    journey: JourneyState | None,
    touchpoint: Touchpoint,
    tell: Callable[[Event], object],
) -> JourneyState | None:
    """One touchpoint in one journey: it enters the measures, then is judged (3); the first one may open it (2)."""
    version, definition = active
    if journey is None:
        if definition.opens is not None and touchpoint.type not in definition.opens:
            return None
        stage, totals = definition.initial, tuple([measure.empty for measure in definition.measures])
    else:
        stage, totals = journey.stage, journey.totals
    rules, measures = definition.concerned(touchpoint.type)
    if measures:
        taken = list(totals)
        for index, measure in measures:
            taken[index] = measure.take(taken[index], touchpoint)
        totals = tuple(taken)
    decision = _judge(rules, _Situation(definition, stage, journey, totals, touchpoint)) if rules else None

    def event(to: str, origin: str | None, move: Move, skipped: tuple[str, ...], decided: Decision | None) -> Event:
        rule = decided.rule if decided else None
        cause: CauseKind = "condition" if rule is not None and definition.rules[rule].is_condition else "touchpoint"
        return Event(
            definition.key, subject, touchpoint.occurred_at, to, origin, move, skipped,
            cause, rule, touchpoint.id, touchpoint.source, version, decided.refusal if decided else None,
        )  # fmt: skip

    refused = decision is not None and decision.refusal is not None
    if journey is None:
        moved = None if refused else decision
        target = moved.stage if moved else stage
        skipped = definition.skipped(stage, target)
        if definition.stages[target].rank > definition.stages[stage].rank:
            skipped = (stage, *skipped)
        tell(event(target, None, "start", skipped, moved))
        journey = JourneyState(target, touchpoint.occurred_at, None, {target: 1}, totals, version)
    elif decision is None or refused:
        journey = journey._replace(totals=totals, definition_version=version)
    else:
        target = decision.stage
        tell(event(target, stage, _move(definition, stage, target), definition.skipped(stage, target), decision))
        visits = {**journey.visits, target: journey.visits.get(target, 0) + 1}
        journey = JourneyState(target, touchpoint.occurred_at, stage, visits, totals, version)
    if decision is not None and refused:
        tell(event(decision.stage, stage, "refused", (), decision))
    return journey


def _judge(rules: Sequence[Rule], situation: _Situation) -> Decision | None:
    """3: the first rule that matches decides, also when it then does nothing or is refused."""
    definition, stage = situation.definition, situation.stage
    values: Values | None = None
    for rule in rules:
        if rule.origins is not None and stage not in rule.origins:
            continue
        if rule.when:
            values = values or _bind(situation)
            if not all([guard.holds(values) for guard in rule.when]):
                continue
        if rule.to == stage and not rule.reenter:
            return None
        if not definition.allows(stage, rule.to):
            return Decision(rule.index, rule.to, "moves")
        for index, guard in enumerate(definition.stages[rule.to].requires):
            values = values or _bind(situation)
            if not guard.holds(values):
                return Decision(rule.index, rule.to, f"requires[{index}]")
        return Decision(rule.index, rule.to, None)
    return None


def _move(definition: Definition, origin: str, target: str) -> Move:
    """8: moves are named by rank."""
    distance = definition.stages[target].rank - definition.stages[origin].rank
    if distance == 0:
        return "reenter"
    if distance < 0:
        return "back"
    return "advance" if distance == 1 else "skip"


def _visits(situation: _Situation) -> dict[str, int]:
    begun = situation.journey.visits if situation.journey else {}
    return {key: begun.get(key, 0) for key in situation.definition.stages}


_NAMES: Mapping[str, Callable[[_Situation], Any]] = {
    "event.id": lambda situation: situation.touchpoint.id,
    "event.source": lambda situation: situation.touchpoint.source,
    "event.type": lambda situation: situation.touchpoint.type,
    "event.occurred_at": lambda situation: _datetime(situation.touchpoint.occurred_at),
    "event.properties": lambda situation: situation.touchpoint.properties,
    "event.context": lambda situation: situation.touchpoint.context,
    "journey.stage": lambda situation: situation.stage,
    "journey.entered_at": lambda situation: _datetime(situation.journey.entered_at) if situation.journey else None,
    "journey.visits": _visits,
}


def _bind(situation: _Situation) -> Values:
    """The names that guards may ask for. A measure without a value, or an entry that is not yet, stays unbound."""
    definition = situation.definition
    values: dict[str, Any] = {}
    for name in definition.names:
        value = _NAMES[name](situation)
        if value is not None:
            values[name] = value
    for index, measure in definition.asked_measures:
        total = situation.totals[index]
        if measure.has_value(total):
            value = measure.read(total)
            values[f"measures.{measure.name}"] = _datetime(value) if measure.path == ("occurred_at",) else value
    return definition.compiler.bind(values)


def _datetime(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)
