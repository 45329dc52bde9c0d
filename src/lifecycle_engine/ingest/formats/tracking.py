"""Segment's HTTP tracking API, as its own and RudderStack's libraries speak it: six calls, and batches of them.

docs/segment.md says what becomes of each call.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lifecycle_engine.ingest.formats.arrivals import MAX_ITEMS, Arrival, Translated, Unreadable, too_many
from lifecycle_engine.ingest.formats.event_types import EventTypes
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY
from lifecycle_engine.log.message import InvalidMessageError, JsonObject, Submission, read

CALLS = ("identify", "track", "page", "screen", "group", "alias")
MAX_CALL_BYTES = 32 * 1024
MAX_BATCH_BYTES = 500 * 1024
MAX_CALLS = 2_500
"""Of one batch."""

_Id = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None
_Name = Annotated[str, Meta(max_length=128)] | None


class Call(msgspec.Struct, gc=False):
    """One call; of the members that it may have besides, none matters here."""

    type: str | None = None
    messageId: _Name = None
    userId: _Id = None
    anonymousId: _Id = None
    previousId: _Id = None
    groupId: _Id = None
    event: _Name = None
    name: str | None = None
    category: str | None = None
    properties: JsonObject | None = None
    traits: JsonObject | None = None
    context: JsonObject | None = None
    integrations: JsonObject | None = None
    writeKey: str | None = None
    timestamp: str | None = None
    originalTimestamp: str | None = None
    sentAt: str | None = None


class _Batch(msgspec.Struct):
    batch: list[msgspec.Raw]
    context: JsonObject | None = None
    integrations: JsonObject | None = None
    sentAt: str | None = None
    writeKey: str | None = None


class _Keyed(msgspec.Struct):
    writeKey: Any = None


class _Named(msgspec.Struct):
    messageId: str | None = None


_decode_call = msgspec.json.Decoder(Call).decode
_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode_keyed = msgspec.json.Decoder(_Keyed).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def write_key(body: bytes) -> str | None:
    """The key in a body, where it is not in a header. Raises InvalidMessageError for what is not JSON."""
    try:
        given = read(_decode_keyed, body, MAX_BATCH_BYTES).writeKey
    except InvalidMessageError as error:
        if error.code == "malformed":
            raise
        return None
    return given if isinstance(given, str) else None


def read_call(kind: str, body: bytes, types: EventTypes) -> Arrival:
    """One of the `CALLS`. Raises InvalidMessageError for what is not JSON."""
    try:
        call = read(_decode_call, body, MAX_CALL_BYTES)
    except InvalidMessageError as error:
        if error.code == "malformed":
            raise
        return Unreadable(_message_id(body), error)
    return _arrival(kind, call, _NOTHING, types)


def read_batch(body: bytes, types: EventTypes) -> list[Arrival]:
    """A batch of calls. Raises InvalidMessageError for what is none, or is too much."""
    try:
        batch = read(_decode_batch, body, MAX_BATCH_BYTES)
    except InvalidMessageError as error:
        # One call with what no store takes (NaN, half a surrogate pair) is no reason to refuse the others.
        if error.code not in ("invalid_character", "number_out_of_range") or not error.pointer.startswith("/batch/"):
            raise
        batch = _reread(body)
    if len(batch.batch) > MAX_ITEMS:
        raise too_many()
    arrivals: list[Arrival] = []
    for raw in batch.batch:
        item = bytes(raw)
        try:
            if len(arrivals) >= MAX_CALLS:
                raise InvalidMessageError("too_many", f"at most {MAX_CALLS} calls are taken in a batch; send it again")
            if len(item) > MAX_CALL_BYTES:
                detail = f"has {len(item)} bytes; at most {MAX_CALL_BYTES} are taken"
                raise InvalidMessageError("too_large", detail)
            call = read(_decode_call, item, MAX_CALL_BYTES)
        except InvalidMessageError as error:
            arrivals.append(Unreadable(_message_id(item), error))
        else:
            arrivals.append(_arrival(call.type, call, batch, types))
    return arrivals


def _reread(body: bytes) -> _Batch:
    """A batch in whose calls there is something that no store takes, which is left for each of them to tell."""
    data = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) <= 20 else math.inf)
    calls = [msgspec.Raw(json.dumps(call).encode()) for call in data.pop("batch")]
    outer = read(_decode_batch, json.dumps({**data, "batch": []}).encode(), _MOST * MAX_BATCH_BYTES)
    return _Batch(calls, outer.context, outer.integrations, outer.sentAt)


_MOST = 6
"""Times that JSON may grow once all that is not ASCII is escaped."""
_NOTHING = _Batch([])


def _arrival(kind: str | None, call: Call, batch: _Batch, types: EventTypes) -> Arrival:
    try:
        return _translated(kind, call, batch, types)
    except InvalidMessageError as error:
        return Unreadable(call.messageId or None, error)


def _translated(kind: str | None, call: Call, batch: _Batch, types: EventTypes) -> Translated:
    user, anonymous = _text(call.userId), _text(call.anonymousId)
    properties = call.properties or {}
    names = _NAMES
    if kind == "track":
        if not call.event:
            raise InvalidMessageError("missing_field", "is required of a track", "/event")
        type_, properties = types.translated(call.event, properties)
    elif kind in ("page", "screen"):
        type_ = types.calls[kind]
        named = {"name": call.name, "category": call.category}
        properties = {**properties, **{name: text for name, text in named.items() if text}}
    elif kind == "group":
        if (group := _text(call.groupId)) is None:
            raise InvalidMessageError("missing_field", "is required of a group", "/groupId")
        type_, properties = types.calls[kind], {"group_id": group, "traits": call.traits or {}}
    elif kind == "identify":
        traits = (call.context or {}).get("traits") if call.traits is None else call.traits
        type_, properties, names = IDENTIFY, {"traits": traits or {}}, _NAMES_OF_TRAITS
    elif kind == "alias":
        # A link of an anonymous past, and never a merger: nobody becomes somebody else's customer_id by this.
        anonymous = _text(call.previousId)
        for name, given in (("previousId", anonymous), ("userId", user)):
            if given is None:
                raise InvalidMessageError("missing_field", "is required of an alias", f"/{name}")
        type_, properties, names = IDENTIFY, {}, _NAMES_OF_ALIAS
    else:
        raise InvalidMessageError("unknown_type", f"must be one of {', '.join(CALLS)}", "/type")
    if user is None and anonymous is None:
        raise InvalidMessageError("no_customer", "names neither a userId nor an anonymousId", "/userId")
    context = _merged(batch.context, call.context)
    if integrations := _merged(batch.integrations, call.integrations):
        context = {**context, "integrations": integrations}
    occurred_at = call.timestamp or call.originalTimestamp
    submission = Submission(
        type=type_,
        id=call.messageId or None,
        customer_id=user,
        anonymous_id=anonymous,
        occurred_at=occurred_at,
        properties=properties,
        context=context,
    )
    sent_at = call.sentAt or batch.sentAt
    return Translated(submission, None, _sent_at(sent_at) if sent_at else None, type_ == IDENTIFY, names)


_NAMES = {
    "id": "messageId",
    "type": "event",
    "customer_id": "userId",
    "anonymous_id": "anonymousId",
    "occurred_at": "timestamp",
}
_NAMES_OF_TRAITS = {**_NAMES, "properties": "traits"}
_NAMES_OF_ALIAS = {**_NAMES, "anonymous_id": "previousId"}


def _text(id_: str | int | None) -> str | None:
    """Libraries send numbers as they are, and an empty text for nobody."""
    return str(id_) if isinstance(id_, int) else id_ or None


def _merged(of_batch: JsonObject | None, of_call: JsonObject | None) -> JsonObject:
    if not of_batch:
        return of_call or {}
    return {**of_batch, **(of_call or {})}


@lru_cache(1024)
def _sent_at(text: str) -> int:
    """All calls of one batch have the same."""
    try:
        return parse_instant(text)
    except ValueError as error:
        raise InvalidMessageError("invalid_time", str(error), "/sentAt") from None


def _message_id(raw: bytes) -> str | None:
    try:
        return _decode_named(raw).messageId
    except (ValueError, RecursionError):
        return None
