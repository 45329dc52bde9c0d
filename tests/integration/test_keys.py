"""`/v1/keys`: made, shown once, rotated with an overlap, revoked everywhere; and what a key's rate lets through."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_sfv.list import List
from sqlalchemy import select, text

from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.keys.rates import Rate
from lifecycle_engine.api.keys.scopes import SCOPES
from lifecycle_engine.api.keys.texts import may_be_key
from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.keys import note_uses
from lifecycle_engine.store.tables import api_key, metadata
from tests.integration.apps import App, clock, running
from tests.integration.test_ingest import PURCHASE, Silent
from tests.integration.test_schema import upgrade_to

both = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """SQLite, which is the quicker one, or as `both` asks for."""
    database = Database(request.getfixturevalue(f"installed_{getattr(request, 'param', 'sqlite')}_url"))
    yield database
    await database.close()


@pytest.fixture
async def app(database: Database) -> AsyncIterator[App]:
    async with running(DatabaseAppender(database, asyncio.Event()), database) as app:
        yield app


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def made(app: App, scopes: list[str], **more: Any) -> dict[str, Any]:
    answer = await app.client.post("/v1/keys", json={"name": "shop", "scopes": scopes, **more})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/keys/{body['id']}"
    assert answer.headers["cache-control"] == "no-store"
    return body


async def until_status(app: App, key: str, status: int) -> None:
    """No later than a revoked key is promised to be refused."""
    async with asyncio.timeout(5):
        while (await post(app, key)).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def post(app: App, key: str, body: object = PURCHASE) -> httpx.Response:
    return await app.client.post("/v1/touchpoints", json=body, headers=bearer(key))


async def test_a_key_is_shown_once_and_never_stored(app: App, database: Database) -> None:
    new = await made(app, ["ingest:write", "customers:read"], source="till")
    assert may_be_key(new["key"].encode())
    assert new["key"].startswith(f"{new['prefix']}_")
    assert (new["source"], new["scopes"], new["status"]) == ("till", ["customers:read", "ingest:write"], "active")
    assert (await post(app, new["key"])).status_code == 202
    shown = (await app.client.get(f"/v1/keys/{new['id']}")).json()
    assert shown == {name: value for name, value in new.items() if name != "key"}
    listed = (await app.client.get("/v1/keys")).json()["items"]
    assert listed == [shown]
    secret = new["key"][12:]
    async with database.transaction() as connection:
        for table in metadata.sorted_tables:
            for row in await connection.execute(select(table)):
                assert secret not in repr(tuple(row)), table.name


async def test_a_key_cannot_make_or_rotate_one_that_may_do_more(app: App) -> None:
    admin = await made(app, ["admin"])
    lesser = await made(app, ["keys:write", "ingest:write"])
    for scopes in (["customers:read"], ["keys:write", "keys:read"], ["admin"]):
        answer = await app.client.post("/v1/keys", json={"name": "x", "scopes": scopes}, headers=bearer(lesser["key"]))
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    answer = await app.client.post(f"/v1/keys/{admin['id']}/rotate", json={}, headers=bearer(lesser["key"]))
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    answer = await app.client.post(
        "/v1/keys", json={"name": "x", "scopes": ["ingest:write"]}, headers=bearer(lesser["key"])
    )
    assert answer.status_code == 201
    answer = await app.client.post("/v1/keys", json={"name": "x", "scopes": list(SCOPES)}, headers=bearer(admin["key"]))
    assert answer.status_code == 201


@both
async def test_rotation_overlaps_and_keeps_the_source(app: App) -> None:
    old = await made(app, ["ingest:write", "customers:read"], rate_limit={"requests": 500, "seconds": 60})
    assert (await post(app, old["key"])).status_code == 202
    answer = await app.client.post(f"/v1/keys/{old['id']}/rotate", json={"grace_seconds": 2})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    kept = ("name", "source", "scopes", "rate_limit")
    assert [new[name] for name in kept] == [old[name] for name in kept]
    assert (new["replaces"], new["expires_at"]) == (old["id"], None)
    assert (await post(app, old["key"])).status_code == 202
    assert (await post(app, new["key"])).status_code == 202
    receipt = await app.client.get("/v1/touchpoints/t1", headers=bearer(new["key"]))
    assert receipt.json()["source"] == "shop"
    await asyncio.sleep(2.1)
    assert (await post(app, old["key"])).status_code == 401
    assert (await post(app, new["key"])).status_code == 202
    assert (await app.client.get(f"/v1/keys/{old['id']}")).json()["status"] == "expired"
    again = await app.client.post(f"/v1/keys/{old['id']}/rotate", json={})
    assert (again.status_code, again.json()["code"]) == (409, "key_not_active")


async def test_a_key_rotated_without_grace_is_refused_at_once(app: App) -> None:
    old = await made(app, ["ingest:write"], expires_at="2999-01-01T00:00:00Z")
    answer = await app.client.post(f"/v1/keys/{old['id']}/rotate", json={"grace_seconds": 0})
    assert (await post(app, old["key"])).status_code == 401
    assert answer.json()["expires_at"] > "2999-01-01T00:00:00.", "it lives as long as the old one was to"
    assert (await post(app, answer.json()["key"])).status_code == 202


@both
async def test_a_revoked_key_is_refused_here_at_once_and_there_within_5_s(database: Database) -> None:
    silent = Silent(lambda records: [True] * len(records))
    async with running(silent, database) as here, running(silent, database) as there:
        new = await made(here, ["ingest:write"])
        await until_status(there, new["key"], 202)
        for _ in range(2):
            assert (await here.client.delete(f"/v1/keys/{new['id']}")).status_code == 204
        assert (await post(here, new["key"])).status_code == 401
        await until_status(there, new["key"], 401)
        assert (await there.client.get(f"/v1/keys/{new['id']}")).json()["status"] == "revoked"
        assert (await here.client.delete("/v1/keys/00000000")).status_code == 404


async def test_checking_a_key_asks_the_database_nothing(database: Database) -> None:
    async with running(Silent(lambda records: [True] * len(records)), database) as app:
        new = await made(app, ["ingest:write"])
        async with database.transaction():  # it has one connection, so that whoever asked would wait
            for _ in range(20):
                async with asyncio.timeout(5):
                    assert (await post(app, new["key"])).status_code == 202


@both
async def test_the_last_use_is_written_behind_the_requests(app: App, database: Database) -> None:
    new = await made(app, ["ingest:write"])
    assert new["last_used_at"] is None
    before = clock()
    await post(app, new["key"])
    async with asyncio.timeout(5):
        while not (shown := (await app.client.get(f"/v1/keys/{new['id']}")).json())["last_used_at"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with database.transaction() as connection:
        (first,) = (await connection.execute(select(api_key.c.last_used_at).where(api_key.c.id == new["id"]))).one()
        assert before <= first <= clock()
        # Of two replicas the later one counts, whichever writes last.
        await note_uses(connection, {new["id"]: first - 1})
        assert (await connection.execute(select(api_key.c.last_used_at))).scalar_one() == first
    assert shown["status"] == "active"


@both
async def test_pages_of_keys(app: App) -> None:
    ids = [(await made(app, ["ingest:write"], name=f"key {number}"))["id"] for number in range(5)]
    found: list[str] = []
    cursor = None
    while True:
        question = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await app.client.get("/v1/keys", params=question)).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids[::-1]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"scopes": ["ingest:write"]}, "/name"),
    "empty name": ({"name": "", "scopes": ["ingest:write"]}, "/name"),
    "long name": ({"name": "x" * 129, "scopes": ["ingest:write"]}, "/name: Value should have at most 128 characters"),
    "NUL": ({"name": "a\0b", "scopes": ["ingest:write"]}, "/name"),
    "no scopes": ({"name": "x"}, "/scopes"),
    "empty scopes": ({"name": "x", "scopes": []}, "/scopes"),
    "unknown scope": ({"name": "x", "scopes": ["ingest:read"]}, "/scopes/0"),
    "a text for scopes": ({"name": "x", "scopes": "admin"}, "/scopes"),
    "past": ({"name": "x", "scopes": ["ingest:write"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
    "no instant": ({"name": "x", "scopes": ["ingest:write"], "expires_at": "tomorrow"}, "/expires_at"),
    "no rate": ({"name": "x", "scopes": ["ingest:write"], "rate_limit": {"requests": 0, "seconds": 1}}, "/rate_limit"),
    "half a rate": ({"name": "x", "scopes": ["ingest:write"], "rate_limit": {"requests": 1}}, "/rate_limit"),
    "a hash of one's own": ({"name": "x", "scopes": ["ingest:write"], "hash": "00"}, "/hash"),
}


async def test_what_is_no_key_is_told_so(database: Database) -> None:
    async with running(Silent(lambda records: [True] * len(records)), database) as app:
        for name, (body, place) in BAD.items():
            answer = await app.client.post("/v1/keys", json=body)
            assert answer.status_code == 422, name
            assert place in answer.json()["detail"], name
        for grace in (-1, 604_801, "1", 1.5, None):
            answer = await app.client.post("/v1/keys/00000000/rotate", json={"grace_seconds": grace})
            assert answer.status_code == 422, grace
        assert (await app.client.post("/v1/keys/00000000/rotate", json={})).status_code == 404
        assert (await app.client.get("/v1/keys/no%20such%C3%A9")).status_code == 404
        assert (await app.client.get("/v1/keys")).json()["items"] == []


async def test_a_key_may_make_so_many_requests_and_no_more(database: Database) -> None:
    async with running(Silent(lambda records: [True] * len(records)), database) as app:
        new = await made(app, ["ingest:write", "customers:read"], rate_limit={"requests": 3, "seconds": 3600})
        for left in (2, 1, 0):
            answer = await post(app, new["key"])
            assert (answer.status_code, _fields(answer, "RateLimit")) == (202, {"r": left, "t": 3600 - left * 1200})
            assert _fields(answer, "RateLimit-Policy") == {"q": 3, "w": 3600}
        for path in ("/v1/customers/42", "/v1/touchpoints/t1"):
            refused = await app.client.get(path, headers=bearer(new["key"]))
            body = refused.json()
            assert (refused.status_code, body["code"], body["violated-policies"]) == (429, "rate_limited", ["default"])
            assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
            assert 1190 <= int(refused.headers["retry-after"]) <= 1200
            assert _fields(refused, "RateLimit")["r"] == 0
            assert len(refused.headers.get_list("ratelimit")) == 1
        # Another key is not concerned, nor is one without a rate told of any.
        answer = await app.client.get("/v1/keys")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_the_settings_give_every_key_a_rate(database: Database) -> None:
    keys = Keys(database, "a first key of these settings", Rate(2, 60))
    key = keys.find(b"a first key of these settings", clock())
    assert key is not None
    assert len(keys.charge(key, clock())) == 2
    keys.charge(key, clock())
    with pytest.raises(Exception, match="2 requests in 60 s"):
        keys.charge(key, clock())


async def test_keys_of_the_first_schema_are_carried_over(empty_sqlite_url: str) -> None:
    database = Database(empty_sqlite_url)
    everything = (
        "changes:read customers:read customers:write ingest:write lifecycles:read lifecycles:write metrics:read"
    )
    async with database.transaction() as connection:
        await connection.run_sync(lambda sync: upgrade_to(sync, "0005"))
        for name, scopes, hash_ in (("default", everything, "X'01'"), ("shop", "ingest:write", "X'02'")):
            await connection.execute(
                text(
                    "INSERT INTO api_key (name, prefix, hash, scopes, created_at) "
                    f"VALUES ('{name}', 'id{name:.6}', {hash_}, '{scopes}', 5)"
                )
            )
        await connection.run_sync(lambda sync: upgrade_to(sync, "head"))
        rows = (await connection.execute(select(api_key).order_by(api_key.c.name))).all()
    assert [(row.id, row.name, row.source, row.scopes, row.hash) for row in rows] == [
        ("iddefaul", "default", "default", "admin", b"\x01"),
        ("idshop", "shop", "shop", "ingest:write", b"\x02"),
    ]
    await database.close()


def _fields(answer: httpx.Response, name: str) -> dict[str, int]:
    fields = List()
    fields.parse(answer.headers[name].encode())
    ((policy, parameters),) = ((one.value, dict(one.params)) for one in fields)
    assert policy == "default"
    assert re.fullmatch(r'"default";\w=\d+;\w=\d+', answer.headers[name])
    return parameters
