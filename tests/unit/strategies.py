"""Random lifecycle definitions and random touchpoints, as awkward as the contract lets them be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from lifecycle_engine.lifecycle.touchpoints import Touchpoint

STAGES = ("s0", "s1", "s2", "s3", "s4", "s5")
TYPES = ("ad", "buy", "look", "rate")
DAY = 86_400_000_000
START = 20_000 * DAY
INSTANTS = (START, START + 1, START + DAY, START + 2 * DAY, START + 2 * DAY + 999_999, -1, 0)
IDS = ("a", "B", "a ", "z", "é", "e\u0301", "ﬀ", "😀", "\uffff", "10", "9", *map(str, range(100, 120)))
"""Their order by bytes is neither that of numbers, nor of any language, nor (`\\uffff`, 😀) that of UTF-16."""
PATHS = ("properties.x", "properties.y", "properties.deep.x", "context.x")

NUMBERS: Sequence[Any] = (0, 1, 2, 3, -1, 0.1, 0.2, 0.3, 2.0, 2.5, -0.5)
ODD: Sequence[Any] = (
    *("5", "", "é", "text", True, False, None, [], [1], {}, {"x": 1}),
    *(1e308, -1e308, 5e-324, 1e16, -0.0, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1),
)

values = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.sampled_from(ODD))
subjects = st.sampled_from(("shoes", "", "7", 7, -7, 7.0, True, None, ["shoes"]))
PLACES = tuple((id_, source) for id_ in IDS for source in ("s", "t"))


@st.composite
def facts(draw: st.DrawFn, id_: str, source: str) -> Touchpoint:
    inner = st.dictionaries(st.sampled_from(("x", "y")), values, max_size=2)
    properties: dict[str, Any] = draw(inner)
    if draw(st.booleans()):
        properties["deep"] = draw(st.one_of(inner, values))
    if draw(st.integers(0, 3)):
        properties["line"] = draw(subjects)
    contexts: tuple[dict[str, Any], ...] = ({}, {"x": 1}, {"x": "ads"})
    context = draw(st.sampled_from(contexts))
    occurred_at = draw(st.sampled_from(INSTANTS))
    type_ = draw(st.sampled_from((*TYPES, "other")))
    return Touchpoint(id_, source, type_, occurred_at, "c", None, properties, context)


@st.composite
def customers(draw: st.DrawFn) -> tuple[Touchpoint, ...]:
    """The touchpoints of one customer, in no order, each once."""
    size = draw(st.sampled_from((1, 4, 7, 10, 14, 0)))
    places = draw(st.lists(st.sampled_from(PLACES), min_size=size, max_size=size, unique=True))
    return tuple([draw(facts(*place)) for place in places])


def some(strategy: st.SearchStrategy[str], most: int = 3) -> st.SearchStrategy[Any]:
    """One, or a list of one and more."""
    return st.one_of(strategy, st.lists(strategy, min_size=1, max_size=most, unique=True))


def literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def timestamp(instant: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    return f'timestamp("{moment.isoformat().replace("+00:00", "Z")}")'


@st.composite
def measures(draw: st.DrawFn) -> dict[str, Any]:
    types = st.one_of(st.just("any"), some(st.sampled_from(TYPES)))

    @st.composite
    def one(draw: st.DrawFn) -> Mapping[str, Any]:
        kind = draw(st.sampled_from(("count", "sum", "sum", "min", "max", "first", "last")))
        if kind == "count":
            return {"count": draw(types)}
        paths = PATHS if kind == "sum" else (*PATHS, "occurred_at")
        measure = {kind: draw(st.sampled_from(paths))}
        return {**measure, "of": draw(types)} if draw(st.booleans()) else measure

    return {f"m{index}": draw(one()) for index in range(draw(st.integers(1, 4)))}


@st.composite
def comparison(draw: st.DrawFn, stages: Sequence[str], figures: Mapping[str, Any]) -> str:
    """One name compared with a literal of a type that the guard language lets it be compared with."""
    orders = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))
    whole = st.integers(0, 3).map(literal)
    double = st.sampled_from((0.0, 0.1, 0.3, 0.6, 1.0, 2.5, -0.5, 1e300)).map(literal)
    dynamic = st.sampled_from((0, 1, 2, 2.0, 2.5, "", "5", "é", True, False, None)).map(literal)
    moment = st.sampled_from(INSTANTS).map(timestamp)
    types = st.sampled_from(TYPES).map(literal)
    keys = st.sampled_from(stages).map(literal)
    choices: list[tuple[str, st.SearchStrategy[str]]] = [
        *((f"event.{path}", dynamic) for path in PATHS),
        *((f"event.{path}", dynamic) for path in PATHS[:2]),
        ("event.type", types),
        ("event.id", st.sampled_from(IDS).map(literal)),
        ("event.source", st.sampled_from(("s", "t")).map(literal)),
        ("event.occurred_at", moment),
        ("journey.stage", keys),
        ("journey.entered_at", moment),
        *((f"journey.visits.{stage}", whole) for stage in stages[:2]),
    ]
    for name, measure in figures.items():
        by_kind = {"count": whole, "sum": double}
        strategy = next((by_kind[kind] for kind in by_kind if kind in measure), dynamic)
        figure = (f"measures.{name}", moment if "occurred_at" in measure.values() else strategy)
        choices += [figure] * 5
    name, right = draw(st.sampled_from(choices))
    return f"{name} {draw(orders)} {draw(right)}"


@st.composite
def expression(draw: st.DrawFn, stages: Sequence[str], figures: Mapping[str, Any]) -> str:
    first = draw(comparison(stages, figures))
    shape = draw(st.sampled_from(("{0}", "{0}", "{0}", "!({0})", "{0} && {1}", "{0} || {1}", "!({0} || {1})")))
    return shape.format(first, draw(comparison(stages, figures)) if "{1}" in shape else "")


@st.composite
def definitions(draw: st.DrawFn, key: str = "random") -> dict[str, Any]:
    """The plain data of a definition document without timers and windows."""
    stages = list(STAGES[: draw(st.integers(2, 6))])
    stage = st.sampled_from(stages)
    figures = draw(measures())
    guards = st.lists(expression(stages, figures), min_size=1, max_size=2)

    def rule(draw: st.DrawFn) -> dict[str, Any]:
        raw: dict[str, Any] = {"to": draw(stage)}
        conditional = draw(st.integers(0, 4)) == 4
        if not conditional:
            raw["on"] = draw(some(st.sampled_from(TYPES)))
        if draw(st.integers(0, 3)) == 3:
            raw["from"] = draw(some(stage))
        if conditional or draw(st.integers(0, 2)):
            raw["when"] = draw(guards)
        if draw(st.integers(0, 3)) == 3:
            raw["reenter"] = draw(st.booleans())
        return raw

    document: dict[str, Any] = {
        "lifecycle": key,
        "initial": draw(stage),
        "stages": [
            {"key": each, "requires": draw(guards)} if draw(st.integers(0, 5)) == 5 else {"key": each}
            for each in stages
        ],
        "measures": figures,
        "rules": [rule(draw) for _ in range(draw(st.sampled_from((3, 5, 7, 1, 0))))],
    }
    if draw(st.integers(0, 3)) == 3:
        document["moves"] = draw(st.dictionaries(stage, st.lists(stage, max_size=4, unique=True), max_size=6))
    if draw(st.integers(0, 4)) == 4:
        document["opens"] = draw(some(st.sampled_from(TYPES)))
    if draw(st.integers(0, 3)) == 3:
        document["per"] = draw(st.sampled_from(("properties.line", "context.x", "properties.deep.x")))
    return document


lifecycles = st.one_of(
    definitions().map(lambda document: [document]), st.tuples(definitions("first"), definitions("second")).map(list)
)
"""The active lifecycles of a deployment."""
