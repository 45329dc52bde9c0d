"""Corners of the fold that the worked examples leave out."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import BEGINNING, ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions, fold, next_timer, step
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event, JourneyState, Shown
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, Place, Touchpoint, is_folded

DAY = 86_400_000_000


def definitions(key: str = "one", version: int = 1, initial: str = "b", **parts: Any) -> Definitions:
    return {key: (active(version, BEGINNING, lifecycle=key, initial=initial, **parts),)}


def active(version: int, since: int, **parts: Any) -> ActiveDefinition:
    document = {"lifecycle": "one", "initial": "a", "stages": [{"key": each} for each in "abcd"], **parts}
    return ActiveDefinition(version, compile_definition(document, Cel()), since)


def touchpoint(n: int, type_: str = "x", source: str = "s", **properties: Any) -> Touchpoint:
    return Touchpoint(str(n), source, type_, n, "c", None, properties, {})


def told(
    definitions: Definitions, *touchpoints: Touchpoint
) -> list[tuple[str, str | None, str, tuple[str, ...], int | None]]:
    events: list[Event] = []
    fold(definitions, touchpoints, tell=events.append)
    return [(event.stage, event.origin, event.move, event.skipped, event.rule) for event in events]


@pytest.mark.parametrize(
    ("rule", "events"),
    [
        ({"to": "d"}, [("d", None, "start", ("b", "c"), 0)]),
        ({"to": "c"}, [("c", None, "start", ("b",), 0)]),
        ({"to": "a"}, [("a", None, "start", (), 0)]),
        ({"to": "b"}, [("b", None, "start", (), None)]),
        ({"to": "b", "reenter": True}, [("b", None, "start", (), 0)]),
        ({"to": "c", "from": "a"}, [("b", None, "start", (), None)]),
    ],
)
def test_the_opening_is_judged_from_the_initial_stage(rule: dict[str, Any], events: list[Any]) -> None:
    assert told(definitions(rules=[{"on": "x", **rule}]), touchpoint(1)) == events


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        ('journey.stage == "b"', True),
        ("journey.visits.b == 0", True),
        ("journey.visits.a == 0", True),
        ('journey.entered_at < timestamp("2100-01-01T00:00:00Z")', False),
        ("measures.n == 1", True),
        ("event.properties.y == 7", True),
    ],
)
def test_what_guards_see_at_the_opening(guard: str, holds: bool) -> None:
    one = definitions(measures={"n": {"count": "any"}}, rules=[{"on": "x", "when": [guard], "to": "c"}])
    assert told(one, touchpoint(1, y=7)) == [
        ("c" if holds else "b", None, "start", ("b",) if holds else (), 0 if holds else None)
    ]


def test_a_refusal_at_the_opening_comes_after_the_start() -> None:
    one = definitions(moves={"a": ["b"]}, rules=[{"on": "x", "to": "d"}])
    assert told(one, touchpoint(1)) == [("b", None, "start", (), None), ("d", "b", "refused", (), 0)]


def test_reenter_needs_its_own_entry_among_the_moves() -> None:
    rules = [{"on": "x", "to": "b", "reenter": True}]
    assert told(definitions(moves={"b": ["c"]}, rules=rules), touchpoint(1), touchpoint(2)) == [
        ("b", None, "start", (), None),
        ("b", "b", "refused", (), 0),
        ("b", "b", "refused", (), 0),
    ]
    assert told(definitions(moves={"b": ["b"]}, rules=rules), touchpoint(1), touchpoint(2)) == [
        ("b", None, "start", (), 0),
        ("b", "b", "reenter", (), 0),
    ]


def test_a_condition_says_so() -> None:
    rules = [{"on": "y", "to": "a"}, {"when": ["measures.n >= 2"], "to": "c"}]
    one = definitions(measures={"n": {"count": "any"}}, rules=rules)
    events: list[Event] = []
    fold(one, [touchpoint(1), touchpoint(2, "y"), touchpoint(3, "z")], tell=events.append)
    assert [(event.stage, event.cause, event.rule, event.touchpoint) for event in events] == [
        ("b", "touchpoint", None, "1"),
        ("a", "touchpoint", 0, "2"),
        ("c", "condition", 1, "3"),
    ]


def test_how_often_a_guard_errs_does_not_depend_on_batches() -> None:
    def errors(size: int) -> int:
        measures = {"most": {"max": "properties.v", "of": "y"}}
        rules = [{"on": "x", "when": ["measures.most > 5"], "to": "c"}]
        deployed, state = definitions(measures=measures, rules=rules), UNKNOWN
        for n in range(0, 12, size):
            state = fold(deployed, [touchpoint(n + each) for each in range(size)], state)
        return deployed["one"][0].definition.compiler.errors

    assert [errors(size) for size in (1, 3, 12)] == [12, 12, 12]


def test_an_id_is_unique_within_its_source() -> None:
    one = definitions(measures={"n": {"count": "any"}}, rules=[])
    state = fold(one, [touchpoint(1, source="s"), touchpoint(1, source="t")])
    journey = state.journey("one", None)
    assert journey is not None
    assert journey.totals == (2,)
    with pytest.raises(ValueError, match="does not sort after"):
        step(one, state, touchpoint(1, source="s"))


def test_lifecycles_go_on_beside_each_other_and_rest_when_they_are_not_active() -> None:
    first, second = definitions("first", rules=[{"on": "x", "to": "c"}]), definitions("second", version=7, opens="y")
    state, events = step({**first, **second}, UNKNOWN, touchpoint(1))
    assert [(event.lifecycle, event.stage) for event in events] == [("first", "c")]
    state, events = step({**first, **second}, state, touchpoint(2, "y"))
    assert [(event.lifecycle, event.definition_version) for event in events] == [("second", 7)]
    before = state.journey("first", None)
    state, _ = step(second, state, touchpoint(3))
    assert state.journey("first", None) is before
    assert state.journey("third", None) is None
    assert (state.place, state.facts) == (touchpoint(3).place, 3)


def test_checkpoints_stand_on_their_own() -> None:
    checkpoints: list[CustomerState] = []
    one = definitions(measures={"n": {"count": "any"}}, per="properties.line", rules=[])
    facts = [touchpoint(n, line=n % 3) for n in range(40)]
    state = fold(one, facts, checkpoint=checkpoints.append)
    assert [each.facts for each in checkpoints] == [16, 32]
    assert [sum(journey.totals[0] for journey in each.journeys["one"].values()) for each in checkpoints] == [16, 32]
    assert fold(one, facts[32:], checkpoints[1]) == fold(one, facts[16:], checkpoints[0]) == state


# -- time passes -----------------------------------------------------------------------------------------------------


def fact(day: float, type_: str = "x", id_: str = "t", **properties: Any) -> Touchpoint:
    return Touchpoint(id_, "s", type_, int(day * DAY), "c", None, properties, {})


def identify(day: float, id_: str = "i", **traits: Any) -> Touchpoint:
    return fact(day, IDENTIFY, id_, traits=traits)


def override(day: float, stage: str, until: float | None = None, id_: str = "o", **properties: Any) -> Touchpoint:
    if until is not None:
        properties["expires_at"] = format_instant(int(until * DAY))
    return fact(day, OVERRIDE, id_, **{"lifecycle": "one", "stage": stage, **properties})


def passed(definitions: Definitions, *facts: Touchpoint, now: float = 100) -> list[tuple[str, float, str]]:
    """Each line as its stage (with the reason, if it was refused), its day, and its cause."""
    events: list[Event] = []
    fold(definitions, facts, tell=events.append, until=int(now * DAY))
    return [(" ".join(filter(None, (event.stage, event.reason))), event.at / DAY, event.cause) for event in events]


def timeline(first: dict[str, Any], *later: tuple[float, dict[str, Any]]) -> Definitions:
    versions = [active(1, BEGINNING, **first)]
    versions += [active(number, int(day * DAY), **parts) for number, (day, parts) in enumerate(later, 2)]
    return {"one": tuple(versions)}


def only_journey(state: CustomerState) -> JourneyState:
    ((journey,),) = [subjects.values() for subjects in state.journeys.values()]
    return journey


X_TO_B = {"on": "x", "to": "b"}


def test_nothing_is_due_of_whom_nothing_is_known() -> None:
    assert fold(definitions(rules=[]), (), until=DAY) == UNKNOWN


def test_deadlines_fire_in_their_order_up_to_and_at_the_last_instant() -> None:
    one = timeline({"rules": [{"after": "3d", "to": "d"}, {"after": "1d", "to": "b"}, {"after": "2d", "to": "c"}]})
    assert passed(one, fact(1, "y"), now=3) == [("a", 1, "touchpoint"), ("b", 2, "timer"), ("c", 3, "timer")]


def test_the_place_of_a_deadline_comes_before_the_facts_of_its_instant() -> None:
    one = timeline({"rules": [{"after": "1d", "without": "y", "to": "b"}]})
    before = fold(one, [fact(1)])
    assert fold(one, [], before, until=2 * DAY - 1) == before
    after = fold(one, [], before, until=5 * DAY)
    assert (after.place, after.facts) == (Place(2 * DAY, "", ""), 1)
    state, events = step(one, after, fact(2, "y"))
    assert (state.place, events) == (fact(2).place, ())
    with pytest.raises(ValueError, match="does not sort after"):
        step(one, after, fact(1.5))


def test_a_state_may_stand_behind_what_is_due_at_an_instant_that_it_has_facts_of() -> None:
    one = timeline({"rules": [{"after": "1d", "to": "b"}]})
    state = fold(one, [fact(1), fact(2, id_="u")], until=2 * DAY)
    assert state.place == Place(2 * DAY, "u", "s")


def test_clocks() -> None:
    rules = [X_TO_B, {"on": "y", "to": "c"}, {"on": "z", "to": "a"}]
    timers = [
        {"after": "9d", "from": ["b", "c"], "without": "y", "to": "d"},
        {"after": "8d", "without": "any", "to": "d"},
    ]
    state = UNKNOWN
    one = timeline({"rules": rules + timers})
    seen = []
    for each in (fact(1, "w"), fact(2, "x"), fact(3, "x"), override(3.5, "c"), identify(4), fact(5, "y"), fact(6, "z")):
        state, _ = step(one, state, each)
        seen.append([clock and clock / DAY for clock in only_journey(state).clocks])
    assert seen == [[None, 1], [2, 2], [2, 3], [2, 3], [2, 3], [5, 5], [None, 6]]


def test_which_timer_is_next() -> None:
    rules = [{"after": "9d", "to": "d"}, {"after": "8d", "from": "a", "to": "d"}, {"after": "8d", "to": "b"}, X_TO_B]
    (one,) = timeline({"rules": rules})["one"]
    state, _ = step({"one": (one,)}, UNKNOWN, fact(1, "y"))
    timer = next_timer(one.definition, only_journey(state))
    assert timer is not None
    assert (timer[0].index, timer[2]) == (1, 9 * DAY)
    assert only_journey(state).wake == state.wake == 9 * DAY
    state = fold({"one": (one,)}, (), state, until=50 * DAY)
    assert next_timer(one.definition, only_journey(state)) is None
    assert state.wake is None


def test_journeys_are_worked_through_together() -> None:
    events: list[Event] = []
    one = timeline({"per": "properties.line", "rules": [{"after": "2d", "to": "b"}, {"after": "4d", "to": "c"}]})
    fold(one, [fact(1, line="k"), fact(2, line="l")], tell=events.append, until=9 * DAY)
    assert [(event.subject, event.stage, event.at / DAY) for event in events] == [
        *[("k", "a", 1), ("l", "a", 2)],
        *[("k", "b", 3), ("l", "b", 4), ("k", "c", 5), ("l", "c", 6)],
    ]


def test_the_windows_of_stages_that_no_condition_is_from_wake_nobody() -> None:
    measures = {"n": {"count": "x", "within": "2d"}}
    one = timeline({"measures": measures, "rules": [{"from": "b", "when": ["measures.n < 1"], "to": "c"}]})
    assert fold(one, [fact(1)]).wake is None
    # Nor does the end that has gone by when such a stage is entered.
    assert passed(one, fact(1), override(9, "b")) == [("a", 1, "touchpoint"), ("b", 9, "override")]
    assert passed(one, fact(1), override(2, "b")) == [
        ("a", 1, "touchpoint"),
        ("b", 2, "override"),
        ("c", 3, "condition"),
    ]


def test_a_condition_is_judged_with_windows_as_of_its_instant() -> None:
    one = timeline(
        {
            "stages": [{"key": "a"}, {"key": "b", "requires": ["measures.n >= 1"]}, {"key": "c"}],
            "measures": {"n": {"count": "x", "within": "2d"}},
            "rules": [{"when": ["traits.go == true"], "to": "b"}, {"after": "5d", "to": "b"}],
        }
    )
    assert passed(one, fact(1), identify(2, go=True)) == [("a", 1, "touchpoint"), ("b", 2, "condition")]
    assert passed(one, fact(1), identify(3, go=True)) == [
        ("a", 1, "touchpoint"),
        ("b requires[0]", 3, "condition"),
        ("b requires[0]", 6, "timer"),
    ]


def test_at_one_instant_windows_come_after_deadlines() -> None:
    rules = [{"from": "b", "when": ["measures.n < 1"], "to": "c"}, {"after": "2d", "to": "b"}]
    one = timeline({"measures": {"n": {"count": "x", "within": "2d"}}, "rules": rules})
    assert passed(one, fact(1)) == [("a", 1, "touchpoint"), ("b", 3, "timer"), ("c", 3, "condition")]


# -- traits ----------------------------------------------------------------------------------------------------------


def test_traits() -> None:
    one = definitions(rules=[])
    state = UNKNOWN
    for each in (
        identify(1, plan="pro", seats=1),
        identify(2, plan=None),
        fact(3, IDENTIFY, traits="?"),
        identify(4, x=0),
    ):
        state, events = step(one, state, each)
        assert events == ()
    assert state == CustomerState(identify(4).place, 4, {}, {"seats": 1, "x": 0})


def test_an_identify_is_an_occasion_for_conditions_only() -> None:
    rules = [
        {"on": "x", "when": ["traits.plan == 1"], "to": "b"},
        {"from": "b", "when": ["traits.plan == 2"], "to": "c"},
    ]
    two = {**timeline({"rules": rules}), **definitions("other", rules=[])}
    assert passed(two, fact(1, "y"), identify(2, plan=1), fact(3, "x"), identify(4, plan=2), identify(5, plan=2)) == [
        *[("a", 1, "touchpoint"), ("b", 1, "touchpoint")],
        *[("b", 3, "touchpoint"), ("c", 4, "condition")],
    ]


def test_facts_of_other_reserved_types_touch_nothing() -> None:
    types = ("x", IDENTIFY, OVERRIDE, "$link", "$retract", "$later")
    assert [type_ for type_ in types if is_folded(type_)] == ["x", IDENTIFY, OVERRIDE]
    assert passed(timeline({"rules": []}), fact(1, "$link")) == []


# -- overrides and pins ----------------------------------------------------------------------------------------------


def test_an_override_elsewhere_is_for_others() -> None:
    both = {**timeline({"rules": []}), **definitions("per", per="properties.line", rules=[])}
    assert passed(
        both,
        override(1, "b", lifecycle="nowhere"),
        override(2, "b", lifecycle="per", subject=None),
        override(3, "b", subject="shoes"),
        override(4, "b", lifecycle="per", subject="shoes"),
    ) == [("b", 4, "override")]


def test_an_override_to_an_unknown_stage() -> None:
    one = timeline({"rules": []})
    events: list[Event] = []
    state = fold(
        one, [override(1, "e"), fact(2), override(3, "e", 9), override(4, "d", 9), override(5, "e")], tell=events.append
    )
    assert [(event.origin, event.move, event.rule) for event in events if event.reason == "unknown stage"] == [
        (None, "refused", None),
        ("a", "refused", None),
        ("d", "refused", None),
    ]
    assert only_journey(state).shown == Shown("d", 4 * DAY, "a", 9 * DAY, "o", "s")


def test_a_pin_hides_what_goes_on_beneath() -> None:
    one = timeline({"moves": {"a": ["b"]}, "rules": [X_TO_B, {"on": "y", "to": "c"}]})
    facts = [fact(1, "w"), override(2, "d", 9), fact(3, "x"), fact(4, "y")]
    journey = only_journey(fold(one, facts))
    assert (journey.stage, journey.entered_at, journey.visits) == ("b", 3 * DAY, {"a": 1, "b": 1})
    assert journey.current[:3] == ("d", 2 * DAY, "a")
    assert passed(one, *facts, fact(10, "y")) == [
        *[("a", 1, "touchpoint"), ("d", 2, "override"), ("b", 9, "override"), ("c moves", 10, "touchpoint")],
    ]


def test_what_a_timer_does_beneath_a_pin_is_hidden_too() -> None:
    one = timeline({"moves": {"a": ["b"]}, "rules": [{"after": "1d", "to": "c"}, {"after": "2d", "to": "b"}]})
    assert passed(one, fact(1), override(1.5, "d", 9)) == [
        ("a", 1, "touchpoint"),
        ("d", 1.5, "override"),
        ("b", 9, "override"),
    ]


def test_a_pin_that_ends_where_the_fold_is_leaves_the_stay_as_it_was() -> None:
    one = timeline({"rules": [X_TO_B]})
    state = fold(one, [fact(1, "w"), override(2, "b", 9), fact(3, "x")], until=20 * DAY)
    journey = only_journey(state)
    assert (journey.entered_at, journey.current) == (3 * DAY, Shown("b", 2 * DAY, "a", None, "", ""))
    # What comes next is told of as if the pin had never been.
    state, _ = step(one, state, override(21, "c"))
    assert only_journey(state).shown is None


def test_an_override_without_an_end_ends_a_pin() -> None:
    one = timeline({"rules": []})
    state = fold(one, [fact(1), override(2, "d", 9), override(3, "a")], until=20 * DAY)
    journey = only_journey(state)
    assert (journey.entered_at, journey.current.entered_at, journey.visits) == (DAY, 3 * DAY, {"a": 1})
    assert passed(one, fact(1), override(2, "d", 9), override(3, "d")) == [("a", 1, "touchpoint"), ("d", 2, "override")]


def test_a_pin_opens_a_journey_beneath_at_the_initial_stage() -> None:
    one = timeline({"rules": [], "measures": {"n": {"count": "any"}}})
    journey = only_journey(fold(one, [override(1, "c", 5), fact(2)]))
    assert (journey.stage, journey.visits, journey.totals) == ("a", {"a": 1}, (1,))
    assert passed(one, override(1, "c", 5)) == [("c", 1, "override"), ("a", 5, "override")]
    assert passed(one, override(1, "a", 5)) == [("a", 1, "override")]


# -- switches --------------------------------------------------------------------------------------------------------


def test_a_switch_comes_to_journeys_in_its_time() -> None:
    one = timeline({"rules": []}, (5, {"rules": [X_TO_B]}))
    assert passed(one, fact(1), fact(4, id_="u"), fact(5, id_="v")) == [("a", 1, "touchpoint"), ("b", 5, "touchpoint")]
    assert passed(one, fact(5)) == [("b", 5, "touchpoint")]
    state = fold(one, [fact(1)])
    assert state.wake == 5 * DAY
    assert only_journey(fold(one, (), state, until=5 * DAY)).definition_version == 2


def test_a_switch_renames_what_the_new_version_lacks() -> None:
    parts = {"stages": [{"key": "a"}, {"key": "m"}], "rename": {"b": "m", "c": "m"}}
    one = timeline(
        {"rules": [X_TO_B, {"on": "y", "to": "c"}]}, (5, {**parts, "rules": [{"after": "6d", "from": "m", "to": "a"}]})
    )
    state = fold(one, [fact(1), fact(2, "y")], until=5 * DAY)
    journey = only_journey(state)
    assert (journey.stage, journey.entered_at, journey.previous_stage) == ("m", 5 * DAY, "c")
    assert (journey.visits, journey.clocks) == ({"m": 2}, (DAY,))
    assert passed(one, fact(1), fact(2, "y"))[2:] == [("m", 5, "definition"), ("a", 7, "timer")]


def test_a_switch_under_a_pin() -> None:
    parts = {"stages": [{"key": key} for key in "amn"], "rename": {"b": "m", "c": "m", "d": "n"}, "rules": []}
    one = timeline({"rules": [X_TO_B]}, (5, parts))
    assert passed(one, fact(1), override(2, "d", 8)) == [
        *[("b", 1, "touchpoint"), ("d", 2, "override")],
        *[("n", 5, "definition"), ("m", 8, "override")],
    ]
    # Both are the same stage now, and the end of the pin is nothing.
    assert passed(one, fact(1), override(2, "c", 8))[2:] == [("m", 5, "definition")]
    journey = only_journey(fold(one, [fact(1), override(2, "a", 8)], until=5 * DAY))
    assert (journey.stage, journey.current.stage) == ("m", "a")


def test_a_switch_judges_conditions_and_then_what_is_overdue() -> None:
    rules = [{"when": ["measures.n == 2"], "to": "b"}, {"after": "1d", "to": "c"}, {"after": "9d", "to": "d"}]
    parts = {"measures": {"n": {"count": "x"}, "recent": {"count": "x", "within": "3d"}}, "rules": rules}
    one = timeline({"rules": []}, (5, parts))
    assert passed(one, fact(1), fact(2, id_="u")) == [
        *[("a", 1, "touchpoint"), ("b", 5, "condition")],
        *[("c", 5, "timer"), ("d", 10, "timer")],
    ]
    assert only_journey(fold(one, [fact(1), fact(2, id_="u")], until=5 * DAY)).totals[0] == 2


def test_moves_without_a_touchpoint_are_seen_by_later_versions() -> None:
    one = timeline(
        {"rules": [{"after": "2d", "to": "b"}]},
        (5, {"rules": [{"after": "4d", "from": "b", "to": "c"}]}),
        (6, {"rules": [{"after": "5d", "from": "b", "to": "d"}]}),
    )
    # In b since 3: by the third version's clock, which the second version's never reached.
    assert passed(one, fact(1)) == [("a", 1, "touchpoint"), ("b", 3, "timer"), ("d", 8, "timer")]


# -- what an engine needs --------------------------------------------------------------------------------------------


def test_a_lifecycle_that_is_not_active_rests() -> None:
    rules = [{"when": ["traits.go == true"], "to": "c"}, {"after": "1d", "to": "b"}]
    one, other = timeline({"rules": rules}), definitions("other", rules=[])
    state = fold({**one, **other}, [fact(1)])
    events: list[Event] = []
    facts = [fact(day, id_=str(day)) for day in range(2, 40)]
    state = fold(other, [identify(1.5, go=True), *facts], state, events.append, lambda _: None, until=90 * DAY)
    assert (events, state.wake) == ([], None)
    assert state.journeys["one"][None].stage == "a"


def test_states_that_carry_much_are_kept_rarely() -> None:
    kept: list[int] = []
    one = timeline({"measures": {"n": {"count": "x", "within": "36500d"}}, "rules": []})
    fold(one, [fact(day, id_=str(day)) for day in range(1, 1025)], checkpoint=lambda state: kept.append(state.facts))
    assert kept == [*range(16, 256, 16), *range(256, 512, 32), *range(512, 1025, 64)]
