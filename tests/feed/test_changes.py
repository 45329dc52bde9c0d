"""`GET /v1/changes`: pages of the feed, and the same as server-sent events from a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifecycle_engine.feed import pages
from lifecycle_engine.feed.sequencer import sequence_changes
from lifecycle_engine.store.changes import add_changes
from lifecycle_engine.store.database import Database
from tests.feed.test_sequencer import row
from tests.processes import API_KEY, Service, settings_for
from tests.record import record
from tests.service import service


@pytest.fixture(params=["sqlite", "postgres"])
async def feed(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Database, httpx.AsyncClient]]:
    url = str(request.getfixturevalue(f"{request.param}_url"))
    async with record(url) as database, service(database) as client:
        yield database, client


async def add(database: Database, *rows: Any) -> None:
    async with database.transaction() as connection:
        await add_changes(connection, rows)
    await sequence_changes(database, None)


async def ask(client: httpx.AsyncClient, status: int = 200, **parameters: Any) -> Any:
    response = await client.get("/v1/changes", params=parameters)
    assert response.status_code == status, response.text
    return response.json()


async def test_pages(feed: tuple[Database, httpx.AsyncClient]) -> None:
    database, client = feed
    assert await ask(client) == {"items": [], "next_after": "0", "has_more": False}
    await add(database, *[row(1, n) for n in range(1, 6)])
    first = await ask(client, limit=2)
    assert first == {
        "items": [
            {"position": n, "type": "stage.changed", "muted": False, "data": {"n": n}} for n in (1, 2)
        ],
        "next_after": "2",
        "has_more": True,
    }  # fmt: skip
    rest = await ask(client, after=first["next_after"], limit=10_000)
    assert [one["position"] for one in rest["items"]] == [3, 4, 5]
    assert (rest["next_after"], rest["has_more"]) == ("5", False)
    assert (await ask(client, after="latest"))["next_after"] == "5"
    await add(database, row(1, 6))
    assert [one["position"] for one in (await ask(client, after="5"))["items"]] == [6]


async def test_filters_look_past_what_is_not_wanted(
    feed: tuple[Database, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WINDOW", 3)
    database, client = feed
    await add(
        database,
        *[row(1, n) for n in range(1, 6)],
        row(1, None, type_="history.corrected", muted=True),
        row(2, 1)._replace(lifecycle="other"),
    )
    after = "0"
    found: list[Any] = []
    for _ in range(4):
        page = await ask(client, after=after, type="history.corrected,stage.expiring")
        after, found = page["next_after"], found + page["items"]
    assert [one["position"] for one in found] == [6]
    assert (after, page["has_more"]) == ("7", False)
    assert [one["position"] for one in (await ask(client, after="4", muted=True))["items"]] == [6]
    assert [one["position"] for one in (await ask(client, after="5", lifecycle="other"))["items"]] == [7]


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"after": "3"}, 400, "invalid_cursor"),
        ({"after": "-1"}, 400, "invalid_cursor"),
        ({"after": "٣"}, 400, "invalid_cursor"),
        ({"after": "9" * 30}, 400, "invalid_cursor"),
        ({"after": "1" * 33}, 422, "invalid_request"),
        ({"limit": "0"}, 422, "invalid_request"),
        ({"type": "stage.*"}, 422, "invalid_request"),
        ({"lifecycle": "a\0b"}, 422, "invalid_request"),
        ({"before": "3"}, 422, "invalid_request"),
    ],
)
async def test_what_cannot_be_asked(
    feed: tuple[Database, httpx.AsyncClient], parameters: dict[str, str], status: int, code: str
) -> None:
    database, client = feed
    await add(database, row(1, 1), row(1, 2))
    assert (await ask(client, status, **parameters))["code"] == code


async def test_nothing_else_is_offered(feed: tuple[Database, httpx.AsyncClient]) -> None:
    _, client = feed
    response = await client.get("/v1/changes", headers={"Accept": "text/html"})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


class Events:
    """What a stream sends, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    return fields
                else:
                    fields.clear()
        raise EOFError


async def test_events_come_as_they_are_committed_and_go_on_where_they_broke_off(
    installed_sqlite_url: str, tmp_path: Path
) -> None:
    settings = settings_for(installed_sqlite_url)
    stream = {"Accept": "text/event-stream", "Authorization": f"Bearer {API_KEY}"}
    async with Service(["api", "worker", "dispatcher", "timers"], settings, tmp_path) as served:
        async with served.client() as client:

            async def post(id_: str, type_: str) -> None:
                body = {"id": id_, "type": type_, "customer_id": "ada"}
                assert (await client.post("/v1/touchpoints", json=body)).status_code == 202

            async with client.stream("GET", "/v1/changes", headers=stream) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                events = Events(response)
                await post("t1", "ad_click")
                await post("t2", "signup")
                first, second = await events.next(), await events.next()
            assert [(one["id"], one["event"]) for one in (first, second)] == [
                ("1", "stage.changed"),
                ("2", "stage.changed"),
            ]
            change = json.loads(second["data"])
            assert (change["data"]["customer_id"], change["data"]["to"]) == ("ada", "consideration")
            async with client.stream("GET", "/v1/changes", headers=stream | {"Last-Event-ID": "1"}) as response:
                events = Events(response)
                assert await events.next() == second
                await post("t3", "purchase")
                assert json.loads((await events.next())["data"])["data"]["to"] == "purchase"
                assert await served.stop() == 0
                with pytest.raises(EOFError):
                    await events.next()
