"""The message on the topic: what goes in comes out, and nothing that comes in breaks the codec."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log import asyncapi
from lifecycle_engine.log.message import (
    EARLIEST,
    MAX_MESSAGE_BYTES,
    MAX_VALUES,
    InvalidMessageError,
    Stamp,
    Submission,
    decode,
    decode_body,
    read_submission,
)

NOW = parse_instant("2026-03-01T12:30:00.5Z")
MESSAGE: dict[str, Any] = {
    "id": "t1",
    "source": "shop",
    "type": "purchase",
    "customer_id": "42",
    "received_at": "2026-03-01T12:30:00Z",
}

instants = st.integers(EARLIEST, NOW)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
types = names.filter(lambda name: not name.startswith("$"))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(texts, values, max_size=5)


@st.composite
def submissions(draw: Callable[[Any], Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        "id": draw(names),
        "type": draw(types),
        draw(st.sampled_from(["customer_id", "anonymous_id"])): draw(names),
    }
    optional = {
        "customer_id": names,
        "anonymous_id": names,
        "occurred_at": instants.map(format_instant),
        "properties": objects,
        "context": objects,
        "muted": st.booleans(),
    }
    for name, strategy in optional.items():
        if draw(st.booleans()):
            given[name] = draw(strategy)
    return given


@given(submissions(), names, st.booleans())
def test_what_is_sent_comes_out(sent: dict[str, Any], source: str, is_ascii: bool) -> None:
    raw = json.dumps(sent, ensure_ascii=is_ascii).encode()
    record = Stamp(source, NOW, NOW).record(read_submission(raw))
    fact = decode(record.value)
    touchpoint = fact.touchpoint
    assert (touchpoint.id, touchpoint.source, touchpoint.type) == (sent["id"], source, sent["type"])
    assert (touchpoint.customer_id, touchpoint.anonymous_id) == (sent.get("customer_id"), sent.get("anonymous_id"))
    assert touchpoint.occurred_at == (parse_instant(sent["occurred_at"]) if "occurred_at" in sent else NOW)
    assert touchpoint.properties == sent.get("properties", {})
    assert touchpoint.context == sent.get("context", {})
    assert fact.received_at == NOW
    assert fact.muted is sent.get("muted", False)
    assert decode_body(fact.body) == (touchpoint.properties, touchpoint.context)
    kind = "customer_id" if "customer_id" in sent else "anonymous_id"
    assert record.key == f"{kind}:{sent[kind]}".encode()


@given(submissions(), st.randoms())
def test_content_is_what_was_sent_and_not_how(sent: dict[str, Any], dice: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in dice.sample(sorted(value), len(value))}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    def content(one: dict[str, Any], source: str, at: int) -> bytes:
        return decode(Stamp(source, at, NOW).record(read_submission(json.dumps(one).encode())).value).content

    again = {**shuffled(sent), "id": "another", "muted": not sent.get("muted")}
    assert content(sent, "a", NOW) == content(again, "b", NOW - 1)
    for name in ("type", "customer_id", "anonymous_id"):
        assert content(sent, "a", NOW) != content({**sent, name: "something else"}, "a", NOW)
    assert content(sent, "a", NOW) != content({**sent, "properties": {"something": "else"}}, "a", NOW)


@given(
    st.binary(max_size=300)
    | objects.map(lambda value: json.dumps(value).encode())
    | submissions().map(str).map(str.encode)
)
@example(b'{"id":"\\ud800"}')
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 5000)
@example(
    b'{"id":"t","source":"s","type":"a","customer_id":"c","received_at":"2026-03-01T12:30:00Z","x":'
    + b"9" * 5000
    + b"}"
)
def test_nothing_breaks_the_codec(raw: bytes) -> None:
    for read in (decode, read_submission):
        try:
            read(raw)
        except InvalidMessageError as error:
            told = (error.code, error.detail, error.pointer, str(error))
            assert "\0" not in "".join(told)
            assert json.dumps(told).encode()
            "".join(told).encode()


def test_as_many_values_as_a_touchpoint_may_have_are_still_read_from_the_log() -> None:
    def logged(values: list[Any]) -> bytes:
        one = {"id": "a", "type": "b", "customer_id": "c", "properties": {"x": values}}
        return Stamp("shop", NOW, NOW).record(read_submission(json.dumps(one).encode())).value

    most = MAX_VALUES - len(["", "id", "a", "type", "b", "customer_id", "c", "properties", {}, "x", []])
    assert decode(logged([0] * most)).touchpoint.properties == {"x": [0] * most}
    for too_many in ([0] * (most + 1), [{"y": {"z": 0}}] * (MAX_VALUES // 5)):
        with pytest.raises(InvalidMessageError, match="names and values; at most 10000 are taken") as told:
            logged(too_many)
        assert told.value.code == "too_many_values"


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"source": ""}, "wrong_length", "/source"),
        ({"source": "a\nb"}, "control_character", "/source"),
        ({"source": None}, "wrong_type", "/source"),
        ({"id": "a\x7fb"}, "control_character", "/id"),
        ({"id": 1}, "wrong_type", "/id"),
        ({"customer_id": None}, "no_customer", ""),
        ({"customer_id": "a\0b"}, "invalid_character", "/customer_id"),
        ({"type": "$erase"}, "reserved_type", "/type"),
        ({"received_at": "now"}, "invalid_time", "/received_at"),
        ({"received_at": 17}, "wrong_type", "/received_at"),
        ({"occurred_at": "2026-03-01 12:30:00Z"}, "invalid_time", "/occurred_at"),
        ({"occurred_at": "1899-12-31T23:59:59.999999Z"}, "invalid_time", "/occurred_at"),
        ({"stage": "advocacy"}, "unknown_field", "/stage"),
        ({"a/b~\0" + "c" * 100: 1}, "unknown_field", None),
        ({"properties": {"a/b": {"~": ["\0"]}}}, "invalid_character", "/properties/a~1b/~0/0"),
        ({"properties": {"a": [1, {"b": 2**63}]}}, "number_out_of_range", "/properties/a/1/b"),
        ({"context": {"a": -(2**63) - 1}}, "number_out_of_range", "/context/a"),
        ({"context": {"a": [float("nan")]}}, "number_out_of_range", "/context/a/0"),
        ({"context": [1]}, "wrong_type", "/context"),
        ({"properties": {"x": "y" * MAX_MESSAGE_BYTES}}, "too_large", ""),
    ],
)
def test_the_worker_is_told_what_is_wrong_and_where(change: dict[str, Any], code: str, pointer: str | None) -> None:
    with pytest.raises(InvalidMessageError) as told:
        decode(json.dumps({**MESSAGE, **change}).encode())
    assert told.value.code == code
    assert pointer is None or told.value.pointer == pointer
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("field", ["id", "source", "type", "received_at", "customer_id"])
def test_what_is_required_is_required(field: str) -> None:
    with pytest.raises(InvalidMessageError) as told:
        decode(json.dumps({name: value for name, value in MESSAGE.items() if name != field}).encode())
    assert told.value.code == ("no_customer" if field == "customer_id" else "missing_field")


def test_the_future_is_no_matter_to_the_worker() -> None:
    late = json.dumps({**MESSAGE, "occurred_at": "9999-12-31T23:59:59.999999Z"}).encode()
    assert decode(late).touchpoint.occurred_at == parse_instant("9999-12-31T23:59:59.999999Z")
    with pytest.raises(InvalidMessageError, match="too far ahead"):
        Stamp("s", NOW, NOW).record(Submission("a", "t", "c", occurred_at=format_instant(NOW + 1)))


def test_the_documented_message_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "message.md").read_text(encoding="utf-8")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    fact = decode(block[1].encode())
    assert fact.touchpoint.occurred_at == parse_instant("2026-03-01T11:30:00Z")
    source = (Path(__file__).parents[2] / "src" / "lifecycle_engine" / "log" / "message.py").read_text(encoding="utf-8")
    raised = set(re.findall(r'InvalidMessageError\(\s*"([a-z_]+)"', source)) | {"wrong_length", "wrong_type"}
    assert {name for name in raised if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-03-01T12:30:00.9999999Z", 1_772_368_200_999_999),
        ("2026-03-01t12:30:00.5z", 1_772_368_200_500_000),
        ("2026-03-01T12:30:00+14:00", 1_772_317_800_000_000),
        ("2026-03-01T12:30:00-00:00", 1_772_368_200_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
    ],
)
def test_instants_are_read(text: str, told: int) -> None:
    assert parse_instant(text) == told


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-03-01", "2026-03-01T12:30Z", "2026-03-01T12:30:00", "2026-03-01 12:30:00Z"),
        *("2026-03-01T12:30:00.Z", "2026-03-01T12:30:00,5Z", "20260301T123000Z", "2026-060T12:30:00Z"),
        *("2026-02-29T00:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T23:59:60Z", "2026-13-01T00:00:00Z"),
        *("2026-03-01T12:30:00+24:00", "2026-03-01T12:30:00+01", "2026-03-01T12:30:00+0100", "0000-01-01T00:00:00Z"),
        *(
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2026-03-01T12:30:00Z\n",
            "\uff12026-03-01T12:30:00Z",
        ),
        *("10000-01-01T00:00:00Z", "-infinity", "now", "2026-03-01T12:30:00." + "1" * 100 + "Z"),
    ],
)
def test_what_is_not_an_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(must be|is not)"):
        parse_instant(text)


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_instants_are_written_as_they_are_read(instant: int) -> None:
    text = format_instant(instant)
    assert parse_instant(text) == instant
    assert ("." in text) == bool(instant % 1_000_000)


def test_the_asyncapi_document_describes_what_is_read() -> None:
    described = asyncapi.document("1", "topic", 4)
    (example,) = described["components"]["messages"]["touchpoint"]["examples"]
    fact = decode(json.dumps(example["payload"]).encode())
    assert fact.touchpoint.properties == example["payload"]["properties"]
    schema = described["components"]["schemas"]["Touchpoint"]
    assert set(schema["required"]) == {"type", "id", "source", "received_at"}
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(described)):
        found: Any = described
        for part in reference.split("/"):
            found = found[part]
