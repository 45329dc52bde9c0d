"""The pages about the built-in lifecycles: their tables say what the definitions and the worked customers do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle_engine.lifecycle.instants import format_instant
from tests.conformance.examples import Case, Stay
from tests.lifecycles.customers import CUSTOMERS
from tests.oracle_times import duration

PAGES = Path(__file__).parents[2] / "docs" / "lifecycles"

Row = dict[str, str]


def tables(page: str) -> list[list[Row]]:
    """The Markdown tables, row by row, by the names of their columns; without the marks of code."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    return [[dict(zip(head, row, strict=True)) for row in rows] for head, _, *rows in map(_cells, blocks)]


def _cells(block: str) -> list[list[str]]:
    return [[cell.strip().replace("`", "") for cell in line[1:-1].split("|")] for line in block.splitlines()]


def page(key: str) -> str:
    return (PAGES / f"{key}.md").read_text(encoding="utf-8")


def rules(case: Case) -> list[dict[str, Any]]:
    return list(case.definition["rules"])


def words(value: Any) -> Iterator[str]:
    """All text in a part of a definition."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from words(part)


@pytest.mark.parametrize("key", CUSTOMERS)
def test_stages(key: str) -> None:
    stages, *_ = tables(page(key))
    defined = [(stage["key"], stage["label"]["en"]) for stage in CUSTOMERS[key].definition["stages"]]
    assert [(row["stage"], row["name"]) for row in stages] == defined
    assert all(row["meaning"] for row in stages)


@pytest.mark.parametrize("key", CUSTOMERS)
def test_touchpoints(key: str) -> None:
    _, listened_to, *_ = tables(page(key))
    definition = CUSTOMERS[key].definition
    named = [part[name] for part in definition["rules"] for name in ("on", "without") if name in part]
    named += [part[name] for part in definition["measures"].values() for name in ("count", "of") if name in part]
    types = {type_ for type_ in words([*named, definition.get("opens", [])]) if type_ != "any"}
    told = [type_ for row in listened_to for type_ in row["type"].split(", ")]
    assert sorted(told) == sorted(types)
    properties = {name for text in words(definition) for name in re.findall(r"\bproperties\.(\w+)", text)}
    assert {name for row in listened_to for name in re.findall(r"(\w+)(?: \([^)]*\))?(?:,|$)", row["properties"])} == (
        properties
    )


@pytest.mark.parametrize("key", CUSTOMERS)
def test_worked_customer(key: str) -> None:
    case = CUSTOMERS[key]
    _, _, touchpoints, stays, *refusals = tables(page(key))
    assert [
        (row["id"], row["type"], row["occurred_at"], json.loads(row["properties"] or "{}")) for row in touchpoints
    ] == [(one["id"], one["type"], format_instant(one["occurred_at"]), one["properties"]) for one in case.touchpoints]
    told = [
        (row.get("subject"), row["stage"], row["entered_at"], row["from"], row["move"], row["why"].partition(": ")[0])
        for row in stays
    ]
    assert told == [(subject, *_shown(stay, case)) for subject, some in case.journeys.items() for stay in some]
    assert all(row["why"].partition(": ")[2] for row in stays)
    assert [(row["at"], row["to"], row["why"].partition(": ")[0]) for table in refusals for row in table] == [
        (format_instant(one.at), one.to, f"{one.reason}, rule {one.rule}") for one in case.refusals
    ]
    assert f"On {format_instant(case.now).removesuffix('T00:00:00Z')} the history reads:" in page(key)


def _shown(stay: Stay, case: Case) -> tuple[str, str, str, str, str]:
    move = f"{stay.move} (past {', '.join(stay.skipped)})" if stay.skipped else stay.move
    why = stay.cause if stay.rule is None else f"{stay.cause}, rule {stay.rule}"
    if stay.rule is not None and (warn := rules(case)[stay.rule].get("warn")):
        why += f", announced {format_instant(stay.entered_at - duration(warn))}"
    return stay.stage, format_instant(stay.entered_at), stay.origin or "", move, why


@pytest.mark.parametrize("key", CUSTOMERS)
def test_a_refusal_names_what_is_missing(key: str) -> None:
    case = CUSTOMERS[key]
    requires = {stage["key"]: stage.get("requires", []) for stage in case.definition["stages"]}
    _, _, _, _, *refusals = tables(page(key))
    for row in (row for table in refusals for row in table):
        failed = re.match(r"requires\[(\d+)\]", row["why"])
        assert failed is not None
        assert row["why"].endswith(f"({requires[row['to']][int(failed[1])]})")


@pytest.mark.parametrize("key", CUSTOMERS)
def test_a_page_has_a_place_for_its_diagram_and_leads_to_its_definition(key: str) -> None:
    text = page(key)
    assert text.startswith(f"# {CUSTOMERS[key].definition['label']['en']} (`{key}`)\n")
    assert re.search(r"^<!-- diagram -->\n(.*\n)*?<!-- /diagram -->$", text, re.MULTILINE)
    (link,) = re.findall(r"\]\((.*\.yaml)\)", text)
    assert (PAGES / link).resolve().stem == key.replace("-", "_")
    assert (PAGES / link).is_file()


def test_the_first_page_lists_all() -> None:
    listed, *_ = tables((PAGES / "README.md").read_text(encoding="utf-8"))
    links = [re.fullmatch(r"\[(.*)\]\((.*)\.md\)", row["lifecycle"]) for row in listed]
    assert sorted(link.groups() for link in links if link) == [(key, key) for key in CUSTOMERS]
    assert {path.stem for path in PAGES.glob("*.md")} == {*CUSTOMERS, "README"}
