"""`POST /v1/touchpoints` down to what a worker will read, on each log."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log.kafka import KafkaAppender
from lifecycle_engine.log.port import LogUnavailableError, Record
from lifecycle_engine.store.database import Database
from tests.integration.apps import SKEW, Way, clock, running
from tools.services import free_port

PURCHASE: dict[str, Any] = {
    "id": "t1",
    "type": "purchase",
    "customer_id": "42",
    "anonymous_id": "3f1c",
    "occurred_at": "2026-03-01T12:30:00+01:00",
    "properties": {"amount": 49.9, "note": 'naïve\n"quoted" 顧客 \u2028', "big": -(2**63), "deep": [[{"a": None}]]},
    "context": {"channel": "web"},
}


async def test_one_touchpoint_is_accepted_as_it_was_sent(way: Way) -> None:
    answer = await way.post(PURCHASE)
    assert (answer.status_code, answer.json()) == (202, {"id": "t1", "status": "accepted"})
    assert answer.headers["content-type"] == "application/json"
    (fact,) = await way.facts(1)
    assert fact.touchpoint.id == "t1"
    assert fact.touchpoint.source == "default"
    assert fact.touchpoint.occurred_at == parse_instant("2026-03-01T11:30:00Z")
    assert fact.touchpoint.properties == PURCHASE["properties"]
    assert fact.touchpoint.context == PURCHASE["context"]
    assert (fact.touchpoint.customer_id, fact.touchpoint.anonymous_id) == ("42", "3f1c")
    assert abs(fact.received_at - clock()) < 60e6
    assert fact.muted is False


async def test_an_array_is_answered_item_by_item(way: Way) -> None:
    batch = [
        PURCHASE,
        {**PURCHASE, "id": "t2", "stage": "advocacy"},
        {"type": "visit", "anonymous_id": "x", "muted": True},
        17,
        {**PURCHASE, "id": "t3", "properties": {"n": 2**63}},
        {"id": "t4", "type": "visit"},
    ]
    answer = await way.post(batch)
    assert answer.status_code == 207
    body = answer.json()
    assert body["summary"] == {"accepted": 2, "rejected": 4, "unknown": 0}
    assert [item["index"] for item in body["items"]] == list(range(6))
    assert [item["status"] for item in body["items"]] == ["accepted", "rejected", "accepted", *["rejected"] * 3]
    assert [item["id"] for item in body["items"]] == ["t1", "t2", body["items"][2]["id"], None, "t3", "t4"]
    problems = [item.get("problem") for item in body["items"]]
    assert [problem and (problem["status"], problem["code"], problem["pointer"]) for problem in problems] == [
        None,
        (422, "unknown_field", "/stage"),
        None,
        (422, "wrong_type", ""),
        (422, "number_out_of_range", "/properties/n"),
        (422, "no_customer", ""),
    ]
    made = uuid.UUID(body["items"][2]["id"])
    assert made.version == 7
    assert abs((made.int >> 80) - clock() // 1000) < 60_000
    facts = await way.facts(2)
    assert {fact.touchpoint.id for fact in facts} == {"t1", str(made)}
    assert {fact.muted for fact in facts} == {False, True}


BROKEN = {
    "a NUL": (b'{"id":"b","type":"a","customer_id":"c","properties":{"x":["\\u0000"]}}', "invalid_character"),
    "a NUL in a key": (b'{"id":"b","type":"a","customer_id":"c","context":{"\\u0000":1}}', "invalid_character"),
    "a lone surrogate": (b'{"id":"b","type":"a","customer_id":"c","properties":{"x":"\\ud800"}}', "invalid_character"),
    "a late surrogate": (b'{"id":"b","type":"a","customer_id":"\\udc00"}', "invalid_character"),
    "NaN": (b'{"id":"b","type":"a","customer_id":"c","properties":{"x":NaN}}', "number_out_of_range"),
    "infinity": (b'{"id":"b","type":"a","customer_id":"c","properties":{"x":[-Infinity]}}', "number_out_of_range"),
    "1e400": (b'{"id":"b","type":"a","customer_id":"c","properties":{"x":1e400}}', "number_out_of_range"),
    "2 to the 63rd": (b'{"type":"a","customer_id":"c","properties":{"x":9223372036854775808}}', "number_out_of_range"),
    "5,000 digits": (
        b'{"type":"a","customer_id":"c","properties":{"x":' + b"9" * 5000 + b"}}",
        "number_out_of_range",
    ),
    "40 levels": (b'{"type":"a","customer_id":"c","properties":{"x":' + b"[" * 40 + b"]" * 40 + b"}}", "too_deep"),
    "5,000 levels": (
        b'{"type":"a","customer_id":"c","properties":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        "too_deep",
    ),
    "20,000 levels": (
        b'{"type":"a","customer_id":"c","properties":{"x":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}}",
        "too_deep",
    ),
    "10,000 values": (
        b'{"type":"a","customer_id":"c","properties":{"x":[' + b"0," * 10_000 + b"0]}}",
        "too_many_values",
    ),
    "a control character": (b'{"type":"a\\u0007","customer_id":"c"}', "control_character"),
    "a line break in an id": (b'{"id":"a\\r\\nb","type":"a","customer_id":"c"}', "control_character"),
    "an empty id": (b'{"id":"","type":"a","customer_id":"c"}', "wrong_length"),
    "a long id": (b'{"id":"' + b"a" * 129 + b'","type":"a","customer_id":"c"}', "wrong_length"),
    "a long customer": (b'{"type":"a","customer_id":"' + b"a" * 257 + b'"}', "wrong_length"),
    "no type": (b'{"customer_id":"c"}', "missing_field"),
    "a reserved type": (b'{"type":"$identify","customer_id":"c"}', "reserved_type"),
    "a stage": (b'{"type":"a","customer_id":"c","stage":"advocacy"}', "unknown_field"),
    "a source": (b'{"type":"a","customer_id":"c","source":"other"}', "unknown_field"),
    "an arrival time": (b'{"type":"a","customer_id":"c","received_at":"2026-01-01T00:00:00Z"}', "unknown_field"),
    "a list of properties": (b'{"type":"a","customer_id":"c","properties":[]}', "wrong_type"),
    "a number for a customer": (b'{"type":"a","customer_id":42}', "wrong_type"),
    "a truth value as text": (b'{"type":"a","customer_id":"c","muted":"true"}', "wrong_type"),
    "a naive time": (b'{"type":"a","customer_id":"c","occurred_at":"2026-01-01T00:00:00"}', "invalid_time"),
    "a date": (b'{"type":"a","customer_id":"c","occurred_at":"2026-01-01"}', "invalid_time"),
    "the 30th of February": (b'{"type":"a","customer_id":"c","occurred_at":"2026-02-30T00:00:00Z"}', "invalid_time"),
    "the year 1": (b'{"type":"a","customer_id":"c","occurred_at":"0001-01-01T00:00:00+23:59"}', "invalid_time"),
    "the year 1899": (b'{"type":"a","customer_id":"c","occurred_at":"1899-12-31T23:59:59Z"}', "invalid_time"),
    "the year 9999": (b'{"type":"a","customer_id":"c","occurred_at":"9999-12-31T23:59:59Z"}', "in_the_future"),
    "a week date": (b'{"type":"a","customer_id":"c","occurred_at":"2026-W01-1T00:00:00Z"}', "invalid_time"),
    "minus infinity": (b'{"type":"a","customer_id":"c","occurred_at":"-infinity"}', "invalid_time"),
    "a large touchpoint": (
        b'{"type":"a","customer_id":"c","properties":{"x":"' + b"a" * 262_144 + b'"}}',
        "too_large",
    ),
    "numbers that grow": (
        b'{"type":"a","customer_id":"c","properties":{"x":[' + b"1e15," * 50_000 + b"1]}}",
        "too_large",
    ),
}


@pytest.mark.parametrize(("body", "code"), BROKEN.values(), ids=BROKEN)
async def test_what_is_wrong_is_refused_alone_and_among_others(sqlite_way: Way, body: bytes, code: str) -> None:
    answer = await sqlite_way.post(body)
    assert answer.status_code == (413 if code == "too_large" else 422)
    assert answer.json()["code"] == code
    assert answer.json()["pointer"] is not None
    fine = b'{"id":"before","type":"a","customer_id":"c"}', b'{"id":"after","type":"a","customer_id":"c"}'
    answer = await sqlite_way.post(b"[%b, %b,\n%b]" % (fine[0], body, fine[1]))
    assert answer.status_code == 207
    assert answer.json()["summary"] == {"accepted": 2, "rejected": 1, "unknown": 0}
    assert answer.json()["items"][1]["problem"]["code"] == code
    assert [fact.touchpoint.id for fact in await sqlite_way.facts(2)] == ["before", "after"]


MALFORMED = [
    b"",
    b" ",
    b"{",
    b'{"type":"a","customer_id":"c"}}',
    b'{"type":"a","customer_id":"c"',
    b"{'type':'a'}",
    b'{"type":"a","customer_id":"\xff"}',
    b'{"type":"a","customer_id":"\x00"}',
    b'\xef\xbb\xbf{"type":"a","customer_id":"c"}',
    '{"type":"a","customer_id":"c"}'.encode("utf-16"),
    b"[",
    b"[}",
    b'[{"type":"a","customer_id":"c"},]',
    b'[{"type":"a","customer_id":"c"}{"type":"a","customer_id":"c"}]',
    b'[{"type":"a","customer_id":"c"}] x',
    b'[{"type":"a","customer_id":"c"},{"type":]',
    b'[{"type":"a","customer_id":"c"},"',
]


@pytest.mark.parametrize("body", MALFORMED)
async def test_what_is_not_json_is_refused_whole(sqlite_way: Way, body: bytes) -> None:
    answer = await sqlite_way.post(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert await sqlite_way.facts(0) == []


@pytest.mark.parametrize(
    ("properties", "is_taken"),
    [
        ({"x": 2**63 - 1, "y": -(2**63), "z": 1e308, "tiny": 5e-324}, True),
        ({"card": "4111111111111111111111", "pi": 3.14159265358979323846, "text": "\\u0000 \\ud800"}, True),
        (json.loads('{"x":' * 31 + "1" + "}" * 31), True),
        (json.loads('{"x":' * 32 + "1" + "}" * 32), True),
        (json.loads('{"x":' * 33 + "1" + "}" * 33), False),
        ({"x": [[[[]]]] * 100}, True),
    ],
)
async def test_what_lies_within_the_limits_is_taken(
    sqlite_way: Way, properties: dict[str, Any], is_taken: bool
) -> None:
    answer = await sqlite_way.post({"type": "a", "customer_id": "c", "properties": properties})
    assert answer.status_code == (202 if is_taken else 422)
    for fact in await sqlite_way.facts(int(is_taken)):
        assert fact.touchpoint.properties == properties


async def test_null_counts_as_absent(sqlite_way: Way) -> None:
    fields = ("id", "anonymous_id", "occurred_at", "properties", "context", "muted")
    answer = await sqlite_way.post({"type": "a", "customer_id": "c", **dict.fromkeys(fields)})
    assert answer.status_code == 202
    (fact,) = await sqlite_way.facts(1)
    assert fact.touchpoint.occurred_at == fact.received_at
    assert fact.touchpoint.id == answer.json()["id"]
    assert fact.touchpoint.properties == fact.touchpoint.context == {}


async def test_the_clock_may_be_a_little_behind(sqlite_way: Way) -> None:
    for ahead, status in ((SKEW - 10_000_000, 202), (SKEW + 10_000_000, 422), (86_400_000_000, 422)):
        occurred_at = format_instant(clock() + ahead)
        answer = await sqlite_way.post({"type": "a", "customer_id": "c", "occurred_at": occurred_at})
        assert answer.status_code == status
        if status == 422:
            assert answer.json()["code"] == "in_the_future"
            assert answer.json()["pointer"] == "/occurred_at"


async def test_the_same_content_is_recognised_however_it_is_written(sqlite_way: Way) -> None:
    same = [
        b'{"type":"a","customer_id":"c","occurred_at":"2026-01-01T01:00:00.0000009+01:00","properties":{"x":1,"y":"%b"}}'
        % "é".encode(),
        b' {"properties":{"y":"\\u00e9", "x":1},"context":{},"customer_id":"c","type":"a",'
        b'"occurred_at":"2026-01-01T00:00:00Z"}',
        b'{"id":"other","muted":true,"type":"a","customer_id":"c","occurred_at":"2025-12-31T19:00:00-05:00",'
        b'"properties":{"x":1,"y":"%b"}}' % "é".encode(),
    ]
    other = [
        b'{"type":"a","customer_id":"c","properties":{"x":1,"y":"\xc3\xa9"}}',
        b'{"type":"a","anonymous_id":"c","occurred_at":"2026-01-01T00:00:00Z","properties":{"x":1,"y":"\xc3\xa9"}}',
        b'{"type":"a","customer_id":"c","occurred_at":"2026-01-01T00:00:00Z","context":{"x":1,"y":"\xc3\xa9"}}',
        b'{"type":"a","customer_id":"c","occurred_at":"2026-01-01T00:00:00Z","properties":{"x":1.5,"y":"\xc3\xa9"}}',
    ]
    for body in (*same, *other):
        assert (await sqlite_way.post(body)).status_code == 202
    contents = [fact.content for fact in await sqlite_way.facts(7)]
    assert len(set(contents[:3])) == 1
    assert len(set(contents[2:])) == 5
    assert all(len(content) == 16 for content in contents)


async def test_without_a_time_the_same_content_sent_twice_is_the_same(sqlite_way: Way) -> None:
    for _ in range(2):
        await sqlite_way.post({"id": "t", "type": "a", "customer_id": "c"})
        await asyncio.sleep(0.01)
    first, second = await sqlite_way.facts(2)
    assert first.content == second.content
    assert first.received_at < second.received_at


async def test_a_large_array_is_taken_and_a_larger_one_is_not(sqlite_way: Way) -> None:
    batch = [{"id": f"t{n}", "type": "a", "customer_id": f"c{n % 7}"} for n in range(10_001)]
    answer = await sqlite_way.post(batch[:-1])
    assert answer.status_code == 207
    assert answer.json()["summary"] == {"accepted": 10_000, "rejected": 0, "unknown": 0}
    answer = await sqlite_way.post(batch)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    answer = await sqlite_way.post([*batch, {"broken": True}])
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert len(await sqlite_way.facts(10_000)) == 10_000


async def test_no_touchpoints_are_no_error(sqlite_way: Way) -> None:
    answer = await sqlite_way.post([])
    assert (answer.status_code, answer.json()["summary"]) == (207, {"accepted": 0, "rejected": 0, "unknown": 0})


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_beyond_ten_mebibytes_is_refused(sqlite_way: Way, is_chunked: bool) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(20):
            read += 1
            yield b" " * 1024 * 1024

    headers = {"Content-Type": "application/json"} | ({} if is_chunked else {"Content-Length": "9999999999"})
    answer = await sqlite_way.app.client.post("/v1/touchpoints", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
async def test_another_media_type_is_refused(sqlite_way: Way, content_type: str) -> None:
    answer = await sqlite_way.post(PURCHASE, **{"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 202),
        ({"Content-Type": 'Application/JSON ; charset="UTF-8"'}, 202),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Encoding": "identity"}, 202),
        ({"Content-Encoding": "br"}, 415),
        ({"Content-Encoding": "gzip, gzip"}, 415),
    ],
)
async def test_what_the_headers_say_of_the_body_counts(sqlite_way: Way, headers: dict[str, str], status: int) -> None:
    assert (await sqlite_way.post(PURCHASE, **headers)).status_code == status


class Silent:
    """A log that answers as it is told to; the ways in which the real ones fall silent are in the log's own tests."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def start(self) -> None: ...

    async def append(self, records: Sequence[Record]) -> list[bool]:
        return list(self._answer(records))

    async def ready(self) -> bool:
        return False

    async def ends(self) -> dict[int, int]:
        return {}

    async def bounds(self) -> dict[int, tuple[int, int]]:
        return {}

    async def reached(self) -> dict[int, int]:
        return {}

    async def stop(self) -> None: ...


async def test_what_the_log_did_not_answer_is_told_as_unknown(installed_sqlite_url: str) -> None:
    database = Database(installed_sqlite_url)
    async with running(Silent(lambda records: [n % 2 == 0 for n in range(len(records))]), database) as app:
        answer = await app.client.post("/v1/touchpoints", json=[{**PURCHASE, "id": f"t{n}"} for n in range(4)])
        assert answer.status_code == 207
        assert answer.json()["summary"] == {"accepted": 2, "rejected": 0, "unknown": 2}
        assert [item["status"] for item in answer.json()["items"]] == ["accepted", "unknown"] * 2
    async with running(Silent(lambda records: [False] * len(records)), database) as app:
        for body in (PURCHASE, [PURCHASE, {"type": "broken"}]):
            answer = await app.client.post("/v1/touchpoints", json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
            assert answer.headers["retry-after"] == "1"
    await database.close()


async def test_a_log_that_is_out_of_reach_is_503_at_once(installed_sqlite_url: str) -> None:
    database = Database(installed_sqlite_url)
    appender = KafkaAppender(f"127.0.0.1:{free_port()}", "nowhere", partitions=1)
    async with running(appender, database) as app:
        began = time.perf_counter()
        for body in (PURCHASE, [PURCHASE] * 3):
            answer = await app.client.post("/v1/touchpoints", json=body)
            assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert time.perf_counter() - began < 5
        assert (await app.client.get("/livez")).status_code == 200
        ready = await app.client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["log"]) == (503, False)
        # What is wrong is still told.
        assert (await app.client.post("/v1/touchpoints", json={"type": "a"})).status_code == 422
    await database.close()


async def test_a_full_log_is_503(installed_sqlite_url: str) -> None:
    database = Database(installed_sqlite_url)

    def full(_: Sequence[Record]) -> list[bool]:
        raise LogUnavailableError("too many appends are waiting")

    async with running(Silent(full), database) as app:
        answer = await app.client.post("/v1/touchpoints", json=PURCHASE)
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    await database.close()


async def test_a_client_that_goes_away_leaves_nothing(sqlite_way: Way) -> None:
    messages: list[Any] = [
        {"type": "http.request", "body": b'{"type":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer a first key with every scope"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/touchpoints", "headers": headers, "query_string": b""}
    await sqlite_way.app.app({**scope, "root_path": "", "raw_path": b"/v1/touchpoints"}, receive, send)
    assert sent[0]["status"] == 400
    assert await sqlite_way.facts(0) == []
