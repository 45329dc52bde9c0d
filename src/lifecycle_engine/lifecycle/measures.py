"""Measures: per-journey figures folded from touchpoints.

Each kind has a total — a plain value that msgpack and JSON can carry — a way to take one touchpoint in, and a way to
read it. A total depends on the touchpoints it has taken in and on nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lifecycle_engine.lifecycle.guards import ValueType
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

Total = Any
"""int (count) · [numerator, shift] (sum) · [] or [value] (min, max, first, last).

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
    """One figure of a definition. `path` leads into the touchpoint (empty for a count); `types` None means any type."""

    name: str
    kind: MeasureKind
    path: tuple[str, ...]
    types: frozenset[str] | None

    @property
    def value_type(self) -> ValueType:
        if self.kind is MeasureKind.COUNT:
            return ValueType.INT
        if self.kind is MeasureKind.SUM:
            return ValueType.DOUBLE
        return ValueType.ANY if self.path != ("occurred_at",) else ValueType.TIMESTAMP

    @property
    def empty(self) -> Total:
        if self.kind is MeasureKind.COUNT:
            return 0
        return [0, 0] if self.kind is MeasureKind.SUM else []

    def take(self, total: Total, touchpoint: Touchpoint) -> Total:
        """The total with one more touchpoint of its types, which must sort after all that it holds.

        A total is never changed, only replaced.
        """
        if self.kind is MeasureKind.COUNT:
            return total + 1
        value = value_at(touchpoint, self.path)
        if value is _MISSING:
            return total
        if self.kind is MeasureKind.FIRST:
            return total or [value]
        if self.kind is MeasureKind.LAST:
            return [value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return total
        if self.kind is MeasureKind.SUM:
            return _plus(total, float(value)) if _is_double(value) else total
        if not total:
            return [value]
        if self.kind is MeasureKind.MIN:
            return [value] if value < total[0] else total
        return [value] if value > total[0] else total

    def read(self, total: Total) -> Any:
        """The figure: an int, a double, whatever value is there, or None where there is none yet."""
        if self.kind is MeasureKind.COUNT:
            return total
        if self.kind is MeasureKind.SUM:
            return _rounded(total)
        return total[0] if total else None

    def has_value(self, total: Total) -> bool:
        """False where naming the measure in a guard must err."""
        return self.kind in (MeasureKind.COUNT, MeasureKind.SUM) or bool(total)


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
