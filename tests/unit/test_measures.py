"""Measures: what each kind takes in, that sums are exact, and what a window holds."""

from __future__ import annotations

import copy
import math
import random
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.guards import ValueType
from lifecycle_engine.lifecycle.measures import Measure, MeasureKind, Total, value_at
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

X = ("properties", "x")
WHEN = ("occurred_at",)
MISSING = object()

doubles = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(doubles, doubles, st.integers(-(2**63), 2**64 - 1))


def measure(kind: str, path: tuple[str, ...] = X, within: int | None = None) -> Measure:
    return Measure("m", MeasureKind(kind), path, None, within)


def touchpoints(values: list[Any]) -> list[Touchpoint]:
    return [
        Touchpoint(str(n), "s", "buy", n, "c", None, {} if value is MISSING else {"x": value}, {})
        for n, value in enumerate(values)
    ]


def taken(figure: Measure, facts: list[Touchpoint]) -> Total:
    total = figure.empty
    for fact in facts:
        total = figure.take(total, fact)
    return total


def figure(kind: str, values: list[Any]) -> Any:
    each = measure(kind)
    total = taken(each, touchpoints(values))
    assert each.has_value(total) == (each.read(total) is not None or total == [None])
    return each.read(total)


def test_a_count_counts_whatever_it_is_given() -> None:
    each = measure("count", ())
    assert taken(each, touchpoints([1, "x", MISSING])) == 3
    assert each.read(each.empty) == 0
    assert each.has_value(each.empty)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("sum", [], 0.0),
        ("sum", [1, "2", True, None, [3], {"x": 3}, MISSING, 2.5], 3.5),
        ("sum", [0.1] * 10, 1.0),
        ("sum", [math.inf, math.nan, -math.inf, 10**400, 1], 1.0),
        ("sum", [1e308, 1e308], math.inf),
        ("sum", [-1e308, -1e308], -math.inf),
        ("sum", [1e308, 1e308, -1e308], 1e308),
        ("sum", [2**53, 1.0, 1.0], 2.0**53 + 2),
        ("min", [], None),
        ("min", [3, "1", True, None, -2.5, 7], -2.5),
        ("min", [1, 1.0], 1),
        ("max", ["9", False, MISSING], None),
        ("max", [3, -2.5, 2**64 - 1, 7], 2**64 - 1),
        ("max", [1.0, 1], 1.0),
        ("first", [], None),
        ("first", [MISSING, "a", 2], "a"),
        ("first", [None, 2], None),
        ("first", [{"a": 1}, 2], {"a": 1}),
        ("last", [MISSING], None),
        ("last", ["a", 2, MISSING], 2),
        ("last", ["a", None], None),
        ("last", ["a", False], False),
    ],
)
def test_kinds(kind: str, values: list[Any], expected: Any) -> None:
    assert repr(figure(kind, values)) == repr(expected)


@pytest.mark.parametrize(("kind", "expected"), [("min", 0), ("max", 2), ("first", 0), ("last", 2)])
def test_measures_of_instants(kind: str, expected: int) -> None:
    each = measure(kind, WHEN)
    assert each.read(taken(each, touchpoints([MISSING] * 3))) == expected
    assert each.value_type is ValueType.TIMESTAMP


def test_types_for_guards() -> None:
    assert measure("count", ()).value_type is ValueType.INT
    assert measure("sum").value_type is ValueType.DOUBLE
    assert {measure(kind).value_type for kind in ("min", "max", "first", "last")} == {ValueType.ANY}


def test_paths() -> None:
    fact = Touchpoint("1", "s", "buy", 5, "c", None, {"a": {"b": [1], "n": None}, "": 0}, {"a": 7})
    nothing = value_at(fact, ("properties", "no"))
    assert value_at(fact, ("properties", "a", "b")) == [1]
    assert value_at(fact, ("properties", "a", "n")) is None
    assert value_at(fact, ("context", "a")) == 7
    assert value_at(fact, WHEN) == 5
    for path in (("properties", "a", "no"), ("properties", "a", "b", "0"), ("context", "a", "b"), ("context", "x")):
        assert value_at(fact, path) is nothing
    assert nothing not in (None, 0, "", [], {})


@pytest.mark.parametrize("kind", ["count", "sum", "min", "max", "first", "last"])
def test_totals_are_replaced_and_never_changed(kind: str) -> None:
    each = measure(kind)
    total = each.empty
    for fact in touchpoints([3, 1, 1e300, "x", 5e-324, MISSING, None, -7]):
        before = copy.deepcopy(total)
        after = each.take(total, fact)
        assert total == before
        total = after


@given(values=st.lists(numbers, max_size=40), seed=st.integers(0, 1000))
def test_sums_are_exact_in_any_order(values: list[float], seed: int) -> None:
    shuffled = random.Random(seed).sample(values, len(values))
    each = measure("sum")
    total = taken(each, touchpoints(values))
    assert taken(each, touchpoints(shuffled)) == total
    exact = sum(map(Fraction, map(float, values)))
    try:
        expected = math.fsum(values)
    except OverflowError:
        try:
            expected = float(exact)
        except OverflowError:
            expected = math.copysign(math.inf, 1 if exact > 0 else -1)
    assert each.read(total) == expected


@given(values=st.lists(doubles, max_size=20))
def test_opposites_leave_nothing_behind(values: list[float]) -> None:
    facts = touchpoints([*values, *(-value for value in values)])
    assert taken(measure("sum"), facts) == measure("sum").empty == [0, 0]


@given(values=st.lists(numbers, max_size=20))
def test_totals_survive_msgpack_and_json(values: list[float]) -> None:
    for kind in MeasureKind:
        each = measure(kind.value)
        total = taken(each, touchpoints(values))
        for format_ in (msgspec.msgpack, msgspec.json):
            carried = format_.decode(format_.encode(total))
            assert repr(carried) == repr(total)
            fact = touchpoints([0.1])[0]
            assert each.take(carried, fact) == each.take(total, fact)


# -- windows ---------------------------------------------------------------------------------------------------------


def at(instant: int, value: Any) -> Touchpoint:
    return Touchpoint(str(instant), "s", "buy", instant, "c", None, {} if value is MISSING else {"x": value}, {})


@pytest.mark.parametrize(
    ("kind", "figures"),
    [
        ("count", [3, 2, 1, 0]),
        ("sum", [7.5, 6.5, 4.5, 0.0]),
        ("min", [1, 2, 4.5, None]),
        ("max", [4.5, 4.5, 4.5, None]),
        ("first", [1, 2, 4.5, None]),
        ("last", [4.5, 4.5, 4.5, None]),
    ],
)
def test_a_window_holds_what_occurred_after_its_beginning_and_up_to_its_end(kind: str, figures: list[Any]) -> None:
    each = measure(kind, within=10)
    total = taken(each, [at(0, 1), at(2, 2), at(9, 4.5)])
    read = []
    for now in (9, 10, 12, 19):
        total = each.let_go(total, now)
        read.append(each.read(total))
        assert each.has_value(total) == (read[-1] is not None)
    assert repr(read) == repr(figures)
    assert total == each.empty


def test_the_ends_of_a_window() -> None:
    each = measure("sum", within=10)
    total = taken(each, [at(0, 1), at(0, 2), at(1, "no number"), at(2, 3)])
    assert each.next_end(each.empty) is None
    assert each.next_end(total) == 10
    assert [now for now in range(30) if each.ends_at(total, now)] == [10, 12]
    assert each.next_end(each.let_go(total, 10)) == 12


@pytest.mark.parametrize(("kind", "expected"), [("min", 2), ("max", 9), ("first", 2), ("last", 9)])
def test_windows_of_instants(kind: str, expected: int) -> None:
    each = measure(kind, WHEN, within=10)
    assert each.read(each.let_go(taken(each, [at(0, 1), at(2, 1), at(9, 1)]), 10)) == expected


@given(
    kind=st.sampled_from(list(MeasureKind)),
    within=st.integers(1, 8),
    steps=st.lists(st.tuples(st.integers(0, 4), st.one_of(numbers, st.sampled_from(["x", None, True, MISSING])))),
    looks=st.sets(st.integers(0, 60)),
)
def test_a_window_is_what_remembering_everything_would_give(
    kind: MeasureKind, within: int, steps: list[tuple[int, Any]], looks: set[int]
) -> None:
    """Looked at while it goes on, it has the total that a measure without a window has of what is inside."""
    each, whole = measure(kind.value, within=within), measure(kind.value)
    facts: list[Touchpoint] = []
    total, now = each.empty, 0
    for gap, value in steps:
        now += gap
        before = copy.deepcopy(total)
        after = each.take(each.let_go(total, now) if now in looks else total, at(now, value))
        assert repr(total) == repr(before)
        total = after
        facts.append(at(now, value))
    for end in range(now, now + within + 2):
        inside = taken(whole, [fact for fact in facts if end - within < fact.occurred_at <= end])
        total = each.let_go(total, end)
        assert each.has_value(total) == whole.has_value(inside)
        assert repr(each.read(total)) == repr(whole.read(inside))
        assert repr(msgspec.msgpack.decode(msgspec.msgpack.encode(total.plain))) == repr(total)
    assert total == each.empty


@pytest.mark.parametrize("kind", ["count", "sum", "min", "max", "first", "last"])
@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 9)), max_size=300),
    within=st.integers(1, 200),
)
def test_windows_that_part_know_nothing_of_each_other(
    kind: str, steps: list[tuple[int, int, int]], within: int
) -> None:
    """Each goes on from some window before it, which may have been gone on from already, or was carried."""
    each = measure(kind, within=within)
    made: list[tuple[Total, int, list[Touchpoint]]] = [(each.empty, 0, [])]
    for back, gap, value in steps:
        total, now, facts = made[-1 - back % len(made)]
        now += gap
        carried = total.plain if value == 0 else total
        made.append((each.take(each.let_go(carried, now), at(now, value)), now, [*facts, at(now, value)]))
        assert carried == total
    for total, now, facts in made:
        inside = [fact for fact in facts if now - within < fact.occurred_at]
        assert total == taken(each, inside)
        assert repr(each.read(total)) == repr(each.read(taken(each, inside)))
