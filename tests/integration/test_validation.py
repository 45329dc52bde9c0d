"""What a document is told before it judges anybody: mistakes, warnings, and what keeps it from being activated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lifecycle_engine.catalog.documents import MAX_BYTES
from lifecycle_engine.store.database import Database
from tests.record import record
from tests.service import service

DOCUMENT = """\
lifecycle: shop
initial: new
stages:
  - {key: new}
  - {key: bought}
rules:
  - {on: buy, to: bought}
  - {on: buy, when: ["measures.n >= 2"], to: bought}
measures:
  n: {count: bye}
"""
WARNINGS = [
    {
        "pointer": "/rules/1",
        "line": 8,
        "column": 5,
        "message": "never decides: rule 0 (counted from 0) above decides whenever it would match",
        "hint": "move it above rule 0",
    }
]


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    async with record(sqlite_url) as database:
        yield database


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with service(database) as client:
        yield client


async def validate(
    client: httpx.AsyncClient, document: str = DOCUMENT, status: int = 200, media_type: str = "application/yaml"
) -> Any:
    headers = {"Content-Type": media_type}
    response = await client.post("/v1/lifecycles/validate", content=document.encode(), headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def post(client: httpx.AsyncClient, document: str, status: int = 201) -> Any:
    headers = {"Content-Type": "application/yaml"}
    response = await client.post("/v1/lifecycles", content=document.encode(), headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def activate(client: httpx.AsyncClient, version: int) -> None:
    response = await client.post("/v1/lifecycles/shop/activate", json={"version": version})
    assert response.status_code in (200, 202), response.text


async def test_warnings_stop_nothing(client: httpx.AsyncClient) -> None:
    assert await validate(client) == {
        "valid": True,
        "lifecycle": "shop",
        "problems": [],
        "warnings": WARNINGS,
        "activation": [],
    }
    posted = await post(client, DOCUMENT)
    assert (posted["version"], posted["warnings"]) == (1, WARNINGS)
    assert (await post(client, DOCUMENT, 200))["warnings"] == WARNINGS, "also when it is there already"


async def test_nothing_is_changed(client: httpx.AsyncClient) -> None:
    await validate(client)
    assert (await client.get("/v1/lifecycles")).json()["items"] == []
    await post(client, DOCUMENT)
    await validate(client, DOCUMENT + "# another\n")
    assert (await client.get("/v1/lifecycles/shop")).json()["newest_version"] == 1


async def test_every_mistake_comes_with_its_place_and_a_hint(client: httpx.AsyncClient) -> None:
    document = DOCUMENT.replace("measures.n >= 2", "journey.stage == 'bougt'").replace("initial: new", "initial: knew")
    found = await validate(client, document + "moves: {new: [bought], bougth: []}\n")
    assert (found["valid"], found["lifecycle"], found["warnings"], found["activation"]) == (False, "shop", [], [])
    assert [(one["pointer"], one["line"], one["column"], one["hint"]) for one in found["problems"]] == [
        ("/initial", 2, 1, "did you mean 'new'?"),
        ("/rules/1/when/0", 8, 22, "did you mean 'bought'?"),
        ("/moves/bougth", 11, 24, "did you mean 'bought'?"),
    ]
    problem = await post(client, document, 422)
    assert problem["code"] == "invalid_definition"
    assert [one["pointer"] for one in problem["problems"]] == ["/initial", "/rules/1/when/0"]
    assert problem["warnings"] == []


async def test_a_mistake_of_meaning_is_refused_as_one_of_form_is(client: httpx.AsyncClient) -> None:
    document = DOCUMENT.replace('["measures.n >= 2"]', '["measures.n > 5", "measures.n < 3"]')
    (mistake,) = (await validate(client, document))["problems"]
    assert mistake == {
        "pointer": "/rules/1/when/1",
        "line": 8,
        "column": 40,
        "message": "never holds together with 'measures.n > 5': no value of measures.n will do",
        "hint": None,
    }
    problem = await post(client, document, 422)
    assert problem["problems"] == [mistake]
    assert problem["detail"] == f"line 8, column 40: {mistake['message']}"
    assert [one["pointer"] for one in problem["warnings"]] == ["/rules/1"]


async def test_json_is_checked_in_the_same_way(client: httpx.AsyncClient) -> None:
    document = {"lifecycle": "shop", "initial": "a", "stages": [{"key": "a"}], "rules": [{"on": "x", "to": "b"}]}
    found = await validate(client, json.dumps(document, indent=1), media_type="application/json")
    assert [(one["pointer"], one["line"], one["column"]) for one in found["problems"]] == [("/rules/0/to", 12, 4)]


@pytest.mark.parametrize(
    ("document", "lifecycle"),
    [("", None), ("- a\n", None), ("lifecycle: [", None), ("lifecycle: shop\n", "shop"), ("lifecycle: 7\n", None)],
)
async def test_what_is_no_definition_is_told_as_well(
    client: httpx.AsyncClient, document: str, lifecycle: str | None
) -> None:
    found = await validate(client, document)
    assert (found["valid"], found["lifecycle"]) == (False, lifecycle)
    assert found["problems"][0]["line"] == 1


async def test_what_is_no_document_is_refused(client: httpx.AsyncClient) -> None:
    assert (await validate(client, media_type="text/plain", status=415))["code"] == "unsupported_media_type"
    assert (await validate(client, DOCUMENT + "#" * MAX_BYTES, 413))["code"] == "too_large"
    response = await client.get("/v1/lifecycles/validate")
    assert response.status_code == 404, "a lifecycle of this name"


async def test_what_would_keep_it_from_being_activated(client: httpx.AsyncClient) -> None:
    following = DOCUMENT.replace("bought", "paid") + "per: properties.line\nrename: {nwe: paid}\n"
    assert (await validate(client, following))["activation"] == [], "there is nothing to follow yet"
    await post(client, DOCUMENT)
    assert (await validate(client, following))["activation"] == [], "nor while nothing is active"
    await activate(client, 1)
    found = await validate(client, following)
    assert found["valid"], "it can be stored all the same"
    assert [(one["pointer"], one["line"], one["message"], one["hint"]) for one in found["activation"]] == [
        ("/per", 11, "`per` can't change from version to version; in the active one it is absent", None),
        (
            "/rename",
            12,
            "stages of the active version are missing: bought",
            "say where journeys go that are there: rename: {bought: new}",
        ),
    ]
    assert [(one["pointer"], one["hint"]) for one in found["warnings"][1:]] == [("/rename/nwe", "did you mean 'new'?")]
    follows = DOCUMENT.replace("bought", "paid") + "rename: {bought: paid}\n"
    assert (await validate(client, follows))["activation"] == []
