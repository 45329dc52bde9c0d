"""Definitions over HTTP: posted as they are written, numbered by the server, activated, and then in effect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lifecycle_engine.catalog.documents import MAX_BYTES
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.store.database import Database
from tests.record import record
from tests.service import service

START = parse_instant("2026-01-01T00:00:00Z")
DOCUMENT = """\
# What people wrote stays as they wrote it.
lifecycle: shop
initial: new
stages:
  - {key: new, label: {en: New, ja: 新規}}
  - {key: bought}
rules:
  - {on: buy, to: bought}
"""


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database:
        yield database


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with service(database) as client:
        yield client


async def post(
    client: httpx.AsyncClient, document: str = DOCUMENT, status: int = 201, media_type: str = "application/yaml"
) -> Any:
    headers = {"Content-Type": media_type}
    response = await client.post("/v1/lifecycles", content=document.encode(), headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def activate(client: httpx.AsyncClient, version: Any, status: int = 202, key: str = "shop") -> Any:
    response = await client.post(f"/v1/lifecycles/{key}/activate", json={"version": version})
    assert response.status_code == status, response.text
    return response.json()


async def get(client: httpx.AsyncClient, path: str, status: int = 200, **parameters: Any) -> Any:
    response = await client.get(f"/v1/lifecycles{path}", params=parameters or None)
    assert response.status_code == status, response.text
    return response.json()


async def test_versions_are_numbered_and_kept_as_they_were_written(client: httpx.AsyncClient) -> None:
    first = await post(client)
    assert (first["lifecycle"], first["version"], first["activated_at"], first["warnings"]) == ("shop", 1, None, [])
    assert await post(client, status=200) == first, "the same document again"
    changed = DOCUMENT.replace("New", "Brand new")
    second = await post(client, changed, media_type="text/yaml; charset=utf-8")
    assert (second["version"], second.pop("warnings")) == (2, [])
    assert (await post(client, DOCUMENT))["version"] == 3, "only the newest version is compared with"
    assert await get(client, "/shop/versions/2") == {**second, "media_type": "text/yaml", "document": changed}
    assert (await get(client, "/shop/versions/1"))["document"] == DOCUMENT
    listed = await get(client, "/shop/versions")
    assert [version["version"] for version in listed["items"]] == [3, 2, 1]
    assert listed["items"][1] == second
    assert await get(client, "/shop") == {
        "lifecycle": "shop",
        "active_version": None,
        "newest_version": 3,
        "created_at": first["created_at"],
    }


@pytest.mark.parametrize("media_type", ["application/json", "application/yaml", "text/yaml", "application/x-yaml"])
async def test_json_and_yaml_say_the_same(client: httpx.AsyncClient, media_type: str) -> None:
    document = {"lifecycle": "shop", "initial": "a", "stages": [{"key": "a"}], "rules": [{"on": "yes", "to": "a"}]}
    posted = await post(client, json.dumps(document), media_type=media_type)
    assert (posted["lifecycle"], posted["version"]) == ("shop", 1)


async def test_posts_at_once_get_versions_of_their_own(client: httpx.AsyncClient) -> None:
    posted = await asyncio.gather(*(post(client, f"{DOCUMENT}# {number}") for number in range(8)))
    assert sorted(one["version"] for one in posted) == list(range(1, 9))


async def test_every_mistake_is_told_with_its_place(client: httpx.AsyncClient) -> None:
    document = DOCUMENT.replace("initial: new", "initial: knew").replace(
        "to: bought", "to: brought, when: [event.x > 1]"
    )
    problem = await post(client, document, 422)
    assert (problem["code"], problem["status"]) == ("invalid_definition", 422)
    assert problem["detail"].startswith("line 3, column 1: there is no stage 'knew'")
    assert [(one["pointer"], one["line"], one["column"], one["hint"]) for one in problem["problems"]] == [
        ("/initial", 3, 1, "did you mean 'new'?"),
        ("/rules/0/to", 8, 15, "did you mean 'bought'?"),
        ("/rules/0/when/0", 8, 35, "what a touchpoint carries is named event.properties.x"),
    ]
    await get(client, "/shop", 404)


@pytest.mark.parametrize(
    ("document", "line", "column"),
    [
        ("", 1, 1),
        ("lifecycle: [", 1, 13),
        ("a: 1\na: 2\n", 2, 1),
        ("- a\n", 1, 1),
        ("lifecycle: !!python/object:x {}", 1, 12),
    ],
)
async def test_what_cannot_be_read_is_told_with_its_place(
    client: httpx.AsyncClient, document: str, line: int, column: int
) -> None:
    problem = await post(client, document, 422)
    (first, *_) = problem["problems"]
    assert (problem["code"], first["line"], first["column"]) == ("invalid_definition", line, column)


async def test_what_is_no_document_is_refused(client: httpx.AsyncClient) -> None:
    for media_type in ("text/plain", "", "multipart/form-data; boundary=x"):
        problem = await post(client, status=415, media_type=media_type)
        assert problem["code"] == "unsupported_media_type"
    problem = await post(client, DOCUMENT + "#" * MAX_BYTES, 413)
    assert problem["code"] == "too_large"
    response = await client.post("/v1/lifecycles", content=b"lifecycle: \xff", headers={"Content-Type": "text/yaml"})
    assert (response.status_code, response.json()["problems"][0]["column"]) == (422, 12)


async def test_what_is_not_there_cannot_be_activated(client: httpx.AsyncClient) -> None:
    await post(client)
    assert (await activate(client, 2, 404))["code"] == "version_not_found"
    assert (await activate(client, 1, 404, "nothing"))["code"] == "version_not_found"
    assert (await get(client, "/nothing", 404))["code"] == "lifecycle_not_found"
    assert (await get(client, "/nothing/versions", 404))["code"] == "lifecycle_not_found"
    assert (await get(client, "/shop/versions/7", 404))["code"] == "version_not_found"
    for version in (0, -1, "1", 1.5, None, True, 2**31):
        assert (await activate(client, version, 422))["code"] == "invalid_request"
    response = await client.post("/v1/lifecycles/shop/activate", json={"version": 1, "when": "now"})
    assert response.status_code == 422
    for path in ("/shop/versions/0", "/shop/versions/one", f"/shop/versions/{2**31}"):
        assert (await get(client, path, 422))["code"] == "invalid_request"


async def test_lists_come_in_pages(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await post(client, DOCUMENT.replace("lifecycle: shop", f"lifecycle: shop-{number}"))
        await post(client, f"{DOCUMENT}# {number}")
    for path, name, expected in (
        ("", "lifecycle", ["shop", "shop-0", "shop-1", "shop-2", "shop-3", "shop-4"]),
        ("/shop/versions", "version", [5, 4, 3, 2, 1]),
    ):
        seen: list[Any] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await get(client, path, limit=2, **cursor)
            seen += [item[name] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == expected
    assert (await get(client, "", 400, **cursor))["code"] == "invalid_cursor"
