"""Random lifecycle definitions and random touchpoints, as awkward as the contract lets them be.

They are drawn from a `random.Random`. Half of these are Hypothesis's own, which it can shrink; the other half are plain
ones, whose draws it cannot repeat on purpose, and which therefore give more of everything in one example.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from lifecycle_engine.lifecycle.touchpoints import Touchpoint

T = TypeVar("T")

DAY = 86_400_000_000
START = 20_000 * DAY
INSTANTS = (START, START + 1, START + DAY, START + 2 * DAY, START + 2 * DAY + 999_999, -1, 0)
STAGES = ("s0", "s1", "s2", "s3", "s4", "s5")
TYPES = ("ad", "buy", "look", "rate")
IDS = ("a", "B", "a ", "z", "é", "e\u0301", "ﬀ", "😀", "\uffff", "10", "9", *map(str, range(100, 110)))
"""Their order by bytes is neither that of numbers, nor of any language, nor (`\\uffff`, 😀) that of UTF-16."""
PLACES = tuple((id_, source) for id_ in IDS for source in ("s", "t"))
PATHS = ("properties.x", "properties.y", "properties.deep.x", "context.x")

NUMBERS: Sequence[Any] = (0, 1, 2, 3, 4, -1, 0.1, 0.2, 0.3, 2.0, 2.5, -0.5)
ODD: Sequence[Any] = (
    *("5", "", "é", "text", True, False, None, [], [1], {}, {"x": 1}),
    *(1e308, -1e308, 5e-324, 1e16, -0.0, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1),
)
SUBJECTS: Sequence[Any] = ("shoes", "shoes", "hats", "", "7", 7, -7, 7.0, True, None, ["shoes"])
CONTEXTS: Sequence[dict[str, Any]] = ({}, {"x": 1}, {"x": "ads"})


def by_chance(make: Callable[[Random], T]) -> st.SearchStrategy[T]:
    seeded = st.integers(0, 2**32 - 1).map(random.Random)
    return st.one_of(st.randoms(use_true_random=False), seeded).map(make)


def one_in(rnd: Random, many: int) -> bool:
    return rnd.randrange(many) == many - 1


def some(rnd: Random, choices: Sequence[str], most: int = 3) -> Any:
    """One, or a list of one and more."""
    size = rnd.randint(0, min(most, len(choices)))
    return rnd.sample(choices, size) if size else rnd.choice(choices)


# -- touchpoints -----------------------------------------------------------------------------------------------------


def touchpoints(rnd: Random) -> tuple[Touchpoint, ...]:
    """The touchpoints of one customer, in no order, each once."""
    return tuple([touchpoint(rnd, *place) for place in rnd.sample(PLACES, rnd.choice((0, 1, 3, 6, 9, 12, 16, 24)))])


def touchpoint(rnd: Random, id_: str, source: str) -> Touchpoint:
    properties = values(rnd)
    if one_in(rnd, 2):
        properties["deep"] = value(rnd) if one_in(rnd, 4) else values(rnd)
    if not one_in(rnd, 4):
        properties["line"] = rnd.choice(SUBJECTS)
    occurred_at, type_, context = rnd.choice(INSTANTS), rnd.choice((*TYPES, "other")), rnd.choice(CONTEXTS)
    return Touchpoint(id_, source, type_, occurred_at, "c", None, properties, context)


def values(rnd: Random) -> dict[str, Any]:
    return {name: value(rnd) for name in ("x", "y") if not one_in(rnd, 4)}


def value(rnd: Random) -> Any:
    return rnd.choice(ODD if one_in(rnd, 3) else NUMBERS)


# -- definitions -----------------------------------------------------------------------------------------------------


def definition(rnd: Random, key: str = "random") -> dict[str, Any]:
    """The plain data of a definition document without timers and windows."""
    stages = STAGES[: rnd.randint(2, 6)]
    figures = {f"m{index}": measure(rnd) for index in range(rnd.randint(0, 4))}

    def guards() -> list[str]:
        return [expression(rnd, stages, figures) for _ in range(rnd.choice((1, 1, 2)))]

    def stage(key: str) -> dict[str, Any]:
        return {"key": key, "requires": guards()} if one_in(rnd, 6) else {"key": key}

    def rule() -> dict[str, Any]:
        raw: dict[str, Any] = {"to": rnd.choice(stages)}
        condition = one_in(rnd, 5)
        if not condition:
            raw["on"] = some(rnd, TYPES)
        if one_in(rnd, 3):
            raw["from"] = some(rnd, stages)
        if condition or one_in(rnd, 2):
            raw["when"] = guards()
        if one_in(rnd, 4):
            raw["reenter"] = not one_in(rnd, 4)
        return raw

    document: dict[str, Any] = {
        "lifecycle": key,
        "initial": rnd.choice(stages),
        "stages": [stage(key) for key in stages],
        "measures": figures,
        "rules": [rule() for _ in range(rnd.choice((0, 2, 4, 6, 8)))],
    }
    if one_in(rnd, 4):
        document["moves"] = {key: rnd.sample(stages, rnd.randint(0, 2)) for key in stages if not one_in(rnd, 3)}
    if one_in(rnd, 4):
        document["opens"] = some(rnd, TYPES)
    if one_in(rnd, 4):
        document["per"] = rnd.choice(("properties.line", "properties.line", "context.x", "properties.deep.x"))
    return document


def definitions(rnd: Random) -> list[dict[str, Any]]:
    """The active lifecycles of a deployment."""
    return [definition(rnd, key) for key in rnd.choice((("random",), ("first", "second")))]


def measure(rnd: Random) -> dict[str, Any]:
    kind = rnd.choice(("count", "sum", "sum", "min", "max", "first", "last"))
    types = "any" if one_in(rnd, 3) else some(rnd, TYPES)
    if kind == "count":
        return {"count": types}
    path = rnd.choice(PATHS if kind == "sum" else (*PATHS, "occurred_at"))
    return {kind: path, "of": types} if one_in(rnd, 2) else {kind: path}


def expression(rnd: Random, stages: Sequence[str], figures: Mapping[str, Any]) -> str:
    shape = rnd.choice(("{}", "{}", "{}", "{}", "!({})", "{} && {}", "{} || {}", "!({} || {})"))
    return shape.format(comparison(rnd, stages, figures), comparison(rnd, stages, figures))


def comparison(rnd: Random, stages: Sequence[str], figures: Mapping[str, Any]) -> str:
    """One name compared with a literal of a type that the guard language lets it be compared with."""
    group = rnd.choice(("event", "event", "measures", "measures", "journey"))
    if group == "measures" and figures:
        name = rnd.choice(sorted(figures))
        left, right = f"measures.{name}", figure(rnd, figures[name])
    elif group == "journey":
        left, right = rnd.choice(
            (
                ("journey.stage", json.dumps(rnd.choice(stages))),
                ("journey.entered_at", timestamp(rnd.choice(INSTANTS))),
                (f"journey.visits.{rnd.choice(stages)}", whole(rnd)),
                (f"journey.visits.{rnd.choice(stages)}", whole(rnd)),
            )
        )
    else:
        left, right = rnd.choice(
            (
                *[(f"event.{path}", dynamic(rnd)) for path in (*PATHS, "properties.x", "properties.y")],
                ("event.type", json.dumps(rnd.choice(TYPES))),
                ("event.id", json.dumps(rnd.choice(IDS), ensure_ascii=False)),
                ("event.source", json.dumps(rnd.choice(("s", "t")))),
                ("event.occurred_at", timestamp(rnd.choice(INSTANTS))),
            )
        )
    return f"{left} {rnd.choice(('==', '!=', '<', '<=', '>', '>='))} {right}"


def figure(rnd: Random, measure: Mapping[str, Any]) -> str:
    if "count" in measure:
        return whole(rnd)
    if "sum" in measure:
        return json.dumps(rnd.choice((0.0, 0.1, 0.3, 0.6, 1.0, 2.5, -0.5, 1e300)))
    return timestamp(rnd.choice(INSTANTS)) if "occurred_at" in measure.values() else dynamic(rnd)


def whole(rnd: Random) -> str:
    return json.dumps(rnd.randint(0, 3))


def dynamic(rnd: Random) -> str:
    return json.dumps(rnd.choice((0, 1, 1, 2, 2, 2.0, 2.5, 3, "", "5", "é", True, False, None)), ensure_ascii=False)


def timestamp(instant: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    return f'timestamp("{moment.isoformat().replace("+00:00", "Z")}")'


lifecycles = by_chance(definitions)
customers = by_chance(touchpoints)
