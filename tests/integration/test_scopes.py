"""Every route of the OpenAPI document, whoever adds it: no key, a wrong key and a wrong scope get nowhere.

None of them gets so far that the body is read.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Route
from starlette.types import Message

from lifecycle_engine.api.app import document
from lifecycle_engine.api.keys.issuance import issue_key
from lifecycle_engine.api.keys.scopes import ADMIN, SCOPES
from lifecycle_engine.api.keys.texts import generate_key
from lifecycle_engine.schema import migrate
from lifecycle_engine.store.database import Database
from tests.integration.apps import App, clock, running
from tests.integration.test_ingest import Silent

OPEN = {("GET", "/livez"), ("GET", "/readyz")}
"""What anybody may ask."""
UNDESCRIBED = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
"""What is served beside the document: it, and pages that show it."""
KEY_IN_BODY = {f"/v1/{call}" for call in ("track", "identify", "alias", "group", "page", "screen", "batch")}
"""Where the clients of others may send the key in the body, and so it is read when there is none in the headers."""


class Operation(NamedTuple):
    method: str
    path: str
    scopes: tuple[str, ...]


def operations() -> Iterator[Operation]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "put", "post", "delete", "patch", "options", "head", "trace"):
                scopes = [
                    scope for scheme in operation.get("security", ()) for named in scheme.values() for scope in named
                ]
                yield Operation(method.upper(), path, tuple(scopes))


OPERATIONS = list(operations())


class BodyReadError(AssertionError):
    """The body was asked for."""


async def answer(app: FastAPI, operation: Operation, key: str | None, body: bytes | None = None) -> tuple[int, str]:
    """The status of what is answered, and its body; asking for the body is an error unless there is one."""
    path = re.sub(r"\{[^}]*\}", "1", operation.path)
    headers = [(b"host", b"engine"), (b"content-type", b"application/json"), (b"idempotency-key", b"one")]
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    sent: list[Message] = []

    async def receive() -> Message:
        if body is None:
            raise BodyReadError(f"{operation.method} {operation.path}")
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": operation.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"nonsense=1",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("engine", 80),
        "state": {},
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app_and_keys(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[App, dict[str, str]]]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('scopes') / 'lifecycle.db'}")
    await migrate(database)
    keys = {}
    async with database.transaction() as connection:
        for scope in SCOPES:
            issued = await issue_key(connection, clock(), name=scope, source=None, scopes=frozenset([scope]))
            keys[scope] = issued.text
    async with running(Silent(lambda records: [True] * len(records)), database) as app:
        yield app, keys
    await database.close()


def test_every_route_names_its_scopes() -> None:
    for operation in OPERATIONS:
        is_open = (operation.method, operation.path) in OPEN
        assert bool(operation.scopes) != is_open, operation
        assert set(operation.scopes) <= set(SCOPES), operation
    assert ADMIN not in SCOPES


def test_every_route_is_described(app_and_keys: tuple[App, dict[str, str]]) -> None:
    described = {(operation.method, operation.path) for operation in OPERATIONS}
    for route in routes(app_and_keys[0].app.routes):
        assert route.path in UNDESCRIBED or any((method, route.path) in described for method in route.methods or ())


def routes(among: Iterable[BaseRoute]) -> Iterator[Route]:
    """All routes, those of included routers too."""
    for route in among:
        if isinstance(route, Route):
            yield route
        else:
            router = getattr(route, "original_router", None)
            assert isinstance(router, APIRouter), f"{route} is no kind of route that this test knows"
            yield from routes(router.routes)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
@pytest.mark.asyncio(loop_scope="module")
async def test_only_a_key_with_the_scope_gets_in(
    operation: Operation, app_and_keys: tuple[App, dict[str, str]]
) -> None:
    app, keys = app_and_keys
    if (operation.method, operation.path) in OPEN:
        status, _ = await answer(app.app, operation, None)
        assert status in (200, 503)
        return
    body = b"{}" if operation.path in KEY_IN_BODY else None
    status, text = await answer(app.app, operation, None, body)
    assert (status, '"key_missing"' in text) == (401, True)
    for wrong in (generate_key(), "nonsense"):
        status, text = await answer(app.app, operation, wrong)
        assert (status, '"key_unknown"' in text) == (401, True)
    for scope in SCOPES:
        if scope not in operation.scopes:
            status, text = await answer(app.app, operation, keys[scope])
            assert (status, '"scope_missing"' in text) == (403, True), scope
    # And the door does open: or all of this would hold of a wall.
    for scope in operation.scopes:
        try:
            status, _ = await answer(app.app, operation, keys[scope])
        except BodyReadError:
            continue
        assert status not in (401, 403), scope
