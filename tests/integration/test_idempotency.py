"""`Idempotency-Key`: a request that is sent again is done once and answered as at first."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from lifecycle_engine.api.door.idempotency import KEPT, LEASE
from lifecycle_engine.log.port import LogUnavailableError
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.idempotency import forget_before
from lifecycle_engine.store.tables import api_key, idempotency, lifecycle, metadata
from tests.integration.apps import App, clock, running
from tests.integration.test_ingest import Silent

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
LINK = {"anonymous_id": "a1"}
DEFINITION = {"lifecycle": "shop", "initial": "visitor", "stages": [{"key": "visitor"}]}


class Log(Silent):
    """A log that remembers what was appended, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.ids: list[bytes] = []
        self.outcome = True
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    def answer(self, records: Any) -> list[bool]:
        if self.is_away:
            raise LogUnavailableError("it is away")
        self.ids += [record.value for record in records]
        return [self.outcome] * len(records)

    async def append(self, records: Any) -> list[bool]:
        self.asked.set()
        await self.gate.wait()
        return await super().append(records)


both = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """SQLite, which is the quicker one, or as `both` asks for."""
    database = Database(request.getfixturevalue(f"installed_{getattr(request, 'param', 'sqlite')}_url"))
    yield database
    await database.close()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def app(database: Database, log: Log) -> AsyncIterator[App]:
    async with running(log, database) as app:
        yield app


async def link(app: App, key: str | None, body: Any = LINK, customer: str = "42", **headers: str) -> httpx.Response:
    given = {} if key is None else {"Idempotency-Key": key}
    return await app.client.post(f"/v1/customers/{customer}/identities", json=body, headers=given | headers)


@both
async def test_the_first_answer_is_given_again(app: App, log: Log) -> None:
    first = await link(app, KEY)
    assert first.status_code == 202, first.text
    assert "idempotency-replayed" not in first.headers
    for written in (KEY, f'"{KEY}"', f"  {KEY} "):
        again = await link(app, written)
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["request-id"] != first.headers["request-id"]
    assert len(log.ids) == 1
    # Another one, another route and none at all are other requests.
    assert (await link(app, "another")).json()["id"] != first.json()["id"]
    traits = await app.client.post(
        "/v1/customers/42/traits", json={"traits": {"plan": "pro"}}, headers={"Idempotency-Key": KEY}
    )
    assert traits.status_code == 202
    assert (await link(app, None)).status_code == 202
    assert len(log.ids) == 4


async def test_another_request_with_the_same_key_is_refused(app: App, log: Log) -> None:
    assert (await link(app, KEY)).status_code == 202
    for body, customer in (({"anonymous_id": "a2"}, "42"), (LINK, "43")):
        answer = await link(app, KEY, body, customer)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(log.ids) == 1


async def test_it_is_the_callers_own(app: App, log: Log) -> None:
    new = (await app.client.post("/v1/keys", json={"name": "desk", "scopes": ["customers:write"]})).json()
    first = await link(app, KEY)
    other = await link(app, KEY, {"anonymous_id": "a2"}, Authorization=f"Bearer {new['key']}")
    assert (first.status_code, other.status_code) == (202, 202)
    assert first.json()["id"] != other.json()["id"]


async def test_while_the_first_is_worked_on_the_second_is_told_so(app: App, log: Log) -> None:
    log.gate.clear()
    first = asyncio.create_task(link(app, KEY))
    await log.asked.wait()
    second = await link(app, KEY)
    assert (second.json()["code"], second.headers["retry-after"]) == ("idempotency_in_flight", "1")
    log.gate.set()
    assert (await first).status_code == 202
    assert (await link(app, KEY)).headers["idempotency-replayed"] == "true"
    assert len(log.ids) == 1


@both
async def test_many_at_once_take_effect_once(app: App, log: Log) -> None:
    answers = await asyncio.gather(*(link(app, KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert (await link(app, KEY)).status_code == 202
    assert len(log.ids) == 1


async def test_what_had_no_effect_is_not_kept(app: App, log: Log) -> None:
    assert (await link(app, KEY, {})).status_code == 422
    assert (await link(app, KEY, {"anonymous_id": "a1", "stage": "x"})).status_code == 422
    assert (await link(app, KEY)).status_code == 202
    assert len(log.ids) == 1


@both
async def test_what_is_unknown_may_be_tried_again_and_takes_effect_once(app: App, log: Log) -> None:
    log.outcome = False
    first = await link(app, KEY)
    assert (first.status_code, first.json()["code"]) == (503, "outcome_unknown")
    # Nobody knows of the first, and so another body would be another request.
    assert (await link(app, KEY, {"anonymous_id": "a2"})).status_code == 422
    log.outcome, log.is_away = True, True
    assert (await link(app, KEY)).status_code == 503
    log.is_away = False
    again = await link(app, KEY)
    assert again.status_code == 202
    assert "idempotency-replayed" not in again.headers
    # Appended twice under one id, and so it takes effect once.
    assert len(log.ids) == 2
    assert all(again.json()["id"].encode() in value for value in log.ids)


@both
async def test_who_never_came_to_an_end_is_followed_by_another(app: App, log: Log, database: Database) -> None:
    assert (await link(app, KEY)).status_code == 202
    async with database.transaction() as connection:  # as a process leaves it that is killed in the middle
        await connection.execute(update(idempotency).values(status=None, body=None, headers=None))
    assert (await link(app, KEY)).status_code == 409
    async with database.transaction() as connection:
        await connection.execute(update(idempotency).values(leased_until=clock() - 1))
    assert (await link(app, KEY)).status_code == 202
    assert len(log.ids) == 2
    assert len({value for value in log.ids if b"once-" in value}) >= 1
    assert LEASE < KEPT


@both
async def test_after_a_day_it_is_forgotten(app: App, log: Log, database: Database) -> None:
    first = await link(app, KEY)
    async with database.transaction() as connection:
        await connection.execute(update(idempotency).values(created_at=clock() - KEPT - 1))
    second = await link(app, KEY)
    assert "idempotency-replayed" not in second.headers
    # Its entry has another id: what takes effect once does so for ever, and this one is to take effect.
    assert second.json()["id"] != first.json()["id"]
    async with database.transaction() as connection:
        await connection.execute(update(idempotency).values(created_at=clock() - KEPT - 1))
        assert await forget_before(connection, clock() - KEPT) == 1


async def test_a_secret_is_not_kept_and_not_given_again(app: App, database: Database) -> None:
    body = {"name": "shop", "scopes": ["ingest:write"]}
    first = await app.client.post("/v1/keys", json=body, headers={"Idempotency-Key": KEY})
    assert first.status_code == 201
    again = await app.client.post("/v1/keys", json=body, headers={"Idempotency-Key": KEY})
    assert (again.status_code, again.json()["code"]) == (409, "secret_shown_once")
    assert again.json()["location"] == first.headers["location"]
    async with database.transaction() as connection:
        assert (await connection.execute(select(func.count()).select_from(api_key))).scalar_one() == 1
        for table in metadata.sorted_tables:
            for row in await connection.execute(select(table)):
                assert first.json()["key"][12:] not in repr(tuple(row)), table.name


async def test_definitions_and_activations_too(app: App, database: Database) -> None:
    for path, body, status in (
        ("/v1/lifecycles", DEFINITION, 201),
        ("/v1/lifecycles/shop/activate", {"version": 1}, 202),
    ):
        first = await app.client.post(path, json=body, headers={"Idempotency-Key": KEY})
        again = await app.client.post(path, json=body, headers={"Idempotency-Key": KEY})
        assert (first.status_code, again.status_code) == (status, status), first.text
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    async with database.transaction() as connection:
        shops = select(func.count()).select_from(lifecycle).where(lifecycle.c.key == "shop")
        assert (await connection.execute(shops)).scalar_one() == 1


async def test_what_is_no_key_is_refused(app: App) -> None:
    bad = ("", '""', "a b", "x" * 256, f'"{"x" * 256}"', '"a', 'a"b', '"a"b"', "a,\tb", '"a\\x"')
    for written in bad:
        answer = await link(app, written)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key"), written


async def test_the_longest_and_the_oddest_keys_are_taken(app: App, log: Log) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await app.client.post("/v1/customers/42/identities", json=LINK, headers=twice)
    assert answer.status_code == 400
    for number, written in enumerate(("x" * 255, f'"{"y" * 255}"', '"a \\"b\\" \\\\ c"', "a,b;c=d"), 1):
        assert (await link(app, written)).status_code == 202, written
        assert (await link(app, written)).headers["idempotency-replayed"] == "true"
        assert len(log.ids) == number


async def test_a_body_that_is_encoded_is_the_same_request_only_as_it_was_sent(app: App, log: Log) -> None:

    body = gzip.compress(json.dumps(LINK).encode(), mtime=0)
    headers = {"Idempotency-Key": KEY, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    for replayed in (None, "true"):
        answer = await app.client.post("/v1/customers/42/identities", content=body, headers=headers)
        assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (202, replayed)
