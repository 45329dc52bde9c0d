"""What comparisons with literals leave of the values that one name can have.

A handful of values stands for all: the literals themselves and their neighbours. If none of these will do, none will.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.expressions import Call, Expression, Literal, Name

MOST = 32
"""More comparisons of one name are not looked into."""

_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_TICK = timedelta(microseconds=1)
_SOMETHING_ELSE = object()
"""A value that is of no kind that a literal has, or no value at all."""


class Comparison(NamedTuple):
    """`==`, `!=`, `<`, `<=`, `>` or `>=`, and the literal to the right of it."""

    operator: str
    literal: Any

    def holds(self, value: Any) -> bool:
        is_alike = _kind(value) == _kind(self.literal)
        match self.operator:
            case "==":
                return is_alike and bool(value == self.literal)
            case "!=":
                return not (is_alike and value == self.literal)
        # Values of two kinds have no order: asking for it errs.
        if not is_alike or value is None:
            return False
        match self.operator:
            case "<":
                return bool(value < self.literal)
            case "<=":
                return bool(value <= self.literal)
            case ">":
                return bool(value > self.literal)
            case _:
                return bool(value >= self.literal)


class Constraint(NamedTuple):
    """One of the alternatives must hold of the name's value."""

    name: str
    alternatives: tuple[Comparison, ...]

    def holds(self, value: Any) -> bool:
        return any(comparison.holds(value) for comparison in self.alternatives)


def one_of(name: str, values: Iterable[Any]) -> Constraint:
    """The name has one of these values."""
    return Constraint(name, tuple([Comparison("==", value) for value in values]))


def constraint(expression: Expression) -> Constraint | None:
    """The expression as a constraint on one name; None where it is something else."""
    match expression:
        case Name():
            return one_of(expression.text, (True,))
        case Call("!", (Name() as name,)):
            return one_of(name.text, (False,))
        case Call("!", (Call(operator, (left, right)),)) if operator in _NEGATED:
            return constraint(Call(_NEGATED[operator], (left, right)))
        case Call("in", (Name() as name, Literal(list() as values))) if all(map(_kind, values)):
            return one_of(name.text, values)
        case Call("||", arguments):
            alternatives = [constraint(argument) for argument in arguments]
            found = [each for each in alternatives if each is not None]
            if len(found) == len(arguments) and len({each.name for each in found}) == 1:
                return Constraint(found[0].name, tuple([one for each in found for one in each.alternatives]))
            return None
        case Call(operator, (Name() as name, Literal(value))) if operator in _MIRRORED and _kind(value):
            return Constraint(name.text, (Comparison(operator, value),))
        case Call(operator, (Literal(), Name()) as sides) if operator in _MIRRORED:
            return constraint(Call(_MIRRORED[operator], sides[::-1]))
        case _:
            return None


def possible(constraints: Sequence[Constraint], *, is_whole: bool = False) -> bool:
    """Whether any value meets all of these, which are about one name; `is_whole`: it has integers from 0 on."""
    samples = _samples(constraints, is_whole)
    return samples is None or any(all(one.holds(value) for one in constraints) for value in samples)


def implied(constraints: Sequence[Constraint], by: Sequence[Constraint], *, is_whole: bool = False) -> bool:
    """Whether each value that meets the second ones meets the first ones too; all are about one name."""
    samples = _samples([*constraints, *by], is_whole)
    return samples is not None and all(
        all(one.holds(value) for one in constraints) for value in samples if all(one.holds(value) for one in by)
    )


def _samples(constraints: Sequence[Constraint], is_whole: bool) -> list[Any] | None:
    literals = [one.literal for each in constraints for one in each.alternatives]
    if len(literals) > MOST:
        return None
    samples = [sample for literal in literals for sample in _neighbours(literal)]
    if is_whole:
        return [0, *(sample for sample in samples if isinstance(sample, int) and sample >= 0)]
    return [_SOMETHING_ELSE, *samples]


def _neighbours(literal: Any) -> Iterator[Any]:
    yield literal
    match literal:
        case bool():
            yield not literal
        case int() | float():
            if isinstance(literal, int):
                yield from (literal - 1, literal + 1)
            yield from (math.nextafter(literal, -math.inf), math.nextafter(literal, math.inf))
        case str():
            yield from ("", literal + "\0")
        case bytes():
            yield from (b"", literal + b"\0")
        case datetime() | timedelta():
            for step in (-_TICK, _TICK):
                with contextlib.suppress(OverflowError):
                    yield literal + step


def _kind(value: Any) -> str:
    """What kind of literal it is; empty for what has parts, which is not looked into."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str() | bytes() | datetime() | timedelta():
            return type(value).__name__
        case _:
            return ""
