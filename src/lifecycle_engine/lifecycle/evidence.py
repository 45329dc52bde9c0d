"""What a guard saw: whether it held, and the values of just those names that its expression mentions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.expressions import Name, parts
from lifecycle_engine.lifecycle.guards import Guard
from lifecycle_engine.lifecycle.situations import Situation

_LONGEST_TEXT = 200
_MOST_ITEMS = 10
_DEEPEST = 3


class Seen(NamedTuple):
    """What a guard saw: `values` of what its expression mentions and was there, shortened; `missing` what was not."""

    values: dict[str, Any]
    missing: tuple[str, ...]


class Examined(NamedTuple):
    """One guard in one situation.

    `held` None: that depends on the touchpoint, and there is none yet. `error` tells why it could not be told, and then
    it counts as not held.
    """

    guard: Guard
    situation: Situation
    held: bool | None
    error: str | None = None

    @property
    def source(self) -> str:
        return self.guard.source

    def seen(self) -> Seen:
        """The values are looked up anew each time: most guards are only asked whether they held."""
        named = self.situation.named()
        values: dict[str, Any] = {}
        missing: list[str] = []
        for path in _asked(self.guard):
            value = _led_to(named, path)
            if value is not _MISSING:
                values[_written(*path)] = _short(value)
            elif self.held is not None or not _is_of_event(path):
                missing.append(_written(*path))
        return Seen(values, tuple(missing))


def examined(guards: Sequence[Guard], situation: Situation, *, awaits_touchpoint: bool = False) -> tuple[Examined, ...]:
    """Each guard in a situation as it is, or as it is before a touchpoint that is yet to come."""
    return tuple(
        [
            Examined(guard, situation, None)
            if awaits_touchpoint and any(map(_is_of_event, _asked(guard)))
            else Examined(guard, situation, *guard.examine(situation.values))
            for guard in guards
        ]
    )


_MISSING = object()
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _asked(guard: Guard) -> list[tuple[str, ...]]:
    """The names that an expression asks for, each with the keys by which it goes into the value, in its order."""
    return list(dict.fromkeys(part.path for part in parts(guard.tree()) if isinstance(part, Name)))


def _is_of_event(path: Sequence[str]) -> bool:
    return path[0].startswith("event.")


def _written(name: str, *keys: str) -> str:
    return name + "".join(f".{key}" if _WORD.fullmatch(key) else f"[{json.dumps(key)}]" for key in keys)


def _led_to(named: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = named
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _short(value: Any, depth: int = 0) -> Any:
    """A value as JSON can carry it and people can read it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, Mapping | list):
        return value
    if depth == _DEEPEST:
        return "…"
    if isinstance(value, list):
        shown = [_short(each, depth + 1) for each in value[:_MOST_ITEMS]]
        return shown if len(value) <= _MOST_ITEMS else [*shown, "…"]
    items = list(value.items())
    named = {_short(name): _short(each, depth + 1) for name, each in items[:_MOST_ITEMS]}
    return named if len(items) <= _MOST_ITEMS else {**named, "…": "…"}
