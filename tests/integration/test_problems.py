"""Every error is a problem, and every request has an id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter

from lifecycle_engine.api.app import document
from lifecycle_engine.ingest.formats.tracking import CALLS
from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.store.database import Database
from tests.integration.apps import App, running

VERDICTS = {"validate_touchpoints", *(f"post_{kind}" for kind in (*CALLS, "batch"))}
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "message", "request_id"}


@pytest.fixture
async def app(installed_sqlite_url: str) -> AsyncIterator[App]:
    database = Database(installed_sqlite_url)
    async with running(DatabaseAppender(database, asyncio.Event()), database) as app:
        yield app
    await database.close()


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/nowhere/%00%ff?x=%7f", None, 404, "not_found"),
        ("GET", "/v1/touchpoints", None, 405, "method_not_allowed"),
        ("DELETE", "/v1/lifecycles", None, 405, "method_not_allowed"),
        ("POST", "/livez", None, 405, "method_not_allowed"),
        ("GET", "/v1/customers/42", None, 404, "customer_not_found"),
        ("GET", "/v1/customers/42?kind=e-mail", None, 422, "invalid_request"),
        ("GET", "/v1/customers/42?sort=up", None, 422, "invalid_request"),
        ("GET", "/v1/customers/42/history?limit=0", None, 422, "invalid_request"),
        ("GET", "/v1/customers/42/history?known_at=yesterday", None, 422, "invalid_request"),
        ("POST", "/v1/lifecycles/five-stages/activate", b"{", 400, "malformed"),
        ("POST", "/v1/lifecycles/five-stages/activate", b'{"version":"one"}', 422, "invalid_request"),
        ("POST", "/v1/lifecycles/five-stages/activate", b"[" * 50_000, 422, "too_deep"),
        ("POST", "/v1/lifecycles/five-stages/activate", b"[" * 100_000, 413, "too_large"),
        ("POST", "/v1/lifecycles/five-stages/activate", b'{"version":' + b"9" * 5000 + b"}", None, None),
        ("POST", "/v1/touchpoints", b"{", 400, "malformed"),
    ],
)
async def test_an_error_says_what_and_where(
    app: App, method: str, path: str, content: bytes | None, status: int | None, code: str | None
) -> None:
    headers = {"Content-Type": "application/json", "Request-Id": "my-request"}
    answer = await app.client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status or (status is None and answer.status_code in (400, 422))
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() >= MEMBERS
    assert body["status"] == answer.status_code
    assert body["instance"].startswith(path.partition("?")[0][:6])
    assert body["message"] == body["detail"]
    assert body["request_id"] == answer.headers["request-id"] == "my-request"
    if code is not None:
        assert body["code"] == code
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize("given", [None, "", "a b", "é", "x" * 129])
async def test_a_request_without_a_usable_id_gets_one(app: App, given: str | None) -> None:
    headers = [] if given is None else [(b"request-id", given.encode("latin-1"))]
    answer = await app.client.get("/v1/lifecycles", headers=headers)
    assert answer.status_code == 200
    made = answer.headers["request-id"]
    assert len(made) == 32
    assert made != (await app.client.get("/v1/lifecycles")).headers["request-id"]


@pytest.mark.parametrize("path", ["/v1/touchpoints", "/v1/lifecycles"])
async def test_two_ends_of_one_body_are_refused(app: App, path: str) -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    answer = await app.client.post(path, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "ambiguous_length")


async def test_a_failure_of_ours_is_told_without_its_inside(app: App, caplog: pytest.LogCaptureFixture) -> None:
    router = APIRouter()

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("postgresql://user:secret@host/")

    app.app.include_router(router)
    answer = await app.client.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text
    assert answer.headers["request-id"] == answer.json()["request_id"]


async def test_health_needs_no_key(app: App) -> None:
    app.client.headers.pop("Authorization")
    assert (await app.client.get("/livez")).json() == {"status": "alive"}
    ready = await app.client.get("/readyz?verbose")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["checks"] == {"log": True, "keys": True, "not_stopping": True}
    app.services.health.draining.set()
    ready = await app.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["not_stopping"]) == (503, False)
    assert (await app.client.get("/livez")).status_code == 200


async def test_the_documentation_is_served(app: App) -> None:
    app.client.headers.pop("Authorization")
    assert (await app.client.get("/docs")).status_code == 200
    assert (await app.client.get("/openapi.json")).json() == json.loads(json.dumps(document()))


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in document()["paths"].items() for method, one in methods.items()]


def test_the_description_is_whole() -> None:
    described = document()
    assert described["openapi"].startswith("3.1")
    text = json.dumps(described)
    names = described["components"]["schemas"]
    assert "HTTPValidationError" not in text
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in names, reference
    assert len({one["operationId"] for _, _, one in operations()}) == len(operations())
    for path, method, one in operations():
        where = f"{method} {path}"
        assert one.get("summary"), where
        assert one.get("description"), where
        if not path.startswith("/v1"):
            continue
        assert one["security"], where
        assert {"401", "403", "500", "503"} <= one["responses"].keys(), where
        # What is asked to be checked has its verdict for an answer, and Segment's libraries know no 422.
        assert "422" in one["responses"] or one["operationId"] in VERDICTS, where
        for status, answer in one["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], where
            assert "Request-Id" in answer["headers"]
    post = described["paths"]["/v1/touchpoints"]["post"]
    assert post["requestBody"]["content"]["application/json"]["examples"]
    assert {"202", "207", "400", "413", "415"} <= post["responses"].keys()


@pytest.mark.parametrize("path", ["/v1/touchpoints", "/v1/lifecycles", "/v1/lifecycles/five-stages/activate"])
async def test_nothing_is_read_from_whoever_has_no_key(app: App, path: str) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 1000:
            read += 1
            yield b" " * 1024 * 1024

    headers = {"Content-Type": "application/json", "Authorization": "Bearer nobody"}
    answer = await app.client.post(path, content=endless(), headers=headers)
    assert answer.status_code == 401
    assert read <= 1
