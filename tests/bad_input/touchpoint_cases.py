"""What is wrong with one touchpoint, and with bodies that should hold some."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tests.bad_input.requests import ONE, Case, chunk, chunked, post, text, touchpoint

DEEP = 20_000


def _times() -> Iterator[tuple[str, bytes, str]]:
    for name, value in {
        "without an offset": "2026-01-01T00:00:00",
        "a date": "2026-01-01",
        "a time": "12:30:00Z",
        "nothing": "",
        "a word": "yesterday",
        "now": "now",
        "infinity": "infinity",
        "minus infinity": "-infinity",
        "minus infinity with its sign": "\u2212infinity",
        "NaN": "NaN",
        "epoch seconds": "1767225600",
        "the year 0": "0000-01-01T00:00:00Z",
        "the year 300000": "300000-01-01T00:00:00Z",
        "a signed year": "+300000-01-01T00:00:00Z",
        "a year before Christ": "-0001-01-01T00:00:00Z",
        "before the year 1": "0001-01-01T00:00:00+23:59",
        "after the year 9999": "9999-12-31T23:59:59-23:59",
        "the year 1899": "1899-12-31T23:59:59.999999Z",
        "a leap second": "2016-12-31T23:59:60Z",
        "the 30th of February": "2026-02-30T00:00:00Z",
        "the month 13": "2026-13-01T00:00:00Z",
        "the hour 24": "2026-01-01T24:00:00Z",
        "the minute 60": "2026-01-01T00:60:00Z",
        "an offset of 24 hours": "2026-01-01T00:00:00+24:00",
        "an offset without its colon": "2026-01-01T00:00:00+0100",
        "an offset with seconds": "2026-01-01T00:00:00+01:00:00",
        "a space for the T": "2026-01-01 00:00:00Z",
        "a comma": "2026-01-01T00:00:00,5Z",
        "a week date": "2026-W01-1T00:00:00Z",
        "without seconds": "2026-01-01T00:00Z",
        "the basic format": "20260101T000000Z",
        "the name of a zone": "2026-01-01T00:00:00[Europe/Amsterdam]",
        "a line break at its end": "2026-01-01T00:00:00Z\n",
        "spaces around it": " 2026-01-01T00:00:00Z ",
        "full-width digits": "\uff12\uff10\uff12\uff16-01-01T00:00:00Z",
        "Arabic digits": "\u0662\u0660\u0662\u0666-01-01T00:00:00Z",
        "a thousand digits of a second": f"2026-01-01T00:00:00.{'1' * 1000}Z",
        "a megabyte": "2" * 200_000,
    }.items():
        yield f"occurred_at: {name}", touchpoint(occurred_at=json.dumps(value).encode()), "invalid_time"
    for name, value in {
        "the last instant of the year 9999": "9999-12-31T23:59:59.999999Z",
        "a thousand years ahead": "3026-01-01T00:00:00Z",
    }.items():
        yield f"occurred_at: {name}", touchpoint(occurred_at=json.dumps(value).encode()), "in_the_future"
    for raw in (b"1767225600", b"1.5", b"true", b"[]", b"{}", b'["2026-01-01T00:00:00Z"]'):
        yield f"occurred_at: {raw.decode()}", touchpoint(occurred_at=raw), "wrong_type"


def _texts() -> Iterator[tuple[str, bytes, str]]:
    lengths = {"id": 128, "type": 128, "customer_id": 256, "anonymous_id": 256}
    for field, longest in lengths.items():
        for name, value, code in (
            ("empty", b'""', "wrong_length"),
            ("one character too long", text(longest + 1), "wrong_length"),
            ("one long character too many", text(longest + 1, "\U0001f600".encode()), "wrong_length"),
            ("200 KB", text(200_000), "wrong_length"),
            ("a number", b"42", "wrong_type"),
            ("a truth value", b"true", "wrong_type"),
            ("a list", b'["x"]', "wrong_type"),
            ("an object", b"{}", "wrong_type"),
            ("NUL", rb'"a\u0000b"', "control_character"),
            ("a lone high surrogate", rb'"\ud800"', "invalid_character"),
            ("a lone low surrogate", rb'"a\udc00"', "invalid_character"),
            ("surrogates in the wrong order", rb'"\udc00\ud800"', "invalid_character"),
            ("a line break", rb'"a\r\nSet-Cookie: b"', "control_character"),
            ("a bell", rb'"\u0007"', "control_character"),
            ("an escape sequence of terminals", rb'"\u001b[2J\u001b[1;31m"', "control_character"),
            ("a tab", rb'"a\tb"', "control_character"),
            ("delete", rb'"\u007f"', "control_character"),
            ("a C1 control character", rb'"\u009b2J"', "control_character"),
        ):
            yield f"{field}: {name}", touchpoint(**{field: value}), code
    yield "type: absent", b'{"customer_id":"c"}', "missing_field"
    yield "type: null", touchpoint(type=b"null"), "wrong_type"
    for reserved in ("$identify", "$link", "$override", "$merge", "$retract", "$erase", "$", "$nothing"):
        yield f"type: {reserved}", touchpoint(type=json.dumps(reserved).encode()), "reserved_type"
    yield "nobody", b'{"type":"a"}', "no_customer"
    yield "nobody, said with null", b'{"type":"a","customer_id":null,"anonymous_id":null}', "no_customer"


def _objects() -> Iterator[tuple[str, bytes, str]]:
    for field in ("properties", "context"):
        for value in (b"[]", b'"x"', b"1", b"true"):
            yield f"{field}: {value.decode()}", touchpoint(**{field: value}), "wrong_type"
        for name, value, code in (
            ("NUL", rb'{"x":"a\u0000b"}', "invalid_character"),
            ("NUL in a name", rb'{"a\u0000b":1}', "invalid_character"),
            ("NUL in a list", rb'{"x":[{"y":["\u0000"]}]}', "invalid_character"),
            ("a lone surrogate", rb'{"x":"\ud800"}', "invalid_character"),
            ("a lone surrogate in a name", rb'{"\udfff":1}', "invalid_character"),
            ("NaN", b'{"x":NaN}', "number_out_of_range"),
            ("Infinity", b'{"x":Infinity}', "number_out_of_range"),
            ("-Infinity", b'{"x":[-Infinity]}', "number_out_of_range"),
            ("1e400", b'{"x":1e400}', "number_out_of_range"),
            ("-1e400", b'{"x":-1e400}', "number_out_of_range"),
            ("1e400000", b'{"x":1e400000}', "number_out_of_range"),
            ("2^63", b'{"x":9223372036854775808}', "number_out_of_range"),
            ("2^64", b'{"x":18446744073709551616}', "number_out_of_range"),
            ("-2^63-1", b'{"x":-9223372036854775809}', "number_out_of_range"),
            ("5,000 digits", b'{"x":' + b"9" * 5000 + b"}", "number_out_of_range"),
            ("5,000 digits below zero", b'{"x":-' + b"9" * 5000 + b"}", "number_out_of_range"),
            ("33 levels", b'{"x":' + b"[" * 32 + b"]" * 32 + b"}", "too_deep"),
            ("33 levels of objects", b'{"x":' * 33 + b"1" + b"}" * 33, "too_deep"),
            ("5,000 levels", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
            ("20,000 levels", b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}", "too_deep"),
            ("20,000 levels of objects", b'{"x":' * DEEP + b"1" + b"}" * DEEP, "too_deep"),
            ("257 KiB", b'{"x":' + text(257 * 1024) + b"}", "too_large"),
            ("a name of 257 KiB", b"{" + text(257 * 1024) + b":1}", "too_large"),
            ("numbers that grow once written out", b'{"x":[' + b"1e15," * 50_000 + b"1]}", "too_large"),
        ):
            yield f"{field}: {name}", touchpoint(**{field: value}), code


def _others() -> Iterator[tuple[str, bytes, str]]:
    for value in (b'"true"', b"1", b"0", b"[]", b"{}"):
        yield f"muted: {value.decode()}", touchpoint(muted=value), "wrong_type"
    for name in ("stage", "source", "received_at", "recorded_at", "sequence", "journeys", "__proto__", "Type", "type "):
        yield f"the unknown field {name!r}", touchpoint(**{name: b'"x"'}), "unknown_field"
    yield "an unknown field without a name", touchpoint(**{"": b"1"}), "unknown_field"
    yield "an unknown field of 100 KB", touchpoint(**{"x" * 100_000: b"1"}), "unknown_field"
    yield "an unknown field of terminals", touchpoint(**{r"\u001b[2J\r\n": b"1"}), "unknown_field"
    for value in (b"null", b"true", b"1", b'"x"', b"1e400"):
        code = "number_out_of_range" if value == b"1e400" else "wrong_type"
        yield f"{value.decode()} for a touchpoint", value, code


WRONG = [*_times(), *_texts(), *_objects(), *_others()]
"""Single touchpoints: a name, the JSON, and the code."""


def _single() -> Iterator[Case]:
    """Each of them by itself, and every third as the only one of an array."""
    for name, raw, code in WRONG:
        yield Case(name, post(ONE, raw), 413 if code == "too_large" else 422, code)
    for name, raw, code in WRONG[::3]:
        yield Case(f"{name}, in an array", post(ONE, b"[%b]" % raw), 207, code)
    yield Case("an array in an array", post(ONE, b"[[]]"), 207, "wrong_type")


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \t\r\n",
    "one brace": b"{",
    "one quote": b'"',
    "a word": b"touchpoint",
    "a form": b"type=a&customer_id=c",
    "XML": b"<touchpoint/>",
    "single quotes": b"{'type':'a','customer_id':'c'}",
    "names without quotes": b'{type:"a",customer_id:"c"}',
    "a comment": b'{"type":"a","customer_id":"c"}/**/',
    "a trailing comma": b'{"type":"a","customer_id":"c",}',
    "one brace too many": touchpoint() + b"}",
    "one brace too few": touchpoint()[:-1],
    "two objects": touchpoint() + touchpoint(),
    "two objects on two lines": touchpoint() + b"\n" + touchpoint(),
    "hexadecimal": touchpoint(properties=b'{"x":0x10}'),
    "a leading zero": touchpoint(properties=b'{"x":01}'),
    "a leading plus": touchpoint(properties=b'{"x":+1}'),
    "a point without digits": touchpoint(properties=b'{"x":1.}'),
    "an unfinished escape": touchpoint(properties=rb'{"x":"\u00"}'),
    "an unknown escape": touchpoint(properties=rb'{"x":"\x00"}'),
    "a raw NUL": touchpoint(properties=b'{"x":"\0"}'),
    "a raw line break": touchpoint(properties=b'{"x":"\n"}'),
    "NUL after the end": touchpoint() + b"\0",
    "a byte order mark": b"\xef\xbb\xbf" + touchpoint(),
    "UTF-16": touchpoint().decode().encode("utf-16"),
    "UTF-16 without a mark": touchpoint().decode().encode("utf-16-le"),
    "UTF-32": touchpoint().decode().encode("utf-32"),
    "Latin-1": touchpoint(customer_id='"é"'.encode("latin-1")),
    "a lone byte": touchpoint(customer_id=b'"\xff"'),
    "an overlong slash": touchpoint(customer_id=b'"\xc0\xaf"'),
    "a surrogate in UTF-8": touchpoint(customer_id=b'"\xed\xa0\x80"'),
    "a character beyond Unicode": touchpoint(customer_id=b'"\xf4\x90\x80\x80"'),
    "half a character": touchpoint()[:-3] + b"\xc3",
    "an open array": b"[",
    "an array closed by a brace": b"[}",
    "an array with a trailing comma": b"[" + touchpoint() + b",]",
    "an array without a comma": b"[" + touchpoint() + touchpoint() + b"]",
    "an array with something behind it": b"[" + touchpoint() + b"] x",
    "an array with a broken item": b"[" + touchpoint() + b',{"type":]',
    "an array with an open text": b"[" + touchpoint() + b',"',
    "an array in Latin-1": b"[" + touchpoint(customer_id='"é"'.encode("latin-1")) + b"]",
    "100,000 open brackets": b"[" * 100_000,
}


def _bodies() -> Iterator[Case]:
    for name, body in MALFORMED.items():
        yield Case(f"a body of {name}", post(ONE, body), 400, "malformed")
    yield Case("a body of 18,000 open braces", post(ONE, b'{"properties":' * 18_000), 422, "too_deep")
    bombs: dict[str, tuple[Callable[[], bytes], int, str]] = {
        "5 MB of [[],": (lambda: b"[" + b"[]," * (5 * 1024**2 // 3) + b"[]]", 413, "too_large"),
        "5 MB of [[], without an end": (lambda: b"[" + b"[]," * (5 * 1024**2 // 3), 413, "too_large"),
        "5 MB of {},": (lambda: b"[" + b"{}," * (5 * 1024**2 // 3) + b"{}]", 413, "too_large"),
        "9 MB of numbers": (lambda: b"[" + b"1," * 4_700_000 + b"1]", 413, "too_large"),
        "9 MB of touchpoints": (lambda: b"[" + b",".join([touchpoint()] * 290_000) + b"]", 413, "too_large"),
        "5 MB of open brackets": (lambda: b"[" * (5 * 1024**2), 413, "too_large"),
        "5 MB of nested brackets": (lambda: b"[" * (5 * 1024**2 // 2) + b"]" * (5 * 1024**2 // 2), 413, "too_large"),
        "5 MB of commas": (lambda: b"[" + b"," * (5 * 1024**2) + b"]", 400, "malformed"),
        "5 MB of quotes": (lambda: b"[" + b'"' * (5 * 1024**2) + b"]", 207, "too_large"),
        "5 MB of backslashes": (lambda: b'["' + b"\\" * (5 * 1024**2) + b'"]', 207, "too_large"),
        "5 MB of white space": (lambda: b" " * (5 * 1024**2), 413, "too_large"),
        "5 MB of digits": (lambda: b"9" * (5 * 1024**2), 413, "too_large"),
        "10,001 touchpoints": (lambda: b"[" + b",".join([touchpoint()] * 10_001) + b"]", 413, "too_large"),
        "10,001 numbers": (lambda: b"[" + b",".join([b"1"] * 10_001) + b"]", 413, "too_large"),
        "11 MiB": (lambda: b" " * (11 * 1024**2), 413, "too_large"),
    }
    for name, (made, status, code) in bombs.items():
        yield Case(name, lambda made=made: post(ONE, made()), status, code)  # type: ignore[misc]
    yield Case("a length of 9999999999", post(ONE, b"{", length=b"9999999999"), 413, "too_large")
    yield Case(
        "11 MiB in chunks",
        lambda: chunked(ONE, [chunk(b" " * 1024**2)] * 11),
        413,
        "too_large",
    )
    yield Case("an empty body in chunks", chunked(ONE, []), 400, "malformed")


def _media_types() -> Iterator[Case]:
    for name, media_type in {
        "none": None,
        "an empty one": b"",
        "text": b"text/plain",
        "a form": b"application/x-www-form-urlencoded",
        "a form in parts": b"multipart/form-data; boundary=x",
        "XML": b"application/xml",
        "YAML": b"application/yaml",
        "MessagePack": b"application/msgpack",
        "JSON in UTF-16": b"application/json; charset=utf-16",
        "JSON in Latin-1": b"application/json; charset=iso-8859-1",
        "JSON of an unknown charset": b"application/json; charset=\xff",
        "two in one": b"application/json, text/plain",
        "JSON's name as a beginning": b"application/jsonx",
        "text that calls itself JSON": b"text/json",
        "100 KB": b"application/" + b"x" * 30_000,
    }.items():
        yield Case(f"media type: {name}", post(ONE, touchpoint(), media_type=media_type), 415, "unsupported_media_type")
    twice = [(b"Content-Type", b"text/plain"), (b"Content-Type", b"application/json")]
    yield Case(
        "media type: two of them",
        post(ONE, touchpoint(), media_type=None, headers=twice),
        415,
        "unsupported_media_type",
    )
    for encoding in (b"br", b"compress", b"x", b"gzip, br", b"identity, br", b"\xff"):
        name = encoding.decode("latin-1")
        headers = [(b"Content-Encoding", encoding)]
        yield Case(f"encoding: {name}", post(ONE, touchpoint(), headers=headers), 415, "unsupported_encoding")


CASES = [*_single(), *_bodies(), *_media_types()]
