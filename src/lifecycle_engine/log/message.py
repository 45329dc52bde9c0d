"""The message on the topic: the only codec between its bytes and facts, and the place where values are checked.

What a poster sends and what stands on the topic are checked by the same code, since others may write to the topic:
the way in refuses what the worker would set aside. docs/message.md describes the message for those who write it.

A clean message costs one decoding and one scan of its bytes. Only where the scan sees something odd, or the decoding
fails, is the value walked through to say what is wrong, and where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.lifecycle.touchpoints import RESERVED, RETRACT, Touchpoint
from lifecycle_engine.log.port import Record
from lifecycle_engine.log.reserved import Entry, mistake_in

MAX_TOUCHPOINT_BYTES = 256 * 1024
"""Of what a poster sends of one touchpoint, written without white space."""
MAX_MESSAGE_BYTES = MAX_TOUCHPOINT_BYTES + 4096
"""Of one message on the topic, which holds what the server adds besides."""
MAX_DEPTH = 32
_ADDED_VALUES = 50
"""What a submission gets on its way into the log, and more."""
MAX_VALUES = 10_000
"""Names and values of one message: each guard that looks at them takes a microsecond or so for each."""
"""Levels of `properties` and of `context`, themselves included."""
EARLIEST = parse_instant("1900-01-01T00:00:00Z")
"""The first instant at which anything may have occurred."""
LATEST = parse_instant("9999-12-31T23:59:59Z")

Name = Annotated[str, Meta(min_length=1, max_length=128)]
IdentityValue = Annotated[str, Meta(min_length=1, max_length=256)]
JsonObject = dict[str, Any]


class InvalidMessageError(ValueError):
    """A touchpoint that cannot be taken: why (`code`, `detail`) and where in it (`pointer`, a JSON pointer)."""

    def __init__(self, code: str, detail: str, pointer: str = "") -> None:
        super().__init__(f"{pointer} {detail}".lstrip())
        self.code = code
        self.detail = detail
        self.pointer = pointer


class Fact(NamedTuple):
    """A message, read and checked.

    `received_at` is in microseconds since the epoch. `content` is 16 bytes of BLAKE2b over what the poster sent: two
    facts have the same where type, identities, the instant that the poster gave (or its absence) and body are the same.
    `body` is canonical JSON, with sorted keys, of `{"context": …, "properties": …}`.
    """

    touchpoint: Touchpoint
    received_at: int
    muted: bool
    content: bytes
    body: bytes


class Submission(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A touchpoint as a poster sends it; null counts as absent."""

    type: Name
    id: Name | None = None
    customer_id: IdentityValue | None = None
    anonymous_id: IdentityValue | None = None
    occurred_at: str | None = None
    properties: JsonObject | None = None
    context: JsonObject | None = None
    muted: bool | None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Name
    id: Name
    source: Name
    received_at: str
    customer_id: IdentityValue | None = None
    anonymous_id: IdentityValue | None = None
    occurred_at: str | None = None
    properties: JsonObject | None = None
    context: JsonObject | None = None
    muted: bool | None = None
    corrected_at: str | None = None


class _Named(msgspec.Struct):
    id: Name | None = None


class _NamedMessage(msgspec.Struct):
    source: Any = None
    id: Any = None


_Read = TypeVar("_Read")

_decode_submission = msgspec.json.Decoder(Submission).decode
_decode_submissions = msgspec.json.Decoder(list[Submission]).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_named_message = msgspec.json.Decoder(_NamedMessage).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_body = msgspec.json.Decoder(dict[str, JsonObject]).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_pack = msgspec.msgpack.Encoder().encode


def read_submission(raw: bytes) -> Submission:
    """One posted object; its values are checked when it becomes a record. Raises InvalidMessageError."""
    return read(_decode_submission, raw, MAX_TOUCHPOINT_BYTES)


def read_submissions(raw: bytes) -> list[Submission]:
    """A posted array in which nothing is wrong. Raises ValueError where something is, without saying what."""
    try:
        return _decode_submissions(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError from error


def make_submission(fields: Mapping[str, Any]) -> Submission:
    """A submission of values that came in another shape. Raises InvalidMessageError."""
    try:
        return msgspec.convert(fields, Submission)
    except msgspec.ValidationError as error:
        raise _explained(error, b"") from None


def find_id(raw: bytes) -> str | None:
    """The id in a posted object that could not be read as a whole, if there is one."""
    try:
        return _decode_named(raw).id
    except (ValueError, RecursionError):
        return None


def find_name(raw: bytes) -> tuple[str | None, str | None]:
    """The source and the id in a message that could not be read or processed as a whole, each if there is one."""
    try:
        named = _decode_named_message(raw)
    except (ValueError, RecursionError):
        return None, None
    source, id_ = (
        text if isinstance(text, str) and 0 < len(text) <= 128 and not _CONTROL.search(text) else None
        for text in (named.source, named.id)
    )
    return source, id_


class Stamp:
    """What the server adds to each touchpoint of one request, and so turns it into a record of the log.

    `received_at` and `latest`, the last instant at which anything may have occurred, are in microseconds since the
    epoch. Entries of reserved types are for doors that are made for them (`reserved`).
    """

    def __init__(self, source: str, received_at: int, latest: int, *, reserved: bool = False) -> None:
        self._received_at = received_at
        self._latest = latest
        self._reserved = reserved
        self._fields = b',"source":%b,"received_at":"%b"}' % (_encode(source), format_instant(received_at).encode())

    def record(self, submission: Submission, sent_at: int | None = None) -> Record:
        """The record of a submission that has an id. Raises InvalidMessageError.

        `sent_at`, where the poster has told it, is when it was sent by the clock that `occurred_at` is by, in
        microseconds since the epoch: how long ago it occurred is then told by that clock, however wrong it is.
        """
        _check(submission)
        given = None if submission.occurred_at is None else _occurred_at(submission.occurred_at)
        occurred_at, fields = given, self._fields
        if sent_at is not None and given is not None:
            occurred_at = self._received_at - (sent_at - given)
            if not EARLIEST <= occurred_at <= LATEST:
                raise InvalidMessageError("invalid_time", "was not sent when it is said to have been", "/occurred_at")
            fields = b',"corrected_at":"%b"%b' % (format_instant(occurred_at).encode(), fields)
        if submission.type[0] == RESERVED:
            if not self._reserved:
                detail = f"types that begin with {RESERVED} are not for touchpoints"
                raise InvalidMessageError("reserved_type", detail, "/type")
            _check_reserved(submission, self._received_at if occurred_at is None else occurred_at)
        if occurred_at is not None and occurred_at > self._latest:
            raise InvalidMessageError("in_the_future", "is too far ahead of the server's clock", "/occurred_at")
        try:
            value = _encode(submission)
        except RecursionError:
            raise _too_deep("") from None
        _check_bytes(value, MAX_TOUCHPOINT_BYTES)
        return Record(_key(submission), value[:-1] + fields)


def decode(value: bytes) -> Fact:
    """The fact in a message. Raises InvalidMessageError."""
    message = read(_decode_message, value, MAX_MESSAGE_BYTES)
    _check_bytes(value, MAX_MESSAGE_BYTES, MAX_VALUES + _ADDED_VALUES)
    _check(message)
    occurred_at = received_at = _received_at(message.received_at)
    given = None
    if message.occurred_at is not None:
        occurred_at = given = _occurred_at(message.occurred_at)
    if message.corrected_at is not None:
        occurred_at = _occurred_at(message.corrected_at, "/corrected_at")
    if message.type[0] == RESERVED:
        _check_reserved(message, occurred_at)
    properties, context = message.properties or {}, message.context or {}
    type_, customer_id, anonymous_id = message.type, message.customer_id, message.anonymous_id
    body = b'{"context":%b,"properties":%b}' % (_encode_sorted(context), _encode_sorted(properties))
    sent = _pack((type_, customer_id, anonymous_id, given)) + body
    return Fact(
        Touchpoint(
            message.id,
            message.source,
            type_,
            occurred_at,
            customer_id,
            anonymous_id,
            properties,
            context,
        ),
        received_at,
        message.muted is True,
        blake2b(sent, digest_size=16).digest(),
        body,
    )


def message_schema() -> dict[str, Any]:
    """The JSON Schema of a message, as far as a schema can say what `decode` takes."""
    _, components = msgspec.json.schema_components([_Message])
    schema: dict[str, Any] = components["_Message"]
    return schema


def decode_body(body: bytes) -> tuple[JsonObject, JsonObject]:
    """The properties and the context in a fact's `body`."""
    both = _decode_body(body)
    return both["properties"], both["context"]


def read(decoder: Callable[[bytes], _Read], raw: bytes, limit: int) -> _Read:
    """What a decoder of msgspec's makes of JSON; what it does not take is explained if it has at most `limit` bytes.

    Raises InvalidMessageError.
    """
    try:
        if len(raw) <= _MOST * limit:
            return decoder(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _check_size(raw, limit)
        raise _explained(error, raw) from None
    raise _too_large(raw, limit)


_MOST = 4
"""Times that JSON may be longer than without white space and needless escapes, before it is not even decoded."""


def _key(named: Submission) -> bytes:
    if named.type == RETRACT:
        properties = named.properties or {}
        return f"touchpoint:{properties['source']}:{properties['id']}".encode()
    if named.customer_id is not None:
        return f"customer_id:{named.customer_id}".encode()
    return f"anonymous_id:{named.anonymous_id}".encode()


def _check(message: Submission | _Message) -> None:
    type_, customer_id, anonymous_id = message.type, message.customer_id, message.anonymous_id
    if customer_id is None and anonymous_id is None and type_ != RETRACT:
        raise InvalidMessageError("no_customer", "names neither a customer_id nor an anonymous_id")
    if not f"{message.id}{type_}{customer_id}{anonymous_id}".isprintable():
        _check_characters(message, "id", "type", "customer_id", "anonymous_id")
    if isinstance(message, _Message) and not message.source.isprintable():
        _check_characters(message, "source")


def _check_reserved(message: Submission | _Message, occurred_at: int) -> None:
    entry = Entry(message.customer_id, message.anonymous_id, occurred_at, message.properties or {})
    if (mistake := mistake_in(message.type, entry)) is not None:
        raise InvalidMessageError(*mistake)


def _check_characters(message: Submission | _Message, *names: str) -> None:
    for name in names:
        if _CONTROL.search(getattr(message, name) or ""):
            raise InvalidMessageError("control_character", "contains a control character", f"/{name}")


def _instant(text: str, pointer: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise InvalidMessageError("invalid_time", str(error), pointer) from None


@lru_cache(1024)
def _received_at(text: str) -> int:
    """All touchpoints of one request have the same."""
    return _instant(text, "/received_at")


def _occurred_at(text: str, pointer: str = "/occurred_at") -> int:
    instant = _instant(text, pointer)
    if instant < EARLIEST:
        raise InvalidMessageError("invalid_time", "is before the year 1900", pointer)
    return instant


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHAPE = bytes(b"0"[0] if byte in b"0123456789" else b"["[0] if byte in b"[{" else 0 for byte in range(256))
_LONG_RUN = b"0" * 19
_LONG_NUMBER = re.compile(rb"[:,\[]\s*-?[0-9]{19}")
_NEXT_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+([\[\]{}])', re.DOTALL)


def _check_bytes(raw: bytes, limit: int, values: int = MAX_VALUES) -> None:
    """Sees to it that decodable JSON holds nothing that a store would choke on, mostly without looking at values."""
    if len(raw) > limit:
        _check_size(raw, limit)
    shape = raw.translate(_SHAPE)
    if (
        (_LONG_RUN in shape and _LONG_NUMBER.search(raw))
        or (shape.count(b"[") > MAX_DEPTH and _depth(raw) > MAX_DEPTH + 1)
        or (b"\\" in raw and b"\\u0000" in raw)
    ):
        check_json(raw)
    # A value has a comma or a bracket before it, or a name that has.
    if 2 * (raw.count(b",") + shape.count(b"[")) >= values:
        count = sum(1 for _ in _walk(json.loads(raw)))
        if count > values:
            detail = f"holds {count} names and values; at most {values} are taken"
            raise InvalidMessageError("too_many_values", detail)


def _check_size(raw: bytes, limit: int) -> None:
    if len(raw) > limit:
        raise _too_large(raw, limit)


def _depth(raw: bytes) -> int:
    """How deep well-formed JSON is nested."""
    depth = deepest = 0
    for bracket in _NEXT_BRACKET.finditer(raw):
        if bracket[1] in b"[{":
            depth += 1
            deepest = max(depth, deepest)
        else:
            depth -= 1
    return deepest


def check_json(raw: bytes, *, unique: bool = False) -> None:
    """Raises InvalidMessageError for JSON that is malformed, or holds what no store takes; slow, but exact.

    What no store takes: NUL, half a surrogate pair, numbers that aren't finite or beyond 64 bits, more than 32 levels.
    `unique`: an object that has a name twice is no more taken than those.
    """
    pairs = _without_duplicates if unique else None
    try:
        value = json.loads(raw.decode(), parse_int=_int, parse_constant=lambda _: math.nan, object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise InvalidMessageError("malformed", f"is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidMessageError("malformed", f"is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep("") from None
    for pointer, depth, item in _walk(value):
        if depth > MAX_DEPTH + 1:
            raise _too_deep(pointer)
        if isinstance(item, str):
            if "\0" in item or _SURROGATE.search(item):
                raise InvalidMessageError("invalid_character", "contains NUL or a lone surrogate", pointer)
        elif isinstance(item, int | float) and not (isinstance(item, int) or math.isfinite(item)):
            raise InvalidMessageError(
                "number_out_of_range", "must be a finite number; integers have at most 64 bits", pointer
            )


_SURROGATE = re.compile("[\ud800-\udfff]")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One reader would take the first value, another the last; which of them was meant nobody can tell."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise InvalidMessageError("duplicate_name", f"an object has the name {_readable(twice[:64])!r} more than once")
    return found


def _int(digits: str) -> int | float:
    """Infinity for what does not fit into 64 bits."""
    value = int(digits) if len(digits) <= 20 else math.inf
    return value if -(1 << 63) <= value < 1 << 63 else math.inf


def _walk(value: Any) -> Iterator[tuple[str, int, Any]]:
    """Every value and every key with its JSON pointer and how deep it lies; containers begin at 1."""
    waiting: list[tuple[str, int, Any]] = [("", 1, value)]
    while waiting:
        pointer, depth, item = waiting.pop()
        if isinstance(item, dict):
            yield pointer, depth, None
            for key, inner in item.items():
                within = f"{pointer}/{pointer_part(key)}"
                yield within, depth, key
                waiting.append((within, depth + 1, inner))
        elif isinstance(item, list):
            yield pointer, depth, None
            waiting += [(f"{pointer}/{index}", depth + 1, inner) for index, inner in enumerate(item)]
        else:
            yield pointer, 0, item


def pointer_part(key: str) -> str:
    """One step of a JSON pointer that can be stored and shown whatever the poster named it."""
    return _readable(key[:64]).replace("~", "~0").replace("/", "~1")


def _readable(text: str) -> str:
    return _CONTROL.sub("\ufffd", text.encode("utf-8", "replace").decode())


def _too_large(raw: bytes, limit: int) -> InvalidMessageError:
    return InvalidMessageError("too_large", f"has {len(raw)} bytes; at most {limit} are taken")


def _too_deep(pointer: str) -> InvalidMessageError:
    return InvalidMessageError("too_deep", f"is nested deeper than {MAX_DEPTH} levels", pointer[:256])


_AT = re.compile(r" - at `\$\.([A-Za-z_]+)[^`]*`$")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`$", re.DOTALL)


def _explained(error: Exception, raw: bytes) -> InvalidMessageError:
    """What the decoder found, in the words of this module."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError) or "out of range" in text:
        check_json(raw)
        return _too_deep("")
    if field := _FIELD.match(text):
        pointer = f"/{pointer_part(field[2])}"
        if field[1] == "missing required":
            return InvalidMessageError("missing_field", "is required", pointer)
        return InvalidMessageError("unknown_field", "is not a field of a touchpoint", pointer)
    at = _AT.search(text)
    pointer = f"/{at[1]}" if at else ""
    detail = _readable(text[: at.start()] if at else text)[:200]
    detail = detail[:1].lower() + detail[1:]
    return InvalidMessageError("wrong_length" if " of length " in text else "wrong_type", detail, pointer)
