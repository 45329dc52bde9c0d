"""What the expression library says of a mistake, in the words of a definition."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lifecycle_engine.lifecycle.guards import GuardError

FUNCTIONS = (
    *("has", "all", "exists", "exists_one", "filter", "map", "size", "contains", "startsWith", "endsWith", "matches"),
    *("timestamp", "duration", "int", "double", "string", "bool", "dyn", "type"),
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds"),
    *("getMinutes", "getMonth", "getSeconds"),
)
_TOO_DEEP = re.compile(r"recursion (limit|depth)")
_PLACED = re.compile(r"<input>:(-?\d+):(-?\d+): ([^\n]*)")
_UNKNOWN = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD = re.compile(r"no matching overload for '[^']*' applied to '\((.*)\)'")
_INTEGER = re.compile(r"(?<![\w.])[0-9]+(?![\w.])")


def explained(message: str, source: str, names: Iterable[str]) -> GuardError:
    """The error without its envelope (`INVALID_ARGUMENT: ERROR: <input>:1:6: undeclared …`), its column kept."""
    if _TOO_DEEP.search(message):
        return GuardError("the expression is nested too deeply: at most 32 levels of recursion")
    placed = _PLACED.search(message)
    if not placed:
        return GuardError(message.split("\n", 1)[0].strip()[:300])
    text = (
        placed[3].replace(" (in container '')", "").replace("google.protobuf.", "").replace(" [INVALID_ARGUMENT]", "")
    )
    text = text.strip()[:300]
    column = int(placed[2])
    told = f"{text} (column {column})" if column > 0 else text
    if unknown := _UNKNOWN.search(text):
        return GuardError(told, unknown=unknown[1], known=(*names, *FUNCTIONS))
    if overload := _OVERLOAD.search(text):
        line = source.split("\n")[int(placed[1]) - 1]
        return GuardError(told, _types_hint(overload[1].split(", "), line[column - 1 :]))
    return GuardError(told, _syntax_hint(text))


def _types_hint(types: list[str], rest: str) -> str | None:
    """`rest` is the expression from its operator on."""
    kinds = {"Timestamp" if "Timestamp" in type_ else type_ for type_ in types}
    if kinds == {"double", "int"} and types[0] == "double":
        number = _INTEGER.search(rest)
        return f"write {number[0]}.0" if number else "turn the integer into a double: double(…)"
    if kinds == {"double", "int"}:
        return "compare an integer with an integer, or turn it into a double: double(…)"
    if kinds == {"Timestamp", "string"}:
        return 'write an instant as timestamp("2026-01-01T00:00:00Z")'
    if types[-1] == "string" and kinds & {"int", "double"}:
        return "a number stands without quotes"
    return None


def _syntax_hint(text: str) -> str | None:
    for said, hint in (
        ("error at: '=>", "at least is written >="),
        ("error at: '=", "equal is written =="),
        ("input 'and'", "write && for and"),
        ("input 'or'", "write || for or"),
        ("input 'not'", "write ! for not"),
        ("error at: '&", "write && for and"),
        ("error at: '|", "write || for or"),
    ):
        if said in text:
            return hint
    return None
