"""The laws of the fold, over random lifecycles and random facts with everything in them.

The one law is that however facts come, the same is told of them as by the fold over all of them in their order. The
oracle, which shares no code with the engine, says what that is.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle import fold as fold_module
from lifecycle_engine.lifecycle.definitions import ActiveDefinition
from lifecycle_engine.lifecycle.fold import Definitions, fold, next_timer, step
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event, JourneyState
from lifecycle_engine.lifecycle.touchpoints import Place, Touchpoint
from lifecycle_engine.store.states import decode_state, encode_state
from tests import oracle
from tests.lives import Life, compiled, in_order
from tests.unit import strategies
from tests.unit.strategies import DAY, START, lives

pytestmark = pytest.mark.timeout(7200)
"""With `--hypothesis-profile=laws` each takes minutes."""


@pytest.fixture(scope="module", autouse=True)
def _checkpoints_everywhere() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_module, "CHECKPOINT_EVERY", 1)
        yield


def written(state: CustomerState) -> str:
    """A text that differs wherever two states do, also between 1, 1.0 and True."""
    journeys = [
        (key, subject, sorted(journey.visits.items()), journey._replace(visits={}))
        for key, subjects in state.journeys.items()
        for subject, journey in subjects.items()
    ]
    return repr((state.place, state.facts, journeys, sorted(state.traits.items())))


def folded(definitions: Definitions, life: Life) -> tuple[CustomerState, list[Event]]:
    events: list[Event] = []
    return fold(definitions, in_order(life.facts), tell=events.append, until=life.now), events


# -- the fold is what the oracle says --------------------------------------------------------------------------------


def stay(event: Event) -> oracle.Stay:
    return oracle.Stay(
        event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.cause, event.touchpoint,
        event.source, event.definition_version,
    )  # fmt: skip


def refusal(event: Event) -> oracle.Refusal:
    return oracle.Refusal(
        event.at, event.rule, event.stage, event.reason or "", event.touchpoint, event.source, event.origin,
        event.cause, event.definition_version,
    )  # fmt: skip


def plain(fact: Touchpoint) -> dict[str, Any]:
    return fact._asdict()


def figures(active: ActiveDefinition, journey: JourneyState, at: int) -> dict[str, Any]:
    read = {}
    for measure, total in zip(active.definition.measures, journey.totals, strict=True):
        held = total if measure.within is None else measure.let_go(total, at)
        if measure.has_value(held):
            value = measure.read(held)
            read[measure.name] = oracle.instant(value) if measure.path == ("occurred_at",) else value
    return read


def assert_oracle_agrees(life: Life) -> None:
    definitions = compiled(life.lifecycles)
    state, events = folded(definitions, life)
    expected = oracle.replay_customer(life.lifecycles, map(plain, life.facts), life.now)
    told: dict[Any, list[Event]] = {}
    for event in events:
        told.setdefault((event.lifecycle, event.subject), []).append(event)
    assert set(told) == set(expected)
    opened = {(key, subject) for key, subjects in state.journeys.items() for subject in subjects}
    assert opened == {name for name, passage in expected.items() if passage.stays}
    assert repr(sorted(state.traits.items())) == repr(sorted(oracle.traits_of(map(plain, life.facts)).items()))
    for name, passage in expected.items():
        assert [stay(event) for event in told[name] if event.is_stay] == list(passage.stays)
        assert [refusal(event) for event in told[name] if not event.is_stay] == list(passage.refusals)
        journey = state.journey(*name)
        if journey is None:
            continue
        shown, last = journey.current, passage.stays[-1]
        assert (shown.stage, shown.entered_at, shown.previous_stage) == (last.stage, last.entered_at, last.origin)
        assert (journey.stage, journey.entered_at) == passage.beneath
        assert journey.visits == passage.visits
        timeline = definitions[name[0]]
        active = timeline[journey.epoch]
        assert journey.definition_version == active.version
        assert repr(figures(active, journey, life.now)) == repr(passage.measures)
        timer = next_timer(timeline[journey.epoch].definition, journey)
        assert (timer and (timer[0].index, timer[2])) == passage.next_timer


@given(life=lives)
def test_fold_equals_the_oracle(life: Life) -> None:
    assert_oracle_agrees(life)


# -- however facts come ----------------------------------------------------------------------------------------------


class Client:
    """Does what an engine must: steps over what sorts after all before, re-folds what is late, and wakes in time."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.facts: list[Touchpoint] = []
        self.state = UNKNOWN
        self.history: list[Event] = []
        self.checkpoints: list[CustomerState] = []

    def take(self, batch: Iterable[Touchpoint]) -> None:
        new = [fact for fact in in_order(batch) if fact not in self.facts]
        self.facts = in_order([*self.facts, *new])
        reached = self.state.place
        if new and reached is not None and new[0].place < reached:
            self.checkpoints = [each for each in self.checkpoints if each.place and each.place < new[0].place]
            self.state = self.checkpoints[-1] if self.checkpoints else UNKNOWN
            self.history = [event for event in self.history if self.is_before(event.place)]
            self.fold([fact for fact in self.facts if not self.is_before(fact.place)], until=reached.occurred_at)
        else:
            self.fold(new)

    def advance(self, now: int) -> None:
        self.fold((), until=now)
        self.checkpoints.append(self.state)

    def fold(self, facts: Iterable[Touchpoint], until: int | None = None) -> None:
        keep = self.checkpoints.append
        self.state = fold(self.definitions, facts, self.state, self.history.append, keep, until)

    def is_before(self, place: Place) -> bool:
        return self.state.place is not None and place <= self.state.place


def arrivals(data: st.DataObject, life: Life) -> Iterator[Sequence[Touchpoint] | int]:
    """The facts in some order, some of them again, in batches; in between, instants that a clock comes to."""
    again = data.draw(st.lists(st.sampled_from(life.facts), max_size=6)) if life.facts else []
    arriving = data.draw(st.permutations([*life.facts, *again]))
    if data.draw(st.booleans()):
        arriving = sorted(arriving, key=lambda fact: fact.place)
    clock = START
    while arriving:
        size = data.draw(st.integers(1, len(arriving)))
        yield arriving[:size]
        arriving = arriving[size:]
        clock = min(clock + data.draw(st.integers(0, 5)) * DAY, life.now)
        yield clock
    yield life.now


@given(life=lives, data=st.data())
def test_any_arrival_equals_the_fold(life: Life, data: st.DataObject) -> None:
    definitions = compiled(life.lifecycles)
    state, events = folded(definitions, life)
    client = Client(definitions)
    for arrival in arrivals(data, life):
        client.advance(arrival) if isinstance(arrival, int) else client.take(arrival)
    assert client.history == events
    assert written(client.state) == written(state)


@given(life=lives, clocks=st.lists(st.integers(-1, 25), max_size=5))
def test_a_fold_can_be_split_anywhere(life: Life, clocks: Sequence[int]) -> None:
    """At the facts, and at any instant between them: what comes after need not know what came before."""
    definitions = compiled(life.lifecycles)
    state, events = folded(definitions, life)
    parts = UNKNOWN
    told: list[Event] = []
    facts = in_order(life.facts)
    for until in sorted(min(START + clock * DAY, life.now) for clock in clocks):
        before = [fact for fact in facts if fact.occurred_at < until]
        facts = facts[len(before) :]
        parts = fold(definitions, before, parts, told.append, until=until)
    for fact in facts:
        parts, new = step(definitions, parts, fact)
        told += new
    parts = fold(definitions, (), parts, told.append, until=life.now)
    assert told == events
    assert written(parts) == written(state)


@given(life=lives)
def test_checkpoints_are_the_states_on_the_way(life: Life) -> None:
    definitions, ordered = compiled(life.lifecycles), in_order(life.facts)
    checkpoints: list[CustomerState] = []
    state = fold(definitions, ordered, checkpoint=checkpoints.append)
    for each in checkpoints:
        assert written(each) == written(fold(definitions, ordered[: each.facts]))
        assert written(fold(definitions, ordered[each.facts :], each)) == written(state)


# -- what histories look like ----------------------------------------------------------------------------------------


@given(life=lives)
def test_stays_tile_the_life_of_a_journey(life: Life) -> None:
    definitions = compiled(life.lifecycles)
    state, events = folded(definitions, life)
    for key, subjects in state.journeys.items():
        for subject, journey in subjects.items():
            lines = [event for event in events if (event.lifecycle, event.subject) == (key, subject)]
            orders = [event.order for event in lines]
            assert orders == sorted(set(orders))
            assert [event.place for event in lines] == sorted(event.place for event in lines)
            stays = [event for event in lines if event.is_stay]
            assert [event.origin for event in stays] == [None, *(event.stage for event in stays[:-1])]
            assert all((event.move == "start") == (event.origin is None) for event in stays)
            assert all(event.at <= life.now for event in lines)
            assert (journey.current.stage, journey.current.entered_at) == (stays[-1].stage, stays[-1].at)
            assert journey.wake is None or journey.wake > life.now


@given(life=lives)
def test_what_cannot_be_seen_changes_nothing(life: Life) -> None:
    """No state, fact or definition is changed by folding on from it, and all survive the way into bytes and back."""
    definitions = compiled(life.lifecycles)
    given_facts = copy.deepcopy(life.facts)
    state = UNKNOWN
    for fact in [*in_order(life.facts), None]:
        before = written(state)
        carried = decode_state(encode_state(state))
        assert carried is not None
        assert written(carried) == before
        facts, until = ([fact], None) if fact else ([], life.now)
        told: list[Event] = []
        again: list[Event] = []
        after = fold(definitions, facts, state, told.append, until=until)
        assert written(fold(definitions, facts, carried, again.append, until=until)) == written(after)
        assert again == told
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=list[Event]) == told
        assert written(state) == before
        state = after
    assert repr(life.facts) == repr(given_facts)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_out_of_order_is_refused(seed: int) -> None:
    life = strategies.life(random.Random(seed))
    definitions = compiled(life.lifecycles)
    state, _ = folded(definitions, life)
    for fact in life.facts:
        with pytest.raises(ValueError, match="does not sort after"):
            step(definitions, state, fact)


def test_places_are_ordered_by_the_bytes_of_ids() -> None:
    letters = ["", "\0", "A", "a", "aa", "\x7f", "\x80", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]
    shuffled = random.Random(1).sample(letters, len(letters))
    assert sorted(shuffled) == sorted(shuffled, key=str.encode) == letters
