"""API keys: who may do what, and that no header makes a 500."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import select, update

from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.keys.issuance import issue_key
from lifecycle_engine.api.keys.scopes import SCOPES
from lifecycle_engine.api.keys.texts import generate_key
from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import api_key
from tests.integration.apps import KEY, App, clock, running
from tests.integration.test_ingest import PURCHASE, Silent


@pytest.fixture
async def database(installed_sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(installed_sqlite_url)
    yield database
    await database.close()


@pytest.fixture
async def app(database: Database) -> AsyncIterator[App]:
    async with running(DatabaseAppender(database, asyncio.Event()), database) as app:
        yield app


async def add(database: Database, name: str, *scopes: str, expires_at: int | None = None) -> str:
    async with database.transaction() as connection:
        issued = await issue_key(
            connection, clock(), name=name, source=None, scopes=frozenset(scopes), expires_at=expires_at
        )
    return issued.text


async def post(app: App, key: str, body: object = PURCHASE) -> httpx.Response:
    return await app.client.post("/v1/touchpoints", json=body, headers={"Authorization": f"Bearer {key}"})


async def until_status(app: App, key: str, status: int) -> None:
    """Keys are read anew every two seconds."""
    async with asyncio.timeout(5):
        while (await post(app, key)).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


BAD = {
    "none": None,
    "empty": b"",
    "no scheme": KEY.encode(),
    "no key": b"Bearer",
    "only a blank": b"Bearer   ",
    "another scheme": b"Basic " + KEY.encode(),
    "unknown": b"Bearer le_00000000_000000000000000000000000000000000000000",
    "not ASCII": "Bearer é".encode("latin-1"),
    "UTF-8": "Bearer ключ".encode(),
    "a prefix": b"Bearer " + KEY.encode()[:-1],
    "more than the key": b"Bearer " + KEY.encode() + b" x",
    "a megabyte": b"Bearer " + b"a" * 1_000_000,
    "NUL": b"Bearer \x00\x00",
}


@pytest.mark.parametrize("path", ["/v1/touchpoints", "/v1/customers/42", "/v1/lifecycles"])
@pytest.mark.parametrize("header", BAD.values(), ids=BAD)
async def test_a_bad_key_is_401(app: App, path: str, header: bytes | None) -> None:
    app.client.headers.pop("Authorization")
    headers = [] if header is None else [(b"authorization", header)]
    method = "POST" if path == "/v1/touchpoints" else "GET"
    answer = await app.client.request(method, path, headers=headers, json=PURCHASE if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["code"] in ("key_missing", "key_unknown")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_two_keys_are_none(app: App) -> None:
    twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]
    answer = await app.client.get("/v1/lifecycles", headers=httpx.Headers(twice))
    assert answer.status_code in (200, 401)
    app.client.headers.pop("Authorization")
    answer = await app.client.get("/v1/lifecycles", headers=twice)
    assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_written_in_any_case(app: App, scheme: str) -> None:
    answer = await app.client.get("/v1/lifecycles", headers={"Authorization": f"{scheme} {KEY}"})
    assert answer.status_code == 200


async def test_a_key_may_do_what_its_scopes_say_and_no_more(app: App, database: Database) -> None:
    keys = {scope: await add(database, f"only {scope}", scope) for scope in SCOPES}
    await app.services.keys.refresh()
    questions = {
        "ingest:write": ("POST", "/v1/touchpoints", {202}),
        "customers:read": ("GET", "/v1/customers/nobody", {404}),
        "customers:write": ("POST", "/v1/customers/42/identities", {422}),
        "lifecycles:read": ("GET", "/v1/lifecycles", {200}),
        "lifecycles:write": ("POST", "/v1/lifecycles", {415, 422}),
    }
    for scope, (method, path, expected) in questions.items():
        for holder, key in keys.items():
            answer = await app.client.request(
                method, path, headers={"Authorization": f"Bearer {key}"}, json=PURCHASE if method == "POST" else None
            )
            if holder == scope:
                assert answer.status_code in expected
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
                assert scope in answer.json()["detail"]


async def test_keys_come_and_go_while_the_service_runs(app: App, database: Database) -> None:
    key = await add(database, "shop", "ingest:write")
    await until_status(app, key, 202)
    async with database.transaction() as connection:
        await connection.execute(update(api_key).where(api_key.c.name == "shop").values(revoked_at=clock()))
    await until_status(app, key, 401)


async def test_an_expired_key_is_none(app: App, database: Database) -> None:
    expired = await add(database, "expired", "ingest:write", expires_at=clock() - 1)
    brief = await add(database, "brief", "ingest:write", expires_at=clock() + 1_500_000)
    await app.services.keys.refresh()
    assert (await post(app, expired)).status_code == 401
    assert (await post(app, brief)).status_code == 202
    await asyncio.sleep(1.6)
    assert (await post(app, brief)).status_code == 401


async def test_a_key_names_the_source(app: App, database: Database) -> None:
    key = await add(database, "shop", "ingest:write")
    await app.services.keys.refresh()
    posted = {"Authorization": f"Bearer {key}"}
    await app.client.post("/v1/touchpoints", json=PURCHASE, headers=posted)
    receipt = await app.client.get("/v1/touchpoints/t1", headers=posted)
    assert (receipt.status_code, receipt.json()["source"]) == (200, "shop")


async def test_the_first_key_is_made_once_and_never_stored(database: Database) -> None:
    keys = Keys(database, None)
    assert not await keys.exist()
    text = await keys.make_first()
    assert text is not None
    assert await keys.make_first() is None
    assert await keys.exist()
    found = keys.find(text.encode(), clock())
    assert found is not None
    assert (found.source, found.scopes) == ("default", frozenset(SCOPES))
    async with database.transaction() as connection:
        (row,) = (await connection.execute(select(api_key))).all()
    assert text not in repr(row)
    assert text[12:] not in repr(row)
    async with running(Silent(lambda records: [True] * len(records)), database, first_key=None) as app:
        await until_status(app, text, 202)


async def test_before_the_keys_were_read_an_unknown_key_is_told_to_wait(database: Database) -> None:
    keys = Keys(database, KEY)
    assert await keys.ready()
    assert keys.find(KEY.encode(), clock()) is not None
    assert not await Keys(database, None).ready()


async def test_ingest_goes_on_without_a_database() -> None:
    away = Database("postgresql+asyncpg://nobody@127.0.0.1:9/none")
    async with running(Silent(lambda records: [True] * len(records)), away) as app:
        assert (await post(app, KEY)).status_code == 202
        answer = await post(app, generate_key())
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
        answer = await app.client.get("/v1/customers/42")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["retry-after"]
        assert (await app.client.get("/readyz")).json()["checks"]["keys"] is True
    await away.close()


def test_a_key_can_be_told_from_a_lookalike() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for key in keys:
        assert re.fullmatch(r"le_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}", key)
        number = 0
        for digit in key[-6:]:
            number = number * 62 + alphabet.index(digit)
        assert number == zlib.crc32(key[:-6].encode())
