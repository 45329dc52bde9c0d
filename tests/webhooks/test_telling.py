"""From a touchpoint to a receiver and back: what arrives, what is said of it, and what is sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import jsonschema_rs
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from lifecycle_engine.api.webhooks import trials
from lifecycle_engine.api.webhooks.events import schema_of
from lifecycle_engine.outbox.filters import EVENT_TYPES
from tests.integration.whole import AUDIT, Whole, now
from tests.receiver import Reply
from tests.webhooks.telling import ENDPOINTS, SHOP, receiving, telling, until


@pytest.fixture(params=["sqlite", "postgres"])
async def hooks(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    async with telling(str(request.getfixturevalue(f"{request.param}_url")), SHOP) as started:
        yield started


async def create(hooks: Whole, url: str, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await hooks.ask("POST", ENDPOINTS, 201, {"url": url, **fields})
    return created


async def attempts(hooks: Whole, endpoint: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """An endpoint's attempts, once so many are written, the newest first."""
    for _ in range(2000):
        items: list[dict[str, Any]] = (await hooks.get(f"{ENDPOINTS}/{endpoint['id']}/attempts"))["items"]
        if len(items) >= number:
            assert len(items) == number
            return items
        await asyncio.sleep(0.005)
    raise TimeoutError


async def finished(hooks: Whole, job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = await hooks.until(f"/v1/jobs/{job['id']}", "status", "finished")
    return found


def strangers(schema: dict[str, Any], part: dict[str, Any], value: Any) -> list[str]:
    """Members that a schema doesn't describe; JSON Schema lets them pass."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        return [found for one in value for found in strangers(schema, part["items"], one)]
    for choice in part.get("anyOf", ()):
        if value is not None and choice.get("type") != "null":
            part = choice
            return strangers(schema, part, value)
    if not isinstance(value, dict):
        return []
    known = part["properties"]
    return [name for name in value if name not in known] + [
        found for name in value if name in known for found in strangers(schema, known[name], value[name])
    ]


def check(event: dict[str, Any]) -> None:
    """An event is as its published schema says, to the last member."""
    schema = schema_of(event["type"])
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(event)
    assert strangers(schema, schema, event) == []


async def test_a_change_arrives_signed_and_as_it_is_described(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        endpoint = await create(hooks, receiver.url("/hook?to=crm"), signatures=["v1", "v1a"])
        await hooks.post("t1", "buy", 1, customer_id="ada")
        await hooks.post("t3", "buy", 3, customer_id="ada")
        await told.count(2)
        events = told.events(endpoint["secret"])
        assert [(one["data"]["to"], one["data"]["sequence"]) for one in events] == [("bought", 1), ("loyal", 2)]
        request = told.requests[0]
        assert request.path == "/hook?to=crm"
        assert request.headers["content-type"] == "application/json"
        assert [one.partition(",")[0] for one in request.headers["webhook-signature"].split()] == ["v1", "v1a"]
        assert events[0]["timestamp"] == events[0]["data"]["recorded_at"]
        # A late one corrects the history; somebody turns out to be somebody else.
        await hooks.post("t2", "leave", 2, customer_id="ada")
        await hooks.post("t0", "look", 0.5, customer_id="ada")
        await hooks.post("v1", "buy", 1, anonymous_id="cookie")
        await hooks.do("POST", "/v1/customers/ada/identities", {"anonymous_id": "cookie"})
        await hooks.do("POST", "/v1/customers/ada/merge", {"into": "eva", **AUDIT})
        names = {"ada", "eva", "cookie"}  # each is told of, in whatever order
        await until(lambda: names == {one["data"].get("customer_id", "cookie") for one in told.events()})
        await until(lambda: "customer.merged" in {one["type"] for one in told.events()})
        events = told.events(endpoint["secret"])
        assert {one["type"] for one in events} >= {"stage.changed", "history.corrected", "customer.merged"}
        for event in events:
            check(event)
        assert len(set(told.ids)) == len(told.ids)


async def test_only_what_was_asked_for_arrives(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        await create(hooks, receiver.url(), filter={"to": ["loyal"], "traits": {"plan": {"$in": ["pro"]}}})
        for customer, plan in (("bob", "free"), ("ada", "pro")):
            await hooks.do("POST", f"/v1/customers/{customer}/traits", {"traits": {"plan": plan}})
            await hooks.post(f"{customer}1", "buy", 1, customer_id=customer)
            await hooks.post(f"{customer}2", "buy", 2, customer_id=customer)
        await told.count(1)
        everything = await create(hooks, receiver.url("/all"))
        await hooks.post("end", "buy", 3, customer_id="eva")
        await until(lambda: any(request.path == "/all" for request in told.requests))
        chosen = [json.loads(one.body)["data"] for one in told.requests if one.path == "/"]
        assert [(one["customer_id"], one["to"]) for one in chosen] == [("ada", "loyal")]
        # Created later: what was before is not told by itself.
        assert [one.headers["webhook-id"] for one in told.requests if one.path == "/all"] == [
            one["message_id"] for one in await attempts(hooks, everything, 1)
        ]


async def test_what_was_sent_and_answered_can_be_read(hooks: Whole) -> None:
    async with receiving(500) as (told, receiver):
        told.reply = Reply(500, body="Füße ".encode() + b"\xff" * 3)
        endpoint = await create(hooks, receiver.url())
        path = f"{ENDPOINTS}/{endpoint['id']}"
        start = now()
        await hooks.post("t1", "buy", 1, customer_id="ada")
        await told.count(1)
        (attempt,) = await attempts(hooks, endpoint, 1)
        told.reply = Reply(204)
        message = await hooks.get(f"/v1/webhooks/messages/{attempt['message_id']}")
        assert message["body"] == told.events(endpoint["secret"])[0]
        assert [(one["status"], one["attempts"]) for one in message["deliveries"]] == [("pending", 1)]
        assert (attempt["status"], attempt["status_code"], attempt["number"]) == ("failed", 500, 1)
        assert "response" not in attempt
        detail = await hooks.get(f"{path}/attempts/{attempt['id']}")
        assert detail["response"] == "Füße \ufffd\ufffd\ufffd"
        # Not wait for the schedule.
        again = await hooks.ask(
            "POST", f"/v1/webhooks/messages/{message['id']}/resend", 202, {"endpoint_id": endpoint["id"]}
        )
        assert again["id"] == message["deliveries"][0]["id"]
        await told.count(2)
        second, _ = await attempts(hooks, endpoint, 2)
        assert (second["status"], second["status_code"], second["number"]) == ("succeeded", 204, 2)
        assert told.ids == [message["id"]] * 2
        assert told.requests[0].body == told.requests[1].body
        asked: list[tuple[dict[str, str], int]] = [
            ({}, 2),
            ({"status": "failed"}, 1),
            ({"status_code_class": "2xx"}, 1),
            ({"status_code_class": "4xx"}, 0),
            ({"status_code_class": "none"}, 0),
            ({"event_type": "stage.changed"}, 2),
            ({"event_type": "customer.merged"}, 0),
            ({"message_id": message["id"]}, 2),
            ({"since": start}, 2),
            ({"until": start}, 0),
            ({"since": second["at"]}, 1),
        ]
        for wanted, number in asked:
            assert len((await hooks.get(f"{path}/attempts?{urlencode(wanted)}"))["items"]) == number, wanted
        first_page = await hooks.get(f"{path}/attempts", limit=1)
        second_page = await hooks.get(f"{path}/attempts", limit=1, cursor=first_page["next_cursor"])
        assert [page["items"][0]["id"] for page in (first_page, second_page)] == [second["id"], attempt["id"]]
        assert second_page["next_cursor"] is None
        await hooks.get(f"{path}/attempts?status=great", 422)
        await hooks.get(f"{path}/attempts/999999", 404)
        deliveries = (await hooks.get(f"{path}/deliveries?status=delivered"))["items"]
        assert [(one["message_id"], one["next_attempt_at"]) for one in deliveries] == [(message["id"], None)]
        assert (await hooks.get(f"{path}/deliveries?status=failed"))["items"] == []
        stats = await hooks.get(f"{path}/stats", since=start)
        assert (stats["attempts"]["succeeded"], stats["attempts"]["failed"]) == (1, 1)
        assert stats["attempts"]["by_outcome"] == {"204": 1, "500": 1}
        assert stats["deliveries"] == {"pending": 0, "delivered": 1, "failed": 0, "dropped": 0}
        assert (stats["pending"], stats["health"]["state"]) == (0, "well")
        assert stats["health"]["last_success_at"] is not None


async def test_a_message_is_sent_again_under_its_id(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        endpoint = await create(hooks, receiver.url())
        await hooks.post("t1", "buy", 1, customer_id="ada")
        await attempts(hooks, endpoint, 1)
        (id_,) = told.ids
        body = {"endpoint_id": endpoint["id"]}
        queued = await hooks.ask("POST", f"/v1/webhooks/messages/{id_}/resend", 202, body)
        assert (queued["trigger"], queued["status"]) == ("resend", "pending")
        assert [one["trigger"] for one in await attempts(hooks, endpoint, 2)] == ["resend", "change"]
        assert told.ids == [id_, id_]
        told.events(endpoint["secret"])
        other = await create(hooks, receiver.url("/other"))
        await hooks.ask("POST", f"/v1/webhooks/messages/{id_}/resend", 202, {"endpoint_id": other["id"]})
        await told.count(3)
        await hooks.ask("POST", f"{ENDPOINTS}/{other['id']}/disable", 200)
        problem = await hooks.ask("POST", f"/v1/webhooks/messages/{id_}/resend", 409, {"endpoint_id": other["id"]})
        assert problem["code"] == "endpoint_disabled"
        for wrong, status in (({}, 422), ({"endpoint_id": "ep_0"}, 404), ({"endpoint_id": 7}, 422)):
            await hooks.ask("POST", f"/v1/webhooks/messages/{id_}/resend", status, wrong)
        problem = await hooks.ask("POST", "/v1/webhooks/messages/msg_0/resend", 404, body)
        assert problem["code"] == "message_not_found"
        await hooks.get("/v1/webhooks/messages/msg_0%00", 422)


async def test_a_receiver_can_change_over_to_a_new_secret(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        endpoint = await create(hooks, receiver.url())
        rotated = await hooks.ask("POST", f"{ENDPOINTS}/{endpoint['id']}/secret/rotate", 200, {"grace_seconds": 60})
        await hooks.post("t1", "buy", 1, customer_id="ada")
        await told.count(1)
        told.events(endpoint["secret"])
        told.events(rotated["secret"])
        await hooks.ask("POST", f"{ENDPOINTS}/{endpoint['id']}/secret/rotate", 200, {"grace_seconds": 0})
        await hooks.post("t2", "buy", 2, customer_id="ada")
        await told.count(2)
        request = told.requests[1]
        for secret in (endpoint["secret"], rotated["secret"]):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(request.body, dict(request.headers))


async def test_a_test_shows_what_the_receiver_says(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        endpoint = await create(hooks, receiver.url("/hook"), filter={"to": ["nowhere"]})
        path = f"{ENDPOINTS}/{endpoint['id']}"
        answer = await hooks.ask("POST", f"{path}/test", 200)
        assert (answer["status"], answer["status_code"], answer["failure"]) == ("succeeded", 204, None)
        (event,) = told.events(endpoint["secret"])
        check(event)
        assert event["type"] == "endpoint.test"
        assert event["data"] == {"endpoint_id": endpoint["id"]}
        assert answer["request"]["body"] == event
        assert answer["request"]["headers"]["webhook-id"] == answer["message_id"] == told.ids[0]
        told.reply = Reply(401, body=b"who are you?")
        for type_ in EVENT_TYPES:
            answer = await hooks.ask("POST", f"{path}/test", 200, {"event_type": type_})
            assert (answer["status"], answer["status_code"], answer["response"]) == ("failed", 401, "who are you?")
        for event in told.events(endpoint["secret"]):
            check(event)
        problem = await hooks.ask("POST", f"{path}/test", 422, {"event_type": "stage.change"})
        assert "did you mean 'stage.changed'?" in problem["detail"]
        # Disabled or not, and it doesn't count.
        told.reply = Reply(410)
        await hooks.ask("POST", f"{path}/disable", 200)
        await hooks.ask("POST", f"{path}/test", 200)
        await hooks.ask("POST", f"{path}/enable", 200)
        assert (await hooks.get(f"{path}/stats"))["health"]["state"] == "well"
        tried = (await hooks.get(f"{path}/attempts"))["items"]
        assert {one["trigger"] for one in tried} == {"test"}
        assert len(tried) == len(told.requests)
    answer = await hooks.ask("POST", f"{path}/test", 200)
    assert (answer["status"], answer["status_code"], answer["failure"]) == ("failed", None, "refused")
    assert answer["detail"].startswith("the URL ")


async def test_a_test_under_way_is_answered_when_the_process_stops(
    hooks: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "PATIENCE", 0.2)
    async with receiving() as (told, receiver):
        path = f"{ENDPOINTS}/{(await create(hooks, receiver.url()))['id']}/test"
        draining = hooks.client._transport.app.state.health.draining  # type: ignore[attr-defined]
        told.reply = Reply(seconds=60)
        asking = asyncio.create_task(hooks.ask("POST", path, 503))
        await told.count(1)
        draining.set()
        assert (await asyncio.wait_for(asking, 5))["code"] == "stopping"
        told.reply = Reply(seconds=0.05)
        assert (await hooks.ask("POST", path, 200))["status"] == "succeeded"


async def test_what_was_missed_is_recovered(hooks: Whole) -> None:
    async with receiving() as (told, receiver):
        start = now()
        endpoint = await create(hooks, receiver.url(), filter={"to": ["loyal"]})
        path = f"{ENDPOINTS}/{endpoint['id']}"
        await hooks.post("a1", "buy", 1, customer_id="ada")
        await hooks.post("a2", "buy", 2, customer_id="ada")
        await attempts(hooks, endpoint, 1)
        await hooks.ask("POST", f"{path}/disable", 200)
        assert (await hooks.ask("POST", f"{path}/recover", 409, {"since": start}))["code"] == "endpoint_disabled"
        await hooks.post("b1", "buy", 1, customer_id="bob")
        await hooks.post("b2", "buy", 2, customer_id="bob")
        await hooks.post("c1", "buy", 1, customer_id="eva", muted=True)
        await hooks.post("c2", "buy", 2, customer_id="eva", muted=True)
        await asyncio.sleep(2)
        await hooks.ask("POST", f"{path}/enable", 200)
        job = await hooks.ask("POST", f"{path}/recover", 202, {"since": start})
        assert job["kind"] == "recovery"
        done = await finished(hooks, job)
        # Six changes, of which one matches, isn't muted, and was missed.
        assert (done["changes"], done["done"], done["queued"]) == (6, 6, 1)
        await attempts(hooks, endpoint, 2)
        assert [one["data"]["customer_id"] for one in told.events(endpoint["secret"])] == ["ada", "bob"]
        again = await finished(hooks, await hooks.ask("POST", f"{path}/recover", 202, {"since": start}))
        assert again["queued"] == 0
        # Others who have never heard of it get the same messages.
        other = await create(hooks, receiver.url("/other"), ordering="per_customer")
        more = await hooks.ask("POST", f"{ENDPOINTS}/{other['id']}/recover", 202, {"since": start, "until": now()})
        assert (await finished(hooks, more))["queued"] == 4
        await told.count(6)
        new = [one for one in told.requests if one.path == "/other"]
        assert {one.headers["webhook-id"] for one in new} > set(told.ids[:2])
        listed = (await hooks.get("/v1/jobs"))["items"]
        assert [one["id"] for one in listed] == [more["id"], again["id"], job["id"], "activation-1"]
        cursor, found = None, []
        while True:
            page = await hooks.ask("GET", "/v1/jobs", 200, limit=1, **({"cursor": cursor} if cursor else {}))
            found += page["items"]
            if (cursor := page["next_cursor"]) is None:
                break
        assert found == listed


async def test_a_recovery_must_make_sense(hooks: Whole) -> None:
    endpoint = await create(hooks, "http://127.0.0.1:9/")
    path = f"{ENDPOINTS}/{endpoint['id']}/recover"
    for body, code in (
        ({}, "invalid_request"),
        ({"since": "yesterday"}, "invalid_request"),
        ({"since": "2020-01-01T00:00:00Z"}, "too_long_ago"),
        ({"since": "2999-01-01T00:00:00Z"}, "invalid_time"),
        ({"since": now(), "until": "2999-01-01T00:00:00Z"}, "invalid_time"),
        ({"since": now(), "til": now()}, "invalid_request"),
    ):
        assert (await hooks.ask("POST", path, 422, body))["code"] == code
    assert (await hooks.get("/v1/jobs/rec_0", 404))["code"] == "job_not_found"
    # Nothing was recorded, so there is nothing to do.
    job = await hooks.ask("POST", path, 202, {"since": now()})
    assert (job["status"], job["changes"], job["queued"]) == ("finished", 0, 0)
