"""Which types of touchpoint other systems' events are: data, from this package and from the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from lifecycle_engine.catalog.documents import DocumentError, read_document

CALLS = ("page", "screen", "group")
"""Segment's calls that name no event."""


class EventTypesError(ValueError):
    """A table of event types that cannot be used; the text says where and why."""


class Rule(NamedTuple):
    """What becomes of an event: `properties` gives for each one that is derived those that it is taken from."""

    event: str
    type: str
    properties: Mapping[str, tuple[str, ...]]


class EventTypes:
    """The events that are known, by their names; `calls` gives the type of each of the `CALLS`."""

    def __init__(self, calls: Mapping[str, str], rules: Mapping[str, Rule]) -> None:
        self.calls = calls
        self.rules = rules
        self._rule = lru_cache(4096)(self._look_up)

    def translated(self, event: str, properties: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The type and the properties of the touchpoint that an event is."""
        rule = self._rule(event)
        if rule is None:
            return event, properties
        for name, sources in rule.properties.items():
            if properties.get(name) is None:
                found = (properties.get(source) for source in sources)
                number = next(
                    (one for one in found if isinstance(one, int | float) and not isinstance(one, bool)), None
                )
                if number is not None:
                    properties = {**properties, name: number}
        return rule.type, properties

    def _look_up(self, event: str) -> Rule | None:
        return self.rules.get(_plain(event))


def default_event_types() -> EventTypes:
    """Those of this package."""
    data = resources.files(__package__).joinpath("event_types.yaml").read_bytes()
    return _with(EventTypes({}, {}), data, "event_types.yaml")


def load_event_types(given: str) -> EventTypes:
    """Those of this package, with what is given in addition: the name of a YAML or JSON file, or the table itself.

    An entry of null takes one away. Raises EventTypesError.
    """
    default = default_event_types()
    if not given.strip():
        return default
    if "\n" in given or given.lstrip().startswith("{"):
        return _with(default, given.encode("utf-8", "surrogateescape"), "the table")
    try:
        data = Path(given).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EventTypesError(f"{given!r} is neither a table nor a file that can be read: {reason}") from None
    return _with(default, data, given)


def _with(types: EventTypes, data: bytes, where: str) -> EventTypes:
    try:
        document = read_document(data, "application/yaml")
    except DocumentError as error:
        raise EventTypesError(f"{where}, {error}") from None

    def wrong(pointer: str, message: str) -> EventTypesError:
        line, column = document.locate(pointer)
        return EventTypesError(f"{where}, line {line}, column {column}: {message}")

    def is_name(value: Any) -> bool:
        return isinstance(value, str) and 0 < len(value) <= 128 and value[0] != "$" and value.isprintable()

    table = document.data
    if not isinstance(table, dict) or not table.keys() <= {"calls", "events"}:
        raise wrong("", "must hold `calls`, `events`, or both, and nothing else")
    calls, rules = dict(types.calls), dict(types.rules)
    for part in ("calls", "events"):
        if not isinstance(table.get(part, {}), dict | NoneType):
            raise wrong(f"/{part}", f"`{part}` must be a map from names to types")
    for call, type_ in (table.get("calls") or {}).items():
        if call not in CALLS or not is_name(type_):
            raise wrong(
                f"/calls/{call}", f"must be one of {', '.join(CALLS)}, and its type: 1 to 128 characters, no $ first"
            )
        calls[call] = type_
    for event, entry in (table.get("events") or {}).items():
        pointer = f"/events/{event.replace('~', '~0').replace('/', '~1')}"
        if entry is None:
            rules.pop(_plain(event), None)
            continue
        entry = {"type": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not entry.keys() <= {"type", "properties"}:
            raise wrong(pointer, "must be a type, or `type` and `properties`")
        if not is_name(entry.get("type")):
            raise wrong(pointer, "a type has 1 to 128 characters, and does not begin with $")
        derived = entry.get("properties") or {}
        if not isinstance(derived, dict) or not all(_is_list_of_names(sources) for sources in derived.values()):
            raise wrong(f"{pointer}/properties", "must be a map from names to lists of names")
        sources = {name: tuple(of) for name, of in derived.items()}
        rules[_plain(event)] = Rule(event, entry["type"], sources)
    return EventTypes(calls, rules)


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


_SEPARATORS = re.compile(r"[\s_-]+")


def _plain(event: str) -> str:
    return _SEPARATORS.sub(" ", event).strip().casefold()
