"""The bodies that the way in reads: content encodings, lines of JSON, and what is only to be looked at."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import cramjam
import pytest

from tests.integration.apps import Way

ONE: dict[str, Any] = {"id": "t1", "type": "visit", "customer_id": "c"}
LINES = {"Content-Type": "application/x-ndjson"}
MEBIBYTE = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


def zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data))


def zstd_of_unknown_length(data: bytes) -> bytes:
    compressor = cramjam.zstd.Compressor()
    compressor.compress(data)
    return bytes(compressor.finish())


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZip", gzip.compress),
    ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:])),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("zstd", zstd_of_unknown_length),
    ("identity", bytes),
]


@pytest.mark.parametrize(("encoding", "encoder"), ENCODERS)
async def test_an_encoded_body_is_read(sqlite_way: Way, encoding: str, encoder: Callable[[bytes], bytes]) -> None:
    headers = {"Content-Encoding": encoding}
    answer = await sqlite_way.post(
        encoder(json.dumps({**ONE, "properties": {"n": list(range(999))}}).encode()), **headers
    )
    assert (answer.status_code, answer.json()) == (202, {"id": "t1", "status": "accepted"})
    answer = await sqlite_way.post(encoder(b'{"id":"t2","type":"a","customer_id":"c"}\n{'), **headers, **LINES)
    assert (answer.status_code, answer.json()["summary"]["accepted"]) == (207, 1)
    first, _ = await sqlite_way.facts(2)
    assert first.touchpoint.properties == {"n": list(range(999))}


@pytest.mark.parametrize(("encoding", "encoder"), ENCODERS)
async def test_no_more_is_inflated_than_is_allowed(
    sqlite_way: Way, encoding: str, encoder: Callable[[bytes], bytes]
) -> None:
    bomb = encoder(b" " * 100 * MEBIBYTE)
    tracemalloc.start()
    try:
        answer = await sqlite_way.post(bomb, **{"Content-Encoding": encoding})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert peak < 45 * MEBIBYTE
    # The wire has the same limit, also where what it stands for would be short.
    answer = await sqlite_way.post(b"\0" * 11 * MEBIBYTE, **{"Content-Encoding": encoding})
    assert answer.status_code == 413


@pytest.mark.parametrize(("encoding", "encoder"), ENCODERS[:-1])
async def test_what_is_not_so_encoded_is_refused(
    sqlite_way: Way, encoding: str, encoder: Callable[[bytes], bytes]
) -> None:
    fine = encoder(json.dumps(ONE).encode())
    for body in (b"", b"{", json.dumps(ONE).encode(), fine[:-2], fine[:9], fine + b"more"):
        answer = await sqlite_way.post(body, **{"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed"), body
    assert await sqlite_way.facts(0) == []


async def test_each_line_stands_for_itself(way: Way) -> None:
    lines = [
        json.dumps(ONE).encode(),
        b"",
        b"   \r",
        b'{"id":"t2","type":"visit"}',
        b"{",
        b'{"id":"t3","type":"a","customer_id":"c"} {"id":"t4","type":"a","customer_id":"c"}',
        b"17\r",
        b"\xff",
        json.dumps({**ONE, "id": "t5"}).encode() + b"\r",
    ]
    answer = await way.post(b"\n".join(lines), **LINES)
    assert answer.status_code == 207
    body = answer.json()
    assert body["summary"] == {"accepted": 2, "rejected": 5, "unknown": 0}
    found = [(item["index"], item["id"], item.get("problem", {}).get("code")) for item in body["items"]]
    assert found == [
        (0, "t1", None),
        (1, "t2", "no_customer"),
        (2, None, "malformed"),
        (3, None, "malformed"),
        (4, None, "wrong_type"),
        (5, None, "malformed"),
        (6, "t5", None),
    ]
    assert [item["problem"]["status"] for item in body["items"] if "problem" in item] == [422, 400, 400, 422, 400]
    assert {fact.touchpoint.id for fact in await way.facts(2)} == {"t1", "t5"}


@pytest.mark.parametrize("body", [b"", b"\n\n \r\n"])
async def test_no_lines_are_no_error(sqlite_way: Way, body: bytes) -> None:
    answer = await sqlite_way.post(body, **LINES)
    assert (answer.status_code, answer.json()["summary"]) == (207, {"accepted": 0, "rejected": 0, "unknown": 0})


@pytest.mark.parametrize("last", [b"", b"{"])
async def test_ten_thousand_lines_are_taken_and_more_are_not(sqlite_way: Way, last: bytes) -> None:
    lines = [b'{"id":"t%d","type":"a","customer_id":"c%d"}' % (n, n % 7) for n in range(10_000)]
    answer = await sqlite_way.post(b"\n".join([*lines[:-1], last or lines[-1], b""]), **LINES)
    assert answer.json()["summary"]["accepted"] == (10_000 if not last else 9_999)
    answer = await sqlite_way.post(b"\n".join([*lines, last or b"1"]), **LINES)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_line_that_is_too_long_is_not_even_decoded(sqlite_way: Way) -> None:
    huge = b'{"id":"t2","type":"a","customer_id":"c","properties":{"x":[' + b"[]," * 3 * MEBIBYTE + b"1]}}"
    answer = await sqlite_way.post(b"\n".join([json.dumps(ONE).encode(), huge]), **LINES)
    assert answer.json()["summary"] == {"accepted": 1, "rejected": 1, "unknown": 0}
    assert answer.json()["items"][1]["problem"]["code"] == "too_large"


async def test_validation_answers_like_the_way_in_and_takes_nothing(way: Way) -> None:
    future = "9999-12-31T23:59:59Z"
    batch = [ONE, {"type": "a"}, {"type": "a", "customer_id": "c"}, 1, {**ONE, "occurred_at": future}]
    validated = await way.post(batch, "/v1/touchpoints/validate")
    assert validated.status_code == 200
    assert validated.json()["summary"] == {"accepted": 2, "rejected": 3, "unknown": 0}
    assert validated.json()["items"][2] == {"index": 2, "id": None, "status": "accepted"}
    lines = "\n".join(map(json.dumps, batch)).encode()
    assert (await way.post(lines, "/v1/touchpoints/validate", **LINES)).json() == validated.json()
    assert await way.facts(0) == []
    posted = (await way.post(batch)).json()
    posted["items"][2]["id"] = None
    assert posted == validated.json()
    for body in ({"type": "a"}, ONE):
        answer = await way.post(body, "/v1/touchpoints/validate")
        assert (answer.status_code, len(answer.json()["items"])) == (200, 1)
    assert (await way.post(b"[", "/v1/touchpoints/validate")).status_code == 400
    assert len(await way.facts(2)) == 2


async def test_no_body_is_read_before_it_is_known_who_asks(sqlite_way: Way) -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{"

    for path in ("/v1/touchpoints", "/v1/touchpoints/validate"):
        headers = {"Authorization": "Bearer nobody", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = await sqlite_way.app.client.post(path, content=chunks(), headers=headers)
        assert answer.status_code == 401
    assert read == 0
