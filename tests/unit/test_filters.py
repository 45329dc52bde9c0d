"""Filters of endpoints: what they take, and what is said about wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.outbox.filters import EVENT_TYPES, About, Filter, FilterError, about, matches, parse_filter

CHANGED = About("stage.changed", "retail", "purchase", "retention", "advance")
MERGED = About("customer.merged")
DISABLED = About("endpoint.disabled")
ADA: dict[str, Any] = {
    "plan": "pro",
    "seats": 10,
    "score": 0.5,
    "vip": True,
    "tags": ["eu", "beta"],
    "gone": None,
    "since": "2026-03-01T00:00:00Z",
    "address": {"country": "NL", "geo": {"lat": 52.4}},
}


@pytest.mark.parametrize(
    ("document", "event", "is_taken"),
    [
        ({}, CHANGED, True),
        ({}, MERGED, True),
        ({}, DISABLED, False),
        ({"event_types": ["*"]}, DISABLED, True),
        ({"event_types": ["endpoint.*"]}, DISABLED, True),
        ({"event_types": "endpoint.disabled"}, DISABLED, True),
        ({"event_types": ["stage.*"]}, CHANGED, True),
        ({"event_types": ["stage.*"]}, About("stage.expiring", "retail"), True),
        ({"event_types": ["stage.*"]}, MERGED, False),
        ({"event_types": ["stage.changed", "customer.merged"]}, MERGED, True),
        ({"event_types": None, "lifecycle": None, "traits": None}, CHANGED, True),
        ({"lifecycle": "retail"}, CHANGED, True),
        ({"lifecycle": ["crm", "retail"]}, CHANGED, True),
        ({"lifecycle": ["crm"]}, CHANGED, False),
        ({"lifecycle": ["retail"]}, MERGED, False),
        ({"from": "purchase", "to": "retention", "move": "advance"}, CHANGED, True),
        ({"from": "retention"}, CHANGED, False),
        ({"to": "purchase"}, CHANGED, False),
        ({"to": ["retention"]}, About("history.corrected", "retail"), False),
        ({"move": ["back", "skip"]}, CHANGED, False),
        ({"from": ["purchase"]}, CHANGED._replace(origin=None), False),
    ],
)
def test_what_an_event_must_be(document: dict[str, Any], event: About, is_taken: bool) -> None:
    assert matches(parse_filter(document), event, ADA) is is_taken


@pytest.mark.parametrize(
    ("traits", "holds"),
    [
        ({"plan": "pro"}, True),
        ({"plan": "free"}, False),
        ({"plan": "pro", "seats": 10}, True),
        ({"plan": "pro", "seats": 9}, False),
        ({"seats": 10.0}, True),
        ({"seats": "10"}, False),
        ({"vip": True}, True),
        ({"vip": 1}, False),
        ({"seats": {"$gte": 10}}, True),
        ({"seats": {"$gt": 10}}, False),
        ({"seats": {"$gt": 5, "$lte": 10}}, True),
        ({"seats": {"$lt": 10}}, False),
        ({"vip": {"$gte": 0}}, False),
        ({"plan": {"$gte": 1}}, False),
        ({"since": {"$lt": "2026-04-01T00:00:00Z"}}, True),
        ({"nowhere": {"$lt": 1}}, False),
        ({"plan": {"$in": ["free", "pro"]}}, True),
        ({"plan": {"$in": ["free", None]}}, False),
        ({"nowhere": {"$in": ["free", None]}}, True),
        ({"tags": "eu"}, True),
        ({"tags": "us"}, False),
        ({"tags": ["eu", "beta"]}, True),
        ({"tags": ["beta", "eu"]}, False),
        ({"tags": {"$in": ["us", "beta"]}}, True),
        ({"plan": {"$not": "free"}}, True),
        ({"plan": {"$not": {"$in": ["pro"]}}}, False),
        ({"nowhere": {"$not": "free"}}, True),
        ({"$not": {"plan": "free"}}, True),
        ({"plan": {"$exist": True}}, True),
        ({"gone": {"$exist": True}}, False),
        ({"nowhere": {"$exist": False}}, True),
        ({"gone": None, "nowhere": None}, True),
        ({"plan": None}, False),
        ({"address": {"country": "NL"}}, True),
        ({"address": {"country": "SE"}}, False),
        ({"address": {"geo": {"lat": {"$gt": 50, "$lt": 55}}}}, True),
        ({"plan": {"country": "NL"}}, False),
        ({"$or": [{"plan": "free"}, {"seats": {"$gte": 5}}]}, True),
        ({"$or": [{"plan": "free"}, {"seats": 1}]}, False),
        ({"score": {"$or": [{"$lt": 0.1}, {"$gt": 0.4}]}}, True),
        ({"$or": [{"plan": "pro"}], "seats": 1}, False),
        ({"address": {"$or": [{"country": "SE"}, {"country": "NL"}]}}, True),
    ],
)
def test_what_traits_must_be(traits: dict[str, Any], holds: bool) -> None:
    found = parse_filter({"traits": traits})
    assert found.asks_for_traits
    assert matches(found, CHANGED, ADA) is holds
    assert not matches(found, DISABLED, None)


def test_an_event_about_nobody_has_no_traits() -> None:
    found = parse_filter({"event_types": ["*"], "traits": {"plan": {"$exist": False}}})
    assert matches(found, CHANGED, {})
    assert not matches(found, DISABLED, None)


def test_what_is_asked_is_read_from_the_event() -> None:
    data = {"customer_id": "ada", "from": "a", "to": "b", "move": "skip", "sequence": 3, "cause": {"rule": 1}}
    assert about("stage.changed", "retail", json.dumps(data).encode()) == ("stage.changed", "retail", "a", "b", "skip")
    start = json.dumps({**data, "from": None}).encode()
    assert about("stage.changed", "retail", start).origin is None
    expiring = json.dumps({"stage": "a", "to": "b", "due_at": "2026-03-01T00:00:00Z"}).encode()
    assert about("stage.expiring", "retail", expiring) == ("stage.expiring", "retail", "a", "b", None)
    assert not parse_filter({"lifecycle": "retail"}).asks_for_data
    assert parse_filter({"to": "b"}).asks_for_data


@pytest.mark.parametrize(
    ("document", "pointer", "says", "hint"),
    [
        ([], "", "must be a map", None),
        ({"event_type": ["x"]}, "/event_type", "is not known", "did you mean 'event_types'?"),
        ({"event_types": []}, "/event_types", "is empty", None),
        ({"event_types": ["stage.change"]}, "/event_types/0", "is no type of event", "did you mean 'stage.changed'?"),
        ({"event_types": ["stages.*"]}, "/event_types/0", "is no type of event", "did you mean 'stage.*'?"),
        ({"event_types": 7}, "/event_types", "must be a text, not a number", None),
        ({"to": ["a", None]}, "/to/1", "must be a text, not null", None),
        ({"to": ""}, "/to", "must have 1 to 256 characters", None),
        ({"to": ["a"] * 101}, "/to", "at most 100", None),
        ({"move": "advanced"}, "/move", "is none of", "did you mean 'advance'?"),
        ({"traits": []}, "/traits", "must be a map of traits", None),
        ({"traits": {}}, "/traits", "is empty", None),
        ({"traits": {"a/b~": {"$gtt": 1}}}, "/traits/a~1b~0/$gtt", "is no operator", "did you mean '$gt'?"),
        ({"traits": {"a": {"$gt": True}}}, "/traits/a/$gt", "compares with a number or a text", None),
        ({"traits": {"a": {"$in": "x"}}}, "/traits/a/$in", "must be a list", None),
        ({"traits": {"a": {"$in": []}}}, "/traits/a/$in", "must be a list", None),
        ({"traits": {"a": {"$in": [{"b": 1}]}}}, "/traits/a/$in/0", "must be a plain value", None),
        ({"traits": {"a": {"$exist": 1}}}, "/traits/a/$exist", "must be true or false", None),
        ({"traits": {"a": {"$gt": 1, "b": 2}}}, "/traits/a/b", "do not go together", None),
        ({"traits": {"a": [[1]]}}, "/traits/a", "plain values only", None),
        ({"traits": {"a": "x" * 257}}, "/traits/a", "at most 256", None),
        ({"traits": {"$and": [{"a": 1}]}}, "/traits/$and", "is not possible here", None),
        ({"traits": {"$or": [{"a": 1}, 2]}}, "/traits/$or/1", "must be a map of traits", None),
        ({"traits": {str(n): n for n in range(101)}}, "/traits", "more than 100 conditions", None),
    ],
)
def test_a_mistake_is_shown_where_it_is(document: Any, pointer: str, says: str, hint: str | None) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(document)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert says in problem.message
    if hint is not None:
        assert problem.hint == hint
        assert hint in str(caught.value)


def test_all_mistakes_are_shown() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter({"form": "a", "move": "up", "traits": {"a": {"$gt": None}, "$not": 1}})
    assert [problem.pointer for problem in caught.value.problems] == ["/form", "/move", "/traits/a/$gt", "/traits/$not"]


@pytest.mark.parametrize("shape", [{"a": 1}, {"$not": 1}])
def test_what_nests_too_deep_is_refused(shape: dict[str, Any]) -> None:
    (name,) = shape
    nested: Any = {"a": 1}
    for _ in range(500):
        nested = {name: nested}
    with pytest.raises(FilterError, match="at most 8 deep"):
        parse_filter({"traits": nested})


def test_it_is_kept_in_one_form() -> None:
    document = {"to": "b", "event_types": "stage.*", "traits": {"a": 1}, "from": None, "move": ["skip", "skip"]}
    found = parse_filter(document)
    assert found.document == {"event_types": ["stage.*"], "to": ["b"], "move": ["skip"], "traits": {"a": 1}}
    assert parse_filter(found.document).document == found.document


# -- anything at all -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "event_types",
        "lifecycle",
        "from",
        "to",
        "move",
        "traits",
        "a",
        "b",
        "$in",
        "$gte",
        "$lt",
        "$not",
        "$exist",
        "$or",
    ]
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.just("back")
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=12
)
TRAITS = st.dictionaries(st.sampled_from(["a", "b", "to"]), VALUES, max_size=3)
DOCUMENTS = (
    st.dictionaries(NAMES, VALUES, max_size=4)
    | st.fixed_dictionaries({"traits": st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)})
    | VALUES
)


@given(DOCUMENTS, TRAITS)
def test_anything_is_a_filter_or_has_mistakes(document: Any, traits: dict[str, Any]) -> None:
    found: Filter | None = None
    try:
        found = parse_filter(document)
    except FilterError as error:
        problems = error.problems
    if found is None:
        assert problems
        assert all(problem.pointer == "" or problem.pointer.startswith("/") for problem in problems)
    else:
        again = parse_filter(json.loads(json.dumps(found.document)))
        for type_ in EVENT_TYPES:
            event = CHANGED._replace(type=type_)
            taken = matches(found, event, traits)
            assert matches(again, event, traits) is taken
            assert not taken or type_ in found.types


@given(TRAITS, TRAITS)
def test_not_is_the_opposite(asked: dict[str, Any], traits: dict[str, Any]) -> None:
    try:
        one, other = parse_filter({"traits": asked}), parse_filter({"traits": {"$not": asked}})
        twice = parse_filter({"traits": {"$or": [asked, {"$not": asked}]}})
    except FilterError:
        return
    assert matches(one, CHANGED, traits) is not matches(other, CHANGED, traits)
    assert matches(twice, CHANGED, traits)
