"""CloudEvents 1.0 over HTTP: one in the headers (binary), one as JSON (structured), or several (batched).

Their own `source` and `id` identify them. docs/cloudevents.md says what becomes of the rest.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from lifecycle_engine.ingest.formats.arrays import check_brackets, read_items
from lifecycle_engine.ingest.formats.arrivals import MAX_ITEMS, Arrival, Translated, Unreadable, apart, too_many
from lifecycle_engine.ingest.formats.event_types import EventTypes
from lifecycle_engine.log.message import (
    MAX_TOUCHPOINT_BYTES,
    MAX_VALUES,
    InvalidMessageError,
    find_id,
    make_submission,
    pointer_part,
    read,
)

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
PREFIX = b"ce-"
"""Of the headers that carry attributes in binary mode."""
CUSTOMER, ANONYMOUS = "customerid", "anonymousid"
"""Extension attributes that name whom the event is about."""
MAX_SOURCE = 128

_NAME = re.compile("[a-z0-9]{1,64}").fullmatch
_TEXT = re.compile(r"text/|application/(xml|x-www-form-urlencoded|yaml)|[^/]+/[^;]*\+(xml|yaml)")
_JSON = re.compile(r"(application|text)/json|[^/]+/[^;]*\+json")
_NOT_CONTEXT = frozenset(
    {"id", "source", "specversion", "type", "time", "datacontenttype", "subject", CUSTOMER, ANONYMOUS}
)
_NO_DATA: Any = object()

_decode_event = msgspec.json.Decoder(dict[str, Any]).decode
_decode_events = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_any = msgspec.json.Decoder(Any).decode


def read_structured(body: bytes, types: EventTypes) -> Arrival:
    """An event as JSON."""
    try:
        return _structured(body, types)
    except InvalidMessageError as error:
        return Unreadable(find_id(body), error)


async def read_batch(body: bytes, types: EventTypes) -> Sequence[Arrival]:
    """A list of events as JSON, which may be empty. Raises InvalidMessageError for what is none, or too much."""
    check_brackets(body)
    try:
        events = _decode_events(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if body.lstrip()[:1] != b"[":
            _explain_no_list(body)
        arrivals: Sequence[Arrival] = await apart(
            lambda body: read_items(body, lambda raw: _structured(raw, types)), body
        )
    else:
        if len(events) > MAX_ITEMS:
            raise too_many()
        arrivals = await apart(lambda _: [_each(event, types) for event in events], body)
    return arrivals


def read_binary(headers: Iterable[tuple[bytes, bytes]], body: bytes, types: EventTypes) -> Arrival:
    """An event whose attributes are headers, and whose data are the body."""
    attributes: dict[str, Any] = {}
    try:
        for name, value in headers:
            if name.startswith(PREFIX):
                attribute = name[len(PREFIX) :].decode("latin-1")
                if attribute in attributes:
                    raise InvalidMessageError("repeated_attribute", "is there twice", f"/{pointer_part(attribute)}")
                if attribute in ("data", "datacontenttype"):
                    raise InvalidMessageError("unknown_field", "is no header of an event", f"/{attribute}")
                attributes[attribute] = _header(attribute, value)
            elif name == b"content-type":
                attributes["datacontenttype"] = value.decode("latin-1").strip() or None
        data = _NO_DATA if not body else _data(attributes.get("datacontenttype"), body, "/data")
        return _translated(attributes, data, types)
    except InvalidMessageError as error:
        id_ = attributes.get("id")
        return Unreadable(id_ if isinstance(id_, str) and 0 < len(id_) <= 128 else None, error)


def _structured(raw: bytes, types: EventTypes) -> Arrival:
    return _of_json(read(_decode_event, raw, MAX_TOUCHPOINT_BYTES), types)


def _each(event: dict[str, Any], types: EventTypes) -> Arrival:
    try:
        return _of_json(event, types)
    except InvalidMessageError as error:
        id_ = event.get("id")
        return Unreadable(id_ if isinstance(id_, str) and 0 < len(id_) <= 128 else None, error)


def _of_json(event: dict[str, Any], types: EventTypes) -> Translated:
    data = event.pop("data", _NO_DATA)
    encoded = event.pop("data_base64", None)
    if encoded is not None:
        if data is not _NO_DATA:
            raise InvalidMessageError("unknown_field", "cannot stand beside data", "/data_base64")
        data = _data(event.get("datacontenttype"), _from_base64(encoded), "/data_base64")
    return _translated(event, data, types)


def _translated(attributes: Mapping[str, Any], data: Any, types: EventTypes) -> Translated:
    if len(attributes) > MAX_VALUES:
        raise InvalidMessageError(
            "too_many_values", f"has {len(attributes)} attributes; at most {MAX_VALUES} are taken"
        )
    values = {name: _value(name, value) for name, value in attributes.items() if value is not None}
    for name in ("specversion", "id", "source", "type"):
        if name not in values:
            raise InvalidMessageError("missing_field", "is required", f"/{name}")
    if values["specversion"] != "1.0":
        raise InvalidMessageError("unsupported_version", "must be 1.0", "/specversion")
    source = values["source"]
    if len(source) > MAX_SOURCE:
        detail = f"has {len(source)} characters; with the id it identifies the event, and at most {MAX_SOURCE} are kept"
        raise InvalidMessageError("wrong_length", detail, "/source")
    properties = {} if data is _NO_DATA or data is None else data if isinstance(data, dict) else {"data": data}
    type_, properties = types.translated(values["type"], properties)
    context = {name: value for name, value in values.items() if name not in _NOT_CONTEXT}
    customer_id, anonymous_id, subject = values.get(CUSTOMER), values.get(ANONYMOUS), values.get("subject")
    names = _NAMES
    if customer_id is None and anonymous_id is None:
        customer_id, names = subject, _NAMES_BY_SUBJECT
        if subject is None:
            detail = f"names nobody: neither a subject nor the extension {CUSTOMER} or {ANONYMOUS}"
            raise InvalidMessageError("no_customer", detail, "/subject")
    elif subject is not None:
        context["subject"] = subject
    media_type = values.get("datacontenttype")
    if media_type is not None and data is not _NO_DATA and not _is_json(media_type):
        context["datacontenttype"] = media_type
    fields = {
        "id": values["id"],
        "type": type_,
        "customer_id": customer_id,
        "anonymous_id": anonymous_id,
        "occurred_at": values.get("time"),
        "properties": properties,
        "context": context,
    }
    try:
        submission = make_submission(fields)
    except InvalidMessageError as error:
        field = error.pointer[1:]
        raise InvalidMessageError(error.code, error.detail, f"/{names.get(field, field)}") from None
    return Translated(submission, source, None, False, names)


_NAMES = {"customer_id": CUSTOMER, "anonymous_id": ANONYMOUS, "occurred_at": "time", "properties": "data"}
_NAMES_BY_SUBJECT = {**_NAMES, "customer_id": "subject"}


def _value(name: str, value: Any) -> str:
    """An attribute as a text, which is what all of them are in headers, so that an event is the same in every mode."""
    if name not in _NOT_CONTEXT and not _NAME(name):
        detail = "is no name of an attribute: those consist of a to z and digits"
        raise InvalidMessageError("unknown_field", detail, f"/{pointer_part(name)}")
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and name not in _NOT_CONTEXT:
        text = str(value)
    else:
        raise InvalidMessageError("wrong_type", "must be a text", f"/{name}")
    if not text:
        raise InvalidMessageError("wrong_length", "must not be empty", f"/{name}")
    if name == "source" and not text.isprintable() and _CONTROL.search(text):
        raise InvalidMessageError("control_character", "contains a control character", "/source")
    return text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).fullmatch


def _header(name: str, value: bytes) -> str:
    """The text of an attribute's header, whose percent signs are decoded once (HTTP binding 1.0.2, 3.1.3.2).

    Some clients write the text as it is, in UTF-8 or, as Node.js does, in Latin-1.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if quoted := _QUOTED(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidMessageError(
            "malformed", "is not UTF-8 once its percent signs are decoded", f"/{pointer_part(name)}"
        ) from None


def _data(media_type: Any, data: bytes, pointer: str) -> Any:
    """The data that bytes of a media type stand for; those that are no text stay Base64."""
    if media_type is None or (isinstance(media_type, str) and _is_json(media_type)):
        try:
            return read(_decode_any, data, MAX_TOUCHPOINT_BYTES)
        except InvalidMessageError as error:
            raise InvalidMessageError(error.code, error.detail, pointer + error.pointer) from None
    if isinstance(media_type, str) and _TEXT.match(media_type.lower()):
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(data).decode()}


def _is_json(media_type: str) -> bool:
    return _JSON.fullmatch(media_type.partition(";")[0].strip().lower()) is not None


def _from_base64(text: Any) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise InvalidMessageError("wrong_type", "must be Base64", "/data_base64")


def _explain_no_list(body: bytes) -> None:
    read(_decode_events, body, MAX_TOUCHPOINT_BYTES)
