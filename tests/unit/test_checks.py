"""What is formally right in a definition and cannot be meant: errors, warnings, and what must not be told of."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.checks import Review, review
from lifecycle_engine.lifecycle.checks.ranges import MOST, Comparison, Constraint, implied, one_of, possible
from lifecycle_engine.lifecycle.checks.successions import hindrances, idle_renames
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, Definition, compile_definition
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.unit.stopwatch import at_most

BASE: Mapping[str, Any] = {
    "lifecycle": "checked",
    "initial": "a",
    "stages": [{"key": "a"}, {"key": "b"}, {"key": "c"}],
    "measures": {
        "n": {"count": "buy"},
        "spend": {"sum": "properties.amount", "of": "buy"},
        "last": {"last": "occurred_at"},
        "recent": {"count": "buy", "within": "30d"},
    },
}
TO_ALL = ({"on": "buy", "to": "b"}, {"on": "sell", "to": "c"}, {"on": "leave", "to": "a"})
"""Rules that lead everywhere."""


def document(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**BASE, "rules": [*rules], **changes}


def checked(raw: Any) -> Review:
    return review(raw, Cel())


def guarded(*when: str, **rule: Any) -> dict[str, Any]:
    """A definition with one rule of these guards, above others that lead everywhere."""
    return document({"on": "look", "to": "b", **rule, "when": list(when)}, *TO_ALL)


# -- guards ------------------------------------------------------------------------------------------------------------

WRONG_GUARDS: list[tuple[list[str], int, str, str | None]] = [
    (["true"], 0, "always holds, whatever happens", "compare a name with a value"),
    (["1 > 2"], 0, "always fails, whatever happens", "compare a name with a value"),
    (["measures.n > 1", "size('abc') == 3"], 1, "always holds", "compare a name with a value"),
    (["[1, 2].all(x, x > 0)"], 0, "always holds", "compare a name with a value"),
    (["measures.n > 1 || true"], 0, "always holds", "compare a name with a value"),
    (["measures.n > 1 && !true"], 0, "always fails", "compare a name with a value"),
    (["measures.n == measures.n"], 0, "always holds", "compare a name with a value"),
    (["event.properties.a > event.properties['a']"], 0, "always fails", "compare a name with a value"),
    (["measures.n > 5", "measures.n < 3"], 1, "never holds together with 'measures.n > 5'", None),
    (["measures.n > 5 && measures.n < 3"], 0, "contradicts itself: no value of measures.n will do", None),
    (["measures.n > 3", "measures.n < 4"], 1, "no value of measures.n will do", None),
    (["measures.n < 0"], 0, "never holds: measures.n is an integer from 0 on", None),
    (["journey.visits.b < 0"], 0, "never holds: journey.visits.b is an integer", None),
    (["event.properties.plan == 'a'", 'event.properties["plan"] == "b"'], 1, "never holds together", None),
    (["traits.x == 1", "traits.x == true"], 1, "no value of traits.x will do", None),
    (["traits.x == '5'", "traits.x > 4"], 1, "no value of traits.x will do", None),
    (["traits.x > null"], 0, "never holds", None),
    (["traits.x && measures.n > 1", "!traits.x"], 1, "no value of traits.x will do", None),
    (["traits.x in ['a', 'b']", "'c' == traits.x"], 1, "no value of traits.x will do", None),
    (["traits.x == 1 || traits.x == 2", "!(traits.x < 3)"], 1, "no value of traits.x will do", None),
    (["!(traits.x == 1 || traits.x > 1)", "traits.x == 2"], 1, "no value of traits.x will do", None),
    (
        ["measures.n >= 2", "measures.n <= 3", "measures.n != 2 && measures.n != 3"],
        2,
        "never holds together with what stands before it",
        None,
    ),
    (["measures.spend > 5.0", "measures.spend <= 5.0"], 1, "no value of measures.spend will do", None),
    (["!(!(traits.x == 1))", "traits.x == 2"], 1, "no value of traits.x will do", None),
    (["traits.x > 'b'", "traits.x < 'a'"], 1, "no value of traits.x will do", None),
    (["traits.x == b'b'", "traits.x < b'a'"], 1, "no value of traits.x will do", None),
    (
        ["measures.last > timestamp('2026-02-01T00:00:00Z')", "measures.last < timestamp('2026-01-01T00:00:00Z')"],
        1,
        "no value of measures.last will do",
        None,
    ),
    (["event.properties.x.matches('(')"], 0, "always errs: invalid regular expression: missing ): (", None),
    (["matches(event.type, 'a**')"], 0, "bad repetition operator: **", None),
    (["event.type.matches('((a{100}){100}){100}')"], 0, "a part of it always errs: invalid regular", None),
    (["event.occurred_at > timestamp('yesterday')"], 0, "String to Timestamp conversion failed", None),
    (["measures.n > 1 || 1 / 0 == 1"], 0, "a part of it always errs: divide by zero", None),
    (["traits.x == string(b'\\xff')"], 0, "a part of it always errs: malformed UTF-8", None),
    (["traits.x == {'a': 1}.b"], 0, "a part of it always errs: Key not found", None),
    (["journey.stage == 'bb'"], 0, "there is no stage 'bb'", "did you mean 'b'?"),
    (["'zzz' != journey.stage"], 0, "there is no stage 'zzz'", None),
    (["journey.stage in ['a', 'cc']"], 0, "there is no stage 'cc'", "did you mean 'c'?"),
    (["journey.visits.bb > 1"], 0, "there is no stage 'bb'", "did you mean 'b'?"),
    (["has(journey.visits.bb)"], 0, "there is no stage 'bb'", "did you mean 'b'?"),
    (["event.type == 'lok'"], 0, "never holds together with `on`", "did you mean 'look'?"),
    (["event.type in ['lok', 'luk']"], 0, "never holds together with `on`", None),
]


@pytest.mark.parametrize(
    ("when", "place", "message", "hint"), [pytest.param(*one, id=" & ".join(one[0])[:60]) for one in WRONG_GUARDS]
)
def test_guards_that_cannot_be_meant(when: list[str], place: int, message: str, hint: str | None) -> None:
    found = checked(guarded(*when))
    assert found.definition is None
    ((pointer, told, hinted),) = found.errors
    assert pointer == f"/rules/0/when/{place}"
    assert message in told
    assert hinted == hint
    assert not [warning for warning in found.warnings if warning.pointer == pointer], "told once"


def test_the_same_at_a_stage_and_in_a_rule_with_origins() -> None:
    stages = [{"key": "a"}, {"key": "b", "requires": ["measures.n > 5", "measures.n < 3"]}, {"key": "c"}]
    found = checked(document(*TO_ALL, stages=stages))
    assert [error.pointer for error in found.errors] == ["/stages/1/requires/1"]
    found = checked(guarded("journey.stage == 'b'", **{"from": ["a", "c"]}))
    assert "never holds together with `from`" in found.errors[0].message


SOUND_GUARDS = [
    ["measures.n > 3", "measures.n < 5"],
    ["measures.spend > 3.0", "measures.spend < 3.1"],
    ["traits.x > 1", "traits.x < 2"],
    ["traits.x > 1e300", "traits.x != 1e301"],
    ["traits.x > 'a'", "traits.x < 'aa'"],
    ["traits.x < 'a'", "traits.x != ''"],
    ["traits.x > b'a'", "traits.x < b'ab'"],
    ["traits.x != 1", "traits.x != 2", "traits.x != 'a'", "traits.x != null", "traits.x != true"],
    ["traits.x == null || traits.x == 5"],
    ["traits.x == 5 || traits.y == 5", "traits.x == 6"],
    ["traits.x == 1", "traits['x.y'] == 2", "traits.x.y == 3"],
    ["traits.x == [1]", "traits.x == [2]"],
    ["traits.stage == 'no stage'", "traits.stages in ['none']"],
    ["journey.stage in ['a', 'c']"],
    ["traits.x in [[1], [2]]", "traits.x in [[3]]"],
    ["!(traits.x in ['a'])", "traits.x == 'b'"],
    ["!(traits.x < 5) && !(traits.x > 5)"],
    ["!!(measures.n > 1)"],
    ["measures.last >= timestamp('9999-12-31T23:59:59Z')"],
    ["measures.last <= timestamp('0001-01-01T00:00:00Z')"],
    ["event.occurred_at - measures.last > duration('1h')"],
    ["event.properties.x.matches('^[a-z]+$')"],
    ["event.properties.text.contains('(')"],
    ["event.properties.items.exists(i, i.price > 5 + 5)"],
    ["has(event.properties.x) ? event.properties.x == 1 : traits.x == 2"],
    ["type(event.properties.x) == int"],
    ["event.properties == {'a': 1, 'b': measures.n}"],
    ["event.properties.tags == ['a', event.type]"],
    ["journey.visits.b > 1", "journey.visits.a > 1"],
    ["measures.n + 1 == 2", "measures.n + 1 == 3"],
    ["[traits].exists(t, t.x == 1)"],
    ["event.properties.list[0] == 1.5 || event.properties.count == 5u"],
    [f"traits.x in {list(range(MOST + 1))}", "traits.x == 'a'"],  # more than anybody looks into
]


@pytest.mark.parametrize("when", SOUND_GUARDS, ids=lambda when: " & ".join(when)[:60])
def test_guards_that_can_be_meant(when: list[str]) -> None:
    found = checked(guarded(*when))
    assert (found.errors, found.warnings) == ((), ())
    assert found.definition is not None


@pytest.mark.parametrize(
    ("rule", "by"),
    [
        ({"when": ["measures.n >= 0"]}, "measures.n is an integer from 0 on"),
        ({"when": ["journey.visits.b != -1"]}, "journey.visits.b is an integer from 0 on"),
        ({"when": ["event.type == 'look'"]}, "`on`"),
        ({"when": ["event.type in ['look', 'see']"]}, "`on`"),
        ({"when": ["journey.stage != 'b'"], "from": ["a", "c"]}, "`from`"),
    ],
)
def test_a_guard_that_always_holds_is_warned_of(rule: dict[str, Any], by: str) -> None:
    found = checked(document({"on": "look", "to": "b", **rule}, *TO_ALL))
    assert found.errors == ()
    ((pointer, message, hint),) = found.warnings
    assert (pointer, hint) == ("/rules/0/when/0", "leave it out")
    assert message.startswith("always holds, by ")
    assert by in message


def test_mistakes_of_form_and_of_meaning_are_told_together() -> None:
    raw = guarded("true", "measures.nn > 1", "traits.x > 5", "traits.x < 3", "journey.stage == 'bb'", "measures.n < 0")
    raw["rules"].append({"on": "x", "to": "bb"})
    found = checked(raw)
    assert found.definition is None
    assert {error.pointer: error.message.split(",")[0].split(":")[0] for error in found.errors} == {
        "/rules/0/when/0": "always holds",
        "/rules/0/when/1": "undeclared reference to 'measures.nn' (column 9)",
        "/rules/0/when/3": "never holds together with 'traits.x > 5'",
        "/rules/0/when/4": "there is no stage 'bb'",
        "/rules/0/when/5": "never holds",
        "/rules/4/to": "there is no stage 'bb'",
    }


# -- rules -------------------------------------------------------------------------------------------------------------


def rules(*those: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return (*those, *TO_ALL)


SHADOWED: list[tuple[tuple[dict[str, Any], ...], str, str]] = [
    (({"on": "x", "to": "b"}, {"on": "x", "to": "c"}), "/rules/1", "rule 0 (counted from 0) above decides"),
    (({"on": "x", "to": "b"}, {"on": "x", "from": "a", "when": ["measures.n > 1"], "to": "c"}), "/rules/1", "rule 0"),
    (({"on": ["x", "y"], "to": "b"}, {"on": "y", "to": "c"}), "/rules/1", "rule 0"),
    (
        ({"on": "x", "from": "a", "to": "b"}, {"on": "x", "from": ["b", "c"], "to": "b"}, {"on": "x", "to": "c"}),
        "/rules/2",
        "rules 0 and 1 (counted from 0) above decide whenever",
    ),
    (({"on": "x", "to": "b"}, {"on": "y", "to": "b"}, {"on": ["x", "y"], "to": "c"}), "/rules/2", "rules 0 and 1"),
    (
        ({"on": "x", "when": ["measures.n >= 2"], "to": "b"}, {"on": "x", "when": ["measures.n >= 3"], "to": "c"}),
        "/rules/1",
        "rule 0",
    ),
    (
        (
            {"on": "x", "when": ["traits.a.size() > 1", "measures.n > 1"], "to": "b"},
            {"on": "x", "when": ["measures.n == 2 && traits.a.size()>1"], "to": "c"},
        ),
        "/rules/1",
        "rule 0",
    ),
    (
        ({"on": "x", "when": ["journey.stage == 'a'"], "to": "b"}, {"on": "x", "from": "a", "to": "c"}),
        "/rules/1",
        "rule 0",
    ),
    (
        ({"on": ["x", "y"], "when": ["event.type == 'x'"], "to": "b"}, {"on": "x", "to": "c"}),
        "/rules/1",
        "rule 0",
    ),
    (
        ({"when": ["measures.recent >= 2"], "to": "b"}, {"when": ["measures.recent > 2"], "to": "c"}),
        "/rules/1",
        "rule 0",
    ),
    (
        ({"when": ["measures.recent >= 2"], "to": "b"}, {"on": "x", "when": ["measures.recent > 2"], "to": "c"}),
        "/rules/1",
        "rule 0",
    ),
]


@pytest.mark.parametrize(("those", "pointer", "message"), SHADOWED)
def test_a_rule_that_never_decides_is_warned_of(those: tuple[dict[str, Any], ...], pointer: str, message: str) -> None:
    found = checked(document(*rules(*those)))
    assert found.errors == ()
    shadowed = [warning for warning in found.warnings if "never decides" in warning.message]
    (warning,) = shadowed
    assert warning.pointer == pointer
    assert message in warning.message
    assert warning.hint == f"move it above rule {0}"


@pytest.mark.parametrize(
    "those",
    [
        ({"on": "x", "from": "a", "to": "b"}, {"on": "x", "to": "c"}),
        ({"on": "x", "to": "b"}, {"on": ["x", "y"], "to": "c"}),
        ({"on": "x", "when": ["measures.n >= 3"], "to": "b"}, {"on": "x", "when": ["measures.n >= 2"], "to": "c"}),
        ({"on": "x", "when": ["measures.n >= 3"], "to": "b"}, {"on": "x", "to": "c"}),
        ({"on": "x", "when": ["traits.a == 1"], "to": "b"}, {"on": "x", "when": ["traits.a == true"], "to": "c"}),
        ({"on": "x", "when": ["traits.a != 1"], "to": "b"}, {"on": "x", "when": ["traits.b != 1"], "to": "c"}),
        ({"on": "x", "when": ["traits.a.size() > 1"], "to": "b"}, {"on": "x", "when": ["traits.a > 1"], "to": "c"}),
        ({"on": "x", "to": "b"}, {"when": ["measures.recent > 2"], "to": "c"}),
        ({"on": "x", "to": "b"}, {"after": "5d", "to": "c"}),
        ({"after": "5d", "to": "b"}, {"on": "x", "to": "c"}),
        ({"on": "x", "when": ["journey.stage == 'a'"], "to": "b"}, {"on": "x", "to": "c"}),
        (
            {"on": "x", "when": ["journey.stage == 'a' || measures.n > 5"], "to": "b"},
            {"on": "x", "when": ["journey.stage == 'b' || measures.n > 5", "measures.n > 1"], "to": "c"},
        ),
    ],
)
def test_a_rule_that_may_decide_is_not(those: tuple[dict[str, Any], ...]) -> None:
    found = checked(document(*rules(*those)))
    assert (found.errors, found.warnings) == ((), ())


def values() -> st.SearchStrategy[Any]:
    return st.sampled_from([0, 1, 2, 3, 1.5, "a", "b", "", True, False, None])


@given(random_=st.integers(0, 2**32 - 1), samples=st.lists(st.tuples(values(), values()), min_size=20, max_size=20))
def test_what_is_said_never_to_decide_never_does(random_: int, samples: list[tuple[Any, Any]]) -> None:
    rnd = random.Random(random_)

    def guard() -> str:
        sides = [
            f"{rnd.choice(('event.properties.x', 'event.properties.y', 'journey.visits.b'))} "
            f"{rnd.choice(('==', '!=', '<', '<=', '>', '>='))} {rnd.choice((0, 1, 2))}"
            for _ in range(2)
        ]
        return rnd.choice(("{}", "{}", "!({})", "{} || {}", "!({} && {})", "{} && {}")).format(*sides)

    def rule() -> dict[str, Any]:
        raw: dict[str, Any] = {"to": rnd.choice("abc")}
        if rnd.random() < 0.9:
            raw["on"] = rnd.sample(("x", "y", "z"), rnd.randint(1, 2))
        if rnd.random() < 0.5:
            raw["from"] = rnd.sample("abc", rnd.randint(1, 2))
        if "on" not in raw or rnd.random() < 0.6:
            raw["when"] = [guard() for _ in range(rnd.randint(1, 2))]
        return raw

    raw = document(*(rule() for _ in range(6)))
    definition = compile_definition(raw, Cel())
    found = checked(raw)
    silent = {
        int(problem.pointer.split("/")[2])
        for problem in (*found.errors, *found.warnings)
        if problem.pointer.startswith("/rules/")
        and any(said in problem.message for said in ("never", "always fails", "contradicts itself"))
    }
    facts = [
        Touchpoint(f"{n:03}", "s", "xyz"[n % 3], n, "c", None, {"x": x, "y": y}, {}) for n, (x, y) in enumerate(samples)
    ]
    lines: list[Event] = []
    fold({"checked": (ActiveDefinition(1, definition),)}, facts, tell=lines.append)
    assert not silent & {line.rule for line in lines}


REFUSED: list[tuple[dict[str, Any], bool, str, str, str | None]] = [
    (
        {"on": "x", "from": ["a"], "to": "c"},
        True,
        "/rules/0/to",
        "`moves` lets no journey go from a to c",
        "allow it in `moves`: a: [c]",
    ),
    ({"on": "x", "from": "b", "to": "b", "reenter": True}, True, "/rules/0/to", "go from b to b", None),
    ({"on": "x", "when": ["journey.stage == 'a'"], "to": "c"}, False, "/rules/0/to", "go from a to c", None),
    ({"on": "x", "to": "c", "from": ["a", "b"]}, False, "/rules/0/from", "lets no journey go from a to c", None),
    ({"on": "x", "to": "b", "reenter": True}, False, "/rules/0/reenter", "has no entry from b to itself", None),
    ({"on": "x", "to": "a", "reenter": True}, False, "/rules/0/reenter", "has no entry from a to itself", None),
]
MOVES = {"a": ["b"], "b": ["c", "a"], "c": ["a"]}


@pytest.mark.parametrize(("rule", "is_error", "pointer", "message", "hint"), REFUSED)
def test_what_moves_refuse_is_told(
    rule: dict[str, Any], is_error: bool, pointer: str, message: str, hint: str | None
) -> None:
    found = checked(document(rule, *TO_ALL, moves=MOVES))
    told = found.errors if is_error else found.warnings
    (problem,) = [each for each in told if each.pointer == pointer]
    assert message in problem.message
    assert problem.hint is not None
    assert hint in (None, problem.hint)
    assert bool(found.errors) is is_error


@pytest.mark.parametrize(
    "rule",
    [
        {"on": "x", "to": "c"},
        {"on": "x", "from": ["c"], "to": "c"},
        {"on": "x", "from": ["b", "c"], "to": "c"},
        {"on": "x", "from": ["a"], "to": "b", "reenter": True},
    ],
)
def test_what_moves_allow_is_not(rule: dict[str, Any]) -> None:
    found = checked(document(rule, *TO_ALL, moves=MOVES))
    assert (found.errors, found.warnings) == ((), ())


def test_a_rule_that_no_stage_may_follow_is_only_warned_of() -> None:
    """A rule without `from` leaves it to `moves` where it leads from; that this is nowhere is a refusal each time."""
    found = checked(document({"on": "x", "to": "a"}, *TO_ALL[:2], moves={"a": ["b"], "b": ["c"]}))
    assert found.errors == ()
    assert [(one.pointer, one.message) for one in found.warnings] == [
        ("/rules/0/to", "`moves` lets no journey go from b and c to a: this is refused each time")
    ]


WARNED: list[tuple[dict[str, Any], str, str, str | None]] = [
    (
        document({"on": "buy", "to": "b"}),
        "/stages/2/key",
        "no rules lead to c from a: only an override does",
        None,
    ),
    (
        document({"on": "buy", "to": "b"}, {"on": "x", "from": "c", "to": "a"}),
        "/rules/1/from",
        "never matches: no rules lead to c",
        None,
    ),
    (
        document({"after": "5d", "from": "b", "to": "b"}, *TO_ALL),
        "/rules/0/to",
        "does nothing: when it fires the journey is in b already",
        "say `reenter: true` for a new stay",
    ),
    (
        document({"after": "5d", "from": "b", "to": "c", "warn": "120h"}, *TO_ALL),
        "/rules/0/warn",
        "announced the moment that its clock starts",
        None,
    ),
    (
        document({"after": "5d", "from": "b", "to": "c"}, {"after": "6d", "from": "b", "to": "a"}, *TO_ALL),
        "/rules/1/after",
        "never fires: rule 0 (counted from 0) takes the journey to c after 5d already",
        None,
    ),
    (
        document(
            {"after": "9d", "without": ["buy", "look"], "from": "b", "to": "c"},
            {"after": "6d", "from": ["a", "b"], "without": "buy", "to": "c"},
            *TO_ALL,
        ),
        "/rules/0/after",
        "never fires: rule 1",
        None,
    ),
    (
        document(
            {"after": "5d", "without": "any", "from": "b", "to": "c"},
            {"after": "5d", "without": "any", "from": "b", "to": "a"},
            *TO_ALL,
        ),
        "/rules/1/after",
        "never fires: rule 0",
        None,
    ),
    (
        document(
            *TO_ALL,
            {"after": "5d", "from": "a", "to": "b"},
            stages=[{"key": "a"}, {"key": "b", "requires": ["event.properties.x == 1"]}, {"key": "c"}],
        ),
        "/rules/3/to",
        "b requires 'event.properties.x == 1', and a timer has no `event`",
        None,
    ),
    (
        document(
            {"on": "x", "when": ["measures.n < 2"], "to": "b"},
            *TO_ALL,
            stages=[{"key": "a"}, {"key": "b", "requires": ["has(traits.ok)", "measures.n >= 2"]}, {"key": "c"}],
        ),
        "/rules/0/to",
        "always refused: b requires 'measures.n >= 2', which fails when it matches",
        None,
    ),
    (
        document({"when": ["measures.recent < 2", "event.properties.x == 1"], "to": "b"}, *TO_ALL),
        "/rules/0/when",
        "never holds when something leaves the window of measures.recent",
        None,
    ),
    (
        document(*TO_ALL, {"after": "5d", "without": "leeve", "from": "b", "to": "a"}),
        "/rules/3/without",
        "the type 'leeve' is named only here, and looks like 'leave'",
        "did you mean 'leave'?",
    ),
    (
        document(*TO_ALL, {"on": "leave", "from": "b", "when": ["traits.x == 1"], "to": "c"}, opens=["leaves", "buy"]),
        "/opens",
        "looks like 'leave'",
        "did you mean 'leave'?",
    ),
    (
        document({"on": "purchase", "to": "b"}, *TO_ALL, measures={"m": {"count": ["buy", "purchsae"]}}),
        "/measures/m/count",
        "looks like 'purchase'",
        "did you mean 'purchase'?",
    ),
    (
        document({"on": "purchase", "to": "b"}, *TO_ALL, measures={"m": {"sum": "properties.x", "of": "purchases"}}),
        "/measures/m/of",
        "looks like 'purchase'",
        "did you mean 'purchase'?",
    ),
]


@pytest.mark.parametrize(("raw", "pointer", "message", "hint"), WARNED)
def test_what_may_not_be_meant(raw: dict[str, Any], pointer: str, message: str, hint: str | None) -> None:
    found = checked(raw)
    assert found.errors == ()
    assert found.definition is not None
    (warning,) = [each for each in found.warnings if each.pointer == pointer]
    assert message in warning.message
    assert warning.hint == hint


@pytest.mark.parametrize(
    "raw",
    [
        document(*TO_ALL, {"after": "5d", "from": "b", "to": "b", "reenter": True}),
        document(*TO_ALL, {"after": "5d", "from": "b", "to": "c", "warn": "4d"}),
        # Neither clock runs out before the other in every case.
        document(
            *TO_ALL, *({"after": f"{n}d", "from": f, "to": "c"} for n, f in ((5, "b"), (6, "a"), (7, ["a", "b"])))
        ),
        document(
            *TO_ALL,
            {"after": "5d", "without": "buy", "from": "b", "to": "c"},
            {"after": "6d", "without": "look", "from": "b", "to": "a"},
        ),
        document(
            *TO_ALL, {"after": "5d", "without": "any", "from": "b", "to": "c"}, {"after": "6d", "from": "b", "to": "a"}
        ),
        document(
            *TO_ALL,
            {"after": "5d", "when": ["measures.n > 1"], "from": "b", "to": "c"},
            {"after": "6d", "from": "b", "to": "a"},
        ),
        document(*TO_ALL, {"after": "5d", "from": ["b", "c"], "to": "c"}, {"after": "6d", "from": "b", "to": "a"}),
        document(
            *TO_ALL,
            {"after": "5d", "from": "b", "to": "c"},
            {"after": "6d", "from": "b", "to": "a"},
            stages=[{"key": "a"}, {"key": "b"}, {"key": "c", "requires": ["measures.n > 1"]}],
        ),
        document(
            *TO_ALL,
            {"after": "5d", "from": "a", "to": "b"},
            stages=[
                {"key": "a"},
                {"key": "b", "requires": ["traits.ok || event.properties.x == 1", "measures.n > 1"]},
                {"key": "c"},
            ],
        ),
        document({"when": ["measures.recent < 2"], "to": "b"}, *TO_ALL),
        # A rule that keeps the ones below it from deciding, and never enters its stage.
        document(
            {"on": "x", "from": "b", "when": ["measures.n < 2"], "to": "b"},
            *TO_ALL,
            stages=[{"key": "a"}, {"key": "b", "requires": ["measures.n >= 2"]}, {"key": "c"}],
        ),
        document({"when": ["measures.n < 2", "event.properties.x == 1"], "to": "b"}, *TO_ALL),
        # Stages that only an older version knew, and where they lead.
        document({"on": "buy", "from": "b", "to": "a"}, {"on": "x", "to": "c"}, rename={"old": "b"}),
        # Types that are alike on purpose, or by chance.
        document(*TO_ALL, *({"on": f"step_{n}", "from": "a", "to": "b"} for n in range(3))),
        document(*TO_ALL, {"on": "by", "to": "a"}),
        document(*TO_ALL, *({"on": n, "from": f, "to": "b"} for n in ("arrive", "arrives") for f in ("a", "c"))),
    ],
)
def test_what_may_be_meant(raw: dict[str, Any]) -> None:
    found = checked(raw)
    assert (found.errors, found.warnings) == ((), ())


def test_types_that_are_alike_are_told_of_once() -> None:
    found = checked(document({"on": "leave", "to": "b"}, {"on": "leaves", "to": "c"}, {"on": "sleave", "to": "a"}))
    assert {warning.pointer for warning in found.warnings} == {"/rules/1/on", "/rules/2/on"}


@pytest.mark.parametrize("key", builtin_documents())
def test_the_built_in_definitions_are_beyond_reproach(key: str) -> None:
    found = checked(read_document(builtin_documents()[key], "application/yaml").data)
    assert (found.errors, found.warnings) == ((), ())


# -- ranges ------------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1.5, -0.5, 1e300]))
COMPARISONS = st.builds(Comparison, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NUMBERS)
CONSTRAINTS = st.lists(
    st.builds(lambda ones: Constraint("x", tuple(ones)), st.lists(COMPARISONS, min_size=1, max_size=2)), max_size=3
)


@given(constraints=CONSTRAINTS, by=CONSTRAINTS, value=st.one_of(NUMBERS, st.floats(-4, 4), st.text(max_size=1)))
def test_a_value_shows_what_is_possible(constraints: list[Constraint], by: list[Constraint], value: Any) -> None:
    if all(one.holds(value) for one in constraints):
        assert possible(constraints)
    if implied(constraints, by) and all(one.holds(value) for one in by):
        assert all(one.holds(value) for one in constraints)


@given(constraints=CONSTRAINTS)
def test_what_is_possible_is_not_implied_to_be_impossible(constraints: list[Constraint]) -> None:
    assert possible(constraints) is not implied([one_of("x", ())], constraints)


@pytest.mark.parametrize(
    "literal", ["", "a", b"", b"a", True, None, 0, -1.5, datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=1)]
)
def test_every_kind_of_literal(literal: Any) -> None:
    assert possible([one_of("x", [literal])])
    assert not possible([one_of("x", [literal]), Constraint("x", (Comparison("!=", literal),))])
    is_ordered = literal is not None
    for operator, holds in {"<": False, "<=": is_ordered, ">": False, ">=": is_ordered}.items():
        assert Comparison(operator, literal).holds(literal) is holds
        assert not Comparison(operator, literal).holds(object())


def test_a_truth_value_is_no_number() -> None:
    assert Comparison("!=", 1).holds(True)
    assert not Comparison("==", 1).holds(True)
    assert not Comparison("<", 2).holds(True)


# -- versions ----------------------------------------------------------------------------------------------------------


def version(**changes: Any) -> Definition:
    return compile_definition(document(**changes), Cel())


def test_a_version_that_can_follow() -> None:
    stages = [{"key": "a"}, {"key": "d"}]
    following = version(stages=stages, rename={"b": "a", "c": "d"})
    assert hindrances(version(), version()) == ()
    assert hindrances(version(), following) == ()
    assert idle_renames(version(), following) == ()


def test_what_keeps_a_version_from_following() -> None:
    following = version(stages=[{"key": "a"}], per="properties.line", rename={"bb": "a"})
    assert [(one.pointer, one.message, one.hint) for one in hindrances(version(), following)] == [
        ("/per", "`per` can't change from version to version; in the active one it is absent", None),
        (
            "/rename",
            "stages of the active version are missing: b, c",
            "say where journeys go that are there: rename: {b: a}",
        ),
    ]
    assert idle_renames(version(), following) == (
        ("/rename/bb", "the active version has no stage 'bb'", "did you mean 'b'?"),
    )
    was = version(per="properties.line")
    assert hindrances(was, version())[0].message.endswith("in the active one it is properties.line")


# -- how long it takes -------------------------------------------------------------------------------------------------


def large(rule: Any, **changes: Any) -> dict[str, Any]:
    return {
        "lifecycle": "large",
        "initial": "s0",
        "stages": [{"key": f"s{n}"} for n in range(100)],
        "measures": {f"m{n}": {"count": "x"} for n in range(100)},
        "rules": [rule(n) for n in range(500)],
        **changes,
    }


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(raw, id=name)
        for name, raw in {
            "guards": large(lambda n: {"on": "x", "when": [f"measures.m{n % 100} > {500 - n}"], "to": f"s{n % 100}"}),
            "one name": large(lambda n: {"on": "x", "when": [f"measures.m0 == {n}"], "to": f"s{n % 100}"}),
            "types": large(
                lambda n: {
                    "on": [f"t{i}" for i in range(15)],
                    "when": [f"event.properties.x == {n % 2 or n}"],
                    "to": f"s{n % 100}",
                }
            ),
            "lists": large(
                lambda n: {"on": "x", "when": [f"event.properties.a{n} in {list(range(30))}"], "to": f"s{n % 100}"}
            ),
            "timers": large(
                lambda n: {"after": f"{n + 1}d", "from": [f"s{i}" for i in range(n % 30 + 1)], "to": "s99"}
            ),
            "alike": large(lambda n: {"on": f"{'purchase' * 15}{n:03}", "to": f"s{n % 100}"}),
            "patterns": large(
                lambda n: {"on": "x", "when": [f"event.type.matches('(a{n}|b){{500}}')"], "to": f"s{n % 100}"}
            ),
            "constants": large(lambda n: {"on": "x", "when": [f"{n} > {m}" for m in range(8)], "to": "s1"}),
            "unknown names": large(
                lambda n: {"on": "x", "when": [f"measures.k{n}x > {m}" for m in range(8)], "to": "s1"}
            ),
        }.items()
    ],
)
def test_it_is_found_soon(raw: dict[str, Any]) -> None:
    assert len(json.dumps(raw)) < 256 * 1024
    with at_most(2.0):
        checked(raw)
