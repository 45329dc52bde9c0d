"""Corners of the fold that the worked examples leave out."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions, fold, step
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState, Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint


def definitions(key: str = "one", version: int = 1, initial: str = "b", **parts: Any) -> Definitions:
    document = {"lifecycle": key, "initial": initial, "stages": [{"key": each} for each in "abcd"], **parts}
    return {key: (ActiveDefinition(version, compile_definition(document, Cel())),)}


def touchpoint(n: int, type_: str = "x", source: str = "s", **properties: Any) -> Touchpoint:
    return Touchpoint(str(n), source, type_, n, "c", None, properties, {})


def told(
    active: Definitions, *touchpoints: Touchpoint
) -> list[tuple[str, str | None, str, tuple[str, ...], int | None]]:
    events: list[Event] = []
    fold(active, touchpoints, tell=events.append)
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
    active = definitions(measures={"n": {"count": "any"}}, rules=[{"on": "x", "when": [guard], "to": "c"}])
    assert told(active, touchpoint(1, y=7)) == [
        ("c" if holds else "b", None, "start", ("b",) if holds else (), 0 if holds else None)
    ]


def test_a_refusal_at_the_opening_comes_after_the_start() -> None:
    active = definitions(moves={"a": ["b"]}, rules=[{"on": "x", "to": "d"}])
    assert told(active, touchpoint(1)) == [("b", None, "start", (), None), ("d", "b", "refused", (), 0)]


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
    active = definitions(measures={"n": {"count": "any"}}, rules=rules)
    events: list[Event] = []
    fold(active, [touchpoint(1), touchpoint(2, "y"), touchpoint(3, "z")], tell=events.append)
    assert [(event.stage, event.cause, event.rule, event.touchpoint) for event in events] == [
        ("b", "touchpoint", None, "1"),
        ("a", "touchpoint", 0, "2"),
        ("c", "condition", 1, "3"),
    ]


def test_an_id_is_unique_within_its_source() -> None:
    active = definitions(measures={"n": {"count": "any"}}, rules=[])
    state = fold(active, [touchpoint(1, source="s"), touchpoint(1, source="t")])
    journey = state.journey("one", None)
    assert journey is not None
    assert journey.totals == (2,)
    with pytest.raises(ValueError, match="does not sort after"):
        step(active, state, touchpoint(1, source="s"))


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
    active = definitions(measures={"n": {"count": "any"}}, per="properties.line", rules=[])
    facts = [touchpoint(n, line=n % 3) for n in range(40)]
    state = fold(active, facts, checkpoint=checkpoints.append)
    assert [each.facts for each in checkpoints] == [16, 32]
    assert [sum(journey.totals[0] for journey in each.journeys["one"].values()) for each in checkpoints] == [16, 32]
    assert fold(active, facts[32:], checkpoints[1]) == fold(active, facts[16:], checkpoints[0]) == state
