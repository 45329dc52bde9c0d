"""The oracle against results worked out by hand: those of the contract, and of what its examples leave out.

The days are of March 2026; what is expected is written down from the contract, never from a run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import oracle
from tests.conformance.examples import CASES, Case, Refusal, Stay, microseconds
from tests.oracle_guards import Absent, names, truth
from tests.oracle_identity import customers, owners
from tests.oracle_times import duration

Fact = dict[str, Any]


def arrived(facts: Iterable[Mapping[str, Any]], seed: int = 0) -> list[Mapping[str, Any]]:
    """In some order, each of them twice."""
    return random.Random(seed).sample(twice := [*facts, *facts], len(twice))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_examples_of_the_contract(case: Case) -> None:
    facts = [dict(fact, source="test", context={}) for fact in case.touchpoints]
    passages = oracle.replay(case.definition, arrived(facts), case.now)
    stays = {subject: tuple(Stay(*stay[:7]) for stay in passage.stays) for (_, subject), passage in passages.items()}
    refusals = tuple(refusal[:4] for passage in passages.values() for refusal in passage.refusals)
    assert stays == case.journeys
    assert (
        tuple(Refusal(at, rule, to, reason) for at, rule, to, reason in refusals if rule is not None) == case.refusals
    )


# -- journeys ------------------------------------------------------------------------------------------------------


def day(text: str) -> int:
    """`05` or `05T12:00:00Z`, of March 2026."""
    return microseconds(f"2026-03-{text}" if "T" in text else f"03-{text}")


def fact(id_: str, type_: str, at: str, **properties: Any) -> Fact:
    return {
        "id": id_,
        "source": "s",
        "type": type_,
        "occurred_at": day(at),
        "properties": properties,
        "context": {},
    }


def override(id_: str, at: str, stage: str, until: str | None = None, **properties: Any) -> Fact:
    to = {"lifecycle": "l", "subject": None, "stage": stage, "reason": "because", "actor": "me"}
    end = {} if until is None else {"expires_at": f"2026-03-{until}T00:00:00Z"}
    return fact(id_, "$override", at, **to | end | properties)


def identify(id_: str, at: str, **traits: Any) -> Fact:
    return fact(id_, "$identify", at, traits=traits)


def definition(*rules: Mapping[str, Any], stages: str = "abcd", **others: Any) -> dict[str, Any]:
    keys = [{"key": key} for key in stages]
    return {"lifecycle": "l", "initial": stages[0], "stages": keys, "rules": list(rules), **others}


@dataclass(frozen=True)
class Worked:
    """`versions` are documents and from which day on they hold; numbered from 1.

    A stay is (stage, day, origin, move, skipped, rule, cause, touchpoint, version), a refusal (day, rule, to, reason,
    touchpoint, origin, cause, version).
    """

    name: str
    versions: list[tuple[str | None, dict[str, Any]]]
    facts: list[Fact]
    now: str
    stays: list[tuple[Any, ...]]
    refusals: list[tuple[Any, ...]] = field(default_factory=list)
    visits: dict[str, int] | None = None
    beneath: tuple[str, str] | None = None
    next_timer: tuple[int, str] | None = None


X_TO_B: Mapping[str, Any] = {"on": "x", "to": "b"}
Y_TO_C: Mapping[str, Any] = {"on": "y", "to": "c"}
START_AT_A = ("a", "01", None, "start", "", None, "touchpoint", "t1", 1)
START_AT_B = ("b", "01", None, "start", "a", 0, "touchpoint", "t1", 1)

WORKED = [
    Worked(
        "an override opens past all guards, and the rules go on from there",
        [
            (
                None,
                definition(
                    X_TO_B,
                    stages="abc",
                    moves={"a": ["b"]},
                ),
            )
        ],
        [override("o1", "01", "c"), fact("t1", "x", "02")],
        "03",
        [("c", "01", None, "start", "ab", None, "override", "o1", 1)],
        [("02", 0, "b", "moves", "t1", "c", "touchpoint", 1)],
        visits={"c": 1},
    ),
    Worked(
        "an override to the present stage does nothing, and one elsewhere is a stay with a visit",
        [(None, definition(X_TO_B))],
        [fact("t1", "x", "01"), override("o1", "02", "b"), override("o2", "03", "d"), override("o3", "04", "b")],
        "05",
        [
            START_AT_B,
            ("d", "03", "b", "skip", "c", None, "override", "o2", 1),
            ("b", "04", "d", "back", "", None, "override", "o3", 1),
        ],
        visits={"b": 2, "d": 1},
    ),
    Worked(
        "the move of an override starts and stops clocks; no fact of our own starts one anew",
        [
            (
                None,
                definition(
                    {"after": "5d", "from": "c", "without": "any", "to": "a"}, {"after": "4d", "from": "a", "to": "d"}
                ),
            )
        ],
        [
            fact("t1", "look", "01"),
            override("o1", "03", "c"),  # stops the second clock, starts the first one
            override("o2", "05", "c"),
            identify("i1", "06", plan="pro"),
        ],
        "09",
        [
            START_AT_A,
            ("c", "03", "a", "skip", "b", None, "override", "o1", 1),
            ("a", "08", "c", "back", "", 0, "timer", None, 1),
        ],
        next_timer=(1, "12"),
    ),
    Worked(
        "a pin hides the fold beneath, and ends where that has got to",
        [(None, definition(X_TO_B, Y_TO_C))],
        [
            fact("t1", "look", "01"),
            override("o1", "02", "d", until="10"),
            fact("t2", "x", "05"),
            fact("t3", "y", "12"),
        ],
        "13",
        [
            START_AT_A,
            ("d", "02", "a", "skip", "bc", None, "override", "o1", 1),
            ("b", "10", "d", "back", "", None, "override", "o1", 1),
            ("c", "12", "b", "advance", "", 1, "touchpoint", "t3", 1),
        ],
        visits={"a": 1, "b": 1, "c": 1},
    ),
    Worked(
        "a pin that ends where the fold has got to leaves no line",
        [(None, definition(X_TO_B))],
        [fact("t1", "look", "01"), override("o1", "02", "b", until="10"), fact("t2", "x", "05")],
        "20",
        [START_AT_A, ("b", "02", "a", "advance", "", None, "override", "o1", 1)],
        beneath=("b", "05"),
    ),
    Worked(
        "a pin is still there a moment before its end",
        [(None, definition(X_TO_B))],
        [fact("t1", "look", "01"), override("o1", "02", "d", until="10")],
        "09T23:59:59.999999Z",
        [START_AT_A, ("d", "02", "a", "skip", "bc", None, "override", "o1", 1)],
        beneath=("a", "01"),
    ),
    Worked(
        "what is refused under a pin is no line; guards see the fold beneath",
        [(None, definition(X_TO_B, {"on": "z", "when": ['journey.stage == "b"'], "to": "c"}, moves={"a": ["b"]}))],
        [
            fact("t1", "look", "01"),
            override("o1", "02", "d", until="10"),
            fact("t2", "x", "03"),
            fact("t3", "z", "04"),
            fact("t4", "z", "11"),
        ],
        "12",
        [
            START_AT_A,
            ("d", "02", "a", "skip", "bc", None, "override", "o1", 1),
            ("b", "10", "d", "back", "", None, "override", "o1", 1),
        ],
        [("11", 1, "c", "moves", "t4", "b", "touchpoint", 1)],
    ),
    Worked(
        "a pin opens a journey, beneath it at the initial stage, whose clock runs",
        [(None, definition({"after": "3d", "from": "a", "to": "b"}))],
        [override("o1", "01", "c", until="10")],
        "11",
        [
            ("c", "01", None, "start", "ab", None, "override", "o1", 1),
            ("b", "10", "c", "back", "", None, "override", "o1", 1),
        ],
        visits={"a": 1, "b": 1},
        beneath=("b", "04"),
    ),
    Worked(
        "an override without an end ends a pin, and sets the stage beneath",
        [(None, definition(X_TO_B, Y_TO_C))],
        [
            fact("t1", "x", "01"),
            override("o1", "02", "d", until="20"),
            override("o2", "03", "b"),  # where the fold beneath is
            fact("t2", "y", "04"),
            override("o3", "05", "d", until="20"),
            override("o4", "06", "d"),  # where the pin is
        ],
        "25",
        [
            START_AT_B,
            ("d", "02", "b", "skip", "c", None, "override", "o1", 1),
            ("b", "03", "d", "back", "", None, "override", "o2", 1),
            ("c", "04", "b", "advance", "", 1, "touchpoint", "t2", 1),
            ("d", "05", "c", "advance", "", None, "override", "o3", 1),
        ],
        visits={"b": 1, "c": 1, "d": 1},
        beneath=("d", "06"),
    ),
    Worked(
        "a later pin takes the place of an earlier one, whose end no longer comes",
        [(None, definition(X_TO_B))],
        [
            fact("t1", "x", "01"),
            override("o1", "02", "d", until="05"),
            override("o2", "03", "c", until="10"),
            override("o3", "04", "c", until="08"),  # no line, and yet it is this one that ends
        ],
        "25",
        [
            START_AT_B,
            ("d", "02", "b", "skip", "c", None, "override", "o1", 1),
            ("c", "03", "d", "back", "", None, "override", "o2", 1),
            ("b", "08", "c", "back", "", None, "override", "o3", 1),
        ],
        visits={"b": 1},
    ),
    Worked(
        "at one instant a pin ends before deadlines, and those come before facts",
        [(None, definition(X_TO_B, {"after": "5d", "from": "a", "to": "c"}))],
        [fact("t1", "look", "01"), override("o1", "02", "d", until="06"), fact("t2", "x", "06")],
        "07",
        [
            START_AT_A,
            ("d", "02", "a", "skip", "bc", None, "override", "o1", 1),
            ("a", "06", "d", "back", "", None, "override", "o1", 1),
            ("c", "06", "a", "skip", "b", 1, "timer", None, 1),
            ("b", "06", "c", "back", "", 0, "touchpoint", "t2", 1),
        ],
    ),
    Worked(
        "an override to an unknown stage is refused and opens nothing, and ends no pin",
        [(None, definition(X_TO_B))],
        [
            override("o1", "01", "gone"),
            fact("t1", "look", "01"),
            override("o2", "02", "d", until="09"),
            override("o3", "03", "gone"),
            override("o4", "04", "c", lifecycle="another"),
            override("o5", "05", "c", subject="shoes", lifecycle="another"),
        ],
        "06",
        [START_AT_A, ("d", "02", "a", "skip", "bc", None, "override", "o2", 1)],
        [
            ("01", None, "gone", "unknown stage", "o1", None, "override", 1),
            ("03", None, "gone", "unknown stage", "o3", "d", "override", 1),
        ],
    ),
    Worked(
        "only an override to an unknown stage",
        [(None, definition(X_TO_B))],
        [override("o1", "01", "gone", until="05")],
        "06",
        [],
        [("01", None, "gone", "unknown stage", "o1", None, "override", 1)],
    ),
    Worked(
        "a switch renames the stage, and clocks and visits run on",
        [
            (None, definition(X_TO_B, {"on": "y", "to": "a"}, stages="abc")),
            ("05", definition({"after": "10d", "from": "m", "to": "c"}, stages="amc", rename={"b": "m"})),
        ],
        [fact("t1", "x", "01"), fact("t2", "y", "02"), fact("t3", "x", "03")],
        "13",
        [
            START_AT_B,
            ("a", "02", "b", "back", "", 1, "touchpoint", "t2", 1),
            ("b", "03", "a", "advance", "", 0, "touchpoint", "t3", 1),
            ("m", "05", "b", "reenter", "", None, "definition", None, 2),
            ("c", "13", "m", "advance", "", 0, "timer", None, 2),
        ],
        visits={"a": 1, "m": 2, "c": 1},
    ),
    Worked(
        "stages are read through two renames, and two that became one never leave a timer's set",
        [
            (None, definition(X_TO_B, Y_TO_C, stages="abc")),
            ("05", definition(stages="am", rename={"b": "m", "c": "m"})),
            ("06", definition({"after": "6d", "from": "n", "to": "a"}, stages="an", rename={"m": "n"})),
        ],
        [fact("t1", "x", "01"), fact("t2", "y", "03")],
        "08",
        [
            START_AT_B,
            ("c", "03", "b", "advance", "", 1, "touchpoint", "t2", 1),
            ("m", "05", "c", "reenter", "", None, "definition", None, 2),
            ("n", "06", "m", "reenter", "", None, "definition", None, 3),
            ("a", "07", "n", "back", "", 0, "timer", None, 3),
        ],
        visits={"n": 2, "a": 1},
    ),
    Worked(
        "what is overdue at a switch fires then, by the rule's place, each only if its clock still runs",
        [
            (None, definition(X_TO_B)),
            (
                "05",
                definition(
                    X_TO_B,
                    {"after": "3d", "from": "b", "to": "c"},
                    {"after": "2d", "from": "b", "to": "d"},
                    {"after": "2d", "to": "a"},
                ),
            ),
        ],
        [fact("t1", "x", "01")],
        "06",
        [
            START_AT_B,
            ("c", "05", "b", "advance", "", 1, "timer", None, 2),
            ("a", "05", "c", "back", "", 3, "timer", None, 2),
        ],
    ),
    Worked(
        "at a switch conditions come before what is overdue, with measures over all facts since the opening",
        [
            (None, definition(X_TO_B, opens="x")),
            (
                "05",
                definition(
                    X_TO_B,
                    {"after": "2d", "from": "b", "to": "c"},
                    {"when": ["measures.looks >= 2"], "to": "d"},
                    measures={"looks": {"count": "look"}},
                ),
            ),
        ],
        [fact("t0", "look", "01"), fact("t1", "x", "01"), fact("t2", "look", "02"), fact("t3", "look", "03")],
        "06",
        [START_AT_B, ("d", "05", "b", "skip", "c", 2, "condition", None, 2)],
    ),
    Worked(
        "a timer that was judged under the old version hasn't been under the new one",
        [
            (None, definition(X_TO_B, {"after": "2d", "when": ['journey.stage == "a"'], "to": "d"})),
            ("10", definition(X_TO_B, {"after": "2d", "to": "d"})),
        ],
        [fact("t1", "x", "01")],
        "11",
        [START_AT_B, ("d", "10", "b", "skip", "c", 1, "timer", None, 2)],
    ),
    Worked(
        "a fact at the instant of a switch is judged by the new version, also when it opens",
        [(None, definition(X_TO_B)), ("05", definition(Y_TO_C, stages="mbc", opens="y", rename={"a": "m", "d": "c"}))],
        [fact("t0", "x", "05"), fact("t1", "y", "05")],
        "06",
        [("c", "05", None, "start", "mb", 0, "touchpoint", "t1", 2)],
    ),
    Worked(
        "a switch under a pin renames what is shown and, unseen, what is beneath",
        [
            (None, definition(X_TO_B)),
            ("05", definition(stages="amcn", rename={"b": "m", "d": "n"})),
        ],
        [fact("t1", "x", "01"), override("o1", "02", "d", until="08")],
        "09",
        [
            START_AT_B,
            ("d", "02", "b", "skip", "c", None, "override", "o1", 1),
            ("n", "05", "d", "reenter", "", None, "definition", None, 2),
            ("m", "08", "n", "back", "", None, "override", "o1", 2),
        ],
        visits={"m": 1},
        beneath=("m", "05"),
    ),
    Worked(
        "a switch that lacks only the pinned stage",
        [(None, definition(X_TO_B)), ("05", definition(stages="abc", rename={"d": "c"}))],
        [fact("t1", "x", "01"), override("o1", "02", "d", until="08")],
        "07",
        [
            START_AT_B,
            ("d", "02", "b", "skip", "c", None, "override", "o1", 1),
            ("c", "05", "d", "reenter", "", None, "definition", None, 2),
        ],
        beneath=("b", "01"),
    ),
    Worked(
        "a switch that lacks only the stage beneath a pin",
        [(None, definition(X_TO_B)), ("05", definition(stages="acd", rename={"b": "c"}))],
        [fact("t1", "x", "01"), override("o1", "02", "d", until="08")],
        "07",
        [START_AT_B, ("d", "02", "b", "skip", "c", None, "override", "o1", 1)],
        beneath=("c", "05"),
    ),
    Worked(
        "an identify that moves within a timer's set starts no clock anew",
        [
            (
                None,
                definition(
                    {"from": "a", "when": ["traits.n == 1"], "to": "b"}, {"after": "5d", "without": "any", "to": "d"}
                ),
            )
        ],
        [fact("t1", "look", "01"), identify("i1", "03", n=1)],
        "06",
        [
            START_AT_A,
            ("b", "03", "a", "advance", "", 0, "condition", "i1", 1),
            ("d", "06", "b", "skip", "c", 1, "timer", None, 1),
        ],
    ),
    Worked(
        "a trait makes a condition hold, from the identify on; null takes it away",
        [
            (
                None,
                definition(
                    {"from": "a", "when": ['traits.plan == "pro"'], "to": "c"},
                    {"from": "c", "when": ['!(traits.plan == "pro") || traits.left == true'], "to": "a"},
                ),
            )
        ],
        [
            identify("i0", "01", plan="free"),
            fact("t1", "look", "01"),
            identify("i1", "02", plan="pro"),
            identify("i2", "03", plan=None),  # errs, on either side of the ||
            identify("i3", "04", left=True),
        ],
        "05",
        [
            ("a", "01", None, "start", "", None, "touchpoint", "t1", 1),
            ("c", "02", "a", "skip", "b", 0, "condition", "i1", 1),
            ("a", "04", "c", "back", "", 1, "condition", "i3", 1),
        ],
    ),
    Worked(
        "traits are there before the opening, and an identify judges no rule with on",
        [(None, definition({"on": ["x", "$identify"], "when": ["traits.points >= 10"], "to": "d"}))],
        [identify("i1", "01", points=10), identify("i2", "02"), fact("t1", "x", "03")],
        "04",
        [("d", "03", None, "start", "abc", 0, "touchpoint", "t1", 1)],
    ),
    Worked(
        "where there is no event, a guard that names it errs",
        [
            (
                None,
                definition(
                    {"after": "2d", "to": "d"},
                    {"when": ['event.type != "none"', 'traits.plan == "pro"'], "to": "b"},
                )
                | {"stages": [{"key": "a"}, {"key": "b"}, {"key": "d", "requires": ['!(event.type == "none")']}]},
            )
        ],
        [fact("t1", "look", "01"), identify("i1", "02", plan="pro"), fact("t2", "look", "04")],
        "05",
        [START_AT_A, ("b", "04", "a", "advance", "", 1, "condition", "t2", 1)],
        [("03", 0, "d", "requires[0]", None, "a", "timer", 1)],
    ),
    Worked(
        "at one instant a deadline comes before a window's end, and that before a fact",
        [
            (
                None,
                definition(
                    {"on": "y", "to": "d"},
                    {"from": "b", "when": ["measures.n < 1"], "to": "c"},
                    {"after": "4d", "to": "b"},
                    measures={"n": {"count": "x", "within": "P4D"}},
                ),
            )
        ],
        [fact("t1", "x", "01"), fact("t2", "y", "05")],
        "06",
        [
            START_AT_A,
            ("b", "05", "a", "advance", "", 2, "timer", None, 1),
            ("c", "05", "b", "advance", "", 1, "condition", None, 1),
            ("d", "05", "c", "advance", "", 0, "touchpoint", "t2", 1),
        ],
    ),
    Worked(
        "what a measure doesn't take makes no window's end, nor does a measure that no condition names",
        [
            (
                None,
                definition(
                    {"from": "b", "when": ["measures.points < 1.0"], "to": "c"},
                    {"after": "4d", "to": "b"},
                    measures={
                        "points": {"sum": "properties.p", "of": "x", "within": "5d"},
                        "unnamed": {"count": "any", "within": "10d"},
                    },
                ),
            )
        ],
        [fact("t1", "look", "01", p=1), fact("t2", "x", "02", p="2")],
        "30",
        [START_AT_A, ("b", "05", "a", "advance", "", 1, "timer", None, 1)],
    ),
    Worked(
        "a timer that reenters its own stage rests until a touchpoint starts it anew",
        [(None, definition(X_TO_B, {"after": "5d", "without": "x", "from": "b", "to": "b", "reenter": True}))],
        [fact("t1", "x", "01"), fact("t2", "x", "20")],
        "31",
        [
            START_AT_B,
            ("b", "06", "b", "reenter", "", 1, "timer", None, 1),
            ("b", "25", "b", "reenter", "", 1, "timer", None, 1),
        ],
        visits={"b": 3},
    ),
    Worked(
        "without `without` a clock isn't started anew, not even by a stay that begins in its set",
        [
            (
                None,
                definition(
                    {"on": "x", "to": "b", "reenter": True},
                    {"after": "6d", "to": "a"},
                    {"after": "5d", "from": ["b", "c"], "to": "a"},
                ),
            )
        ],
        [fact("t1", "x", "01"), fact("t2", "x", "04")],
        "05",
        [START_AT_B, ("b", "04", "b", "reenter", "", 0, "touchpoint", "t2", 1)],
        next_timer=(2, "06"),
    ),
    Worked(
        "a touchpoint that leaves a timer's set and one that enters it",
        [
            (
                None,
                definition(
                    X_TO_B,
                    {"on": "y", "to": "a"},
                    {"after": "10d", "without": ["x", "y"], "from": "b", "to": "c"},
                    {"after": "10d", "without": "any", "from": "b", "to": "d"},
                ),
            )
        ],
        [fact("t1", "x", "01"), fact("t2", "y", "03"), fact("t3", "x", "05"), fact("t4", "look", "07")],
        "14",
        [
            START_AT_B,
            ("a", "03", "b", "back", "", 1, "touchpoint", "t2", 1),
            ("b", "05", "a", "advance", "", 0, "touchpoint", "t3", 1),
        ],
        next_timer=(2, "15"),
    ),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: worked.name)
def test_what_the_examples_leave_out(worked: Worked, seed: int) -> None:
    versions = [
        (None if since is None else day(since), number, document)
        for number, (since, document) in enumerate(worked.versions, 1)
    ]
    passages = oracle.replay_customer({"l": versions}, arrived(worked.facts, seed), day(worked.now))
    (passage,) = passages.values()
    stays = [
        oracle.Stay(stage, day(at), origin, move, tuple(skipped), rule, cause, by, by and "s", version)
        for stage, at, origin, move, skipped, rule, cause, by, version in worked.stays
    ]
    refusals = [
        oracle.Refusal(day(at), rule, to, reason, by, by and "s", origin, cause, version)
        for at, rule, to, reason, by, origin, cause, version in worked.refusals
    ]
    assert list(passage.stays) == stays
    assert list(passage.refusals) == refusals
    if worked.visits is not None:
        assert passage.visits == worked.visits
    if worked.beneath is not None:
        stage, at = worked.beneath
        assert passage.beneath == (stage, day(at))
    if worked.next_timer is not None:
        rule, at = worked.next_timer
        assert passage.next_timer == (rule, day(at))


def test_each_subject_is_a_journey_with_clocks_of_its_own() -> None:
    document = definition({"after": "5d", "without": "x", "to": "d"}, per="properties.line")
    facts = [
        fact("t1", "x", "01", line="hats"),
        fact("t2", "x", "03", line="shoes"),
        fact("t3", "x", "05", line="shoes"),
        fact("t4", "x", "05"),
        override("o1", "07", "b", subject="hats"),
    ]
    passages = oracle.replay(document, facts, day("08"))
    assert {
        subject: [(stay.stage, stay.entered_at, stay.cause) for stay in passage.stays]
        for (_, subject), passage in passages.items()
    } == {
        "hats": [("a", day("01"), "touchpoint"), ("d", day("06"), "timer"), ("b", day("07"), "override")],
        "shoes": [("a", day("03"), "touchpoint")],
    }
    assert [passage.next_timer for passage in passages.values()] == [None, (0, day("10"))]


def test_lifecycles_share_facts_and_the_customers_now() -> None:
    """A fact that touches no journey of a lifecycle still tells how far the customer's time has come."""
    first = definition({"after": "5d", "to": "d"}, opens="x")
    second = definition(Y_TO_C, opens="y") | {"lifecycle": "m"}
    facts = [fact("t1", "x", "01"), fact("t2", "y", "09")]
    passages = oracle.replay_customer({"l": [(None, 3, first)], "m": [(None, 7, second)]}, facts)
    assert {key: [(stay.stage, stay.version) for stay in passage.stays] for key, passage in passages.items()} == {
        ("l", None): [("a", 3), ("d", 3)],
        ("m", None): [("c", 7)],
    }


def test_now_is_the_last_fact_that_enters_the_fold_unless_the_clock_is_later() -> None:
    document = definition({"after": "5d", "to": "d"})
    facts = [fact("t1", "x", "01"), fact("l1", "$link", "20")]
    assert [stay.stage for stay in oracle.replay(document, facts)["l", None].stays] == ["a"]
    assert [stay.stage for stay in oracle.replay(document, facts, day("06"))["l", None].stays] == ["a", "d"]
    facts.append(identify("i1", "06"))
    assert [stay.stage for stay in oracle.replay(document, facts, day("02"))["l", None].stays] == ["a", "d"]


def test_nobody_came() -> None:
    assert oracle.replay(definition(), [], day("01")) == {}
    assert oracle.replay(definition(), [identify("i1", "01")]) == {}


def test_measures_are_those_of_the_version_in_force_at_now() -> None:
    old = definition(measures={"all": {"count": "x"}})
    new = definition(
        measures={
            "recent": {"count": "x", "within": "2d"},
            "first": {"first": "properties.p", "of": "x", "within": "2d"},
            "latest": {"max": "occurred_at", "of": "x"},
            "none": {"min": "properties.p", "within": "1d"},
        }
    )
    facts = [fact("t1", "x", "01", p=1), fact("t2", "x", "02", p=2), fact("t3", "x", "03", p=3), identify("i1", "04")]
    versions = [(None, 1, old), (day("04"), 2, new)]
    then = oracle.replay_customer({"l": versions[:1]}, facts)["l", None]
    now = oracle.replay_customer({"l": versions}, facts)["l", None]
    assert then.measures == {"all": 3}
    # What occurred on the second is outside: the window is (02, 04].
    assert now.measures == {"recent": 1, "first": 3, "latest": oracle.instant(day("03"))}


def test_traits_are_the_last_values_by_event_time() -> None:
    facts = [
        identify("i2", "02", plan="pro", age=30),
        identify("i1", "01", plan="free", name="A"),
        identify("i3", "03", age=None),
    ]
    assert oracle.traits_of(facts) == {"plan": "pro", "name": "A"}


# -- durations and guards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("6h", 21_600),
        ("14d", 1_209_600),
        ("2w", 1_209_600),
        ("P1DT6H", 108_000),
        ("PT30M", 1800),
        ("P2W", 1_209_600),
        ("36500d", 3_153_600_000),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds * 1_000_000


@pytest.mark.parametrize(
    "text", ["", "1", "d", "0s", "PT0S", "P", "P1DT", "P1M", "1y", "1mo", "-1d", "1.5h", "36501d", "1d6h"]
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        duration(text)


def test_a_guard_errs_on_what_is_absent_unless_the_rest_decides() -> None:
    values = {"traits.age": 30, "measures.n": 2}

    def value(name: str) -> Any:
        try:
            return values[name]
        except KeyError:
            raise Absent from None

    assert truth("traits.age >= 30 && measures.n == 2", value) is True
    assert truth("traits.plan == null", value) is None
    assert truth('traits.plan != "pro" || traits.age > 29', value) is True
    assert truth("measures.top < 5 && traits.age > 30", value) is False
    assert truth("!(measures.top < 5)", value) is None
    assert names('measures.a > 1 && !(traits.b == "measures.c")') == {"measures.a", "traits.b"}


# -- identity ------------------------------------------------------------------------------------------------------


def named(
    id_: str, type_: str, at: str, customer_id: str | None, anonymous_id: str | None = None, **properties: Any
) -> Fact:
    return fact(id_, type_, at, **properties) | {"customer_id": customer_id, "anonymous_id": anonymous_id}


def retract(id_: str, at: str, retracted: str) -> Fact:
    return named(id_, "$retract", at, None, None, source="s", id=retracted)


@dataclass(frozen=True)
class Owned:
    """`belonging`: whose fold the facts enter, by `c:` or `a:` and a value."""

    name: str
    facts: list[Fact]
    belonging: dict[str, str]


OWNED = [
    Owned(
        "a customer_id and an anonymous_id of the same value have nothing to do with each other",
        [named("t1", "x", "01", "42"), named("t2", "x", "02", None, "42")],
        {"c:42": "t1", "a:42": "t2"},
    ),
    Owned(
        "the earliest link owns, and takes the anonymous past along",
        [
            named("t1", "x", "01", None, "v"),
            named("t2", "x", "05", "late", "v"),
            named("t3", "$identify", "04", "early", "v"),
            named("t4", "x", "06", None, "v"),
        ],
        {"c:early": "t1 t3 t4", "c:late": "t2"},
    ),
    Owned(
        "at one instant the id decides who owns",
        [named("t2", "$link", "01", "A", "v"), named("t1", "$link", "01", "B", "v"), named("t3", "x", "02", None, "v")],
        {"c:B": "t3"},
    ),
    Owned(
        "an unlink takes away every link of the pair but a later link of an operator's",
        [
            named("t1", "x", "01", "A", "v"),
            named("t2", "$unlink", "02", "A", "v"),
            named("t3", "x", "03", "A", "v"),
            named("t4", "x", "04", None, "v"),
        ],
        {"c:A": "t1 t3", "a:v": "t4"},
    ),
    Owned(
        "an operator links again what was unlinked",
        [
            named("t1", "$link", "01", "A", "v"),
            named("t2", "$unlink", "02", "A", "v"),
            named("t3", "$link", "03", "A", "v"),
            named("t4", "x", "04", None, "v"),
        ],
        {"c:A": "t4"},
    ),
    Owned(
        "of several unlinks the last one counts",
        [
            named("t1", "$unlink", "01", "A", "v"),
            named("t2", "$link", "02", "A", "v"),
            named("t3", "$unlink", "03", "A", "v"),
            named("t4", "x", "04", None, "v"),
        ],
        {"a:v": "t4"},
    ),
    Owned(
        "after an unlink of the owner the next link owns",
        [
            named("t1", "$link", "01", "A", "v"),
            named("t2", "$link", "02", "B", "v"),
            named("t3", "$unlink", "03", "A", "v"),
            named("t4", "x", "01", None, "v"),
        ],
        {"c:B": "t4"},
    ),
    Owned(
        "merges form chains, and anonymous ids come along",
        [
            named("m1", "$merge", "01", "A", into="B"),
            named("m2", "$merge", "02", "B", into="C"),
            named("t1", "x", "01", "A", "v"),
            named("t2", "x", "02", "B"),
            named("t3", "x", "03", "C"),
            named("t4", "x", "04", None, "v"),
        ],
        {"c:C": "t1 t2 t3 t4"},
    ),
    Owned(
        "an unmerge undoes the merge before it, and of merges the last one decides",
        [
            named("m1", "$merge", "01", "A", into="B"),
            named("m2", "$unmerge", "02", "A", **{"from": "B"}),
            named("m3", "$merge", "01", "C", into="B"),
            named("m4", "$merge", "02", "C", into="D"),
            named("m5", "$merge", "03", "D", into="D"),
            named("t1", "x", "01", "A"),
            named("t2", "x", "02", "C"),
        ],
        {"c:A": "t1", "c:D": "t2"},
    ),
    Owned(
        "a merge that would close a circle is left out",
        [
            named("m1", "$merge", "01", "A", into="B"),
            named("m2", "$merge", "02", "B", into="C"),
            named("m3", "$merge", "03", "C", into="A"),
            named("t1", "x", "01", "A"),
            named("t2", "x", "02", "C"),
        ],
        {"c:C": "t1 t2"},
    ),
    Owned(
        "what was retracted counts as never accepted, also when it comes later, be it a touchpoint, a link or a merge",
        [
            retract("r1", "01", "t1"),
            retract("r2", "02", "m1"),
            retract("r3", "03", "t3"),
            retract("r4", "04", "r1"),
            named("t1", "x", "05", "A", "v"),
            named("m1", "$merge", "06", "A", into="B"),
            named("t2", "x", "07", "A"),
            named("t3", "$unlink", "08", "B", "w"),
            named("t4", "$identify", "09", "B", "w"),
            named("t5", "x", "10", None, "v"),
            named("t6", "x", "11", None, "w"),
        ],
        {"c:A": "t2", "a:v": "t5", "c:B": "t4 t6"},
    ),
    Owned(
        "an override names whom it is about, and links nobody",
        [named("o1", "$override", "01", "A", "v"), named("t1", "x", "02", None, "v")],
        {"c:A": "o1", "a:v": "t1"},
    ),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("owned", OWNED, ids=lambda owned: owned.name)
def test_who_owns_what(owned: Owned, seed: int) -> None:
    found = {
        f"{kind[0]}:{value}": " ".join(fact["id"] for fact in facts)
        for (kind, value), facts in customers(arrived(owned.facts, seed)).items()
    }
    assert found == owned.belonging


def test_an_identity_without_facts_has_an_owner_too() -> None:
    owner = owners([named("t1", "$link", "01", "A", "v"), named("m1", "$merge", "01", "A", into="B")])
    assert owner("unknown", None) == ("customer_id", "unknown")
    assert owner(None, "unknown") == ("anonymous_id", "unknown")
    assert owner(None, "v") == owner("A", "unknown") == owner("B", None) == ("customer_id", "B")
