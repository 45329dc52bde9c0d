"""What is wrong with CloudEvents, and with the calls of Segment's tracking API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.bad_input.requests import Case, post, text
from tests.processes import API_KEY

EVENTS = "/v1/events"
STRUCTURED = b"application/cloudevents+json"
BATCHED = b"application/cloudevents-batch+json"
EVENT = {"specversion": "1.0", "id": "e", "source": "/s", "type": "a", "subject": "c"}
CALLS: Mapping[str, dict[str, Any]] = {
    "track": {"event": "Order Completed"},
    "page": {},
    "screen": {},
    "identify": {},
    "group": {"groupId": "g"},
    "alias": {"previousId": "p"},
}
ODD_NUMBERS = {
    "1e400": b"1e400",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "300 digits": b"9" * 300,
    "5,000 digits": b"9" * 5000,
    "5,000 digits below zero": b"-" + b"9" * 5000,
    "NaN": b"NaN",
    "-Infinity": b"-Infinity",
}
ODD_TIMES = (
    "yesterday", "", "-infinity", "2026-01-01", "2026-01-01T00:00:00", "0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z",
    "300000-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
)  # fmt: skip


def event(**fields: bytes) -> bytes:
    """An event as JSON; each value that is given is JSON already."""
    whole = {name: json.dumps(value).encode() for name, value in EVENT.items()} | fields
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in whole.items() if value)


def _wrong_events() -> Iterator[tuple[str, bytes, str]]:
    for name in ("specversion", "id", "source", "type"):
        yield f"without {name}", event(**{name: b""}), "missing_field"
        yield f"with {name} null", event(**{name: b"null"}), "missing_field"
        yield f"with an empty {name}", event(**{name: b'""'}), "wrong_length"
        yield f"with a number for {name}", event(**{name: b"1"}), "wrong_type"
        yield f"with a list for {name}", event(**{name: b"[]"}), "wrong_type"
    yield "of version 0.3", event(specversion=b'"0.3"'), "unsupported_version"
    yield "about nobody", event(subject=b""), "no_customer"
    for name in ("id", "source", "type"):
        yield f"with a long {name}", event(**{name: text(129)}), "wrong_length"
        yield f"with a control character in {name}", event(**{name: rb'"a\u001b[2J"'}), "control_character"
    yield "with a long subject", event(subject=text(257)), "wrong_length"
    yield "with a line break in its subject", event(subject=rb'"a\r\nb"'), "control_character"
    yield "with NUL in its customerid", event(customerid=rb'"\u0000"'), "control_character"
    for name in ("source", "id", "subject", "ext", "data"):
        yield f"with a lone surrogate in {name}", event(**{name: rb'"\ud800"'}), "invalid_character"
    yield "of a reserved type", event(type=b'"$merge"'), "reserved_type"
    for value in ODD_TIMES:
        code = "wrong_length" if not value else "invalid_time"
        yield f"with the time {value!r}", event(time=json.dumps(value).encode()), code
    yield "at the end of time", event(time=b'"9999-12-31T23:59:59Z"'), "in_the_future"
    yield "with a number for a time", event(time=b"1767225600"), "wrong_type"
    for name, number in ODD_NUMBERS.items():
        yield f"with {name} in its data", event(data=b'{"x":%b}' % number), "number_out_of_range"
        if name not in ("2^63", "2^64", "300 digits"):  # each attribute is a text in the end
            yield f"with {name} as an extension", event(ext=number), "number_out_of_range"
    yield "with a fraction as an extension", event(ext=b"1.5"), "wrong_type"
    yield "with an object as an extension", event(ext=b"{}"), "wrong_type"
    yield "with capitals in a name", event(Ext=b'"x"'), "unknown_field"
    yield "with a name of terminals", event(**{r"\u001b[2J": b'"x"'}), "unknown_field"
    yield "with a name of 100 KB", event(**{"x" * 100_000: b'"x"'}), "unknown_field"
    yield "with NUL in its data", event(data=rb'"\u0000"'), "invalid_character"
    yield "with deep data", event(data=b"[" * 5000 + b"]" * 5000), "too_deep"
    yield "with data of 20,000 levels", event(data=b'{"x":' * 20_000 + b"1" + b"}" * 20_000), "too_deep"
    yield "with 300 KB of data", event(data=text(300 * 1024)), "too_large"
    yield "with data twice", event(data=b"1", data_base64=b'"AAAA"'), "unknown_field"
    yield "with a number for Base64", event(data_base64=b"1"), "wrong_type"
    yield "with broken Base64", event(data_base64=b'"A"'), "wrong_type"
    yield "with Base64 of broken JSON", event(data_base64=b'"' + base64.b64encode(b"{") + b'"'), "malformed"
    yield "with Base64 of NaN", event(data_base64=b'"' + base64.b64encode(b'{"x":NaN}') + b'"'), "number_out_of_range"
    yield "that is null", b"null", "wrong_type"
    yield "that is a number", b"1", "wrong_type"


def _events() -> Iterator[Case]:
    for name, raw, code in _wrong_events():
        status = {"malformed": 400, "too_large": 413}.get(code, 422)
        yield Case(f"an event {name}", post(EVENTS, raw, media_type=STRUCTURED), status, code)
        if "Base64 of" not in name:
            yield Case(f"a batch with an event {name}", post(EVENTS, b"[%b]" % raw, media_type=BATCHED), 207, code)
    for name, body in {
        "nothing": b"",
        "a brace": b"{",
        "UTF-16": event().decode().encode("utf-16"),
        "Latin-1": event(subject=b'"\xe9"'),
        "a byte order mark": b"\xef\xbb\xbf" + event(),
    }.items():
        yield Case(f"{name} for an event", post(EVENTS, body, media_type=STRUCTURED), 400, "malformed")
        if body[:1] != b"{":
            yield Case(f"{name} for a batch", post(EVENTS, body, media_type=BATCHED), 400, "malformed")
    yield Case("an event for a batch", post(EVENTS, event(), media_type=BATCHED), 422, "wrong_type")
    yield Case("a batch for an event", post(EVENTS, b"[%b]" % event(), media_type=STRUCTURED), 422, "wrong_type")
    yield Case(
        "5 MB of [[], as a batch",
        post(EVENTS, b"[" + b"[]," * 1_700_000 + b"[]]", media_type=BATCHED),
        413,
        "too_large",
    )
    for name, item in {"objects": b"{}", "numbers": b"1", "texts": b'""'}.items():
        yield Case(
            f"9 MB of {name} as a batch",
            lambda item=item: post(EVENTS, b"[" + (item + b",") * (9_000_000 // len(item)) + b"1]", media_type=BATCHED),  # type: ignore[misc]
            413,
            "too_large",
        )
    yield Case("10,001 events", post(EVENTS, b"[" + b"{}," * 10_000 + b"{}]", media_type=BATCHED), 413, "too_large")
    unsupported = "unsupported_media_type"
    yield Case("an event in XML", post(EVENTS, event(), media_type=b"application/cloudevents+xml"), 415, unsupported)
    yield Case(
        "an event in UTF-16", post(EVENTS, event(), media_type=STRUCTURED + b"; charset=utf-16"), 415, unsupported
    )
    yield Case("JSON for an event", post(EVENTS, event()), 415, unsupported)
    yield Case("an event without a key", post(EVENTS, event(), media_type=STRUCTURED, key=None), 401, "key_missing")
    binary = {b"ce-" + name.encode(): value.encode() for name, value in EVENT.items()}
    for name, changed, body, status, code in (
        ("without an id", {b"ce-id": None}, b"{}", 422, "missing_field"),
        ("with an empty id", {b"ce-id": b""}, b"{}", 422, "wrong_length"),
        ("with an id of NUL", {b"ce-id": b"%00"}, b"{}", 422, "control_character"),
        ("with an id of a line break", {b"ce-id": b"a%0d%0ab"}, b"{}", 422, "control_character"),
        ("with an id that is not UTF-8", {b"ce-id": b"%ff"}, b"{}", 400, "malformed"),
        ("with a subject that is overlong", {b"ce-subject": b"%c0%af"}, b"{}", 400, "malformed"),
        ("with a surrogate", {b"ce-subject": b"%ed%a0%80"}, b"{}", 400, "malformed"),
        ("with a long subject", {b"ce-subject": b"x" * 257}, b"{}", 422, "wrong_length"),
        ("with data in a header", {b"ce-data": b"x"}, b"{}", 422, "unknown_field"),
        ("with a media type in a header", {b"ce-datacontenttype": b"x"}, b"{}", 422, "repeated_attribute"),
        ("with an underscore in a name", {b"ce-a_b": b"x"}, b"{}", 422, "unknown_field"),
        ("with broken data", {}, b"{", 400, "malformed"),
        ("with NaN for data", {}, b"NaN", 422, "number_out_of_range"),
        ("with 5,000 digits for data", {}, b"9" * 5000, 422, "number_out_of_range"),
        ("with deep data", {}, b"[" * 5000 + b"]" * 5000, 422, "too_deep"),
        ("with 300 KB of data", {}, text(300 * 1024), 413, "too_large"),
        ("with a wrong time", {b"ce-time": b"now"}, b"{}", 422, "invalid_time"),
    ):  # fmt: skip
        headers = [(key, value) for key, value in {**binary, **changed}.items() if value is not None]
        yield Case(f"an event in headers {name}", post(EVENTS, body, headers=headers), status, code)
    twice = [*binary.items(), (b"ce-id", b"other")]
    yield Case("an event in headers with two ids", post(EVENTS, b"{}", headers=twice), 422, "repeated_attribute")


def call(kind: str, **fields: bytes) -> bytes:
    """A call of Segment's as JSON; each value that is given is JSON already."""
    whole: dict[str, Any] = {"type": kind, "userId": "c", "messageId": "m", **CALLS[kind]}
    written = {name: json.dumps(value).encode() for name, value in whole.items()} | fields
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in written.items() if value)


def _wrong_calls(kind: str) -> Iterator[tuple[str, bytes, str]]:
    yield "about nobody", call(kind, userId=b""), "missing_field" if kind == "alias" else "no_customer"
    yield "about nobody, in quotes", call(kind, userId=b'""'), "missing_field" if kind == "alias" else "no_customer"
    for name in ("userId", "anonymousId") if kind != "alias" else ("userId", "previousId"):
        yield f"with a long {name}", call(kind, **{name: text(257)}), "wrong_length"
        yield f"with a control character in {name}", call(kind, **{name: rb'"a\r\nb"'}), "control_character"
        yield f"with NUL in {name}", call(kind, **{name: rb'"\u0000"'}), "control_character"
        yield f"with a lone surrogate in {name}", call(kind, **{name: rb'"\ud800"'}), "invalid_character"
        yield f"with a truth value for {name}", call(kind, **{name: b"true"}), "wrong_type"
        yield f"with a fraction for {name}", call(kind, **{name: b"1.5"}), "wrong_type"
        for number, code in (
            ("2^63", "wrong_type"),
            ("300 digits", "wrong_type"),
            ("5,000 digits", "number_out_of_range"),
            ("1e400", "number_out_of_range"),
        ):
            yield f"with {number} for {name}", call(kind, **{name: ODD_NUMBERS[number]}), code
    yield "with a long messageId", call(kind, messageId=text(129)), "wrong_length"
    yield "with a control character in messageId", call(kind, messageId=rb'"\u001b"'), "control_character"
    yield "with a number for messageId", call(kind, messageId=b"1"), "wrong_type"
    for value in ODD_TIMES[:1] + ODD_TIMES[2:]:
        if value:
            yield f"with the timestamp {value!r}", call(kind, timestamp=json.dumps(value).encode()), "invalid_time"
    yield "at the end of time", call(kind, timestamp=b'"9999-12-31T23:59:59Z"'), "in_the_future"
    for name, timestamp, sent, code in (
        ("sent long before it happened", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "invalid_time"),
        ("sent long after it happened", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "invalid_time"),
        ("sent a day before it happened", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "in_the_future"),
    ):
        fields = {"timestamp": json.dumps(timestamp).encode(), "sentAt": json.dumps(sent).encode()}
        yield name, call(kind, **fields), code
    yield "with a wrong sentAt", call(kind, timestamp=b'"2026-01-01T00:00:00Z"', sentAt=b'"now"'), "invalid_time"
    for name in ("properties", "traits", "context", "integrations"):
        for other in (b"[]", b'"x"', b"1"):
            yield f"with {other.decode()} for {name}", call(kind, **{name: other}), "wrong_type"
    for name, odd, code in (
        ("NUL", rb'{"x":"\u0000"}', "invalid_character"),
        ("a lone surrogate", rb'{"x":"\ud800"}', "invalid_character"),
        ("40 levels", b'{"x":' * 40 + b"1" + b"}" * 40, "too_deep"),
        *((number, b'{"x":%b}' % raw, "number_out_of_range") for number, raw in ODD_NUMBERS.items()),
    ):
        yield f"with {name} in its context", call(kind, context=odd), code


def _calls() -> Iterator[Case]:
    for kind in CALLS:
        # All go the same way but for what they mean.
        for name, raw, code in list(_wrong_calls(kind))[:: 1 if kind == "track" else 7]:
            yield Case(f"{kind} {name}", post(f"/v1/{kind}", raw), 200, code)
            yield Case(f"a batch with {kind} {name}", post("/v1/batch", b'{"batch":[%b]}' % raw), 200, code)
        for name, body, status, code in (
            ("nothing", b"", 400, "malformed"),
            ("a brace", b"{", 400, "malformed"),
            ("UTF-16", call(kind).decode().encode("utf-16"), 400, "malformed"),
            ("Latin-1", call(kind, userId=b'"\xe9"'), 400, "malformed"),
            ("33 KB", call(kind, context=b'{"x":%b}' % text(33 * 1024)), 400, "too_large"),
            ("a list", b"[]", 200, "wrong_type"),
            ("30,000 brackets", b"[" * 30_000, 200, "wrong_type"),
        ):
            yield Case(f"{name} for {kind}", post(f"/v1/{kind}", body), status, code)
        yield Case(
            f"{kind} as text", post(f"/v1/{kind}", call(kind), media_type=b"text/plain"), 415, "unsupported_media_type"
        )
        yield Case(f"{kind} without a key", post(f"/v1/{kind}", call(kind), key=None), 401, "key_missing")
    yield Case("track without an event", post("/v1/track", call("track", event=b"")), 200, "missing_field")
    yield Case("track of a reserved event", post("/v1/track", call("track", event=b'"$merge"')), 200, "reserved_type")
    yield Case("track of a long event", post("/v1/track", call("track", event=text(129))), 200, "wrong_length")
    yield Case(
        "track of an event with an escape",
        post("/v1/track", call("track", event=rb'"\u001b[2J"')),
        200,
        "control_character",
    )
    yield Case("group without a group", post("/v1/group", call("group", groupId=b"")), 200, "missing_field")
    yield Case("alias without what was before", post("/v1/alias", call("alias", previousId=b"")), 200, "missing_field")
    for name, body, code in (
        ("no batch", b"{}", "missing_field"),
        ("a batch that is null", b'{"batch":null}', "wrong_type"),
        ("a batch that is an object", b'{"batch":{}}', "wrong_type"),
        ("a list for a batch", b"[]", "wrong_type"),
        ("nothing for a batch of calls", b"", "malformed"),
        ("a broken batch", b'{"batch":[', "malformed"),
        ("501 KB for a batch", b'{"batch":[%b]}' % text(501 * 1024), "too_large"),
        ("a batch of brackets", b'{"batch":[' + b"[" * 100_000, "too_deep"),
        ("a batch of 100,000 brackets", b'{"batch":[' + b"[]," * 100_000 + b"[]]}", "too_large"),
        ("a batch of 200,000 digits", b'{"batch":[' + b"1," * 200_000 + b"1]}", "too_large"),
        (
            "a batch with NaN in its context",
            b'{"context":{"x":NaN},"batch":[%b]}' % call("track"),
            "number_out_of_range",
        ),
        ("a batch of NaN with a wrong context", b'{"context":{"x":NaN},"batch":[NaN]}', "number_out_of_range"),
        ("a batch of nested brackets", b'{"batch":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "too_deep"),
    ):
        yield Case(name, post("/v1/batch", body), 400, code)
    for name, body, code in (
        ("a batch of numbers", b'{"batch":[1]}', "wrong_type"),
        ("a batch of no type", b'{"batch":[{"userId":"c"}]}', "unknown_type"),
        ("a batch of an unknown type", b'{"batch":[{"userId":"c","type":"delete"}]}', "unknown_type"),
        ("a batch of a long type", b'{"batch":[{"userId":"c","type":%b}]}' % text(30_000), "unknown_type"),
        ("a batch with a call of 33 KB", b'{"batch":[%b]}' % text(33 * 1024), "too_large"),
        (
            "a batch with a wrong context",
            b'{"context":{"x":"\\u0000"},"batch":[%b]}' % call("track"),
            "invalid_character",
        ),
    ):
        yield Case(name, post("/v1/batch", body), 200, code)
    strict = [(b"X-Strict-Mode", b"1")]
    mixed = b'{"batch":[%b,{"type":"track"}]}' % call("track")
    yield Case("one bad call among good ones, strictly", post("/v1/batch", mixed, headers=strict), 400, "missing_field")
    for name, value, code in (
        ("rubbish", b"Basic ***", "key_unknown"),
        ("nothing", b"Basic ", "key_missing"),
        ("no text", b"Basic " + base64.b64encode(b"\xff\xfe:"), "key_unknown"),
        ("another key", b"Basic " + base64.b64encode(b"nobody:"), "key_unknown"),
        ("a password", b"Basic " + base64.b64encode(b":" + API_KEY.encode()), "key_missing"),
        ("20 KB", b"Basic " + base64.b64encode(b"x" * 20_000), "key_unknown"),
    ):
        sent = post("/v1/track", call("track"), key=None, headers=[(b"Authorization", value)])
        yield Case(f"Basic with {name}", sent, 401, code)
    for name, value, status, code in (
        ("nobody", b'"nobody"', 401, "key_unknown"),
        ("NUL", rb'"\u0000"', 401, "key_unknown"),
        ("a surrogate", rb'"\ud800"', 401, "key_missing"),
        ("1", b"1", 401, "key_missing"),
    ):
        sent = post("/v1/track", call("track", writeKey=value), key=None)
        yield Case(f"a writeKey that is {name}", sent, status, code)


CASES = [*_events(), *_calls()]
