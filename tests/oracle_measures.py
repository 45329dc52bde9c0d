"""The figures of a journey for the oracle: each is read anew from all the touchpoints, whenever it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tests.oracle_guards import Absent
from tests.oracle_times import duration, instant

Fact = Mapping[str, Any]
Measure = Mapping[str, Any]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def is_among(type_: str, types: Any) -> bool:
    """Whether a touchpoint's type is among those named: one, a list, or the word `any`."""
    return types == "any" or type_ in listed(types)


def look_up(fact: Fact, path: str) -> Any:
    """Raises `Absent` where the path leads nowhere."""
    value: Any = fact
    for part in path.split("."):
        if type(value) is not dict or part not in value:
            raise Absent
        value = value[part]
    return value


def measures_of(document: Mapping[str, Any], facts: Sequence[Fact], at: int) -> dict[str, Any]:
    """All measures of a definition at an instant; one without a value is missing."""
    figures = {}
    for name, measure in document.get("measures", {}).items():
        try:
            figures[name] = measure_of(measure, facts, at)
        except Absent:
            continue
    return figures


def measure_of(measure: Measure, facts: Sequence[Fact], at: int) -> Any:
    """A measure at an instant, over the journey's touchpoints so far. Raises `Absent` where it has no value."""
    since = at - duration(measure["within"]) if "within" in measure else -math.inf
    inside = [fact for fact in entries(measure, facts) if since < fact["occurred_at"] <= at]
    if "count" in measure:
        return len(inside)
    kind, path = _kind_and_path(measure)
    values = [look_up(fact, path) for fact in inside]
    if kind == "sum":
        return total([float(value) for value in values])
    if not values:
        raise Absent
    value = min(values) if kind == "min" else max(values) if kind == "max" else values[0 if kind == "first" else -1]
    return instant(value) if path == "occurred_at" else value


def entries(measure: Measure, facts: Sequence[Fact]) -> list[Fact]:
    """The touchpoints that a measure takes, whether or not they are inside its window."""
    types = measure.get("count", measure.get("of", "any"))
    taken = [fact for fact in facts if is_among(fact["type"], types)]
    if "count" in measure:
        return taken
    kind, path = _kind_and_path(measure)
    found = []
    for fact in taken:
        try:
            value = look_up(fact, path)
        except Absent:
            continue
        if kind in ("first", "last") or type(value) in (int, float):
            found.append(fact)
    return found


def _kind_and_path(measure: Measure) -> tuple[str, str]:
    ((kind, path),) = [(key, path) for key, path in measure.items() if key not in ("of", "within")]
    return kind, path


def total(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers)
    except OverflowError:
        # On the way, or in the end.
        exact = sum(map(Fraction, numbers))
        try:
            return float(exact)
        except OverflowError:
            return math.inf if exact > 0 else -math.inf
