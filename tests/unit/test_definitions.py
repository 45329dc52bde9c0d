"""What `compile_definition` accepts, every mistake that it can report, and what is meant to break it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lifecycle_engine.catalog.documents import DocumentError, read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import (
    MAX_PROBLEMS,
    ActiveDefinition,
    Definition,
    DefinitionError,
    Problem,
    compile_definition,
)
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.unit.stopwatch import at_most

SMALL: Mapping[str, Any] = {"lifecycle": "small", "initial": "a", "stages": [{"key": "a"}, {"key": "b"}]}
MISSING = object()


def small(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**SMALL, **changes}.items() if value is not MISSING}


def with_rule(**rule: Any) -> dict[str, Any]:
    return small(rules=[rule])


def with_measure(**measure: Any) -> dict[str, Any]:
    return small(measures={"m": measure})


def with_guard(source: Any) -> dict[str, Any]:
    return with_rule(on="buy", when=[source], to="b")


def compiled(document: Any) -> Definition:
    return compile_definition(document, Cel())


def problems(document: Any) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as raised:
        compiled(document)
    return raised.value.problems


def test_a_full_definition() -> None:
    definition = compiled(
        {
            "lifecycle": "retail-2",
            "label": {"en": "Retail", "pt-BR": "Varejo"},
            "initial": "a",
            "opens": ["ad", "buy"],
            "per": "properties.line.code",
            "stages": [
                {"key": "a", "label": {"en": "A", "ja": "認知"}},
                {"key": "b", "requires": ["measures.n >= 2", 'event.type == "buy"']},
                {"key": "c"},
                {"key": "d"},
            ],
            "measures": {
                "n": {"count": "buy"},
                "all": {"count": "any"},
                "spend": {"sum": "properties.amount", "of": ["buy", "renew"]},
                "last": {"last": "occurred_at"},
                "top": {"max": "context.score", "of": "any"},
            },
            "rules": [
                {"on": ["buy", "renew"], "from": "a", "to": "b", "reenter": True},
                {"from": ["b", "c"], "when": ["measures.spend < 50.0"], "to": "a"},
                {"on": "buy", "to": "c"},
            ],
            "moves": {"a": ["b", "a"], "b": []},
        }
    )
    assert (definition.key, definition.initial, definition.labels) == (
        "retail-2",
        "a",
        {"en": "Retail", "pt-BR": "Varejo"},
    )
    assert definition.opens == frozenset({"ad", "buy"})
    assert definition.subject_path == ("properties", "line", "code")
    assert [(stage.key, stage.rank, len(stage.requires)) for stage in definition.stages.values()] == [
        ("a", 0, 0),
        ("b", 1, 2),
        ("c", 2, 0),
        ("d", 3, 0),
    ]
    assert definition.stages["a"].labels["ja"] == "認知"
    assert [(measure.name, measure.path, measure.types) for measure in definition.measures] == [
        ("n", (), {"buy"}),
        ("all", (), None),
        ("spend", ("properties", "amount"), {"buy", "renew"}),
        ("last", ("occurred_at",), None),
        ("top", ("context", "score"), None),
    ]
    assert [(rule.index, rule.is_condition, rule.origins, rule.to, rule.reenter) for rule in definition.rules] == [
        (0, False, {"a"}, "b", True),
        (1, True, {"b", "c"}, "a", False),
        (2, False, None, "c", False),
    ]
    for type_, indexes in {"buy": [0, 1, 2], "renew": [0, 1], "other": [1], "": [1]}.items():
        assert [rule.index for rule in definition.concerned(type_).rules] == indexes
    assert [measure.name for _, measure in definition.concerned("renew").measures] == ["all", "spend", "last", "top"]
    assert [definition.allows(*move) for move in ("ab", "aa", "ac", "ba", "ca")] == [True, True, False, False, False]
    assert [definition.skipped(*move) for move in ("ad", "ab", "da", "bb")] == [("b", "c"), (), (), ()]
    assert definition.names == ("event.type",)
    assert [measure.name for _, measure in definition.asked_measures] == ["n", "spend"]


def test_the_least_definition() -> None:
    definition = compiled(SMALL)
    assert (definition.opens, definition.subject_path, definition.moves, definition.rules) == (None, None, None, ())
    assert definition.allows("a", "b")


MISTAKES: list[tuple[Any, str, str, Any]] = [
    ([], "", "must be a map, not a list", MISSING),
    (None, "", "must be a map, not empty", MISSING),
    (small(lifecycle=MISSING), "", "'lifecycle' is missing", MISSING),
    (small(initial=MISSING), "", "'initial' is missing", None),
    (small(stages=MISSING), "", "'stages' is missing", MISSING),
    (small(rulez=[]), "/rulez", "unknown name 'rulez'", "did you mean 'rules'?"),
    (small(**{"a/b~c": 1}), "/a~1b~0c", "unknown name 'a/b~c'", None),
    (small(lifecycle="Small"), "/lifecycle", "'Small' is not of the form", None),
    (small(lifecycle=7), "/lifecycle", "'7' is not of the form", None),
    (small(lifecycle="x" * 65), "/lifecycle", "at most 64 characters", None),
    (small(label="Small"), "/label", "must be a map, not a text", None),
    (small(label={"english": "x"}), "/label/english", "a language tag such as en or pt-BR", None),
    (small(label={"en": ""}), "/label/en", "a text of 1 to 200 characters", None),
    (small(label={"en": 7}), "/label/en", "a text of 1 to 200 characters", None),
    (small(label={"en": "x" * 201}), "/label/en", "a text of 1 to 200 characters", None),
    (small(initial="z"), "/initial", "there is no stage 'z'", None),
    (small(initial=["a"]), "/initial", "there is no stage \"['a']\"", None),
    (small(opens=[]), "/opens", "an empty list", None),
    (small(opens=""), "/opens", "a text of 1 to 128 characters, not a text", None),
    (small(opens=["a", True]), "/opens/1", "a text of 1 to 128 characters, not a truth value", None),
    (small(opens="$identify"), "/opens", "types that begin with $ are reserved", None),
    (small(per="line"), "/per", "'line' leads nowhere; it must be one of properties.NAME, context.NAME", None),
    (small(per="occurred_at"), "/per", "leads nowhere", None),
    (small(per="properties."), "/per", "leads nowhere", None),
    (small(per="properties.a b"), "/per", "leads nowhere", None),
    (small(per=7), "/per", "'7' leads nowhere", None),
    (small(stages={}), "/stages", "must be a list, not a map", MISSING),
    (small(stages=[]), "/stages", "at least one stage", MISSING),
    (small(stages=[{"key": "a"}, "b"]), "/stages/1", "must be a map, not a text", MISSING),
    (small(stages=[{"key": "a"}, {}]), "/stages/1", "'key' is missing", None),
    (small(stages=[{"key": "a"}, {"key": "b", "rank": 1}]), "/stages/1/rank", "unknown name 'rank'", None),
    (small(stages=[{"key": "a"}, {"key": "a"}]), "/stages/1/key", "the stage 'a' is there already", None),
    (small(stages=[{"key": "a"}, {"key": "1b"}]), "/stages/1/key", "'1b' is not of the form", None),
    (
        small(stages=[{"key": "a"}, {"key": "__class__"}]),
        "/stages/1/key",
        "'__class__' is not of the form",
        None,
    ),
    (small(stages=[{"key": "a"}, {"key": None}]), "/stages/1/key", "'None' is not of the form", None),
    (small(stages=[{"key": "a", "label": []}]), "/stages/0/label", "must be a map, not a list", None),
    (
        small(stages=[{"key": "a", "requires": "1 < 2"}]),
        "/stages/0/requires",
        "must be a list, not a text",
        None,
    ),
    (
        small(stages=[{"key": "a", "requires": ["1"]}]),
        "/stages/0/requires/0",
        "must say yes or no (bool)",
        None,
    ),
    (small(stages=[{"key": f"s{n}"} for n in range(101)]), "/stages", "has 101 items; at most 100", MISSING),
    (small(measures=[]), "/measures", "must be a map, not a list", None),
    (small(measures={f"m{n}": {"count": "x"} for n in range(101)}), "/measures", "at most 100 measures", None),
    (small(measures={"a b": {"count": "x"}}), "/measures/a b", "'a b' is not of the form", None),
    (small(measures={"\ud800": {"count": "x"}}), "/measures/\ud800", "is not of the form", None),
    (small(measures={7: {"count": "x"}}), "/measures/7", "'7' is not of the form", None),
    (small(measures={"m": "x"}), "/measures/m", "must be a map, not a text", MISSING),
    (with_measure(), "/measures/m", "exactly one of count, sum, min, max, first, last", None),
    (with_measure(count="x", sum="properties.x"), "/measures/m", "exactly one of", None),
    (with_measure(count="x", of="y"), "/measures/m/of", "a count names its touchpoint types itself", None),
    (with_measure(count=[]), "/measures/m/count", "an empty list", None),
    (with_measure(average="x"), "/measures/m/average", "unknown name 'average'", MISSING),
    (with_measure(sum="amount"), "/measures/m/sum", "'amount' leads nowhere", None),
    (with_measure(sum="occurred_at"), "/measures/m/sum", "one of properties.NAME, context.NAME", None),
    (with_measure(last="occurred_at.x"), "/measures/m/last", "context.NAME, occurred_at", None),
    (with_measure(min="properties"), "/measures/m/min", "leads nowhere", None),
    (with_measure(sum="properties.x", of=["a", 1]), "/measures/m/of/1", "not a number", None),
    (with_measure(sum="properties.x", within="1y"), "/measures/m/within", "no fixed length; say it in days", None),
    (with_measure(count="x", within=7), "/measures/m/within", "a duration is a text such as 14d", None),
    (with_measure(count="x", within="0d"), "/measures/m/within", "is not between 1s and 36500d", None),
    (small(rules={}), "/rules", "must be a list, not a map", None),
    (small(rules=[7]), "/rules/0", "must be a map, not a number", MISSING),
    (with_rule(on="x"), "/rules/0", "'to' is missing", None),
    (with_rule(to="b"), "/rules/0", "a rule has `on` (touchpoint types), `after` (a timer), or at", None),
    (with_rule(on="x", to="bb"), "/rules/0/to", "there is no stage 'bb'", "did you mean 'b'?"),
    (with_rule(on="x", to="b", form="a"), "/rules/0/form", "unknown name 'form'", "did you mean 'from'?"),
    (with_rule(on=[], to="b"), "/rules/0/on", "an empty list", None),
    (with_rule(on=["x", "$link"], to="b"), "/rules/0/on/1", "begin with $ are reserved", None),
    (with_rule(on="x" * 129, to="b"), "/rules/0/on", "a text of 1 to 128 characters", None),
    (with_rule(on=None, to="b"), "/rules/0/on", "not empty", None),
    (with_rule(on={"a": 1}, to="b"), "/rules/0/on", "not a map", None),
    (with_rule(on="x", to="b", **{"from": []}), "/rules/0/from", "an empty list", None),
    (with_rule(on="x", to="b", **{"from": "z"}), "/rules/0/from", "there is no stage 'z'", None),
    (with_rule(on="x", to="b", **{"from": ["a", 1]}), "/rules/0/from/1", "there is no stage '1'", None),
    (with_rule(on="x", to="b", **{"from": ["a"] * 101}), "/rules/0/from", "has 101 items", None),
    (with_rule(on="x", to="b", reenter="yes"), "/rules/0/reenter", "must be true or false", None),
    (with_rule(on="x", to="b", when="1 < 2"), "/rules/0/when", "must be a list, not a text", None),
    (with_rule(on="x", to="b", when=["1 < 2"] * 33), "/rules/0/when", "has 33 items; at most 32", None),
    (with_guard(True), "/rules/0/when/0", "an expression is text", "put it in quotes: 'True'"),
    (with_guard("1 <"), "/rules/0/when/0", "(column 4)", None),
    (with_guard("measures.n > 1"), "/rules/0/when/0", "undeclared reference to 'measures.n'", None),
    (with_rule(after=5, to="b"), "/rules/0/after", "a duration is a text such as 14d", None),
    (with_rule(after="soon", to="b"), "/rules/0/after", "'soon' is no duration; write 14d", None),
    (with_rule(after="P1M", to="b"), "/rules/0/after", "months and years have no fixed length", None),
    (with_rule(after="5d", warn="5 d", to="b"), "/rules/0/warn", "'5 d' is no duration", None),
    (with_rule(after="5d", warn="6d", to="b"), "/rules/0/warn", "is longer than the timer itself", None),
    (with_rule(after="5d", without=[], to="b"), "/rules/0/without", "an empty list", None),
    (with_rule(after="5d", without="$link", to="b"), "/rules/0/without", "begin with $ are reserved", None),
    (with_rule(after="5d", on="x", to="b"), "/rules/0/after", "(`on`) or by a clock (`after`), not both", None),
    (with_rule(on="x", without="x", to="b"), "/rules/0/without", "belongs to a timer, and there is no `after`", None),
    (with_rule(on="x", warn="1d", to="b"), "/rules/0/warn", "`warn` belongs to a timer", None),
    (
        with_rule(after="5d", when=["true", 'event.type == "x"'], to="b"),
        "/rules/0/when/1",
        "a timer fires at no touchpoint, so there is no `event`",
        None,
    ),
    (small(rename=[]), "/rename", "must be a map, not a list", None),
    (small(rename={"old": "c"}), "/rename/old", "there is no stage 'c'", None),
    (small(rename={"a": "b"}), "/rename/a", "'a' is a stage of this version", None),
    (small(moves="none"), "/moves", "must be `any`, or a map", None),
    (small(moves={"z": ["a"]}), "/moves/z", "there is no stage 'z'", None),
    (small(moves={"a": "b"}), "/moves/a", "must be a list, not a text", None),
    (small(moves={"a": ["b", "z"]}), "/moves/a/1", "there is no stage 'z'", None),
]


@pytest.mark.parametrize(
    ("document", "pointer", "message", "hint"),
    [pytest.param(*mistake, id=f"{mistake[1]} {mistake[2]}"[:70]) for mistake in MISTAKES],
)
def test_a_mistake_is_told_with_its_place(document: Any, pointer: str, message: str, hint: Any) -> None:
    """MISSING for a hint: other mistakes follow from this one and are told too."""
    told = problems(document)
    (problem,) = [each for each in told if each.pointer == pointer and message in each.message]
    if hint is not MISSING:
        assert told == (problem,)
        assert problem.hint == hint


NAMES = {"measures": {"purchases": {"count": "x"}, "spend": {"sum": "properties.x"}, "last": {"last": "occurred_at"}}}


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("measures.purchses > 1", "did you mean 'purchases'?"),
        ("measures.everything > 1", None),
        ("event.propertis.rating > 1", "did you mean 'properties'?"),
        ("event.rating > 1", "what a touchpoint carries is named event.properties.rating"),
        ("journey.stge == 'a'", "did you mean 'stage'?"),
        ("event == null", "name a part of it: event.id …"),
        ("trait.x == 1", "did you mean 'traits'?"),
        ("wholly.unknown == 1", None),
        ("purchases > 1", "did you mean 'measures.purchases'?"),
        ("event.type == buy", "text stands in quotes"),
        ("event.type.startswith('a')", "did you mean 'startsWith'?"),
        ("now() > event.occurred_at", None),
        ("measures.spend >= 50", "write 50.0"),
        ("measures.spend + measures.purchases > 1.0", "turn the integer into a double: double(…)"),
        ("measures.purchases >= 2.5", "compare an integer with an integer, or turn it into a double: double(…)"),
        ("measures.last > '2026-01-01'", 'write an instant as timestamp("2026-01-01T00:00:00Z")'),
        ("measures.purchases == '5'", "a number stands without quotes"),
        ("event.type > 5", None),
        ("event.type = 'a'", "equal is written =="),
        ("measures.purchases => 3", "at least is written >="),
        ("has(traits.a) and has(traits.b)", "write && for and"),
        ("has(traits.a) or has(traits.b)", "write || for or"),
        ("has(traits.a) & has(traits.b)", "write && for and"),
        ("has(traits.a) | has(traits.b)", "write || for or"),
        ("1 <", None),
        ("traits" + "[0]" * 40 + " == 1", None),
    ],
)
def test_a_mistake_in_an_expression_comes_with_a_hint(source: str, hint: str | None) -> None:
    (problem,) = problems({**with_guard(source), **NAMES})
    assert (problem.pointer, problem.hint) == ("/rules/0/when/0", hint)


def test_timers() -> None:
    definition = compiled(
        small(
            rules=[
                {"after": "5d", "to": "b"},
                {"after": "P1DT6H", "without": "any", "warn": "6h", "when": ["has(traits.plan)"], "to": "a"},
                {"after": "45s", "without": ["buy", "look"], "from": "a", "to": "b"},
                {"on": "sell", "to": "a"},
                {"when": ["traits.x == 1"], "to": "a"},
            ]
        )
    )
    assert [(rule.index, timer.after, timer.warn) for rule, timer in definition.timers] == [
        (0, 432_000_000_000, None),
        (1, 108_000_000_000, 21_600_000_000),
        (2, 45_000_000, None),
    ]
    assert {type_: definition.concerned(type_).resets for type_ in ("buy", "look", "sell", "")} == {
        "buy": {1, 2},
        "look": {1, 2},
        "sell": {1},
        "": {1},
    }
    assert [rule.index for rule in definition.conditions] == [4]
    assert [rule.index for rule in definition.concerned("sell").rules] == [3, 4]
    assert definition.names == ("traits",)


def test_windows() -> None:
    definition = compiled(
        small(
            measures={
                "all": {"count": "any"},
                "year": {"sum": "properties.x", "within": "365d"},
                "week": {"count": "buy", "within": "P1W"},
                "day": {"last": "occurred_at", "within": "24h"},
            },
            rules=[
                {"when": ["measures.week < 1 // measures.day", "'measures.day' != ''"], "to": "a"},
                {"on": "buy", "when": ["measures.year > 1.0"], "to": "b"},
            ],
        )
    )
    assert [(place, measure.within) for place, measure in definition.windows] == [
        (1, 31_536_000_000_000),
        (2, 604_800_000_000),
        (3, 86_400_000_000),
    ]
    assert [measure.name for _, measure in definition.watched] == ["week"]
    assert [measure.name for _, measure in definition.asked_measures] == ["year", "week"]


def test_renamed_stages() -> None:
    definition = compiled(small(rename={"old": "b", "gone": "a"}))
    assert [definition.named_here(stage) for stage in ("a", "b", "old", "gone", "unheard of")] == list("abbaa")


def test_all_mistakes_are_told_at_once() -> None:
    told = problems(small(lifecycle="", initial="z", rules=[{"on": "x", "to": "y"}], moves=7))
    assert [problem.pointer for problem in told] == ["/lifecycle", "/initial", "/rules/0/to", "/moves"]


def test_the_error_says_the_first_mistake() -> None:
    with pytest.raises(DefinitionError, match=r"^/initial: there is no stage 'z'$"):
        compiled(small(initial="z"))
    with pytest.raises(DefinitionError, match=r"^/: must be a map"):
        compiled([])


def test_mistakes_are_counted_up_to_a_limit() -> None:
    assert len(problems(small(moves={f"z{n}": [] for n in range(10_000)}))) == MAX_PROBLEMS


def test_a_name_that_is_a_word_of_the_guard_language_compiles() -> None:
    for word in ("in", "true", "null", "int", "has", "map", "size", "type"):
        compiled(small(stages=[{"key": "a"}, {"key": word}], measures={word: {"count": "x"}}))


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


LOOP = "[0,1,2,3,4,5,6,7,8,9].all({}, {})"


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        pytest.param(document, pointer, id=name)
        for name, document, pointer in [
            ("long expression", with_guard("1 < 2 || " * 11_000 + "true"), "/rules/0/when/0"),
            ("parentheses", with_guard("(" * 1000 + "true" + ")" * 1000), "/rules/0/when/0"),
            ("brackets", with_guard("[" * 1000), "/rules/0/when/0"),
            ("a long sum", with_guard("1" + "+1" * 900 + " == 1"), "/rules/0/when/0"),
            ("loops in loops", with_guard(LOOP.format("a", LOOP.format("b", "a == b"))), "/rules/0/when/0"),
            ("hidden loops", with_guard("[1].all//\n(a, [a].map (b, b) == [])"), "/rules/0/when/0"),
            ("many rules", small(rules=[{"on": "x", "to": "b"}] * 10_000), "/rules"),
            ("many unknown stages", with_rule(on="x", to="b", **{"from": ["z"] * 60_000}), "/rules/0/from"),
            ("many unknown names", small(**{f"rulez{n}": 1 for n in range(20_000)}), "/rulez0"),
            ("a dunder stage", small(stages=[{"key": "a"}, {"key": "__class__"}]), "/stages/1/key"),
            ("a dunder name", with_guard("event.__class__ == 1"), "/rules/0/when/0"),
            ("a dunder path", with_measure(last="__class__.mro"), "/measures/m/last"),
            ("half a surrogate pair", with_guard("'\ud800' == ''"), "/rules/0/when/0"),
            ("nothing", with_guard(""), "/rules/0/when/0"),
            ("nesting", small(lifecycle=nested(500)), "/lifecycle"),
            ("long texts", small(initial="z" * 250_000, lifecycle="z" * 250_000), "/initial"),
        ]
    ],
)
def test_bombs_are_refused_at_once(document: Any, pointer: str) -> None:
    with at_most(1.0):
        told = problems(document)
    assert pointer in {problem.pointer for problem in told}
    assert all(len(problem.message) < 500 for problem in told)


def far_names(count: int) -> list[str]:
    """Texts of 64 characters that are unlike each other in ways that are slow to find out."""
    return [f"{'ab' * 28}{n:08d}" for n in range(count)]


def test_hints_are_not_looked_for_at_any_price() -> None:
    stages = [{"key": f"s{name[:-9]}{name[-8:]}"[:64]} for name in far_names(100)]
    rules = [{"on": "x", "to": name[::-1]} for name in far_names(500)]
    with at_most(1.0):
        problems(small(stages=stages, initial=stages[0]["key"], rules=rules))


def test_the_largest_definition_compiles_at_once() -> None:
    document: dict[str, Any] = {
        "lifecycle": "large",
        "initial": "s0",
        "stages": [{"key": f"s{n}", "requires": [f"measures.m{n} > {m}" for m in range(5)]} for n in range(100)],
        "measures": {f"m{n}": {"count": [f"t{n}", f"u{n}"]} for n in range(100)},
        "rules": [
            {"on": [f"t{n}", f"v{n}"], "when": [f"measures.m{n % 100} > {m} && {n} > 0" for m in range(8)], "to": "s0"}
            for n in range(500)
        ],
    }
    with at_most(1.0):
        definition = compiled(document)
    assert len(definition.rules) == 500


@pytest.mark.parametrize(
    ("guard", "properties"),
    [
        pytest.param(guard, properties, id=guard[:40])
        for guard, properties in [
            ("event.properties.x.matches('(a+)+$')", {"x": "a" * 200_000 + "b"}),
            ("event.properties.x.matches('(a|a|a|aa)*(b{1000}){1000}$')", {"x": "a" * 200_000 + "b"}),
            ("event.properties.x.matches(event.properties.x)", {"x": "(" * 200_000}),
            ("event.properties.x.all(a, a >= 0)", {"x": [1] * 200_000}),
            ("event.properties.x.map(a, event.properties.x) == []", {"x": [1] * 2000}),
            ("event.properties.x == event.properties", {"x": nested(30)}),
            ("!" * 2000 + "(event.properties.x == 1)", {"x": 1}),
        ]
    ],
)
def test_costly_guards_end_soon_and_break_nothing(guard: str, properties: dict[str, Any]) -> None:
    definition = compiled(with_guard(guard))
    touchpoint = Touchpoint("1", "s", "buy", 0, "c", None, properties, {})
    with at_most(1.0):
        state = fold({"small": (ActiveDefinition(1, definition),)}, [touchpoint])
    assert state.facts == 1


def repeating(line: str) -> str:
    """Nine lines, each of which repeats the one before it nine times."""
    return line + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("lifecycle: " + "[" * 200_000, id="nesting"),
        pytest.param("".join(" " * n + "a:\n" for n in range(600)), id="block nesting"),
        pytest.param(repeating("a: &a [x,x,x,x,x,x,x,x,x]\n"), id="an alias bomb"),
        pytest.param("a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 9000 + "]", id="a text bomb"),
        pytest.param("lifecycle: &a [*a]", id="an alias to itself"),
        pytest.param("rules:\n" + "- {on: x, to: b}\n" * 10_000, id="many rules"),
    ],
)
def test_bombs_in_yaml_are_refused_at_once(text: str) -> None:
    with at_most(1.0), pytest.raises(DocumentError):
        read_document(text, "application/yaml")


def test_problems_are_found_in_the_text() -> None:
    text = """\
lifecycle: small
initial: a
stages: [{key: a}, {key: b}]
rules:
  - {on: x, to: b}
  - on: y
    form: [a]
    to: c
"""
    document = read_document(text, "application/yaml")
    places = {problem.pointer: document.locate(problem.pointer) for problem in problems(document.data)}
    assert places == {"/rules/1/form": (7, 5), "/rules/1/to": (8, 5)}
