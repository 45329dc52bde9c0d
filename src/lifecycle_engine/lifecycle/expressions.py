"""Expressions as trees, for whoever reads one instead of asking whether it holds.

The words are those of no particular expression language. What names nothing that is declared has its value already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Name:
    """A declared name, and the fields within its value: `("event.properties", "plan")`."""

    path: tuple[str, ...]

    @property
    def text(self) -> str:
        fields = [f".{field}" if field.isidentifier() else f"[{json.dumps(field)}]" for field in self.path[1:]]
        return self.path[0] + "".join(fields)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is the same whatever happens."""

    value: Any


@dataclass(frozen=True, slots=True)
class Broken:
    """A part that errs whatever happens; `message` says why."""

    message: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator (`&&`, `||`, `!`, `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `has` …) or a function of its arguments."""

    function: str
    arguments: tuple[Expression, ...]


Expression: TypeAlias = Name | Literal | Broken | Call


def parts(expression: Expression) -> Iterator[Expression]:
    """The expression and everything within it."""
    yield expression
    if isinstance(expression, Call):
        for argument in expression.arguments:
            yield from parts(argument)


def conjuncts(expression: Expression) -> Iterator[Expression]:
    """What must hold for all of it to hold: `a && !(b || c)` is a, and not b, and not c."""
    match expression:
        case Call("&&", arguments):
            for argument in arguments:
                yield from conjuncts(argument)
        case Call("!", (Call("!", (inner,)),)):
            yield from conjuncts(inner)
        case Call("!", (Call("||", arguments),)):
            for argument in arguments:
                yield from conjuncts(Call("!", (argument,)))
        case _:
            yield expression


def truth(expression: Expression) -> bool | None:
    """Whether it holds whatever happens, or never does; None where that depends."""
    match expression:
        case Literal(bool() as value):
            return value
        case Call("!", (inner,)):
            known = truth(inner)
            return None if known is None else not known
        case Call("&&" | "||" as operator, arguments):
            decisive = operator == "||"
            known_truths = [truth(argument) for argument in arguments]
            if decisive in known_truths:
                return decisive
            return None if None in known_truths else not decisive
        case Call("==" | "!=" | "<" | "<=" | ">" | ">=" as operator, (left, right)) if repr(left) == repr(right):
            return operator in ("==", "<=", ">=")
        case _:
            return None
