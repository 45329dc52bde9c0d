"""The fold against the worked examples of its contract."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions, fold, step
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests import oracle
from tests.conformance.examples import CASES, Case, Refusal, Stay

Journeys = dict[str | None, tuple[Stay, ...]]


def compiled(document: Mapping[str, Any]) -> Definitions:
    definition = compile_definition(document, Cel())
    return {definition.key: (ActiveDefinition(1, definition),)}


def arrived(case: Case, seed: int) -> list[Touchpoint]:
    """The touchpoints in some order, some of them twice."""
    facts = [
        Touchpoint(fact["id"], "test", fact["type"], fact["occurred_at"], "c", None, fact["properties"], {})
        for fact in case.touchpoints
    ]
    arrivals = facts + random.Random(seed).sample(facts, len(facts) // 2)
    random.Random(seed).shuffle(arrivals)
    return arrivals


def sorted_once(arrivals: Iterable[Touchpoint]) -> list[Touchpoint]:
    return sorted({(fact.source, fact.id): fact for fact in arrivals}.values(), key=lambda fact: fact.place)


def told(events: Iterable[Event]) -> tuple[Journeys, tuple[Refusal, ...]]:
    stays: Journeys = {}
    refusals = []
    for event in events:
        if event.is_stay:
            stay = Stay(event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.cause)
            stays[event.subject] = (*stays.get(event.subject, ()), stay)
        else:
            assert event.rule is not None
            assert event.reason is not None
            refusals.append(Refusal(event.at, event.rule, event.stage, event.reason))
    return stays, tuple(refusals)


def current(state: CustomerState) -> dict[str | None, tuple[str, int]]:
    (subjects,) = state.journeys.values()
    return {subject: (journey.stage, journey.entered_at) for subject, journey in subjects.items()}


def test_every_example_is_read() -> None:
    assert len(CASES) == 22
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fold(case: Case, seed: int) -> None:
    events: list[Event] = []
    state = fold(compiled(case.definition), sorted_once(arrived(case, seed)), tell=events.append, until=case.now)
    assert told(events) == (case.journeys, case.refusals)
    assert current(state) == {
        subject: (stays[-1].stage, stays[-1].entered_at) for subject, stays in case.journeys.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_step(case: Case) -> None:
    definitions = compiled(case.definition)
    state = UNKNOWN
    events: list[Event] = []
    for touchpoint in sorted_once(arrived(case, 0)):
        state, new = step(definitions, state, touchpoint)
        events += new
    fold(definitions, (), state, events.append, until=case.now)
    assert told(events) == (case.journeys, case.refusals)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_oracle(case: Case) -> None:
    """The oracle that random definitions are held against agrees with what was worked out by hand."""
    facts = [dict(fact, source="test", context={}) for fact in case.touchpoints]
    passages = oracle.replay(case.definition, facts, case.now)
    stays = {subject: tuple(Stay(*stay[:7]) for stay in passage.stays) for (_, subject), passage in passages.items()}
    refusals = [Refusal(*refusal[:4]) for passage in passages.values() for refusal in passage.refusals]
    assert (stays, tuple(refusals)) == (case.journeys, case.refusals)
