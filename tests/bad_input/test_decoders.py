"""Whatever bytes come, a decoder gives a value or one of the errors that it declares, and soon.

And what the way in takes, the worker's decoder takes too, with the same values.

`LIFECYCLE_TEST_DECODER_MINUTES=10` (`make verify-decoders`) goes on for so long, over all of them together.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle_engine.api.cursors import decode_cursor, encode_cursor
from lifecycle_engine.api.door import idempotency
from lifecycle_engine.api.door.encodings import ENCODINGS, TooLongError, inflate
from lifecycle_engine.api.door.negotiation import languages, media_type
from lifecycle_engine.api.problems import ProblemError
from lifecycle_engine.api.touchpoints.progress import MAX_WAIT, preferred_wait
from lifecycle_engine.catalog.documents import DocumentError, read_document
from lifecycle_engine.ingest.formats import cloudevents, tracking
from lifecycle_engine.ingest.formats.arrays import BrokenArrayError, read_array, split_array
from lifecycle_engine.ingest.formats.arrivals import Arrival
from lifecycle_engine.ingest.formats.event_types import default_event_types
from lifecycle_engine.ingest.formats.lines import read_lines
from lifecycle_engine.ingest.intake import Intake, Status
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.checks import review
from lifecycle_engine.lifecycle.durations import format_duration, parse_duration
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.lifecycle.touchpoints import Place
from lifecycle_engine.log.message import InvalidMessageError, check_json, decode, decode_body, read_submission
from lifecycle_engine.log.port import Record
from tests.bad_input.client_cases import CALLS, EVENT
from tests.bad_input.client_cases import CASES as CLIENT_CASES
from tests.bad_input.format_cases import CASES as FORMAT_CASES
from tests.bad_input.touchpoint_cases import MALFORMED, WRONG

MINUTES = float(os.environ.get("LIFECYCLE_TEST_DECODER_MINUTES", "0"))
LONGEST = 2.0
"""Seconds of the processor that any of them may take for the few kilobytes that are tried here."""
NOW = parse_instant("2026-03-01T12:30:00Z")
TYPES = default_event_types()
_Result = TypeVar("_Result")


class Kept:
    """An appender that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def append(self, records: Sequence[Record]) -> list[bool]:
        self.records += records
        return [True] * len(records)


def done(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of what waits for nothing, or for a thread."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _Result = stop.value
        return result
    coroutine.close()
    raise AssertionError("waited")


def taken(arrivals: Sequence[Arrival]) -> None:
    """Puts what was read through the way in, and what that appends through the worker's decoder."""
    kept = Kept()
    intake = Intake(kept, lambda: NOW, 300_000_000)  # type: ignore[arg-type]
    items = done(intake.take(arrivals, "fuzz"))
    accepted = [item for item in items if item.status is Status.ACCEPTED]
    assert len(items) == len(arrivals)
    assert len(accepted) == len(kept.records)
    for item in items:
        if item.error is not None:
            told(item.error)
    for item, record in zip(accepted, kept.records, strict=True):
        record.key.decode()
        sent = json.loads(record.value)
        check_json(record.value)
        fact = decode(record.value)
        touchpoint = fact.touchpoint
        assert touchpoint.id == item.id == sent["id"]
        for name in ("type", "customer_id", "anonymous_id", "source"):
            assert getattr(touchpoint, name) == sent.get(name)
        assert touchpoint.properties == sent.get("properties", {})
        assert touchpoint.context == sent.get("context", {})
        assert decode_body(fact.body) == (touchpoint.properties, touchpoint.context)
        if "occurred_at" in sent and "corrected_at" not in sent:
            assert touchpoint.occurred_at == parse_instant(sent["occurred_at"])
        storable(touchpoint)
        format_instant(touchpoint.occurred_at)


def storable(touchpoint: Any) -> None:
    """What PostgreSQL refuses in a text, or in a bigint."""
    for text in (touchpoint.id, touchpoint.type, touchpoint.source, touchpoint.customer_id, touchpoint.anonymous_id):
        assert text is None or (0 < len(text) <= 256 and "\0" not in text and text.encode())
    assert -(2**63) <= touchpoint.occurred_at < 2**63
    waiting: list[tuple[Any, int]] = [(touchpoint.properties, 1), (touchpoint.context, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
        if isinstance(value, dict | list):
            assert depth <= 32
        elif isinstance(value, str):
            assert "\0" not in value
            value.encode()
        elif isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, int):
            assert -(2**63) <= value < 2**63


def told(error: InvalidMessageError) -> None:
    """An error can be written, stored and shown."""
    for text in (error.code, error.detail, error.pointer):
        assert "\0" not in text
        text.encode()


def _messages(raw: bytes) -> None:
    decode(raw)


def _submission(raw: bytes) -> None:
    taken([read_submission(raw)])


def _split(raw: bytes) -> None:
    for part in split_array(b"[" + raw):
        assert part in raw


def _array(raw: bytes) -> None:
    taken(done(read_array(b"[" + raw)))


def _lines(raw: bytes) -> None:
    taken(done(read_lines(raw)))


def _event(raw: bytes) -> None:
    taken([cloudevents.read_structured(raw, TYPES)])


def _events(raw: bytes) -> None:
    taken(done(cloudevents.read_batch(raw, TYPES)))


def _binary_event(raw: bytes) -> None:
    head, _, body = raw.partition(b"\n\n")
    lines = [line.partition(b":") for line in head.split(b"\n")]
    taken([cloudevents.read_binary([(name.lower(), value) for name, _, value in lines], body, TYPES)])


def _call(raw: bytes) -> None:
    for kind in CALLS:
        taken([tracking.read_call(kind, raw, TYPES)])
    tracking.write_key(raw)


def _batch(raw: bytes) -> None:
    taken(tracking.read_batch(raw, TYPES))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _cursor(raw: bytes) -> None:
    for position in (Place, tuple[str], tuple[int, int, int]):
        # As its question would have it, since a digest is hardly hit by chance.
        for data in (raw, encode_cursor(("q",), ()).encode()[:10] + raw):
            decode_cursor(data.decode("latin-1"), ("q",), position)


def _duration(raw: bytes) -> None:
    duration = parse_duration(_text(raw))
    assert parse_duration(format_duration(duration)) == duration


def _instant(raw: bytes) -> None:
    instant = parse_instant(_text(raw))
    assert parse_instant(format_instant(instant)) == instant


def _document(raw: bytes) -> None:
    for kind in ("application/yaml", "application/json"):
        try:
            document = read_document(raw, kind)
        except DocumentError:
            continue
        _, errors, warnings = review(document.data, Cel())
        for finding in (*errors, *warnings):
            document.locate(finding.pointer)
            json.dumps(finding).encode()


def _inflated(raw: bytes) -> None:
    for encoding in ENCODINGS:
        try:
            assert len(inflate(encoding, raw, 10_000)) <= 10_000
        except (ValueError, TooLongError):
            pass


def _headers(raw: bytes) -> None:
    assert (preferred_wait([(b"prefer", raw)]) or 1) in range(1, MAX_WAIT + 1)
    text = raw.decode("latin-1")
    languages(text)
    media_type(text, ("image/svg+xml", "text/plain"))
    key = idempotency._parsed([text])
    assert 1 <= len(key) <= 255


class Target(NamedTuple):
    """A decoder, put to what begins as these; and the errors that it declares."""

    decoder: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    seeds: Sequence[bytes]


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _bodies(requests: Iterable[bytes]) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in requests]


WHOLE = {
    "id": "t", "type": "purchase", "customer_id": "c", "anonymous_id": "a", "muted": True,
    "occurred_at": "2026-03-01T12:00:00.5+01:00",
    "properties": {"x": 49.9, "nul": "\\u0000", "n": -(2**63), "t": 'é\n"\u2028', "l": [[{"a": None}], True, 1e308]},
    "context": {"channel": "web"},
}  # fmt: skip
TOUCHPOINTS = [
    _encoded(WHOLE),
    _encoded(WHOLE).replace(b"\\\\u0000", b"\\u0000"),
    *(raw for _, raw, _ in WRONG if len(raw) < 5000),
    *(raw for raw in MALFORMED.values() if len(raw) < 5000),
]
CLIENT_BODIES = [body for body in _bodies(c.request for c in CLIENT_CASES if isinstance(c.request, bytes)) if body]
SMALL = [body for body in CLIENT_BODIES if len(body) < 5000]
EVENTS = [_encoded(EVENT | {"data": {"x": 1}, "time": "2026-03-01T12:00:00Z", "ext": 7}), *SMALL]
BINARY = b"".join(b"ce-%b:%b\n" % (name.encode(), value.encode()) for name, value in EVENT.items())
CALL_SEEDS = [
    _encoded(
        {"userId": "c", "messageId": "m", "sentAt": "2026-03-01T12:00:00Z", "timestamp": "2026-03-01T11:00:00Z", **v}
    )
    for v in CALLS.values()
]
DEFINITION = b"""lifecycle: retail
initial: a
per: properties.line
stages: [{key: a, label: {en: A, nl: B}}, {key: b, requires: ["measures.n >= 2"]}]
measures: {n: {count: buy}, s: {sum: properties.x, of: buy, within: 365d}}
rules:
  - {on: [buy, sell], from: [a], when: ["event.properties.x > 1.5 && traits.y == 'z'"], to: b, reenter: true}
  - {after: 180d, without: buy, from: [b], to: a, warn: 14d}
moves: {a: [b], b: [a]}
"""
GZIPPED = _bodies(c.request for c in FORMAT_CASES if isinstance(c.request, bytes) and b"Content-Encoding" in c.request)
TARGETS = {
    "message": Target(
        _messages,
        (InvalidMessageError,),
        [_encoded(WHOLE | {"source": "s", "received_at": "2026-03-01T12:30:00Z"}), *TOUCHPOINTS],
    ),
    "touchpoint": Target(_submission, (InvalidMessageError,), TOUCHPOINTS),
    "array taken apart": Target(_split, (BrokenArrayError,), [raw + b"," + raw + b"]" for raw in TOUCHPOINTS]),
    "array": Target(_array, (InvalidMessageError,), [raw + b"," + raw + b"]" for raw in TOUCHPOINTS]),
    "lines": Target(_lines, (InvalidMessageError,), [raw + b"\n" + raw for raw in TOUCHPOINTS]),
    "event": Target(_event, (), EVENTS),
    "events": Target(_events, (InvalidMessageError,), [b"[" + raw + b"," + raw + b"]" for raw in EVENTS]),
    "event in headers": Target(_binary_event, (), [BINARY + b"content-type:application/json\n\n{}", BINARY]),
    "call": Target(_call, (InvalidMessageError,), [*CALL_SEEDS, *SMALL]),
    "batch": Target(
        _batch,
        (InvalidMessageError,),
        [b'{"batch":[' + raw + b"," + raw + b'],"context":{"x":1}}' for raw in CALL_SEEDS] + SMALL,
    ),
    "cursor": Target(_cursor, (ProblemError,), [encode_cursor(("q",), (1, "a", "b")).encode(), b"AAAA", b"kwEBAQ"]),
    "duration": Target(_duration, (ValueError,), [b"14d", b"P1DT6H", b"36500d", b"1mo", b"P1Y", b"1s"]),
    "instant": Target(_instant, (ValueError,), [b"2026-03-01T12:30:00.123456789+01:00", b"0001-01-01T00:00:00Z"]),
    "definition": Target(_document, (), [DEFINITION, _encoded({"lifecycle": "x", "stages": [{"key": "a"}]})]),
    "encodings": Target(
        _inflated,
        (),
        [
            *GZIPPED,
            gzip.compress(b"x" * 20_000),
            b"x" * 11_000,
            zlib.compress(b"y"),
            b"\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00a",
        ],
    ),
    "headers": Target(_headers, (ProblemError,), [b"wait=5", b'"key"', b"nl-BE, nl;q=0.9", b"text/*;q=0.1, */*"]),
}
TOKENS = [
    b"null", b"true", b"-1", b"1e400", b"NaN", b"9" * 400, b"9223372036854775808", b"-9223372036854775809", b"-0", b'"',
    b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"\\u2028", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b"\n", b"\r\n",
    b"\x1b[2J", b"[", b"]", b"{", b"}", b",", b":", b"[" * 40, b"[" * 3000, b'{"a":' * 1500, b"$", b"$merge", b"%00",
    b"%ff", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00Z", b"x" * 300, b"\xf0\x9f\x98\x80" * 130, b'""', b"&a [*a]",
    b"!!python/object", b"? ", b"- ", b": ", b"365d", b"1e-400", b"\xe2\x80\xa8", b"1.5", b"0" * 30,
]  # fmt: skip


@st.composite
def altered(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed with a few of its bytes taken out, doubled, replaced, or swapped for those of another."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 12)))
        how = draw(st.integers(0, 4))
        if how == 0:
            data = data[:at] + data[to:]
        elif how == 1:
            data = data[:to] + data[at:]
        elif how == 2:
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[to:]
        elif how == 3:
            data = data[:at] + draw(st.binary(max_size=4)) + data[to:]
        else:
            data = data[:at] + draw(st.sampled_from(seeds))[at:]
    return data[:20_000]


@pytest.mark.parametrize("name", TARGETS)
def test_only_declared_errors_escape(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=300 if MINUTES else 120, database=None, suppress_health_check=list(HealthCheck))
    @given(altered([*target.seeds, b""]))
    def holds(raw: bytes) -> None:
        put(target, raw)

    for seed in target.seeds:
        put(target, seed)
    end = time.monotonic() + MINUTES * 60 / len(TARGETS)
    holds()
    while time.monotonic() < end:
        holds()


def put(target: Target, raw: bytes) -> None:
    began = time.thread_time()
    try:
        target.decoder(raw)
    except target.errors as error:
        if isinstance(error, InvalidMessageError):
            told(error)
    assert time.thread_time() - began < LONGEST
