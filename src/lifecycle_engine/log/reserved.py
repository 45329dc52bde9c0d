"""What the entries of the log must hold that are not touchpoints: their types begin with `$`.

docs/message.md describes them for those who write to the topic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, LINK, MERGE, OVERRIDE, RETRACT, UNLINK, UNMERGE

MAX_NAME = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Mistake(NamedTuple):
    """What is wrong with an entry, and where in it (a JSON pointer)."""

    code: str
    detail: str
    pointer: str


class Entry(NamedTuple):
    """What of an entry is looked at; `occurred_at` is in microseconds since the epoch, UTC."""

    customer_id: str | None
    anonymous_id: str | None
    occurred_at: int
    properties: Mapping[str, Any]


def mistake_in(type_: str, entry: Entry) -> Mistake | None:
    """The first mistake in an entry of a reserved type; None where it can be taken."""
    check = _CHECKS.get(type_)
    if check is None:
        known = ", ".join(_CHECKS)
        return Mistake("reserved_type", f"types that begin with $ are reserved, and there are only {known}", "/type")
    return check(entry)


def _identify(entry: Entry) -> Mistake | None:
    traits = entry.properties.get("traits")
    if traits is not None and not isinstance(traits, dict):
        return Mistake("wrong_type", "traits are an object", "/properties/traits")
    return _unknown(entry, "traits")


def _both(entry: Entry) -> Mistake | None:
    if entry.customer_id is None or entry.anonymous_id is None:
        return Mistake("missing_field", "a link names both a customer_id and an anonymous_id", "")
    return _unknown(entry, "reason", "actor")


def _merge(entry: Entry) -> Mistake | None:
    if mistake := _customer_only(entry) or _text(entry, "into"):
        return mistake
    if _CONTROL.search(entry.properties["into"]):
        return Mistake("control_character", "contains a control character", "/properties/into")
    if entry.properties["into"] == entry.customer_id:
        return Mistake("merged_into_itself", "a customer cannot be merged into itself", "/properties/into")
    return _unknown(entry, "into", "reason", "actor")


def _unmerge(entry: Entry) -> Mistake | None:
    return _customer_only(entry) or _unknown(entry, "from", "reason", "actor")


def _retract(entry: Entry) -> Mistake | None:
    return _text(entry, "source", 128) or _text(entry, "id", 128) or _unknown(entry, "source", "id", "reason", "actor")


def _override(entry: Entry) -> Mistake | None:
    if mistake := _text(entry, "lifecycle", 64) or _text(entry, "stage", 64):
        return mistake
    subject = entry.properties.get("subject")
    if subject is not None and not isinstance(subject, str):
        return Mistake("wrong_type", "a subject is a text, or null", "/properties/subject")
    if (mistake := _end(entry)) is not None:
        return mistake
    return _unknown(entry, "lifecycle", "subject", "stage", "expires_at", "reason", "actor")


def _end(entry: Entry) -> Mistake | None:
    if (expires_at := entry.properties.get("expires_at")) is None:
        return None
    pointer = "/properties/expires_at"
    if not isinstance(expires_at, str):
        return Mistake("wrong_type", "an instant is a text", pointer)
    try:
        end = parse_instant(expires_at)
    except ValueError as error:
        return Mistake("invalid_time", str(error), pointer)
    if end <= entry.occurred_at:
        return Mistake("invalid_time", "must be after occurred_at", pointer)
    return None


def _customer_only(entry: Entry) -> Mistake | None:
    if entry.customer_id is None or entry.anonymous_id is not None:
        return Mistake("missing_field", "customers are merged by their customer_id, and nothing else", "/customer_id")
    return None


def _text(entry: Entry, name: str, most: int = MAX_NAME) -> Mistake | None:
    value = entry.properties.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        return Mistake("wrong_type", f"must be a text of 1 to {most} characters", f"/properties/{name}")
    return None


def _unknown(entry: Entry, *names: str) -> Mistake | None:
    for name in entry.properties:
        if name not in names:
            return Mistake("unknown_field", "is not a property of such an entry", f"/properties/{name[:64]}")
    return None


_CHECKS: Mapping[str, Callable[[Entry], Mistake | None]] = {
    IDENTIFY: _identify,
    LINK: _both,
    UNLINK: _both,
    MERGE: _merge,
    UNMERGE: _unmerge,
    OVERRIDE: _override,
    RETRACT: _retract,
}
