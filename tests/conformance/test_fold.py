"""The fold against the worked examples, those of its contract and our own."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from lifecycle_engine.lifecycle.fold import Definitions, fold, step
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests import oracle, oracle_identity
from tests.conformance.examples import CASES, OWN_CASES, SOURCE, Case, Refusal, Stay
from tests.lives import compiled, in_order

EVERY = (*CASES, *OWN_CASES)

Journeys = dict[str | None, tuple[Stay, ...]]


def arrived(case: Case, seed: int) -> list[Touchpoint]:
    """The facts in some order, some of them twice; what was retracted counts as never accepted."""
    accepted = [fact for fact in oracle_identity.accepted(plain(case)) if fact["type"] not in oracle_identity.OF_NOBODY]
    facts = [
        Touchpoint(fact["id"], fact["source"], fact["type"], fact["occurred_at"], "c", None, fact["properties"], {})
        for fact in accepted
    ]
    arrivals = facts + random.Random(seed).sample(facts, len(facts) // 2)
    random.Random(seed).shuffle(arrivals)
    return arrivals


def plain(case: Case) -> list[dict[str, Any]]:
    return [dict(fact, source=SOURCE, context={}) for fact in case.touchpoints]


def definitions(case: Case) -> Definitions:
    return compiled({case.definition["lifecycle"]: case.versions})


def told(events: Iterable[Event]) -> tuple[Journeys, tuple[Refusal, ...]]:
    stays: Journeys = {}
    refusals = []
    for event in events:
        if event.is_stay:
            stay = Stay(event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.cause)
            stays[event.subject] = (*stays.get(event.subject, ()), stay)
        else:
            assert event.reason is not None
            refusals.append(Refusal(event.at, event.rule, event.stage, event.reason))
    return stays, tuple(refusals)


def current(state: CustomerState) -> dict[str | None, tuple[str, int]]:
    (subjects,) = state.journeys.values()
    return {subject: journey.current[:2] for subject, journey in subjects.items()}


def test_every_example_is_read() -> None:
    assert (len(CASES), len(OWN_CASES)) == (22, 25)
    assert len({case.name for case in EVERY}) == len(EVERY)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_fold(case: Case, seed: int) -> None:
    events: list[Event] = []
    state = fold(definitions(case), in_order(arrived(case, seed)), tell=events.append, until=case.now)
    assert told(events) == (case.journeys, case.refusals)
    assert current(state) == {
        subject: (stays[-1].stage, stays[-1].entered_at) for subject, stays in case.journeys.items()
    }


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_step(case: Case) -> None:
    active = definitions(case)
    state = UNKNOWN
    events: list[Event] = []
    for touchpoint in in_order(arrived(case, 0)):
        state, new = step(active, state, touchpoint)
        events += new
    fold(active, (), state, events.append, until=case.now)
    assert told(events) == (case.journeys, case.refusals)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_oracle(case: Case) -> None:
    """The oracle that random definitions are held against agrees with what was worked out by hand."""
    facts = oracle_identity.accepted(plain(case))
    passages = oracle.replay_customer({case.definition["lifecycle"]: case.versions}, facts, case.now)
    stays = {subject: tuple(Stay(*stay[:7]) for stay in passage.stays) for (_, subject), passage in passages.items()}
    refusals = [Refusal(*refusal[:4]) for passage in passages.values() for refusal in passage.refusals]
    assert (stays, tuple(refusals)) == (case.journeys, case.refusals)
