"""Segment's tracking API, down to what a worker will read."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifecycle_engine.ingest.formats.event_types import (
    EventTypes,
    EventTypesError,
    default_event_types,
    load_event_types,
)
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log.message import Fact
from lifecycle_engine.log.port import Record
from tests.integration.apps import KEY, Way, clock

ROOT = Path(__file__).parents[2]
ORDER: dict[str, Any] = {
    "type": "track",
    "messageId": "m1",
    "userId": "42",
    "event": "Order Completed",
    "properties": {"revenue": 49.9, "total": 60, "currency": "EUR"},
    "timestamp": "2026-03-01T12:30:00Z",
    "context": {"ip": "127.0.0.1"},
}


async def call(way: Way, kind: str, body: Any, **headers: str) -> httpx.Response:
    return await way.post(body, f"/v1/{kind}", **headers)


async def fact_of(way: Way, kind: str, **fields: Any) -> Fact:
    answer = await call(way, kind, {"messageId": "m1", "userId": "42", **fields})
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    (fact,) = await way.facts(1)
    return fact


async def test_an_order_is_a_purchase_of_its_amount(way: Way) -> None:
    fact = await fact_of(way, "track", **ORDER)
    touchpoint = fact.touchpoint
    assert (touchpoint.id, touchpoint.source, touchpoint.type) == ("m1", "default", "purchase")
    assert (touchpoint.customer_id, touchpoint.anonymous_id) == ("42", None)
    assert touchpoint.properties == {"revenue": 49.9, "total": 60, "currency": "EUR", "amount": 49.9}
    assert touchpoint.context == {"ip": "127.0.0.1"}
    assert touchpoint.occurred_at == parse_instant("2026-03-01T12:30:00Z")


CALLS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "another event": ("track", {"event": "Video Played"}, "Video Played", {}),
    "an amount of its own": (
        "track",
        {"event": "order_completed", "properties": {"amount": 1, "revenue": 2}},
        "purchase",
        {"amount": 1, "revenue": 2},
    ),
    "an amount that is none": (
        "track",
        {"event": "Order Completed", "properties": {"revenue": "9.90", "total": 10}},
        "purchase",
        {"revenue": "9.90", "total": 10, "amount": 10},
    ),
    "a page": ("page", {"name": "Prices", "properties": {"url": "/p"}}, "page_view", {"name": "Prices", "url": "/p"}),
    "a screen": ("screen", {"category": "Shop"}, "screen_view", {"category": "Shop"}),
    "a group": ("group", {"groupId": 7, "traits": {"n": 1}}, "group_joined", {"group_id": "7", "traits": {"n": 1}}),
    "traits": ("identify", {"traits": {"plan": "pro"}}, "$identify", {"traits": {"plan": "pro"}}),
    "traits of RudderStack": ("identify", {"context": {"traits": {"a": 1}}}, "$identify", {"traits": {"a": 1}}),
    "no traits": ("identify", {"anonymousId": "x"}, "$identify", {"traits": {}}),
    "an alias": ("alias", {"previousId": "x"}, "$identify", {}),
}


@pytest.mark.parametrize(("kind", "fields", "type_", "properties"), CALLS.values(), ids=CALLS)
async def test_each_call_has_its_touchpoint(
    sqlite_way: Way, kind: str, fields: dict[str, Any], type_: str, properties: dict[str, Any]
) -> None:
    touchpoint = (await fact_of(sqlite_way, kind, **fields)).touchpoint
    assert (touchpoint.type, touchpoint.properties) == (type_, properties)


async def test_an_alias_links_a_past_and_unites_no_customers(sqlite_way: Way) -> None:
    touchpoint = (await fact_of(sqlite_way, "alias", previousId="41", anonymousId="other")).touchpoint
    assert (touchpoint.type, touchpoint.customer_id, touchpoint.anonymous_id) == ("$identify", "42", "41")


async def test_a_number_is_an_id_and_an_empty_text_is_none(sqlite_way: Way) -> None:
    answer = await call(sqlite_way, "track", {"event": "e", "userId": 42, "anonymousId": "", "messageId": ""})
    assert answer.json() == {"success": True}
    (fact,) = await sqlite_way.facts(1)
    assert (fact.touchpoint.customer_id, fact.touchpoint.anonymous_id) == ("42", None)
    assert len(fact.touchpoint.id) == 36


def basic(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(name.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "key", "status"),
    [
        (basic(f"{KEY}:"), None, 200),
        (basic(f"{KEY}:anything"), None, 200),
        (basic(KEY), None, 200),
        ({"Authorization": f"Bearer {KEY}"}, "another key in the body", 200),
        ({}, KEY, 200),
        (basic("wrong:"), KEY, 401),
        (basic(":"), None, 401),
        ({"Authorization": "Basic é"}, None, 401),
        ({"Authorization": "Digest x"}, None, 401),
        ({}, "wrong", 401),
        ({}, None, 401),
    ],
)
async def test_the_key_is_found_wherever_the_libraries_put_it(
    sqlite_way: Way, headers: dict[str, str], key: str | None, status: int
) -> None:
    del sqlite_way.app.client.headers["Authorization"]
    for kind in ("track", "batch"):
        body = {"batch": [ORDER]} if kind == "batch" else ORDER
        answer = await call(sqlite_way, kind, {**body, "writeKey": key}, **{k: v.encode() for k, v in headers.items()})  # type: ignore[arg-type]
        assert answer.status_code == status
        if status == 401:
            assert {"code", "message"} <= answer.json().keys()


async def test_a_batch_is_taken_but_for_its_errors(way: Way) -> None:
    batch = [
        ORDER,
        {"type": "track", "messageId": "m2", "userId": "42"},
        {"type": "track", "messageId": "m3", "event": "x"},
        {"type": "charge", "messageId": "m4", "userId": "42"},
        17,
        {**ORDER, "messageId": "m5", "event": "$link"},
        {**ORDER, "messageId": "m6", "timestamp": "yesterday"},
        {**ORDER, "messageId": "m7", "properties": {"text": "a" * 33_000}},
        {"type": "group", "userId": "42"},
        {"type": "alias", "messageId": "m8", "userId": "42"},
        {**ORDER, "messageId": "m9", "userId": "a\u0007"},
        {**ORDER, "messageId": "m" * 129},
        {**ORDER, "messageId": "m10", "timestamp": "9999-01-01T00:00:00Z"},
        {"type": "page", "messageId": "m11", "anonymousId": "x"},
    ]
    answer = await call(way, "batch", {"batch": batch, "context": {"app": "shop"}, "integrations": {"All": True}})
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    found = [(one["index"], one["messageId"], one["code"]) for one in answer.json()["errors"]]
    assert found == [
        (1, "m2", "missing_field"),
        (2, "m3", "no_customer"),
        (3, "m4", "unknown_type"),
        (4, None, "wrong_type"),
        (5, "m5", "reserved_type"),
        (6, "m6", "invalid_time"),
        (7, "m7", "too_large"),
        (8, None, "missing_field"),
        (9, "m8", "missing_field"),
        (10, "m9", "control_character"),
        (11, "m" * 129, "wrong_length"),
        (12, "m10", "in_the_future"),
    ]
    messages = [one["message"] for one in answer.json()["errors"]]
    pointers = ("/event", "/userId", "/type", "", "/event", "/timestamp", "", "/groupId", "/previousId", "/userId")
    for message, pointer in zip(messages, pointers, strict=False):
        assert message.startswith(pointer)
    facts = {fact.touchpoint.id: fact.touchpoint for fact in await way.facts(2)}
    assert facts["m1"].context == {"app": "shop", "ip": "127.0.0.1", "integrations": {"All": True}}
    assert facts["m11"].context == {"app": "shop", "integrations": {"All": True}}


async def test_strict_mode_takes_all_or_nothing(sqlite_way: Way) -> None:
    batch = {"batch": [ORDER, {"type": "track", "messageId": "m2", "userId": "42"}]}
    strict = {"X-Strict-Mode": "1"}
    answer = await call(sqlite_way, "batch", batch, **strict)
    assert (answer.status_code, answer.json()["code"], answer.json()["success"]) == (400, "missing_field", False)
    assert answer.json()["errors"][0] | {"message": ""} == {
        "index": 1,
        "messageId": "m2",
        "code": "missing_field",
        "message": "",
    }
    assert (await call(sqlite_way, "track", batch["batch"][1], **strict)).status_code == 400
    assert await sqlite_way.facts(0) == []
    assert (await call(sqlite_way, "batch", {"batch": [ORDER]}, **strict)).json() == {"success": True}
    assert (await call(sqlite_way, "batch", batch)).status_code == 200
    assert len(await sqlite_way.facts(2)) == 2


async def test_what_is_beyond_the_limits_is_told(sqlite_way: Way) -> None:
    small = {"type": "track", "userId": "4", "event": "e"}
    answer = await call(sqlite_way, "batch", {"batch": [{**small, "messageId": f"m{n}"} for n in range(2_503)]})
    assert answer.status_code == 200
    found = [(one["index"], one["messageId"], one["code"]) for one in answer.json()["errors"]]
    assert found == [(n, f"m{n}", "too_many") for n in range(2_500, 2_503)]
    assert len(await sqlite_way.facts(2_500)) == 2_500
    for kind, body in (
        ("track", {**ORDER, "properties": {"text": "a" * 33_000}}),
        ("batch", {"batch": [{**ORDER, "properties": {"text": "a" * 30_000}}] * 18}),
    ):
        answer = await call(sqlite_way, kind, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "too_large")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'{"batch":{}}', b'{"batch":[{]}', b'{"batch":null}', b"{}"])
async def test_a_batch_that_is_none_is_400(sqlite_way: Way, body: bytes) -> None:
    answer = await call(sqlite_way, "batch", body)
    assert answer.status_code == 400
    assert {"code", "message"} <= answer.json().keys()


async def test_an_empty_batch_is_no_error(sqlite_way: Way) -> None:
    assert (await call(sqlite_way, "batch", {"batch": []})).json() == {"success": True}


async def test_a_wrong_clock_is_corrected_and_changes_no_content(sqlite_way: Way) -> None:
    """The poster's clock is a year ahead; what it sends again, it sends later."""
    ahead = 365 * 86_400_000_000
    now = clock()
    stamped = format_instant(now + ahead - 60_000_000)
    for later in (0, 5_000_000):
        sent = {"sentAt": format_instant(now + ahead + later)}
        assert (await call(sqlite_way, "batch", {"batch": [{**ORDER, "timestamp": stamped}], **sent})).json() == {
            "success": True
        }
    first, second = await sqlite_way.facts(2)
    assert abs(first.touchpoint.occurred_at - (first.received_at - 60_000_000)) < 2
    assert abs(second.touchpoint.occurred_at - (second.received_at - 65_000_000)) < 2
    assert first.content == second.content
    # Uncorrected it would be in the future, and so would be what occurs long after it is sent.
    for fields in ({}, {"sentAt": format_instant(now)}):
        answer = await call(sqlite_way, "track", {**ORDER, "timestamp": stamped, **fields})
        assert answer.json()["errors"][0]["code"] == "in_the_future"
    answer = await call(sqlite_way, "track", {**ORDER, "timestamp": "1901-01-01T00:00:00Z", "sentAt": stamped})
    assert answer.json() == {"success": True}
    answer = await call(sqlite_way, "track", {**ORDER, "sentAt": "9999-01-01T00:00:00Z"})
    assert answer.json()["errors"][0]["code"] == "invalid_time"
    answer = await call(sqlite_way, "track", {**ORDER, "sentAt": "now"})
    assert answer.json()["errors"][0]["message"].startswith("/sentAt")


async def test_what_says_the_same_is_the_same_over_either_way(sqlite_way: Way) -> None:
    native = {
        "id": "m1",
        "type": "purchase",
        "customer_id": "42",
        "occurred_at": "2026-03-01T13:30:00+01:00",
        "properties": {"revenue": 49.9, "amount": 49.9, "total": 60, "currency": "EUR"},
        "context": {"ip": "127.0.0.1"},
    }
    assert (await sqlite_way.post(native)).status_code == 202
    assert (await call(sqlite_way, "track", {**ORDER, "sentAt": "2026-03-01T12:30:01Z"})).status_code == 200
    first, second = await sqlite_way.facts(2)
    assert first.content == second.content


class Half:
    """A log that acknowledges every second record."""

    async def append(self, records: list[Record]) -> list[bool]:
        return [n % 2 == 0 for n in range(len(records))]


async def test_what_the_log_did_not_answer_has_to_be_sent_again(sqlite_way: Way) -> None:
    sqlite_way.app.services.intake._appender = Half()  # type: ignore[assignment]
    answer = await call(sqlite_way, "batch", {"batch": [ORDER, {**ORDER, "messageId": "m2"}]})
    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
    assert answer.headers["retry-after"] == "1"


def rows(types: EventTypes) -> set[tuple[str, str, str]]:
    def taken(properties: Any) -> str:
        return "; ".join(
            f"`{name}` from {', '.join(f'`{of}`' for of in sources)}" for name, sources in properties.items()
        )

    return {(rule.event, rule.type, taken(rule.properties)) for rule in types.rules.values()}


def test_the_table_in_the_documentation_is_the_data() -> None:
    text = (ROOT / "docs" / "segment.md").read_text(encoding="utf-8")
    table = {
        match.groups() for match in re.finditer(r"^\| ([^|`]+) \| `([a-z_]+)` \| ([^|]*?) ?\|$", text, re.MULTILINE)
    }
    assert table == rows(default_event_types())
    for name, type_ in default_event_types().calls.items():
        assert f"| `{name}` | `{type_}` |" in text


def test_event_types_are_added_to_and_taken_away(tmp_path: Path) -> None:
    file = tmp_path / "events.yaml"
    file.write_text("events:\n  Deal Won: {type: deal_won, properties: {amount: [value]}}\n  signed_up: null\n")
    given = json.dumps({"calls": {"page": "visit"}, "events": {"order completed": "order"}})
    types = load_event_types(str(file))
    assert types.translated("DEAL-WON", {"value": 3}) == ("deal_won", {"value": 3, "amount": 3})
    assert types.translated("Signed Up", {}) == ("Signed Up", {})
    assert types.translated("Order Completed", {"total": True})[0] == "purchase"
    types = load_event_types(given)
    assert types.calls["page"] == "visit"
    assert types.translated("Order Completed", {"total": 3}) == ("order", {"total": 3})
    assert load_event_types("").translated("Product Viewed", {})[0] == "product_view"


@pytest.mark.parametrize(
    "given",
    [
        "nowhere.yaml",
        "{",
        "{}\n[",
        '{"event": {}}',
        '{"events": []}',
        '{"events": {"a": 1}}',
        '{"events": {"a": "$link"}}',
        '{"events": {"a": {"type": "b", "properties": {"amount": "total"}}}}',
        '{"calls": {"track": "x"}}',
        '{"calls": {"page": ""}}',
        "\0",
    ],
)
def test_a_wrong_table_is_told_where_it_is_wrong(given: str) -> None:
    with pytest.raises(EventTypesError, match=r"table|file"):
        load_event_types(given)
