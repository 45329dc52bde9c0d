"""The law: what a customer's touchpoints, in the order of their places, make of each lifecycle.

Everything that decides a stage lives here. This module knows no clock, no store and no arrival order: given the same
definitions and the same set of touchpoints, sorted, it gives the same history, however they came. The rules are those
of "The fold, precisely" in the project's contract; the numbers in comments are its paragraphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

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
    tell: Callable[[Event], None] = lambda _: None,
    checkpoint: Callable[[CustomerState], None] | None = None,
    every: int = 16,
) -> CustomerState:
    """Folds touchpoints, sorted by place and all after `state.place`, and tells each line of history as it comes.

    `checkpoint` is given the state each time that another `every` touchpoints of the customer have been folded.
    ValueError where the order is broken: whoever calls this out of order would write an untrue history.
    """
    place, facts, journeys = state
    journeys = {key: dict(subjects) for key, subjects in journeys.items()}
    for touchpoint in touchpoints:
        if place is not None and touchpoint.place <= place:
            raise ValueError(f"{touchpoint.place} does not sort after {place}")
        place = touchpoint.place
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


def _take(
    active: ActiveDefinition,
    subject: str | None,
    journey: JourneyState | None,
    touchpoint: Touchpoint,
    tell: Callable[[Event], None],
) -> JourneyState | None:
    """One touchpoint in one journey: it enters the measures, then is judged (3); the first one may open it (2)."""
    version, definition = active
    if journey is None:
        if definition.opens is not None and touchpoint.type not in definition.opens:
            return None
        stage, visits = definition.initial, {}
        totals: Sequence[Total] = [measure.empty for measure in definition.measures]
    else:
        stage, visits, totals = journey.stage, journey.visits, journey.totals
    totals = tuple(
        [measure.take(total, touchpoint) for measure, total in zip(definition.measures, totals, strict=True)]
    )

    bound: list[Values] = []

    def values() -> Values:
        if not bound:
            bound.append(_bind(definition, stage, visits, journey, totals, touchpoint))
        return bound[0]

    decision = _judge(definition, stage, definition.rules_for(touchpoint.type), values)

    def event(
        to: str, origin: str | None, move: Move, skipped: tuple[str, ...], rule: int | None, reason: str | None
    ) -> None:
        cause: CauseKind = "condition" if rule is not None and definition.rules[rule].is_condition else "touchpoint"
        tell(
            Event(
                active.definition.key, subject, touchpoint.occurred_at, to, origin, move, skipped,
                cause, rule, touchpoint.id, touchpoint.source, version, reason,
            )
        )  # fmt: skip

    moved = decision is not None and decision.refusal is None
    if journey is None:
        target, rule = (decision.stage, decision.rule) if decision and moved else (stage, None)
        skipped = definition.skipped(stage, target)
        if definition.stages[target].rank > definition.stages[stage].rank:
            skipped = (stage, *skipped)
        event(target, None, "start", skipped, rule, None)
        opened = JourneyState(target, touchpoint.occurred_at, None, {target: 1}, totals, version)
        if decision and not moved:
            event(decision.stage, stage, "refused", (), decision.rule, decision.refusal)
        return opened
    if decision is None:
        return journey._replace(totals=totals, definition_version=version)
    if not moved:
        event(decision.stage, stage, "refused", (), decision.rule, decision.refusal)
        return journey._replace(totals=totals, definition_version=version)
    target = decision.stage
    event(target, stage, _move(definition, stage, target), definition.skipped(stage, target), decision.rule, None)
    visits = {**visits, target: visits.get(target, 0) + 1}
    return JourneyState(target, touchpoint.occurred_at, stage, visits, totals, version)


def _judge(definition: Definition, stage: str, rules: Iterable[Rule], values: Callable[[], Values]) -> Decision | None:
    """3: the first rule that matches decides, also when it then does nothing or is refused."""
    for rule in rules:
        if rule.origins is not None and stage not in rule.origins:
            continue
        if not all(guard.holds(values()) for guard in rule.when):
            continue
        if rule.to == stage and not rule.reenter:
            return None
        if not definition.allows(stage, rule.to):
            return Decision(rule.index, rule.to, "moves")
        for index, guard in enumerate(definition.stages[rule.to].requires):
            if not guard.holds(values()):
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


def _bind(
    definition: Definition,
    stage: str,
    visits: Mapping[str, int],
    journey: JourneyState | None,
    totals: Sequence[Total],
    touchpoint: Touchpoint,
) -> Values:
    """The names that guards may ask for. A measure without a value, or an entry that is not yet, stays unbound."""
    names = definition.names
    values: dict[str, Any] = {}
    if "event.properties" in names:
        values["event.properties"] = touchpoint.properties
    if "event.context" in names:
        values["event.context"] = touchpoint.context
    if "event.type" in names:
        values["event.type"] = touchpoint.type
    if "event.id" in names:
        values["event.id"] = touchpoint.id
    if "event.source" in names:
        values["event.source"] = touchpoint.source
    if "event.occurred_at" in names:
        values["event.occurred_at"] = _datetime(touchpoint.occurred_at)
    if "journey.stage" in names:
        values["journey.stage"] = stage
    if "journey.visits" in names:
        values["journey.visits"] = {key: visits.get(key, 0) for key in definition.stages}
    if "journey.entered_at" in names and journey is not None:
        values["journey.entered_at"] = _datetime(journey.entered_at)
    for measure, total in zip(definition.measures, totals, strict=True):
        if (name := f"measures.{measure.name}") in names and measure.has_value(total):
            value = measure.read(total)
            values[name] = _datetime(value) if measure.path == ("occurred_at",) else value
    return definition.compiler.bind(values)


def _datetime(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)
