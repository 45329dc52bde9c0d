"""Guards in CEL: what holds, what errs and therefore does not, and what is refused when a definition is loaded."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.cel import MAX_PATTERNS, MAX_SOURCE_BYTES, Cel, CelCompiler
from lifecycle_engine.lifecycle.cel_errors import explained
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.expressions import Broken, Call, Expression, Literal, Name, parts
from lifecycle_engine.lifecycle.fold import step
from lifecycle_engine.lifecycle.guards import GuardError, ValueType, Verdict
from lifecycle_engine.lifecycle.journeys import UNKNOWN
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.unit.stopwatch import at_most

NAMES = {
    "event.properties": ValueType.OBJECT,
    "event.type": ValueType.STRING,
    "event.occurred_at": ValueType.TIMESTAMP,
    "journey.visits": ValueType.COUNTS,
    "measures.count": ValueType.INT,
    "measures.sum": ValueType.DOUBLE,
    "measures.any": ValueType.ANY,
    "traits.new": ValueType.BOOL,
}
BAD_PATTERN = "invalid regular expression: missing ): a("
BEYOND = (2**64, -(2**63) - 1, 10**400, {"deep": [2**70]})


@pytest.fixture(scope="module")
def compiler() -> CelCompiler:
    return Cel().compiler(NAMES)


def holds(compiler: CelCompiler, source: str, **values: Any) -> bool:
    return compiler.compile(source).holds(compiler.bind({name.replace("__", "."): values[name] for name in values}))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        "",
        "5",
        "text",
        [],
        [5],
        {},
        {"x": 5},
        "\ud800",
        *BEYOND,
        object(),
        datetime(2026, 11, 1, tzinfo=UTC),
    ],
    ids=lambda value: "object" if type(value) is object else f"{value!r}"[:30],
)
@pytest.mark.parametrize("comparison", [">= 4", "< 4", "> 4.5", "== 5", "== 5.0"])
def test_what_is_no_number_never_holds_against_one(compiler: CelCompiler, value: Any, comparison: str) -> None:
    assert holds(compiler, f"event.properties.x {comparison}", event__properties={"x": value}) is False
    assert holds(compiler, f"measures.any {comparison}", measures__any=value) is False
    ordered = comparison not in ("== 5", "== 5.0")
    if ordered:
        assert holds(compiler, f"!(measures.any {comparison})", measures__any=value) is False


@pytest.mark.parametrize("value", [5, 5.0])
def test_integers_and_doubles_compare_as_numbers(compiler: CelCompiler, value: float) -> None:
    for comparison in (">= 4", "== 5", "== 5.0", "> 4.5", "<= 5", "!= 5.5"):
        assert holds(compiler, f"event.properties.x {comparison}", event__properties={"x": value}) is True


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (None, "null"),
        (True, "true"),
        ("é", '"é"'),
        (2**63 - 1, str(2**63 - 1)),
        (2**64 - 1, f"{2**64 - 1}u"),
        (-(2**63), str(-(2**63))),
        (5e-324, "5e-324"),
        (-0.0, "0"),
        ([1, "a", None], '[1, "a", null]'),
        ({"a": {"b": [1.5]}}, '{"a": {"b": [1.5]}}'),
        (math.inf, "1.0 / 0.0"),
    ],
    ids=str,
)
def test_any_value_of_json_can_be_asked_for(compiler: CelCompiler, value: Any, literal: str) -> None:
    source = f"event.properties.x == dyn({literal})"
    assert holds(compiler, source, event__properties={"x": value}) is True
    assert holds(compiler, f"!({source})", event__properties={"x": "another"}) is True


@pytest.mark.parametrize(
    "source",
    [
        "measures.count > 0",
        "measures.sum > 0.0",
        "measures.any == null",
        "!(measures.any == null)",
        "event.properties.x == 1",
        "journey.visits.b > 0",
        "event.occurred_at > timestamp('2026-01-01T00:00:00Z')",
        "!traits.new",
    ],
)
def test_a_name_without_a_value_errs(compiler: CelCompiler, source: str) -> None:
    assert holds(compiler, source) is False
    assert holds(compiler, f"{source} || true") is True
    assert holds(compiler, f"{source} && false") is False
    assert holds(compiler, f"!({source} && false)") is True


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"measures__count": 2**64}, "measures.count > 0"),
        ({"measures__count": None}, "measures.count > 0"),
        ({"measures__sum": 10**400}, "measures.sum > 0.0"),
        ({"event__type": 5}, "event.type == 'x'"),
        ({"event__type": "\ud800"}, "event.type != 'x'"),
        ({"event__properties": None}, "size(event.properties) == 0"),
        ({"journey__visits": {"b": "many"}}, "journey.visits.b > 0"),
    ],
)
def test_a_value_of_another_type_errs(compiler: CelCompiler, values: dict[str, Any], source: str) -> None:
    assert holds(compiler, source, **values) is False


@pytest.mark.parametrize(
    "source",
    [
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "[1][5] == 1",
        "int('x') == 1",
        "timestamp('yesterday') < timestamp('2026-01-01T00:00:00Z')",
        "'a'.matches('(')",
        "{'a': 1}.b == 1",
        "dyn('5') > 4",
        "dyn(1) ? true : true",
    ],
)
def test_errors_count_as_not_held(compiler: CelCompiler, source: str) -> None:
    assert holds(compiler, source) is False


def test_errors_are_counted_and_nothing_else_is() -> None:
    compiler = Cel().compiler(NAMES)
    guard, other = compiler.compile("event.properties.x > 1"), compiler.compile("event.properties.x.all(i, i == 0)")
    for x in (2, 1, 0, 1.5):
        guard.holds(compiler.bind({"event.properties": {"x": x}}))
    assert (guard.errors, other.errors, compiler.errors) == (0, 0, 0)
    for properties in ({}, {"x": "2"}, {"x": None}, {"y": 2}):
        guard.holds(compiler.bind({"event.properties": properties}))
    guard.holds(compiler.bind({}))
    other.holds(compiler.bind({"event.properties": {"x": [0] * 1_001}}))
    assert (guard.errors, other.errors, compiler.errors) == (5, 1, 6)
    guard.examine(compiler.bind({}))
    assert compiler.errors == 6, "whoever asks why changes nothing"


def test_examining_tells_why(compiler: CelCompiler) -> None:
    def examined(source: str, x: Any) -> Verdict:
        return compiler.compile(source).examine(compiler.bind({"event.properties": {"x": x}}))

    assert examined("event.properties.x > 1", 2) == (True, None)
    assert examined("event.properties.x > 1", 1) == (False, None)
    assert examined("event.properties.x > 1", "2") == (False, "No matching overloads found : _>_(string, int64)")
    assert examined("event.properties.y > 1", 1) == (False, 'Key not found in map : "y"')
    assert examined("measures.sum > 1.0", 1) == (False, 'No value with name "measures.sum" found in Activation')
    assert examined("event.properties.x.all(i, i == 0)", [0] * 1_000) == (True, None)
    too_long = "a list or a map has 1001 items; a loop takes at most 1000"
    assert examined("event.properties.x.all(i, i == 0)", [0] * 1_001) == (False, too_long)
    assert examined("event.properties.x.all(i, i == 0)", [0, [{"y": [0] * 1_001}]]) == (False, too_long)
    assert examined("0 in event.properties.x", [0] * 1_001) == (True, None), "that is no loop"


@pytest.mark.parametrize(
    "loop", ["exists(i, i in event.properties.y)", "filter(i, i != 'z').size() < 0", "map(i, i + 'z').size() < 0"]
)
@pytest.mark.parametrize("size", [1_000, 100_000])
def test_loops_take_no_time_to_speak_of(compiler: CelCompiler, loop: str, size: int) -> None:
    guard = compiler.compile(f"event.properties.x.{loop}")
    values = compiler.bind({"event.properties": {"x": [f"x{n}" for n in range(size)], "y": ["y"] * size}})
    with at_most(1.0):
        assert guard.holds(values) is False


@pytest.mark.parametrize(
    ("source", "tree"),
    [
        ("measures.count > 1", Call(">", (Name(("measures.count",)), Literal(1)))),
        ("measures.sum > 1.5", Call(">", (Name(("measures.sum",)), Literal(1.5)))),
        ("measures.any == -5", Call("==", (Name(("measures.any",)), Literal(-5)))),
        ("measures.any == -9223372036854775808", Call("==", (Name(("measures.any",)), Literal(-(2**63))))),
        ("measures.any == 18446744073709551615u", Call("==", (Name(("measures.any",)), Literal(2**64 - 1)))),
        ("measures.any == null", Call("==", (Name(("measures.any",)), Literal(None)))),
        ("measures.any == b'a'", Call("==", (Name(("measures.any",)), Literal(b"a")))),
        ("measures.any == 'é😀\\n' + \"b\"", Call("==", (Name(("measures.any",)), Literal("é😀\nb")))),
        (
            "event.properties.a['b c'].d != 1 + 2 * 3",
            Call("!=", (Name(("event.properties", "a", "b c", "d")), Literal(7))),
        ),
        (
            "event.properties.a[0] in [1, 'a']",
            Call("in", (Call("field", (Name(("event.properties", "a")), Literal(0))), Literal([1, "a"]))),
        ),
        ("has(event.properties.a)", Call("has", (Name(("event.properties", "a")),))),
        ("!traits.new", Call("!", (Name(("traits.new",)),))),
        (
            "traits.new ? traits.new : 1 > 2",
            Call("?:", (Name(("traits.new",)), Name(("traits.new",)), Literal(False))),
        ),
        (
            "[measures.count] == [1, 2]",
            Call("==", (Call("[]", (Name(("measures.count",)),)), Literal([1, 2]))),
        ),
        (
            "event.properties == {'a': measures.count}",
            Call("==", (Name(("event.properties",)), Call("{}", (Literal("a"), Name(("measures.count",)))))),
        ),
        (
            "event.occurred_at > timestamp('2026-01-01T00:00:00Z')",
            Call(">", (Name(("event.occurred_at",)), Literal(datetime(2026, 1, 1, tzinfo=UTC)))),
        ),
        ("event.type.matches('a(')", Call("matches", (Name(("event.type",)), Broken(BAD_PATTERN)))),
        ("event.type.matches('^\\\\d\\n\"é')", Call("matches", (Name(("event.type",)), Literal('^\\d\n"é')))),
        ("type(measures.any) == int", Call("==", (Call("type", (Name(("measures.any",)),)), Call("int", ())))),
        ("[1, 2].exists(i, i == 2)", Literal(True)),
        ("size({'a': 1}) == 1 || 1 / 0 == 1", Literal(True)),
        ("1 / 0 == 1", Broken("divide by zero")),
    ],
)
def test_an_expression_as_a_tree(compiler: CelCompiler, source: str, tree: Expression) -> None:
    read = compiler.compile(source).tree()
    assert repr(read) == repr(tree), "1, 1.0 and true are equal to each other, and not the same"


def test_only_so_many_patterns_are_tried() -> None:
    compiler = Cel().compiler(NAMES)
    trees = [compiler.compile(f"event.type.matches('{n}(')").tree() for n in range(MAX_PATTERNS + 1)]
    assert [any(isinstance(part, Broken) for part in parts(tree)) for tree in trees] == [True] * MAX_PATTERNS + [False]


def test_a_loop_as_a_tree_has_the_names_within_it(compiler: CelCompiler) -> None:
    tree = compiler.compile("event.properties.x.all(i, i > measures.count && i < 1 + 1)").tree()
    found = {part.text for part in parts(tree) if isinstance(part, Name)}
    assert found == {"event.properties.x", "measures.count"}
    assert Literal(2) in set(parts(tree))


@given(source=st.sampled_from(["{} > {}", "{} == 1 && !({} < 2)", "[{}, {}].exists(i, i > 2)", "{} in [1, {}]"]))
def test_names_are_written_as_they_can_be_read(source: str) -> None:
    one, other = Name(("event.properties", "a b", "c")), Name(("event.properties", 'd"', "e"))
    compiler = Cel().compiler(NAMES)
    tree = compiler.compile(source.format(one.text, other.text)).tree()
    assert {part for part in parts(tree) if isinstance(part, Name)} == {one, other}


def test_what_runs_past_the_iteration_budget_errs(compiler: CelCompiler) -> None:
    source = "event.properties.x.all(i, i == 0)"
    assert holds(compiler, source, event__properties={"x": [0] * 1000}) is True
    assert holds(compiler, source, event__properties={"x": [0] * 100_000}) is False


def test_instants_are_exact_to_the_microsecond(compiler: CelCompiler) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
    for operator, expected in {"==": True, ">=": True, "<": False}.items():
        source = f"event.occurred_at {operator} timestamp('2026-03-01T12:00:00.123457Z')"
        assert holds(compiler, source, event__occurred_at=at) is expected
    assert holds(
        compiler, "event.occurred_at - duration('1h') < timestamp('2026-03-01T11:30:00Z')", event__occurred_at=at
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("measures.counts > 1", "undeclared reference to 'measures.counts' (column 9)"),
        ("event == null", "undeclared reference to 'event' (column 1)"),
        ("event.properties", "must say yes or no (bool); this one gives map"),
        ("measures.any", "must say yes or no (bool); this one gives dyn"),
        ("now() > 1", "undeclared reference to 'now'"),
        ("measures.sum >= 2", "no matching overload for '_>=_' applied to '(double, int)' (column 14)"),
        ("measures.count >= 2.5", "no matching overload"),
        ("event.type > 5", "no matching overload"),
        ("1 <", "Syntax error"),
        ("", "Syntax error"),
        ("\0", "Syntax error"),
        ("'\ud800' == ''", "half a surrogate pair is none (column 2)"),
        ("__class__", "undeclared reference to '__class__'"),
        ("import os", "reserved identifier: import (column 1)"),
        ("((" * 20 + "true" + "))" * 20, "recursion"),
        ("true || " * 300 + "true", f"at most {MAX_SOURCE_BYTES} bytes, this one 2404"),
        ("'" + "é" * 1024 + "' == ''", "this one 2056"),
        ("[1].all(a, [1].exists(b, a == b))", "go through a list or a map once"),
        ("[1].all(a, true) && [1].exists_one (b, true)", "go through a list or a map once"),
        ("[[1].map//\n (a, a)].filter(b, true) == []", "go through a list or a map once"),
    ],
)
def test_mistakes_are_found_at_load(compiler: CelCompiler, source: str, message: str) -> None:
    with pytest.raises(GuardError) as raised:
        compiler.compile(source)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_what_the_library_says_otherwise_is_told_as_it_is() -> None:
    error = explained("INTERNAL: something odd\nwith more of it", "a > 1", ["a"])
    assert (str(error), error.hint, error.unknown) == ("INTERNAL: something odd", None, None)


def test_an_expression_is_compiled_once(compiler: CelCompiler) -> None:
    assert compiler.compile("measures.count > 7") is compiler.compile("measures.count > 7")
    assert compiler.compile("measures.count > 7").source == "measures.count > 7"


# -- a definition binds what its guards name ---------------------------------------------------------------------------

TOUCHPOINT = Touchpoint("id1", "source1", "buy", 1_000_000, "c", None, {"x": 1}, {"x": 2})
TRUE_OF_IT = {
    "event.id": '"id1"',
    "event.source": '"source1"',
    "event.type": '"buy"',
    "event.occurred_at": 'timestamp("1970-01-01T00:00:01Z")',
    "event.properties": '{"x": 1}',
    "event.context": '{"x": 2}',
    "journey.stage": '"a"',
    "journey.entered_at": 'timestamp("1970-01-01T00:00:00Z")',
    "journey.visits": '{"a": 1, "b": 0}',
    "measures.n": "1",
    "measures.total": "1.0",
    "measures.latest": 'timestamp("1970-01-01T00:00:01Z")',
}
BETWEEN = ("", " ", "\t", "\n", "\r", "\f", " \n ", "// a comment\n", "//\n", "\n//event.type\n")


def moves(expressions: list[str]) -> bool:
    """Whether a rule with these guards moves a journey that was opened at 0 in the stage `a`."""
    document = {
        "lifecycle": "one",
        "initial": "a",
        "stages": [{"key": "a"}, {"key": "b"}],
        "measures": {
            "n": {"count": "buy"},
            "total": {"sum": "properties.x", "of": "buy"},
            "latest": {"last": "occurred_at"},
        },
        "rules": [{"on": "buy", "when": expressions, "to": "b"}],
    }
    definitions = {"one": (ActiveDefinition(1, compile_definition(document, Cel())),)}
    opened, _ = step(definitions, UNKNOWN, TOUCHPOINT._replace(type="open", occurred_at=0))
    state, _ = step(definitions, opened, TOUCHPOINT)
    journey = state.journey("one", None)
    assert journey is not None
    return journey.stage == "b"


@pytest.mark.parametrize("name", TRUE_OF_IT)
@pytest.mark.parametrize("between", BETWEEN, ids=repr)
def test_a_name_is_bound_however_it_is_written(name: str, between: str) -> None:
    root, field = name.split(".")
    for written in (f"{root}{between}.{between}{field}", f".{root}.{between}{field}", f"{root}.{between}`{field}`"):
        assert moves([f"{written} == {TRUE_OF_IT[name]}"]), written


@given(
    names=st.lists(st.sampled_from(sorted(TRUE_OF_IT)), min_size=1, max_size=4),
    spaces=st.lists(st.sampled_from(BETWEEN), min_size=10, max_size=10),
    together=st.booleans(),
)
def test_no_name_that_is_used_is_left_unbound(names: list[str], spaces: list[str], together: bool) -> None:
    space = iter(spaces * 4)
    expressions = []
    for name in names:
        tokens = [*name.replace(".", " . ").split(), "==", TRUE_OF_IT[name]]
        expressions.append("".join(token + next(space) for token in tokens))
    assert moves([" && ".join(expressions)] if together else expressions)
