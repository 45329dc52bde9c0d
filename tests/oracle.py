"""A second reading of "The fold, precisely": slow, plain, and sharing no code with the engine.

It re-reads everything for each touchpoint: no state is carried but the list of stays itself. It knows no timers and no
windows, and of the guard language only comparisons of a name with a literal, under `!(…)`, `&&` and `||`.

A definition is the plain data of its document. A fact is a map with `id`, `source`, `type`, `occurred_at`
(microseconds since the epoch), `properties` and `context`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

Document = Mapping[str, Any]
Fact = Mapping[str, Any]


class Stay(NamedTuple):
    stage: str
    entered_at: int
    origin: str | None
    move: str
    skipped: tuple[str, ...]
    rule: int | None
    cause: str
    touchpoint: str
    source: str


class Refusal(NamedTuple):
    at: int
    rule: int
    to: str
    reason: str
    touchpoint: str
    source: str


class Passage(NamedTuple):
    """What became of one journey. A measure without a value is missing from `measures`."""

    stays: tuple[Stay, ...]
    refusals: tuple[Refusal, ...]
    measures: dict[str, Any]


class Absent(Exception):
    """A name without a value, or an operation that these values don't have."""


def replay(document: Document, facts: Iterable[Fact]) -> dict[tuple[str, str | None], Passage]:
    """Every journey of the lifecycle, by (lifecycle, subject), from facts in any order and any of them again."""
    once = {(fact["source"], fact["id"]): fact for fact in facts}
    ordered = sorted(
        once.values(), key=lambda fact: (fact["occurred_at"], fact["id"].encode(), fact["source"].encode())
    )
    journeys: dict[str | None, list[Fact]] = {}
    for fact in ordered:
        try:
            subject = subject_of(document, fact)
        except Absent:
            continue
        journeys.setdefault(subject, []).append(fact)
    passages = {}
    for subject, touching in journeys.items():
        opened = [index for index, fact in enumerate(touching) if opens(document, fact)]
        if opened:
            passages[document["lifecycle"], subject] = passage(document, touching[opened[0] :])
    return passages


def subject_of(document: Document, fact: Fact) -> str | None:
    if "per" not in document:
        return None
    value = look_up(fact, document["per"])
    if type(value) is int:
        return f"{value:d}"
    if type(value) is str:
        return value
    raise Absent


def opens(document: Document, fact: Fact) -> bool:
    return "opens" not in document or fact["type"] in listed(document["opens"])


def passage(document: Document, facts: Sequence[Fact]) -> Passage:
    stays: list[Stay] = []
    refusals: list[Refusal] = []
    for index, fact in enumerate(facts):
        by = fact["id"], fact["source"]
        at = fact["occurred_at"]
        seen = facts[: index + 1]
        stage = stays[-1].stage if stays else document["initial"]
        verdict = judge(document, stage, stays, seen)
        moved = verdict is not None and verdict[1] is None
        if verdict is not None and moved:
            rule = verdict[0]
            target = document["rules"][rule]["to"]
            cause = "touchpoint" if "on" in document["rules"][rule] else "condition"
            skipped = between(document, stage, target)
            if not stays:
                skipped = ((stage,) if rank(document, stage) < rank(document, target) else ()) + skipped
            origin = stage if stays else None
            move = name_of_move(document, stage, target) if stays else "start"
            stays.append(Stay(target, at, origin, move, skipped, rule, cause, *by))
        elif not stays:
            stays.append(Stay(stage, at, None, "start", (), None, "touchpoint", *by))
        if verdict is not None and verdict[1] is not None:
            refusals.append(Refusal(at, verdict[0], document["rules"][verdict[0]]["to"], verdict[1], *by))
    return Passage(tuple(stays), tuple(refusals), measures_of(document, facts))


def judge(document: Document, stage: str, stays: Sequence[Stay], seen: Sequence[Fact]) -> tuple[int, str | None] | None:
    """The place of the rule that decides, and why it was refused if it was; None where nothing happens."""

    def holds(expression: str) -> bool:
        return truth(expression, lambda name: value_of(document, name, stage, stays, seen)) is True

    for place, rule in enumerate(document.get("rules", [])):
        if "on" in rule and seen[-1]["type"] not in listed(rule["on"]):
            continue
        if "from" in rule and stage not in listed(rule["from"]):
            continue
        if not all([holds(expression) for expression in rule.get("when", [])]):
            continue
        target = rule["to"]
        if target == stage and rule.get("reenter") is not True:
            return None
        moves = document.get("moves", "any")
        if moves != "any" and target not in moves.get(stage, []):
            return place, "moves"
        (entrance,) = [entry for entry in document["stages"] if entry["key"] == target]
        failed = [n for n, expression in enumerate(entrance.get("requires", [])) if not holds(expression)]
        return place, f"requires[{failed[0]}]" if failed else None
    return None


def rank(document: Document, stage: str) -> int:
    return [entry["key"] for entry in document["stages"]].index(stage)


def between(document: Document, origin: str, target: str) -> tuple[str, ...]:
    keys = [entry["key"] for entry in document["stages"]]
    return tuple(keys[keys.index(origin) + 1 : keys.index(target)])


def name_of_move(document: Document, origin: str, target: str) -> str:
    step = rank(document, target) - rank(document, origin)
    return "reenter" if step == 0 else "back" if step < 0 else "advance" if step == 1 else "skip"


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# -- measures and other names --------------------------------------------------------------------------------------


def measures_of(document: Document, seen: Sequence[Fact]) -> dict[str, Any]:
    figures = {}
    for name in document.get("measures", {}):
        try:
            figures[name] = measure_of(document["measures"][name], seen)
        except Absent:
            continue
    return figures


def measure_of(measure: Mapping[str, Any], seen: Sequence[Fact]) -> Any:
    if "within" in measure:
        raise NotImplementedError("windows")
    if "count" in measure:
        return len([fact for fact in seen if measure["count"] == "any" or fact["type"] in listed(measure["count"])])
    of = measure.get("of", "any")
    ((kind, path),) = [(key, path) for key, path in measure.items() if key != "of"]
    values = []
    for fact in seen:
        if of == "any" or fact["type"] in listed(of):
            try:
                values.append(look_up(fact, path))
            except Absent:
                continue
    numbers = [value for value in values if type(value) in (int, float)]
    if kind == "sum":
        return total([float(number) for number in numbers])
    chosen = {"min": numbers, "max": numbers, "first": values[:1], "last": values[-1:]}[kind]
    if not chosen:
        raise Absent
    value = {"min": min, "max": max}.get(kind, lambda only: only[0])(chosen)
    return instant(value) if path == "occurred_at" else value


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


def look_up(fact: Fact, path: str) -> Any:
    value: Any = fact
    for part in path.split("."):
        if type(value) is not dict or part not in value:
            raise Absent
        value = value[part]
    return value


def value_of(document: Document, name: str, stage: str, stays: Sequence[Stay], seen: Sequence[Fact]) -> Any:
    root, rest = name.split(".", 1)
    if root == "event":
        return instant(seen[-1]["occurred_at"]) if rest == "occurred_at" else look_up(seen[-1], rest)
    if root == "measures":
        return measure_of(document["measures"][rest], seen)
    if name == "journey.stage":
        return stage
    if name == "journey.entered_at":
        if not stays:
            raise Absent
        return instant(stays[-1].entered_at)
    wanted = rest.removeprefix("visits.")
    if wanted not in [entry["key"] for entry in document["stages"]]:
        raise Absent
    return len([stay for stay in stays if stay.stage == wanted])


def instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


# -- guards --------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(\|\||&&|!=|!|\(|\)|==|<=|>=|<|>|timestamp\("[^"]*"\)|"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|[A-Za-z_][\w.]*)"""
)


def truth(expression: str, value: Callable[[str], Any]) -> bool | None:
    """Whether an expression holds; None where it errs."""
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != re.sub(r'\s(?=(?:[^"]*"[^"]*")*[^"]*$)', "", expression):
        raise NotImplementedError(expression)
    verdict = _either(tokens, value)
    if tokens:
        raise NotImplementedError(expression)
    return verdict


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
