"""CloudEvents in their three modes, down to what a worker will read; made by the library, and by hand."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary, to_json, to_structured
from cloudevents.v1.http import CloudEvent as Event

from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.log.message import Fact
from tests.integration.apps import Way

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1001",
    "source": "/shop/orders",
    "type": "Order Completed",
    "time": "2026-03-01T12:30:00Z",
    "subject": "42",
    "channel": "web",
    "data": {"revenue": 49.9},
}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=UTF-8"}
BATCHED = {"Content-Type": "application/cloudevents-batch+json"}


async def post(way: Way, body: Any, headers: dict[str, str]) -> httpx.Response:
    return await way.post(body, "/v1/events", **headers)


async def post_raw(way: Way, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> httpx.Response:
    given = {
        b"ce-specversion": b"1.0",
        b"ce-id": b"1",
        b"ce-source": b"s",
        b"ce-type": b"t",
        b"ce-subject": b"42",
        b"content-type": b"application/json",
    }
    names = {name for name, _ in headers}
    both = [*((name, value) for name, value in given.items() if name not in names), *headers]
    return await way.app.client.post("/v1/events", content=body, headers=[one for one in both if one[1] != b"-"])


def event_of_the_library(**attributes: Any) -> CloudEvent:
    given = {
        "id": "1001",
        "source": "/shop/orders",
        "type": "Order Completed",
        "time": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        "subject": 'Zoë "顧客" 50% a%41',
        "datacontenttype": "application/json",
        "channel": "web",
    }
    return CloudEvent({**given, **attributes}, {"revenue": 49.9, "note": "naïve 顧客"})


async def test_what_the_library_sends_is_the_same_event_in_every_mode(way: Way) -> None:
    event = event_of_the_library()
    structured = to_structured_event(event)
    batch = b"[" + structured.body + b"]"
    messages: list[tuple[HTTPMessage, int]] = [
        (to_binary_event(event), 202),
        (structured, 202),
        (HTTPMessage(BATCHED, batch), 207),
    ]
    for message, status in messages:
        answer = await way.post(message.body, "/v1/events", **message.headers)
        assert answer.status_code == status, answer.text
    facts = await way.facts(3)
    assert len({fact.content for fact in facts}) == 1
    touchpoint = facts[0].touchpoint
    assert (touchpoint.source, touchpoint.id, touchpoint.type) == ("/shop/orders", "1001", "purchase")
    assert (touchpoint.customer_id, touchpoint.anonymous_id) == ('Zoë "顧客" 50% a%41', None)
    assert touchpoint.occurred_at == parse_instant("2026-03-01T12:30:00Z")
    assert touchpoint.properties == {"revenue": 49.9, "amount": 49.9, "note": "naïve 顧客"}
    assert touchpoint.context == {"channel": "web"}


async def test_the_older_interface_of_the_library_is_understood(sqlite_way: Way) -> None:
    event = Event({"type": "visit", "source": "urn:x", "id": "7", "subject": "42"}, {"n": 1})
    for headers, body in (to_binary(event), to_structured(event), (BATCHED, b"[%b]" % to_json(event))):
        answer = await sqlite_way.post(body, "/v1/events", **headers)
        assert answer.status_code in (202, 207), answer.text
    assert len({fact.content for fact in await sqlite_way.facts(3)}) == 1


async def facts_of(way: Way, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> Fact:
    answer = await post_raw(way, headers, body)
    assert answer.status_code == 202, answer.text
    (fact,) = await way.facts(1)
    return fact


SUBJECTS = {
    "as it is": (b"42", "42"),
    "escaped once": (b"a%2541", "a%41"),
    "escaped UTF-8": (b"Zo%C3%AB%20%E9%A1%A7", "Zoë 顧"),
    "raw UTF-8": ("Zoë 顧".encode(), "Zoë 顧"),
    "Node.js's Latin-1": (b'Zo\xeb "x" 50% off', 'Zoë "x" 50% off'),
    "no escape": (b"100%", "100%"),
    "quoted": (b'"a \\"b\\" %41"', 'a "b" A'),
}


@pytest.mark.parametrize(("sent", "subject"), SUBJECTS.values(), ids=SUBJECTS)
async def test_headers_are_decoded_once(sqlite_way: Way, sent: bytes, subject: str) -> None:
    assert (await facts_of(sqlite_way, [(b"ce-subject", sent)])).touchpoint.customer_id == subject


async def test_chunks_without_a_length_are_read(way: Way) -> None:
    async def chunks() -> Any:
        for part in (b'{"n', b'":', b"1}"):
            yield part

    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-subject": "42"}
    headers["content-type"] = "application/json; charset=utf-8"
    answer = await way.app.client.post("/v1/events", content=chunks(), headers=headers)
    assert answer.status_code == 202
    (fact,) = await way.facts(1)
    assert fact.touchpoint.properties == {"n": 1}


DATA: dict[str, tuple[str | None, bytes, dict[str, Any], dict[str, Any]]] = {
    "none": ("application/json", b"", {}, {}),
    "no media type": (None, b'{"a":1}', {"a": 1}, {}),
    "no object": ("application/json", b"[1]", {"data": [1]}, {}),
    "null": ("application/json", b"null", {}, {}),
    "another JSON": ("application/vnd.shop+json", b'{"a":1}', {"a": 1}, {}),
    "a text": ("text/plain", "é".encode(), {"data": "é"}, {"datacontenttype": "text/plain"}),
    "XML": ("application/xml", b"<a/>", {"data": "<a/>"}, {"datacontenttype": "application/xml"}),
    "bytes": ("image/png", b"\x89P", {"data_base64": "iVA="}, {"datacontenttype": "image/png"}),
}


@pytest.mark.parametrize(("media_type", "data", "properties", "context"), DATA.values(), ids=DATA)
async def test_data_become_properties_in_every_mode(
    sqlite_way: Way, media_type: str | None, data: bytes, properties: dict[str, Any], context: dict[str, Any]
) -> None:
    answer = await post_raw(sqlite_way, [(b"content-type", (media_type or "-").encode())], data)
    assert answer.status_code == 202, answer.text
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "42"}
    event |= {"datacontenttype": media_type} if media_type else {}
    if data:
        event["data_base64"] = base64.b64encode(data).decode()
    assert (await post(sqlite_way, event, STRUCTURED)).status_code == 202
    first, second = await sqlite_way.facts(2)
    assert (first.touchpoint.properties, first.touchpoint.context) == (properties, context)
    assert first.content == second.content


async def test_extensions_name_whom_it_is_about(sqlite_way: Way) -> None:
    named: list[tuple[dict[str, Any], tuple[str | None, str | None], str | None]] = [
        ({}, ("42", None), None),
        ({"customerid": "7"}, ("7", None), "42"),
        ({"anonymousid": "x"}, (None, "x"), "42"),
        ({"customerid": "7", "anonymousid": "x", "subject": None}, ("7", "x"), None),
    ]
    for number, (extensions, _, _) in enumerate(named):
        answer = await post(sqlite_way, {**EVENT, **extensions, "id": str(number)}, STRUCTURED)
        assert answer.status_code == 202
    facts = {fact.touchpoint.id: fact.touchpoint for fact in await sqlite_way.facts(len(named))}
    for number, (_, ids, subject) in enumerate(named):
        touchpoint = facts[str(number)]
        assert (touchpoint.customer_id, touchpoint.anonymous_id) == ids
        assert touchpoint.context.get("subject") == subject


async def test_attributes_of_other_types_are_what_headers_would_say(sqlite_way: Way) -> None:
    await post(sqlite_way, {**EVENT, "n": 5, "b": True, "nothing": None, "dataschema": "urn:s"}, STRUCTURED)
    (fact,) = await sqlite_way.facts(1)
    assert fact.touchpoint.context == {"channel": "web", "n": "5", "b": "true", "dataschema": "urn:s"}


async def test_a_batch_is_answered_item_by_item(way: Way) -> None:
    batch = [
        EVENT,
        {**EVENT, "id": "2", "source": "s" * 129},
        {**EVENT, "id": "3", "type": "$link"},
        17,
        {**EVENT, "id": "4", "time": "9999-12-31T23:59:59Z"},
        {**EVENT, "id": "5", "subject": "a\u0007"},
        {**EVENT, "id": "6", "data": {"x": 2**63}},
        {**EVENT, "id": "1001", "source": "another"},
    ]
    answer = await post(way, batch, BATCHED)
    assert answer.status_code == 207
    assert answer.json()["summary"] == {"accepted": 2, "rejected": 6, "unknown": 0}
    found = [
        (item["id"], item["problem"]["code"], item["problem"]["pointer"])
        for item in answer.json()["items"]
        if "problem" in item
    ]
    assert found == [
        ("2", "wrong_length", "/source"),
        ("3", "reserved_type", "/type"),
        (None, "wrong_type", ""),
        ("4", "in_the_future", "/time"),
        ("5", "control_character", "/subject"),
        ("6", "number_out_of_range", "/data/x"),
    ]
    assert {(fact.touchpoint.source, fact.touchpoint.id) for fact in await way.facts(2)} == {
        ("/shop/orders", "1001"),
        ("another", "1001"),
    }


async def test_an_empty_batch_is_no_error(sqlite_way: Way) -> None:
    answer = await post(sqlite_way, [], BATCHED)
    assert (answer.status_code, answer.json()["summary"]) == (207, {"accepted": 0, "rejected": 0, "unknown": 0})


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no version": ({"specversion": None}, "missing_field", "/specversion"),
    "another version": ({"specversion": "0.3"}, "unsupported_version", "/specversion"),
    "no id": ({"id": None}, "missing_field", "/id"),
    "an empty id": ({"id": ""}, "wrong_length", "/id"),
    "a number for an id": ({"id": 1}, "wrong_type", "/id"),
    "a long id": ({"id": "i" * 129}, "wrong_length", "/id"),
    "no source": ({"source": None}, "missing_field", "/source"),
    "a long source": ({"source": "s" * 129}, "wrong_length", "/source"),
    "a bell in the source": ({"source": "s\u0007"}, "control_character", "/source"),
    "no type": ({"type": None}, "missing_field", "/type"),
    "a long type": ({"type": "t" * 129}, "wrong_length", "/type"),
    "a reserved type": ({"type": "$merge"}, "reserved_type", "/type"),
    "nobody": ({"subject": None}, "no_customer", "/subject"),
    "an empty subject": ({"subject": ""}, "wrong_length", "/subject"),
    "a long subject": ({"subject": "s" * 257}, "wrong_length", "/subject"),
    "a long customer": ({"customerid": "s" * 257}, "wrong_length", "/customerid"),
    "a naive time": ({"time": "2026-03-01T12:30:00"}, "invalid_time", "/time"),
    "an object": ({"channel": {}}, "wrong_type", "/channel"),
    "a float": ({"channel": 1.5}, "wrong_type", "/channel"),
    "a name in capitals": ({"Channel": "web"}, "unknown_field", "/Channel"),
    "a name with a line": ({"my_channel": "web"}, "unknown_field", "/my_channel"),
    "both kinds of data": ({"data_base64": "AA=="}, "unknown_field", "/data_base64"),
    "no Base64": ({"data": ..., "data_base64": "é"}, "wrong_type", "/data_base64"),
    "Base64 of no JSON": ({"data": ..., "data_base64": "AA=="}, "malformed", "/data_base64"),
}


@pytest.mark.parametrize(("fields", "code", "pointer"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_told_in_the_events_own_words(
    sqlite_way: Way, fields: dict[str, Any], code: str, pointer: str
) -> None:
    event = {name: value for name, value in {**EVENT, **fields}.items() if value is not ...}
    answer = await post(sqlite_way, event, STRUCTURED)
    assert (answer.status_code, answer.json()["code"]) == (400 if code == "malformed" else 422, code)
    assert answer.json()["pointer"] == pointer
    batched = await post(sqlite_way, [event, {**EVENT, "id": "fine"}], BATCHED)
    assert batched.json()["items"][0]["problem"]["code"] == code
    assert len(await sqlite_way.facts(1)) == 1


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ([(b"ce-subject", b"%FF")], b"", 400, "malformed"),
        ([(b"ce-subject", b"%C3%28")], b"", 400, "malformed"),
        ([(b"ce-subject", b"%00")], b"", 422, "control_character"),
        ([(b"ce-subject", b"%ED%A0%80")], b"", 400, "malformed"),
        ([(b"ce-id", b"1"), (b"ce-id", b"2")], b"", 422, "repeated_attribute"),
        ([(b"ce-data", b"1")], b"", 422, "unknown_field"),
        ([(b"ce-specversion", b"-")], b"", 422, "missing_field"),
        ([(b"ce-time", b"now")], b"", 422, "invalid_time"),
        ([], b"{", 400, "malformed"),
        ([], b'{"x":NaN}', 422, "number_out_of_range"),
        ([], b'{"x":"\\u0000"}', 422, "invalid_character"),
        ([], b'"' + b"a" * 262_144 + b'"', 413, "too_large"),
    ],
)
async def test_wrong_headers_and_data_are_refused(
    sqlite_way: Way, headers: list[tuple[bytes, bytes]], body: bytes, status: int, code: str
) -> None:
    answer = await post_raw(sqlite_way, headers, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await sqlite_way.facts(0) == []


@pytest.mark.parametrize("body", [b"", b"{}", b"1", b"[", b"[}", b'[{"id":]', b"\xff"])
async def test_a_batch_that_is_none_is_refused_whole(sqlite_way: Way, body: bytes) -> None:
    answer = await post(sqlite_way, body, BATCHED)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("media_type", ["application/json", "application/cloudevents+avro", "text/plain", ""])
async def test_what_is_in_no_mode_is_refused(sqlite_way: Way, media_type: str) -> None:
    answer = await post(sqlite_way, json.dumps(EVENT).encode(), {"Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/cloudevents+json" in answer.json()["detail"]
