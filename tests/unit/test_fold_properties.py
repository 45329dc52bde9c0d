"""The one law: whatever the order, the duplicates and the batches, the same history and the same state as the fold."""

from __future__ import annotations

import copy
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions, fold, step
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests import oracle
from tests.unit import strategies
from tests.unit.strategies import customers, lifecycles

Documents = list[dict[str, Any]]

pytestmark = pytest.mark.timeout(3600)
"""With `--hypothesis-profile=laws` each takes minutes."""


def compiled(documents: Iterable[dict[str, Any]], version: int = 1) -> Definitions:
    return {each["lifecycle"]: (ActiveDefinition(version, compile_definition(each, Cel())),) for each in documents}


def in_order(touchpoints: Iterable[Touchpoint]) -> list[Touchpoint]:
    return sorted({(each.source, each.id): each for each in touchpoints}.values(), key=lambda each: each.place)


def written(state: CustomerState) -> str:
    """A text that differs wherever two states do, also between 1, 1.0 and True."""
    journeys = sorted(
        (key, repr(subject), sorted(journey.visits.items()), journey._replace(visits={}))
        for key, subjects in state.journeys.items()
        for subject, journey in subjects.items()
    )
    return repr((state.place, state.facts, journeys))


def stay(event: Event) -> tuple[Any, ...]:
    decided = event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.cause
    return (*decided, event.touchpoint, event.source)


def refusal(event: Event) -> tuple[Any, ...]:
    return event.at, event.rule, event.stage, event.reason, event.touchpoint, event.source


def plain(touchpoint: Touchpoint) -> dict[str, Any]:
    names = ("id", "source", "type", "occurred_at", "properties", "context")
    return {name: getattr(touchpoint, name) for name in names}


class Follower:
    """Takes touchpoints as they arrive: steps over what is in order, and re-folds from a checkpoint what is late."""

    def __init__(self, definitions: Definitions, every: int) -> None:
        self.definitions = definitions
        self.every = every
        self.facts: list[Touchpoint] = []
        self.events: list[tuple[Event, ...]] = []
        self.checkpoints: list[CustomerState] = []
        self.state = UNKNOWN

    def take(self, batch: Iterable[Touchpoint]) -> None:
        known = {(fact.source, fact.id) for fact in self.facts}
        new = in_order(fact for fact in batch if (fact.source, fact.id) not in known)
        late = [fact for fact in new if self.state.place is not None and fact.place < self.state.place]
        if late:
            at = bisect_right(self.facts, late[0].place, key=lambda fact: fact.place)
            self.checkpoints = [each for each in self.checkpoints if each.facts <= at]
            self.state = self.checkpoints[-1] if self.checkpoints else UNKNOWN
            new = in_order([*self.facts[self.state.facts :], *new])
            del self.facts[self.state.facts :], self.events[self.state.facts :]
        for fact in new:
            self.state, events = step(self.definitions, self.state, fact)
            self.facts.append(fact)
            self.events.append(events)
            if self.state.facts % self.every == 0:
                self.checkpoints.append(self.state)


def batches(data: st.DataObject, facts: Sequence[Touchpoint]) -> Iterator[list[Touchpoint]]:
    """The facts in some order, some of them again, cut into batches."""
    again = data.draw(st.lists(st.sampled_from(facts), max_size=6)) if facts else []
    arrivals = data.draw(st.permutations([*facts, *again]))
    while arrivals:
        size = data.draw(st.integers(1, len(arrivals)))
        yield arrivals[:size]
        arrivals = arrivals[size:]


@given(documents=lifecycles, facts=customers)
def test_fold_equals_the_oracle(documents: Documents, facts: tuple[Touchpoint, ...]) -> None:
    definitions = compiled(documents)
    events: list[Event] = []
    state = fold(definitions, in_order(facts), tell=events.append)
    expected = {
        key: passage for document in documents for key, passage in oracle.replay(document, map(plain, facts)).items()
    }
    assert {(key, subject) for key, subjects in state.journeys.items() for subject in subjects} == set(expected)
    for (key, subject), passage in expected.items():
        told = [event for event in events if (event.lifecycle, event.subject) == (key, subject)]
        assert list(map(stay, (event for event in told if event.is_stay))) == list(passage.stays)
        assert list(map(refusal, (event for event in told if not event.is_stay))) == list(passage.refusals)
        assert {event.definition_version for event in told} == {1}
        journey = state.journey(key, subject)
        assert journey is not None
        last = passage.stays[-1]
        assert (journey.stage, journey.entered_at, journey.previous_stage) == (last.stage, last.entered_at, last.origin)
        begun = [stay.stage for stay in passage.stays]
        assert journey.visits == {stage: begun.count(stage) for stage in begun}
        figures = {
            measure.name: oracle.instant(measure.read(total))
            if measure.path == ("occurred_at",)
            else measure.read(total)
            for measure, total in zip(definitions[key].definition.measures, journey.totals, strict=True)
            if measure.has_value(total)
        }
        assert repr(figures) == repr(passage.measures)


@given(documents=lifecycles, facts=customers, every=st.integers(1, 5), data=st.data())
def test_any_arrival_equals_the_fold(
    documents: Documents, facts: tuple[Touchpoint, ...], every: int, data: st.DataObject
) -> None:
    definitions = compiled(documents)
    events: list[Event] = []
    state = fold(definitions, in_order(facts), tell=events.append)
    follower = Follower(definitions, every)
    for batch in batches(data, facts):
        follower.take(batch)
    assert written(follower.state) == written(state)
    assert [event for told in follower.events for event in told] == events


@given(documents=lifecycles, facts=customers, every=st.integers(1, 5))
def test_checkpoints_are_the_states_on_the_way(documents: Documents, facts: tuple[Touchpoint, ...], every: int) -> None:
    definitions, ordered = compiled(documents), in_order(facts)
    checkpoints: list[CustomerState] = []
    state = fold(definitions, ordered, checkpoint=checkpoints.append, every=every)
    assert [each.facts for each in checkpoints] == list(range(every, len(ordered) + 1, every))
    for each in checkpoints:
        assert written(each) == written(fold(definitions, ordered[: each.facts]))
        assert written(fold(definitions, ordered[each.facts :], each)) == written(state)


@given(documents=lifecycles, facts=customers)
def test_the_fold_changes_nothing_that_it_is_given(documents: Documents, facts: tuple[Touchpoint, ...]) -> None:
    definitions = compiled(documents)
    states = [UNKNOWN]
    before = [copy.deepcopy(UNKNOWN)]
    given_facts = copy.deepcopy(facts)
    for fact in in_order(facts):
        state, _ = step(definitions, states[-1], fact)
        states.append(state)
        before.append(copy.deepcopy(state))
    assert list(map(written, states)) == list(map(written, before))
    assert repr(facts) == repr(given_facts)


@given(documents=lifecycles, facts=customers)
def test_states_and_events_survive_msgpack(documents: Documents, facts: tuple[Touchpoint, ...]) -> None:
    definitions = compiled(documents)
    state = UNKNOWN
    for fact in in_order(facts):
        carried = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=CustomerState)
        assert written(carried) == written(state)
        after, events = step(definitions, carried, fact)
        state, expected = step(definitions, state, fact)
        assert written(after) == written(state)
        assert events == expected
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(events), type=tuple[Event, ...]) == events


@pytest.mark.parametrize("seed", range(10))
def test_what_is_out_of_order_is_refused(seed: int) -> None:
    rnd = random.Random(seed)
    definitions, ordered = compiled(strategies.definitions(rnd)), in_order(strategies.touchpoints(rnd))
    state = fold(definitions, ordered)
    for fact in ordered:
        with pytest.raises(ValueError, match="does not sort after"):
            step(definitions, state, fact)


def test_places_are_ordered_by_the_bytes_of_ids() -> None:
    letters = ["", "\0", "A", "a", "aa", "\x7f", "\x80", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
    shuffled = random.Random(1).sample(letters, len(letters))
    assert sorted(shuffled) == sorted(shuffled, key=str.encode) == letters
