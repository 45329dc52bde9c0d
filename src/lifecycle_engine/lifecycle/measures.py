"""Measures: per-journey figures folded from touchpoints.

Each kind has a total — a plain value that msgpack and JSON can carry, or a window — a way to take one touchpoint in,
and a way to read it. A total depends on the touchpoints it has taken in and, with `within`, on the instant up to which
what has left the window was let go; on nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lifecycle_engine.lifecycle.guards import ValueType
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.lifecycle.windows import Window

Total = Any
"""int (count) · [numerator, shift] (sum) · [] or [value] (min, max, first, last).

With `within`: a Window, or what was carried of one: [instants, values, sum], the instants of what is in the window in
their order, the values beside them (none for a count), and for a sum its total.

A numerator beyond 64 bits is kept as hexadecimal text, since binary JSON has no larger integers.
"""

_MISSING = object()
_WORD = 1 << 63


class MeasureKind(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a definition. `path` leads into the touchpoint (empty for a count); `types` None means any type.

    `within` is in microseconds: at an instant t it holds what occurred in (t - within, t]. None: all of it.
    """

    name: str
    kind: MeasureKind
    path: tuple[str, ...]
    types: frozenset[str] | None
    within: int | None = None

    @property
    def value_type(self) -> ValueType:
        if self.kind is MeasureKind.COUNT:
            return ValueType.INT
        if self.kind is MeasureKind.SUM:
            return ValueType.DOUBLE
        return ValueType.ANY if self.path != ("occurred_at",) else ValueType.TIMESTAMP

    @property
    def empty(self) -> Total:
        if self.within is not None:
            return Window([], [], [0, 0])
        if self.kind is MeasureKind.COUNT:
            return 0
        return [0, 0] if self.kind is MeasureKind.SUM else []

    def take(self, total: Total, touchpoint: Touchpoint) -> Total:
        """The total with one more touchpoint of its types, which must sort after all that it holds.

        A total is never changed, only replaced.
        """
        if self.within is not None:
            return self._take_in(_window(total), touchpoint)
        if self.kind is MeasureKind.COUNT:
            return total + 1
        value = self._value(touchpoint)
        if value is _MISSING:
            return total
        if self.kind is MeasureKind.FIRST:
            return total or [value]
        if self.kind is MeasureKind.LAST:
            return [value]
        if self.kind is MeasureKind.SUM:
            return _plus(total, float(value))
        if not total:
            return [value]
        if self.kind is MeasureKind.MIN:
            return [value] if value < total[0] else total
        return [value] if value > total[0] else total

    def let_go(self, total: Total, at: int) -> Total:
        """The total of a window as of an instant, which must not lie before the last one that was asked for."""
        assert self.within is not None
        window = _window(total)
        gone = window.until(at - self.within)
        if not gone:
            return window
        whole = window.whole
        if self.kind is MeasureKind.SUM:
            for value in window.head(gone):
                whole = _plus(whole, -float(value))
        return window.without(gone, whole)

    def next_end(self, total: Total) -> int | None:
        """When the next touchpoint will leave the window."""
        assert self.within is not None
        window = _window(total)
        return window.first_instant + self.within if window else None

    def ends_at(self, total: Total, at: int) -> bool:
        """Whether a touchpoint leaves the window at this very instant."""
        assert self.within is not None
        return _window(total).holds(at - self.within)

    def held(self, total: Total) -> int:
        """How many entries a window has."""
        return len(_window(total))

    def read(self, total: Total) -> Any:
        """The figure: an int, a double, whatever value is there, or None where there is none yet."""
        if self.within is None:
            if self.kind is MeasureKind.COUNT:
                return total
            if self.kind is MeasureKind.SUM:
                return _rounded(total)
            return total[0] if total else None
        window = _window(total)
        if self.kind is MeasureKind.COUNT:
            return len(window)
        if self.kind is MeasureKind.SUM:
            return _rounded(window.whole)
        if not window:
            return None
        if self.kind is MeasureKind.FIRST:
            return window.first_value
        if self.kind is MeasureKind.LAST:
            return window.last_value
        return min(window.values) if self.kind is MeasureKind.MIN else max(window.values)

    def has_value(self, total: Total) -> bool:
        """False where naming the measure in a guard must err."""
        if self.kind in (MeasureKind.COUNT, MeasureKind.SUM):
            return True
        return bool(total if self.within is None else _window(total))

    def _take_in(self, window: Window, touchpoint: Touchpoint) -> Window:
        if self.kind is MeasureKind.COUNT:
            return window.counting(touchpoint.occurred_at)
        value = self._value(touchpoint)
        if value is _MISSING:
            return window
        whole = _plus(window.whole, float(value)) if self.kind is MeasureKind.SUM else window.whole
        return window.taking(touchpoint.occurred_at, value, whole)

    def _value(self, touchpoint: Touchpoint) -> Any:
        """What the measure takes of a touchpoint of its types; the marker where there is nothing for it."""
        value = value_at(touchpoint, self.path)
        if self.kind in (MeasureKind.FIRST, MeasureKind.LAST):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return _MISSING
        return value if self.kind is not MeasureKind.SUM or _is_double(value) else _MISSING


def _window(total: Total) -> Window:
    return total if type(total) is Window else Window.of(total)


def value_at(touchpoint: Touchpoint, path: tuple[str, ...]) -> Any:
    """The value that a path such as `properties.amount` leads to, or a marker that equals nothing where there is none.

    `occurred_at` gives microseconds since the epoch.
    """
    if path == ("occurred_at",):
        return touchpoint.occurred_at
    value: Any = touchpoint.properties if path[0] == "properties" else touchpoint.context
    for key in path[1:]:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _plus(total: Total, value: float) -> Total:
    """Adds exactly: a total is numerator / 2**shift, the numerator kept odd so that equal sums have equal totals."""
    numerator, denominator = value.as_integer_ratio()
    shift = denominator.bit_length() - 1
    total_numerator, total_shift = _integer(total[0]), total[1]
    if shift > total_shift:
        numerator += total_numerator << (shift - total_shift)
    else:
        numerator = total_numerator + (numerator << (total_shift - shift))
        shift = total_shift
    if shift and not numerator & 1:
        spare = min(shift, (numerator & -numerator).bit_length() - 1) if numerator else shift
        numerator >>= spare
        shift -= spare
    return [numerator if -_WORD <= numerator < _WORD else hex(numerator), shift]


def _rounded(total: Total) -> float:
    """Rounded once to the nearest double (ties to even), as `math.fsum` does; beyond the doubles, infinity."""
    numerator, shift = _integer(total[0]), int(total[1])
    try:
        return numerator / (1 << shift)
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _integer(numerator: int | str) -> int:
    return int(numerator, 16) if isinstance(numerator, str) else numerator
