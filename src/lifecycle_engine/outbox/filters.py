"""Which events an endpoint gets: what a filter says, what is wrong with one, and whether it takes an event. Pure.

A filter is a map. Each member narrows it, and all of them must hold:

    {"event_types": ["stage.*"], "lifecycle": ["retail"], "from": ["purchase"], "to": ["retention", "advocacy"],
     "move": ["advance", "skip"], "traits": {"plan": "pro", "seats": {"$gte": 10}}}

An event that hasn't got what a member asks about (a merge has no lifecycle, a correction no move) is not taken by it.
Events about endpoints come only to those who name them: `endpoint.*`, or `*`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lifecycle_engine.lifecycle.definitions import MAX_HINTS, MAX_PROBLEMS, Problem, closest

EVENT_TYPES = (
    "stage.changed",
    "stage.expiring",
    "history.corrected",
    "customer.merged",
    "endpoint.disabled",
    "endpoint.failing",
    "endpoint.exhausted",
    "endpoint.recovered",
)
"""Every type of event that is told."""
MOVES = ("start", "advance", "skip", "back", "reenter")
MAX_VALUES = 100
"""Of one list, and of all conditions on traits together."""
MAX_DEPTH = 8
MAX_TEXT = 256

_ABOUT_ENDPOINTS = "endpoint."
_MEMBERS = ("event_types", "lifecycle", "from", "to", "move", "traits")
_ABSENT: Any = object()

Condition = Callable[[Any], bool]
"""Whether the value of a trait, or `_ABSENT`, is as it must be."""


class FilterError(ValueError):
    """A document that is no filter; `problems` has every mistake found, at most 50."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(f"{first.pointer or '/'}: {first.message}{f'; {first.hint}' if first.hint else ''}")


class About(NamedTuple):
    """What filters ask an event about; None where it hasn't got that."""

    type: str
    lifecycle: str | None = None
    origin: str | None = None
    to: str | None = None
    move: str | None = None


class Filter(NamedTuple):
    """A filter ready for use; None where it asks for nothing."""

    document: Mapping[str, Any]
    """As it is stored and shown: every member but `traits` is a list."""
    types: frozenset[str]
    lifecycles: frozenset[str] | None
    origins: frozenset[str] | None
    targets: frozenset[str] | None
    moves: frozenset[str] | None
    traits: Condition | None

    @property
    def asks_for_data(self) -> bool:
        """Whether the event's data has to be read (`about`), and not only its type and lifecycle."""
        return not (self.origins is self.targets is self.moves is None)

    @property
    def asks_for_traits(self) -> bool:
        """Whether the customer's traits have to be read."""
        return self.traits is not None


class _Data(msgspec.Struct):
    origin: str | None = msgspec.field(default=None, name="from")
    stage: str | None = None
    to: str | None = None
    move: str | None = None


_read = msgspec.json.Decoder(_Data).decode


def about(type_: str, lifecycle: str | None, data: bytes) -> About:
    """What there is to ask about an event; `data` is the JSON that its subscribers get as `data`.

    An announcement (`stage.expiring`) is asked about the stage that is going to be left and the one to come.
    """
    read = _read(data)
    return About(type_, lifecycle, read.stage if read.origin is None else read.origin, read.to, read.move)


def matches(filter_: Filter, event: About, traits: Mapping[str, Any] | None) -> bool:
    """Whether an endpoint with this filter gets an event about a customer with these traits (None: about nobody)."""
    return (
        event.type in filter_.types
        and (filter_.lifecycles is None or event.lifecycle in filter_.lifecycles)
        and (filter_.origins is None or event.origin in filter_.origins)
        and (filter_.targets is None or event.to in filter_.targets)
        and (filter_.moves is None or event.move in filter_.moves)
        and (filter_.traits is None or (traits is not None and filter_.traits(traits)))
    )


def parse_filter(document: Any) -> Filter:
    """A filter from plain data. Raises FilterError, which has all that is wrong with it.

    A single text counts as a list of one. A pattern of event types ends in `.*`; `*` is all of them.
    """
    reader = _Reader()
    found = reader.filter(document)
    if reader.problems:
        raise FilterError(reader.problems)
    return found


class _Reader:
    """Reads a filter to its end, whatever is wrong with it, and collects the mistakes."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.values = 0

    def filter(self, raw: Any) -> Filter:
        document: dict[str, Any] = {}
        if not isinstance(raw, dict):
            self.mistake("", f"must be a map with any of {', '.join(_MEMBERS)}, not {_kind(raw)}")
            raw = {}
        for name in raw:
            if name not in _MEMBERS:
                self.mistake(_join("", name), f"is not known; a filter has {', '.join(_MEMBERS)}", name, _MEMBERS)
        texts: dict[str, frozenset[str] | None] = {}
        for name in ("lifecycle", "from", "to", "move"):
            texts[name] = None
            if raw.get(name) is not None:
                document[name] = self.texts(raw[name], f"/{name}", MOVES if name == "move" else None)
                texts[name] = frozenset(document[name])
        if raw.get("event_types") is not None:
            document = {"event_types": self.texts(raw["event_types"], "/event_types", None), **document}
        condition = None
        if raw.get("traits") is not None:
            document["traits"] = raw["traits"]
            condition = self.fields(raw["traits"], "/traits", 0)
        types = self.types(document.get("event_types"))
        return Filter(document, types, texts["lifecycle"], texts["from"], texts["to"], texts["move"], condition)

    def types(self, patterns: Sequence[str] | None) -> frozenset[str]:
        if patterns is None:
            return frozenset(type_ for type_ in EVENT_TYPES if not type_.startswith(_ABOUT_ENDPOINTS))
        families = tuple(dict.fromkeys(type_.partition(".")[0] + ".*" for type_ in EVENT_TYPES))
        found: set[str] = set()
        for place, pattern in enumerate(patterns):
            taken = {type_ for type_ in EVENT_TYPES if pattern in ("*", type_, type_.partition(".")[0] + ".*")}
            if not taken:
                known = (*EVENT_TYPES, *families)
                self.mistake(
                    f"/event_types/{place}",
                    f"{_shown(pattern)} is no type of event; there are {', '.join(known)}, and * for all of them",
                    pattern,
                    known,
                )
            found |= taken
        return frozenset(found)

    def texts(self, raw: Any, pointer: str, choices: Sequence[str] | None) -> list[str]:
        items = raw if isinstance(raw, list) else [raw]
        if not items:
            self.mistake(pointer, "is empty, so nothing would ever come; leave it out to get everything")
        if len(items) > MAX_VALUES:
            self.mistake(pointer, f"has {len(items)} values; at most {MAX_VALUES} are possible")
            items = []
        found: list[str] = []
        for place, item in enumerate(items):
            where = f"{pointer}/{place}" if isinstance(raw, list) else pointer
            if not isinstance(item, str):
                self.mistake(where, f"must be a text, not {_kind(item)}")
            elif not item or len(item) > MAX_TEXT:
                self.mistake(where, f"must have 1 to {MAX_TEXT} characters")
            elif choices is not None and item not in choices:
                self.mistake(where, f"{_shown(item)} is none of {', '.join(choices)}", item, choices)
            elif item not in found:
                found.append(item)
        return found

    # -- traits ------------------------------------------------------------------------------------------------------

    def fields(self, raw: Any, pointer: str, depth: int) -> Condition:
        """A map of traits (or of what is in one) to conditions, all of which must hold; also `$or` and `$not`."""
        if not isinstance(raw, dict):
            self.mistake(pointer, f"must be a map of traits to what they must be, not {_kind(raw)}")
            return _never
        if depth >= MAX_DEPTH:
            self.mistake(pointer, f"conditions nest at most {MAX_DEPTH} deep")
            return _never
        if not raw:
            self.mistake(pointer, 'is empty; say what a trait must be, such as {"plan": "pro"}, or leave it out')
        conditions: list[Condition] = []
        for name, asked in raw.items():
            where = _join(pointer, name)
            if name == "$or":
                conditions.append(
                    _any(self.alternatives(asked, where, lambda one, at: self.fields(one, at, depth + 1)))
                )
            elif name == "$not":
                conditions.append(_not(self.fields(asked, where, depth + 1)))
            elif name.startswith("$"):
                self.mistake(where, f"{_shown(name)} is not possible here; $or and $not are", name, ("$or", "$not"))
            else:
                conditions.append(_member(name, self.value(asked, where, depth + 1)))
        return _all(conditions)

    def value(self, raw: Any, pointer: str, depth: int) -> Condition:
        """What one value must be: equal to a plain one, as operators say, or a map with members that are as asked."""
        self.values += 1
        if self.values == MAX_VALUES + 1:
            self.mistake("/traits", f"has more than {MAX_VALUES} conditions")
        if self.values > MAX_VALUES or not self.is_plain(raw, pointer):
            return _never
        if not isinstance(raw, dict):
            return _equals(raw)
        if not any(name.startswith("$") for name in raw):
            return self.fields(raw, pointer, depth)
        if depth >= MAX_DEPTH:
            self.mistake(pointer, f"conditions nest at most {MAX_DEPTH} deep")
            return _never
        return _all([self.operator(name, asked, _join(pointer, name), depth) for name, asked in raw.items()])

    def operator(self, name: str, asked: Any, pointer: str, depth: int) -> Condition:
        if name in _COMPARISONS:
            if isinstance(asked, bool) or not isinstance(asked, int | float | str):
                self.mistake(pointer, f"compares with a number or a text, not with {_kind(asked)}")
                return _never
            return _compares(_COMPARISONS[name], asked)
        if name == "$in":
            return _any(self.alternatives(asked, pointer, lambda one, at: self.literal(one, at)))
        if name == "$exist":
            if not isinstance(asked, bool):
                self.mistake(pointer, f"must be true or false, not {_kind(asked)}")
            return lambda value: (value is not _ABSENT and value is not None) is asked
        if name == "$not":
            return _not(self.value(asked, pointer, depth + 1))
        if name == "$or":
            return _any(self.alternatives(asked, pointer, lambda one, at: self.value(one, at, depth + 1)))
        message = f"{_shown(name)} is no operator; there are {', '.join(_OPERATORS)}"
        if not name.startswith("$"):
            message = "operators and the names of what is in a trait do not go together; write one map for each"
        self.mistake(pointer, message, name, _OPERATORS)
        return _never

    def literal(self, raw: Any, pointer: str) -> Condition:
        if isinstance(raw, dict):
            self.mistake(pointer, "must be a plain value: a text, a number, true, false, null, or a list of them")
            return _never
        return _equals(raw) if self.is_plain(raw, pointer) else _never

    def alternatives(self, raw: Any, pointer: str, read: Callable[[Any, str], Condition]) -> list[Condition]:
        if not isinstance(raw, list) or not raw:
            self.mistake(pointer, f"must be a list of one alternative or more, not {_kind(raw)}")
            return []
        if len(raw) > MAX_VALUES:
            self.mistake(pointer, f"has {len(raw)} values; at most {MAX_VALUES} are possible")
            return []
        return [read(one, f"{pointer}/{place}") for place, one in enumerate(raw)]

    def is_plain(self, raw: Any, pointer: str) -> bool:
        if isinstance(raw, str) and len(raw) > MAX_TEXT:
            self.mistake(pointer, f"has {len(raw)} characters; at most {MAX_TEXT} are possible")
            return False
        if isinstance(raw, list):
            if len(raw) > MAX_VALUES:
                self.mistake(pointer, f"has {len(raw)} values; at most {MAX_VALUES} are possible")
                return False
            if any(isinstance(one, list | dict) for one in raw):
                self.mistake(pointer, "a list to compare with has plain values only, no lists and no maps")
                return False
            return all(self.is_plain(one, f"{pointer}/{place}") for place, one in enumerate(raw))
        return True

    def mistake(self, pointer: str, message: str, word: str = "", choices: Sequence[str] = ()) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            hint = closest(word, choices) if choices and len(self.problems) < MAX_HINTS else None
            self.problems.append(Problem(pointer, message, hint))


def _compares(holds: Callable[[Any, Any], bool], asked: float | str) -> Condition:
    """Numbers with numbers, and texts with texts by their code points, which is the order of instants in UTC."""
    kinds: tuple[type, ...] = (str,) if isinstance(asked, str) else (int, float)

    def condition(value: Any) -> bool:
        return any(
            isinstance(one, kinds) and not isinstance(one, bool) and holds(one, asked)
            for one in (value if isinstance(value, list) else (value,))
        )

    return condition


def _equals(asked: Any) -> Condition:
    """A trait that is a list also has what is in it. Null is what is not there."""
    if asked is None:
        return lambda value: value is _ABSENT or value is None

    def condition(value: Any) -> bool:
        return _same(value, asked) or (isinstance(value, list) and any(_same(one, asked) for one in value))

    return condition


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON has it: 1 is 1.0, and is not true."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _member(name: str, condition: Condition) -> Condition:
    return lambda value: condition(value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT)


def _not(condition: Condition) -> Condition:
    return lambda value: not condition(value)


def _all(conditions: Sequence[Condition]) -> Condition:
    return lambda value: all(condition(value) for condition in conditions)


def _any(conditions: Sequence[Condition]) -> Condition:
    return lambda value: any(condition(value) for condition in conditions)


def _never(value: Any) -> bool:
    return False


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gte": lambda one, other: bool(one >= other),
    "$gt": lambda one, other: bool(one > other),
    "$lte": lambda one, other: bool(one <= other),
    "$lt": lambda one, other: bool(one < other),
}
_OPERATORS = ("$in", *_COMPARISONS, "$not", "$exist", "$or")


def _join(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _shown(text: str) -> str:
    return repr(text[:64])


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    for type_, name in ((dict, "a map"), (list, "a list"), (str, "a text")):
        if isinstance(value, type_):
            return name if value else f"{name} that is empty"
    return "a number"
