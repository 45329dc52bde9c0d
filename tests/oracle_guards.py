"""A small part of the guard language, for the oracle.

It knows comparisons of a name with a literal, under `!(…)`, `&&` and `||`. A name without a value errs, and so does an
order between values that have none; what errs is not held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

_TOKEN = re.compile(
    r"""\s*(\|\||&&|!=|!|\(|\)|==|<=|>=|<|>|timestamp\("[^"]*"\)|"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|[A-Za-z_][\w.]*)"""
)


class Absent(Exception):
    """A name without a value, or an operation that these values don't have."""


def truth(expression: str, value: Callable[[str], Any]) -> bool | None:
    """Whether an expression holds; None where it errs. `value` gives what a name stands for, or raises `Absent`."""
    tokens = _tokens(expression)
    verdict = _either(tokens, value)
    if tokens:
        raise NotImplementedError(expression)
    return verdict


def names(expression: str) -> set[str]:
    """The names that an expression compares."""
    return {token for token in _tokens(expression) if re.match(r"(event|measures|traits|journey)\.", token)}


def _tokens(expression: str) -> list[str]:
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r'\s(?=(?:[^"]*"[^"]*")*[^"]*$)', "", expression):
        raise NotImplementedError(expression)
    return tokens


def _either(tokens: list[str], value: Callable[[str], Any]) -> bool | None:
    sides = [_both(tokens, value)]
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        sides.append(_both(tokens, value))
    return True if True in sides else None if None in sides else False


def _both(tokens: list[str], value: Callable[[str], Any]) -> bool | None:
    sides = [_one(tokens, value)]
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        sides.append(_one(tokens, value))
    return False if False in sides else None if None in sides else True


def _one(tokens: list[str], value: Callable[[str], Any]) -> bool | None:
    if tokens[0] == "!":
        tokens.pop(0)
        inner = _one(tokens, value)
        return None if inner is None else not inner
    if tokens[0] == "(":
        tokens.pop(0)
        inner = _either(tokens, value)
        tokens.pop(0)
        return inner
    name, operator, literal = tokens.pop(0), tokens.pop(0), tokens.pop(0)
    try:
        return compare(value(name), operator, read(literal))
    except Absent:
        return None


def read(literal: str) -> Any:
    if literal.startswith("timestamp"):
        return datetime.fromisoformat(literal[11:-2])
    return json.loads(literal)


def compare(left: Any, operator: str, right: Any) -> bool:
    alike = kind(left) == kind(right)
    if operator in ("==", "!="):
        return (alike and left == right) == (operator == "==")
    if not alike or kind(left) in ("null", "list", "dict"):
        raise Absent
    if kind(left) == "str":
        left, right = left.encode(), right.encode()
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])


def kind(value: Any) -> str:
    if value is None:
        return "null"
    return "number" if type(value) in (int, float) else type(value).__name__
