"""Stages and diagrams over HTTP: of any version, in the form and in the language that the caller would rather have."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator

import httpx
import pytest

from lifecycle_engine.store.database import Database
from tests.record import record
from tests.service import service

DOCUMENT = """\
lifecycle: shop
label: {en: Shop, nl: Winkel}
initial: new
stages:
  - {key: new, label: {en: New, nl: Nieuw, ja: 新規}}
  - {key: bought, label: {en: Bought, nl: Gekocht}, requires: ["measures.bought >= 1"]}
  - {key: loyal}
measures:
  bought: {count: buy}
rules:
  - {on: buy, to: bought}
"""
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.fixture(params=["sqlite", "postgres"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    database: Database
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as database, service(database) as client:
        await post(client, DOCUMENT)
        yield client


async def post(client: httpx.AsyncClient, document: str) -> None:
    headers = {"Content-Type": "application/yaml"}
    response = await client.post("/v1/lifecycles", content=document.encode(), headers=headers)
    assert response.status_code == 201, response.text


async def get(client: httpx.AsyncClient, path: str, status: int = 200, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await client.get(f"/v1/lifecycles{path}", headers=sent)
    assert response.status_code == status, response.text
    if status != 200:
        assert response.headers["content-type"] == "application/problem+json"
    return response


async def test_the_form_that_is_wanted(client: httpx.AsyncClient) -> None:
    path = "/shop/versions/1/diagram"
    for accept, expected in (
        ("*/*", "image/svg+xml"),
        (BROWSER, "image/svg+xml"),
        ("image/*", "image/svg+xml"),
        ("text/vnd.mermaid", "text/vnd.mermaid; charset=utf-8"),
        ("text/plain, image/svg+xml;q=0.9", "text/plain; charset=utf-8"),
    ):
        response = await get(client, path, accept=accept)
        assert response.headers["content-type"] == expected
        assert response.headers["vary"] == "Accept, Accept-Language"
        assert response.text.startswith("<svg " if "svg" in expected else "flowchart TB\n")
    for question, accept, expected in (
        ("svg", "text/plain", "image/svg+xml"),
        ("mermaid", BROWSER, "text/plain; charset=utf-8"),
        ("mermaid", "text/vnd.mermaid", "text/vnd.mermaid; charset=utf-8"),
        ("mermaid", "application/json", "text/plain; charset=utf-8"),
    ):
        response = await get(client, f"{path}?format={question}", accept=accept)
        assert response.headers["content-type"] == expected


async def test_a_picture_can_do_nothing_but_be_seen(client: httpx.AsyncClient) -> None:
    response = await get(client, "/shop/versions/1/diagram")
    style = ElementTree.fromstring(response.text).findtext("{http://www.w3.org/2000/svg}style")
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert response.headers["content-security-policy"] == f"default-src 'none'; style-src 'sha256-{digest}'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script|\son|href|style=|url\(|@import", response.text)


async def test_the_language_that_is_wanted(client: httpx.AsyncClient) -> None:
    path = "/shop/versions/1/diagram"
    for asked, label, spoken in (
        ("nl-BE, en;q=0.5", "Nieuw", "nl"),
        ("ja", "新規", "ja, en"),
        ("de", "New", "en"),
        ("*", "New", "en"),
        (";;q=,\x01 %%", "New", "en"),
    ):
        for question in ("svg", "mermaid"):
            response = await get(client, f"{path}?format={question}", accept_language=asked)
            assert label in response.text
            assert response.headers["content-language"] == spoken


async def test_of_the_active_version_else_of_the_newest(client: httpx.AsyncClient) -> None:
    assert (await get(client, "/shop/diagram")).headers["content-location"] == "/v1/lifecycles/shop/versions/1/diagram"
    await post(client, DOCUMENT.replace("New", "Brand new"))
    assert "Brand new" in (await get(client, "/shop/diagram")).text
    response = await client.post("/v1/lifecycles/shop/activate", json={"version": 1})
    assert response.status_code in (200, 202), response.text
    shown = await get(client, "/shop/diagram")
    assert "Brand new" not in shown.text
    assert shown.text == (await get(client, shown.headers["content-location"].removeprefix("/v1/lifecycles"))).text


async def test_stages(client: httpx.AsyncClient) -> None:
    response = await get(client, "/shop/versions/1/stages", accept_language="nl-NL,nl;q=0.9")
    assert response.headers["vary"] == "Accept-Language"
    assert response.headers["content-language"] == "nl"
    answer = response.json()
    assert (answer["lifecycle"], answer["version"]) == ("shop", 1)
    assert answer["stages"] == [
        {
            "stage": "new",
            "rank": 0,
            "label": "Nieuw",
            "labels": {"en": "New", "nl": "Nieuw", "ja": "新規"},
            "requires": [],
            "initial": True,
        },
        {
            "stage": "bought",
            "rank": 1,
            "label": "Gekocht",
            "labels": {"en": "Bought", "nl": "Gekocht"},
            "requires": ["measures.bought >= 1"],
            "initial": False,
        },
        {"stage": "loyal", "rank": 2, "label": "loyal", "labels": {}, "requires": [], "initial": False},
    ]


async def test_stages_that_nobody_named(client: httpx.AsyncClient) -> None:
    await post(client, "{lifecycle: bare, initial: a, stages: [{key: a}]}")
    response = await get(client, "/bare/versions/1/stages")
    assert "content-language" not in response.headers


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/shop/versions/2/diagram", 404, "version_not_found"),
        ("/shop/versions/2/stages", 404, "version_not_found"),
        ("/nothing/versions/1/diagram", 404, "version_not_found"),
        ("/nothing/diagram", 404, "lifecycle_not_found"),
        ("/%0d%0aSet-Cookie%3a%20a/diagram", 404, "lifecycle_not_found"),
        ("/shop/diagram?format=png", 422, "invalid_request"),
        ("/shop/diagram?size=large", 422, "invalid_request"),
        ("/shop/versions/0/diagram", 422, "invalid_request"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    assert (await get(client, path, status)).json()["code"] == code


async def test_what_cannot_be_had(client: httpx.AsyncClient) -> None:
    problem = await get(client, "/shop/diagram", 406, accept="application/json")
    assert problem.json()["code"] == "not_acceptable"
    assert "text/vnd.mermaid" in problem.json()["detail"]
    assert problem.headers["vary"] == "Accept, Accept-Language"


async def test_nobody_sees_it_without_a_key(client: httpx.AsyncClient) -> None:
    for path in ("/shop/diagram", "/shop/versions/1/diagram", "/shop/versions/1/stages"):
        await get(client, path, 401, authorization="")
