"""The lifecycles that come with the program, read, compiled and walked.

Whole ways through each of them are in `tests/lifecycles`; here is what holds of all, and the turns of the first one.
"""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, Definition, compile_definition
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.lifecycles.customers import CUSTOMERS

LANGUAGES = {"en", "nl", "sv", "ru", "ja"}


def compiled(key: str) -> Definition:
    return compile_definition(read_document(builtin_documents()[key], "application/yaml").data, Cel())


def walk(key: str, *touchpoints: tuple[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """The stage and the move of each stay that these touchpoints, a second apart, lead to."""
    facts = [
        Touchpoint(str(n), "s", type_, n * 1_000_000, "c", None, properties, {})
        for n, (type_, properties) in enumerate(touchpoints)
    ]
    events: list[Event] = []
    fold({key: (ActiveDefinition(1, compiled(key)),)}, facts, tell=events.append)
    assert all(event.is_stay for event in events)
    return [(event.stage, event.move) for event in events]


def test_which_there_are() -> None:
    assert list(builtin_documents()) == [
        "cart", "crm-ladder", "five-stages", "loyalty", "meddic", "post-purchase", "six-stages", "subscription",
    ]  # fmt: skip


@pytest.mark.parametrize("key", builtin_documents())
def test_each_is_labelled_in_five_languages(key: str) -> None:
    definition = compiled(key)
    assert definition.key == key
    for labels in (definition.labels, *(stage.labels for stage in definition.stages.values())):
        assert set(labels) == LANGUAGES
        assert all(label == label.strip() for label in labels.values())
        assert any(ord(letter) > 0x3000 for letter in labels["ja"])
        assert any(0x400 <= ord(letter) < 0x500 for letter in labels["ru"])
        assert all(ord(letter) < 0x100 for language in ("en", "nl", "sv") for letter in labels[language])


@pytest.mark.parametrize("key", builtin_documents())
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_two_stages_have_one_label(key: str, language: str) -> None:
    labels = [stage.labels[language].casefold() for stage in compiled(key).stages.values()]
    assert len(set(labels)) == len(labels)


UNREACHED: dict[tuple[str, int], str] = {}
"""Rules that no worked customer reaches, by lifecycle and place, and why."""


@pytest.mark.parametrize("key", builtin_documents())
def test_worked_customers_reach_every_rule(key: str) -> None:
    case = CUSTOMERS[key]
    reached = {stay.rule for stays in case.journeys.values() for stay in stays}
    reached |= {refusal.rule for refusal in case.refusals}
    rules = {rule.index for rule in compiled(key).rules}
    assert rules - reached == {place for lifecycle, place in UNREACHED if lifecycle == key}


@pytest.mark.parametrize("key", builtin_documents())
def test_worked_customers_reach_every_stage(key: str) -> None:
    reached = {stay.stage for stays in CUSTOMERS[key].journeys.values() for stay in stays}
    assert reached == set(compiled(key).stages)


BUY = ("purchase", {"amount": 20})


def test_five_stages_in_their_order() -> None:
    assert list(compiled("five-stages").stages) == ["awareness", "consideration", "purchase", "retention", "advocacy"]


@pytest.mark.parametrize(
    ("touchpoints", "stays"),
    [
        (
            [("ad_click", {}), ("signup", {}), BUY, ("review", {"rating": 5})],
            [("awareness", "start"), ("consideration", "advance"), ("purchase", "advance"), ("advocacy", "skip")],
        ),
        ([BUY, BUY, BUY], [("purchase", "start"), ("retention", "advance")]),
        ([BUY, ("referral", {"rating": 4}), BUY], [("purchase", "start"), ("advocacy", "skip"), ("retention", "back")]),
        (
            [BUY, BUY, ("review", {"rating": 1})],
            [("purchase", "start"), ("retention", "advance"), ("consideration", "back")],
        ),
        (
            [BUY, ("review", {"rating": 3}), ("review", {}), ("referral", {}), ("review", {"rating": "5"})],
            [("purchase", "start")],
        ),
        ([("product_view", {}), ("review", {"rating": 5})], [("consideration", "start")]),
        ([("newsletter", {}), ("page", {})], [("awareness", "start")]),
        ([BUY, ("signup", {})], [("purchase", "start")]),
    ],
)
def test_five_stages(touchpoints: list[tuple[str, dict[str, Any]]], stays: list[tuple[str, str]]) -> None:
    assert walk("five-stages", *touchpoints) == stays


def test_five_stages_measures() -> None:
    facts = [
        Touchpoint(str(n), "s", "purchase", n, "c", None, {"amount": amount}, {})
        for n, amount in enumerate((19.9, "free", 0.1, 30))
    ]
    definition = compiled("five-stages")
    state = fold({"five-stages": (ActiveDefinition(1, definition),)}, facts)
    journey = state.journey("five-stages", None)
    assert journey is not None
    figures = {
        measure.name: measure.read(total) for measure, total in zip(definition.measures, journey.totals, strict=True)
    }
    assert figures == {"purchases": 4, "spend": 50.0, "last_purchase": 3}


@pytest.mark.parametrize(
    ("known", "told", "stage"),
    [
        ({"company_size": 80}, {}, "marketing_qualified"),
        ({"company_size": 20}, {"company_size": 20}, "lead"),
        ({}, {}, "lead"),
    ],
)
def test_the_crm_ladder_takes_the_size_of_a_company_from_its_traits_too(
    known: dict[str, Any], told: dict[str, Any], stage: str
) -> None:
    assert walk("crm-ladder", ("$identify", {"traits": known}), ("demo_requested", told)) == [(stage, "start")]
