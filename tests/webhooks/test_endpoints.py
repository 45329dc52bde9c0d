"""Endpoints over HTTP: created, changed by whoever has read them, turned off and on, removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lifecycle_engine.api.app import document
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.outbox.vault import Vault
from lifecycle_engine.store.endpoints import disable_endpoints
from lifecycle_engine.store.health import lock_health, set_health
from lifecycle_engine.webhook.sender import Sender
from lifecycle_engine.webhook.signing import parse_secret
from tests.integration.whole import Whole
from tests.record import record
from tests.service import VAULT, clock, lookup, service
from tests.webhooks.telling import ENDPOINTS

URL = "http://127.0.0.1:9/hook"


@pytest.fixture(params=["sqlite", "postgres"])
async def hooks(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    url = str(request.getfixturevalue(f"{request.param}_url"))
    async with record(url) as database, service(database) as client:
        yield Whole(database, client)


@pytest.fixture
async def quick(sqlite_url: str) -> AsyncIterator[Whole]:
    """On one database, for what is decided before there is a question to it."""
    async with record(sqlite_url) as database, service(database) as client:
        yield Whole(database, client)


async def create(hooks: Whole, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await hooks.ask("POST", ENDPOINTS, 201, {"url": URL, **fields})
    return created


async def change(hooks: Whole, id_: str, etag: str | None, body: Any) -> httpx.Response:
    headers = {} if etag is None else {"If-Match": etag}
    return await hooks.client.patch(f"{ENDPOINTS}/{id_}", json=body, headers=headers)


async def test_the_secret_is_shown_once(hooks: Whole) -> None:
    document = {"event_types": "stage.*", "traits": {"plan": "pro"}}
    response = await hooks.client.post(
        ENDPOINTS,
        json={"url": URL, "description": "CRM", "filter": document, "signatures": ["v1a", "v1"], "throttle_rate": 5},
    )
    assert response.status_code == 201
    created = response.json()
    assert response.headers["location"] == f"{ENDPOINTS}/{created['id']}"
    assert response.headers["etag"] == '"1"'
    assert parse_secret(created["secret"]).kind == "v1"
    assert created["public_key"].startswith("whpk_")
    shown = await hooks.get(f"{ENDPOINTS}/{created['id']}")
    assert shown == {name: value for name, value in created.items() if name not in ("secret", "public_key")}
    assert shown == {
        "id": created["id"],
        "url": URL,
        "description": "CRM",
        "filter": {"event_types": ["stage.*"], "traits": {"plan": "pro"}},
        "throttle_rate": 5,
        "max_in_flight": None,
        "ordering": "none",
        "signatures": ["v1", "v1a"],
        "status": "enabled",
        "disabled_at": None,
        "disabled_reason": None,
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
    }
    secrets = (await hooks.get(f"{ENDPOINTS}/{created['id']}/secrets"))["items"]
    assert [(one["kind"], one["public_key"], one["expires_at"]) for one in secrets] == [
        ("v1a", created["public_key"], None),
        ("v1", None, None),
    ]
    assert created["secret"] not in json.dumps([shown, secrets])
    only_pair = await create(hooks, signatures=["v1a"])
    assert only_pair["secret"] is None


async def test_they_are_listed_in_pages(hooks: Whole) -> None:
    ids = [(await create(hooks))["id"] for _ in range(5)]
    assert sorted(ids, reverse=True) == [one["id"] for one in (await hooks.get(ENDPOINTS))["items"]]
    found: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await hooks.get(ENDPOINTS, limit=2, **cursor)
        found += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found == sorted(ids, reverse=True)
    await hooks.get(f"{ENDPOINTS}/{ids[0]}/attempts", 400, cursor=cursor["cursor"])


async def test_nobodys_change_is_lost(hooks: Whole) -> None:
    id_ = (await create(hooks, max_in_flight=3, filter={"to": "loyal"}))["id"]
    first = (await hooks.client.get(f"{ENDPOINTS}/{id_}")).headers["etag"]
    changed = await change(hooks, id_, first, {"description": "one", "ordering": "per_customer"})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    body = changed.json()
    assert (body["description"], body["ordering"], body["max_in_flight"]) == ("one", "per_customer", 3)
    assert body["updated_at"] > body["created_at"]
    late = await change(hooks, id_, first, {"description": "two"})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert "read it again" in late.json()["detail"]
    weak = await change(hooks, id_, 'W/"2"', {"description": "two"})
    assert weak.status_code == 412
    without = await change(hooks, id_, None, {"description": "two"})
    assert (without.status_code, without.json()["code"]) == (428, "precondition_required")
    assert "If-Match: *" in without.json()["detail"]
    bad = await change(hooks, id_, "2", {"description": "two"})
    assert (bad.status_code, bad.json()["code"]) == (400, "invalid_etag")
    taken = await change(hooks, id_, '"1", "2"', {"max_in_flight": None, "filter": None})
    assert (taken.status_code, taken.json()["max_in_flight"], taken.json()["filter"]) == (200, None, None)
    same = await change(hooks, id_, "*", {"description": "one"})
    assert same.headers["etag"] == taken.headers["etag"]
    stale = await hooks.client.delete(f"{ENDPOINTS}/{id_}", headers={"If-Match": first})
    assert stale.status_code == 412
    assert (await hooks.client.delete(f"{ENDPOINTS}/{id_}", headers={"If-Match": '"3"'})).status_code == 204
    assert (await hooks.client.delete(f"{ENDPOINTS}/{id_}")).status_code == 404
    for path in ("", "/secrets", "/stats", "/attempts", "/deliveries"):
        assert (await hooks.get(f"{ENDPOINTS}/{id_}{path}", 404))["code"] == "endpoint_not_found"
    for path in ("/enable", "/disable", "/test"):
        assert (await hooks.ask("POST", f"{ENDPOINTS}/{id_}{path}", 404))["code"] == "endpoint_not_found"


async def test_schemes_come_and_go(hooks: Whole) -> None:
    id_ = (await create(hooks))["id"]

    async def kinds() -> list[str]:
        return [one["kind"] for one in (await hooks.get(f"{ENDPOINTS}/{id_}/secrets"))["items"]]

    problem = await hooks.ask("POST", f"{ENDPOINTS}/{id_}/secret/rotate", 409, {"kind": "v1a"})
    assert problem["code"] == "kind_not_used"
    await change(hooks, id_, "*", {"signatures": ["v1", "v1a"]})
    assert await kinds() == ["v1a", "v1"]
    await change(hooks, id_, "*", {"signatures": ["v1a"]})
    assert await kinds() == ["v1a"]
    rotated = await hooks.ask("POST", f"{ENDPOINTS}/{id_}/secret/rotate", 200, {"kind": "v1a"})
    assert rotated["secret"] is None
    listed = (await hooks.get(f"{ENDPOINTS}/{id_}/secrets"))["items"]
    assert [one["public_key"] == rotated["public_key"] for one in listed] == [True, False]
    assert [one["expires_at"] for one in listed] == [None, rotated["old_until"]]


async def test_a_secret_is_rotated_with_an_overlap(hooks: Whole) -> None:
    created = await create(hooks)
    path = f"{ENDPOINTS}/{created['id']}/secret/rotate"
    rotated = await hooks.ask("POST", path, 200, {})
    assert rotated["secret"] != created["secret"]
    assert parse_secret(rotated["secret"]).kind == "v1"
    day = parse_instant(rotated["old_until"]) - parse_instant(rotated["created_at"])
    assert day == 86_400_000_000
    for _ in range(4):
        await hooks.ask("POST", path, 200, {"grace_seconds": 604_800})
    problem = await hooks.ask("POST", path, 409, {"grace_seconds": 60})
    assert problem["code"] == "too_many_secrets"
    assert len((await hooks.get(f"{ENDPOINTS}/{created['id']}/secrets"))["items"]) == 6
    # They have leaked.
    await hooks.ask("POST", path, 200, {"grace_seconds": 0})
    assert len((await hooks.get(f"{ENDPOINTS}/{created['id']}/secrets"))["items"]) == 1
    for grace in (-1, 604_801, "1 day", None, 1.5):
        assert (await hooks.ask("POST", path, 422, {"grace_seconds": grace}))["code"] == "invalid_request"


async def test_it_is_turned_off_and_on(hooks: Whole) -> None:
    id_ = (await create(hooks))["id"]
    off = await hooks.ask("POST", f"{ENDPOINTS}/{id_}/disable", 200)
    assert (off["status"], off["disabled_reason"]) == ("disabled", "by_request")
    again = await hooks.client.post(f"{ENDPOINTS}/{id_}/disable")
    assert (again.json(), again.headers["etag"]) == (off, '"2"')
    assert (await hooks.get(f"{ENDPOINTS}/{id_}/stats"))["health"]["state"] == "disabled"
    async with hooks.database.transaction() as connection:
        health = (await lock_health(connection, [id_]))[id_]
        await set_health(connection, [health._replace(parked_until=clock() + 10**9, probes=3, failing_since=clock())])
    on = await hooks.ask("POST", f"{ENDPOINTS}/{id_}/enable", 200)
    assert (on["status"], on["disabled_at"], on["disabled_reason"]) == ("enabled", None, None)
    assert (await hooks.get(f"{ENDPOINTS}/{id_}/stats"))["health"] == {
        "state": "well",
        "parked_until": None,
        "failing_since": None,
        "last_success_at": None,
    }


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/enable", 200), ("DELETE", "", 204)])
async def test_it_waits_for_a_dispatcher_that_is_about_to_disable_it(
    hooks: Whole, method: str, path: str, status: int
) -> None:
    id_ = (await create(hooks))["id"]
    async with hooks.database.transaction() as connection:
        await lock_health(connection, [id_])
        asking = asyncio.create_task(hooks.client.request(method, f"{ENDPOINTS}/{id_}{path}"))
        await asyncio.sleep(0.3)
        assert await disable_endpoints(connection, [(id_, "gone")], clock()) == [id_]
    assert (await asking).status_code == status


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid_request", "/url"),
    ({"url": URL, "uri": URL}, "invalid_request", "/uri"),
    ({"url": "http://example.com/hook"}, "invalid_url", "https://"),
    ({"url": "https://10.1.2.3/hook"}, "invalid_url", "not sent to"),
    ({"url": "https://169.254.169.254/latest/meta-data"}, "invalid_url", "not sent to"),
    ({"url": "https://ada:secret@example.com/"}, "invalid_url", "user name"),
    ({"url": "https://example.com:22/"}, "invalid_url", "port"),
    ({"url": "ftp://example.com/"}, "invalid_url", "https://"),
    ({"url": "https://"}, "invalid_url", "host"),
    ({"url": "x" * 3000}, "invalid_request", "/url"),
    ({"url": URL, "throttle_rate": 0}, "invalid_request", "/throttle_rate"),
    ({"url": URL, "max_in_flight": "many"}, "invalid_request", "/max_in_flight"),
    ({"url": URL, "ordering": "strict"}, "invalid_request", "/ordering"),
    ({"url": URL, "signatures": []}, "invalid_request", "/signatures"),
    ({"url": URL, "signatures": ["v2"]}, "invalid_request", "/signatures/0"),
    ({"url": URL, "filter": []}, "invalid_request", "/filter"),
    ({"url": URL, "filter": {"event_typs": ["x"]}}, "invalid_filter", "did you mean 'event_types'?"),
    ({"url": URL, "filter": {"traits": {"a": {"$gtt": 1}}}}, "invalid_filter", "filter/traits/a/$gtt"),
]


async def test_what_is_wrong_is_said(quick: Whole) -> None:
    id_ = (await create(quick))["id"]
    for body, code, says in WRONG:
        problem = await quick.ask("POST", ENDPOINTS, 422, body)
        assert problem["code"] == code, body
        assert says in problem["detail"]
        assert "secret" not in problem["detail"]
        if "url" in body:
            changed = await change(quick, id_, "*", body)
            assert (changed.status_code, changed.json()["code"]) == (422, code)
    shown = await quick.get(f"{ENDPOINTS}/{id_}")
    assert shown["updated_at"] == shown["created_at"]


async def test_mistakes_of_a_filter_have_their_places(quick: Whole) -> None:
    document = {"move": "up", "traits": {"plan": {"$in": "pro"}, "seats": {"$gt": None}}}
    problem = await quick.ask("POST", ENDPOINTS, 422, {"url": URL, "filter": document})
    assert [one["pointer"] for one in problem["problems"]] == [
        "/filter/move",
        "/filter/traits/plan/$in",
        "/filter/traits/seats/$gt",
    ]


def test_each_key_may_do_its_own() -> None:
    """With `webhooks:write` nobody gets another's secret. That scopes are asked for, test_scopes.py tells."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items() if path.startswith("/v1/webhooks") else ():
            needed = "secrets" if path.endswith("/secret/rotate") else "read" if method == "get" else "write"
            assert operation["security"] == [{"key": [f"webhooks:{needed}"]}], (method, path)


async def test_without_a_master_key_there_are_no_endpoints(sqlite_url: str) -> None:
    async with record(sqlite_url) as database:
        async with service(database, vault=Vault([])) as client:
            response = await client.post(ENDPOINTS, json={"url": URL})
            assert (response.status_code, response.json()["code"]) == (503, "secrets_unavailable")
            assert "LIFECYCLE_MASTER_KEYS" in response.json()["detail"]
            assert (await client.get(ENDPOINTS)).json()["items"] == []
        async with service(database, vault=VAULT) as client:
            id_ = (await client.post(ENDPOINTS, json={"url": URL})).json()["id"]
        async with service(database, vault=Vault([])) as client:
            for method, path in (("GET", "secrets"), ("POST", "secret/rotate"), ("POST", "test")):
                response = await client.request(method, f"{ENDPOINTS}/{id_}/{path}", json={})
                assert (response.status_code, response.json()["code"]) == (503, "secrets_unavailable")


async def test_the_guard_of_deliveries_is_asked(sqlite_url: str) -> None:
    async with record(sqlite_url) as database, service(database, sender=Sender(lookup=lookup)) as client:
        response = await client.post(ENDPOINTS, json={"url": "https://127.0.0.1/hook"})
        assert (response.status_code, response.json()["reason"]) == (422, "denied_address")
        assert response.json()["pointer"] == "/url"
