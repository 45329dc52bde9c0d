"""Random lifecycles and the random facts of one customer, as awkward as the contract lets them be.

They are drawn from a `random.Random`. Hypothesis's own it can shrink; plain ones, whose draws it cannot repeat on
purpose, give more of everything in one example. `by_chance` takes either; `thinned` takes plain ones, and lets
Hypothesis leave out what a counterexample doesn't need.

Nearly all instants lie on whole days, and so do nearly all durations: facts, deadlines, ends of windows and of pins,
and switches meet at one instant all the time.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis import strategies as st

from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, OVERRIDE, Touchpoint
from tests import oracle
from tests.lives import Life
from tests.oracle import Version

T = TypeVar("T")

DAY = 86_400_000_000
START = 20_000 * DAY
INSTANTS = (START, START + 1, START + DAY, START + 2 * DAY, START + 2 * DAY + 999_999, -1, 0)
DAYS = 12
"""Facts with timers about occur within so many days from `START`."""
DURATIONS = ("1d", "2d", "3d", "24h", "P2D", "PT36H", "5d", "1w")
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


def instant(rnd: Random) -> int:
    return START + rnd.randrange(DAYS + 1) * DAY + rnd.choice((0, 0, 0, 0, 0, 0, DAY // 2, 1, -1))


def life(rnd: Random) -> Life:
    lifecycles = deployment(rnd)
    happened = facts(rnd, lifecycles)
    clock = START + rnd.randrange(2 * DAYS) * DAY
    return Life(lifecycles, happened, max([clock, *(fact.occurred_at for fact in happened)]))


# -- facts -----------------------------------------------------------------------------------------------------------


def facts(rnd: Random, lifecycles: Mapping[str, Sequence[Version]]) -> tuple[Touchpoint, ...]:
    """Touchpoints, identifies and overrides of one customer, in no order, each once."""

    def fact(id_: str, source: str) -> Touchpoint:
        kind = rnd.choice((touchpoint, touchpoint, touchpoint, touchpoint, identify, override))
        if kind is override:
            return override(rnd, id_, source, lifecycles)
        return identify(rnd, id_, source) if kind is identify else touchpoint(rnd, id_, source, instant(rnd))

    return tuple([fact(*place) for place in rnd.sample(PLACES, rnd.choice((0, 1, 3, 5, 8, 12, 16, 20)))])


def touchpoints(rnd: Random) -> tuple[Touchpoint, ...]:
    """The touchpoints of one customer, at few instants, in no order, each once."""
    places = rnd.sample(PLACES, rnd.choice((0, 1, 3, 6, 9, 12, 16, 24)))
    return tuple([touchpoint(rnd, *place, rnd.choice(INSTANTS)) for place in places])


def touchpoint(rnd: Random, id_: str, source: str, occurred_at: int) -> Touchpoint:
    properties = values(rnd)
    if one_in(rnd, 2):
        properties["deep"] = value(rnd) if one_in(rnd, 4) else values(rnd)
    if not one_in(rnd, 4):
        properties["line"] = rnd.choice(SUBJECTS)
    type_, context = rnd.choice((*TYPES, "other")), rnd.choice(CONTEXTS)
    return Touchpoint(id_, source, type_, occurred_at, "c", None, properties, context)


def identify(rnd: Random, id_: str, source: str) -> Touchpoint:
    """Sets some traits, and takes away those that are null."""
    traits = {name: value(rnd) if one_in(rnd, 3) else rnd.choice((1, 2, None)) for name in ("x", "y") if one_in(rnd, 2)}
    return Touchpoint(id_, source, IDENTIFY, instant(rnd), "c", None, {"traits": traits}, {})


def override(rnd: Random, id_: str, source: str, lifecycles: Mapping[str, Sequence[Version]]) -> Touchpoint:
    """Aims at a stage of any version, so that the one in force may lack it; at times at what no version has."""
    key = "nowhere" if one_in(rnd, 12) else rnd.choice(sorted(lifecycles))
    documents = [document for _, _, document in lifecycles.get(key, ())]
    stages = sorted({stage["key"] for document in documents for stage in document["stages"]})
    has_subjects = any("per" in document for document in documents)
    occurred_at = instant(rnd)
    properties = {
        "lifecycle": key,
        "subject": rnd.choice(("shoes", "7", "socks")) if has_subjects != one_in(rnd, 12) else None,
        "stage": "nowhere" if not stages or one_in(rnd, 12) else rnd.choice(stages),
        "reason": "because",
        "actor": "someone",
    }
    if one_in(rnd, 2):
        ends = START + rnd.randrange(1, DAYS + 4) * DAY
        properties["expires_at"] = format_instant(max(ends, occurred_at + 1))
    return Touchpoint(id_, source, OVERRIDE, occurred_at, "c", None, properties, {})


def values(rnd: Random) -> dict[str, Any]:
    return {name: value(rnd) for name in ("x", "y") if not one_in(rnd, 4)}


def value(rnd: Random) -> Any:
    return rnd.choice(ODD if one_in(rnd, 3) else NUMBERS)


# -- definitions -----------------------------------------------------------------------------------------------------


def deployment(rnd: Random) -> dict[str, list[Version]]:
    """The active lifecycles, each with its versions."""
    return {key: versions(rnd, key) for key in rnd.choice((("first",), ("first",), ("first", "second")))}


def versions(rnd: Random, key: str = "random") -> list[Version]:
    """The versions of a lifecycle, in the order in which they take effect."""
    document = definition(rnd, key, timed=True)
    found: list[Version] = [(None, 1, document)]
    for day in sorted(rnd.sample(range(DAYS + 3), rnd.choice((0, 0, 1, 1, 2)))):
        since, (_, number, last) = START + day * DAY + rnd.choice((0, 0, 0, 1)), found[-1]
        if not oracle.is_retired(last) and one_in(rnd, 3):
            found.append((since, number, {**document, "retired": True}))
        else:
            document = successor(rnd, document)
            found.append((since, number + rnd.choice((1, 1, 3)), document))
    return found


def definition(rnd: Random, key: str = "random", *, timed: bool = False) -> dict[str, Any]:
    """The plain data of a definition document; with timers and windows only if it is to be `timed`."""
    stages = STAGES[: rnd.randint(2, 6)]
    document = {"lifecycle": key, **_parts(rnd, stages, {}, timed)}
    if one_in(rnd, 4):
        document["per"] = rnd.choice(("properties.line", "properties.line", "context.x", "properties.deep.x"))
    return document


def successor(rnd: Random, document: Mapping[str, Any]) -> dict[str, Any]:
    """A later version: stages may be added, renamed and taken away; rules, measures and the rest stay or are new."""
    old = [stage["key"] for stage in document["stages"]]
    gone = [stage for stage in old if one_in(rnd, 4)][: len(old) - 1]
    stages = [stage for stage in old if stage not in gone]
    added = [f"{'u' if stage[0] == 't' else 't'}{stage[1:]}" for stage in gone if one_in(rnd, 2)]
    added += ["new"] if "new" not in old and one_in(rnd, 3) else []
    for stage in added:
        stages.insert(rnd.randint(0, len(stages)), stage)
    rename = {stage: rnd.choice(stages) for stage in gone}
    if one_in(rnd, 3):
        parts = _parts(rnd, stages, {}, timed=True)
    else:
        kept = json.loads(_renamed(json.dumps(document), rename))
        of_old = {stage["key"]: stage for stage in kept["stages"]}
        parts = _parts(rnd, stages, kept["measures"], timed=True)
        parts["stages"] = [of_old.get(stage, {"key": stage}) for stage in stages]
        if not one_in(rnd, 3):
            parts["rules"] = [each for each in kept["rules"] if not one_in(rnd, 4)] + parts["rules"][:2]
        for name in ("initial", "opens", "moves"):
            if name in kept and not one_in(rnd, 3):
                parts[name] = kept[name]
    parts["lifecycle"] = document["lifecycle"]
    if "per" in document:
        parts["per"] = document["per"]
    return {**parts, "rename": rename} if rename else parts


def _renamed(text: str, rename: Mapping[str, str]) -> str:
    return re.sub(r"\b(new|[stu][0-5])\b", lambda found: rename.get(found[0], found[0]), text)


def _parts(rnd: Random, stages: Sequence[str], measures: Mapping[str, Any], timed: bool) -> dict[str, Any]:
    """All of a document but its key and `per`. The measures are these, perhaps in other windows, and some more."""
    figures = {name: windowed(rnd, each) if one_in(rnd, 4) else each for name, each in measures.items()}
    for _ in range(rnd.randint(0, 2 if measures else 4)):
        figures[f"m{len(figures)}"] = measure(rnd, timed)

    # The fold does not judge again where guards ask for measures only, and they are what they were.
    only_measures = bool(figures) and one_in(rnd, 3)

    def guards(event: bool = True) -> list[str]:
        return [expression(rnd, stages, figures, event, only_measures) for _ in range(rnd.choice((1, 1, 1, 2)))]

    def stage(key: str) -> dict[str, Any]:
        return {"key": key, "requires": guards()} if one_in(rnd, 6) else {"key": key}

    def rule() -> dict[str, Any]:
        raw: dict[str, Any] = {"to": rnd.choice(stages)}
        kind = rnd.choice(("on", "on", "on", "after", "after", "when", "when") if timed else ("on",) * 4 + ("when",))
        if kind == "on":
            raw["on"] = some(rnd, TYPES)
        if kind == "after":
            raw["after"] = rnd.choice(DURATIONS)
            if not one_in(rnd, 3):
                raw["without"] = "any" if one_in(rnd, 3) else some(rnd, TYPES)
            if one_in(rnd, 4):
                raw["warn"] = rnd.choice(("1d", "1h"))
        if one_in(rnd, 2 if kind == "when" else 3):
            raw["from"] = some(rnd, stages)
        if kind == "when" or one_in(rnd, 3 if timed else 2):
            # Conditions judged alone can't see a touchpoint, so guards that ask for it would hold there too rarely.
            raw["when"] = guards(event=kind == "on" or (kind == "when" and (not timed or one_in(rnd, 3))))
        if one_in(rnd, 4):
            raw["reenter"] = not one_in(rnd, 4)
        return raw

    parts: dict[str, Any] = {
        "initial": rnd.choice(stages),
        "stages": [stage(key) for key in stages],
        "measures": figures,
        "rules": [rule() for _ in range(rnd.choice((1, 2, 4, 6, 8)))],
    }
    if one_in(rnd, 4):
        parts["moves"] = {
            key: rnd.sample(stages, rnd.randint(0, min(2, len(stages)))) for key in stages[rnd.choice((0, 0, 1)) :]
        }
    if one_in(rnd, 4):
        parts["opens"] = some(rnd, TYPES)
    return parts


def measure(rnd: Random, timed: bool) -> dict[str, Any]:
    kind = rnd.choice(("count", "sum", "sum", "min", "max", "first", "last"))
    types = "any" if one_in(rnd, 3) else some(rnd, TYPES)
    if kind == "count":
        raw = {"count": types}
    else:
        path = rnd.choice(PATHS if kind == "sum" else (*PATHS, "occurred_at"))
        raw = {kind: path, "of": types} if one_in(rnd, 2) else {kind: path}
    return windowed(rnd, raw) if timed and one_in(rnd, 2) else raw


def windowed(rnd: Random, measure: Mapping[str, Any]) -> dict[str, Any]:
    return {**measure, "within": rnd.choice(DURATIONS)}


def expression(
    rnd: Random, stages: Sequence[str], figures: Mapping[str, Any], event: bool = True, only_measures: bool = False
) -> str:
    shape = rnd.choice(("{}", "{}", "{}", "{}", "!({})", "{} && {}", "{} || {}", "!({} || {})"))
    two = [comparison(rnd, stages, figures, event, only_measures) for _ in range(2)]
    return shape.format(*two)


def comparison(
    rnd: Random, stages: Sequence[str], figures: Mapping[str, Any], event: bool, only_measures: bool = False
) -> str:
    """One name compared with a literal of a type that the guard language lets it be compared with."""
    others = () if only_measures else (*(("event", "event") if event else ()), "journey", "traits")
    group = rnd.choice((*others, "measures", "measures", "measures"))
    if group == "measures" and figures:
        name = rnd.choice(sorted(figures))
        left, right = f"measures.{name}", figure(rnd, figures[name])
    elif group == "journey" or (group == "measures" and not event):
        left, right = rnd.choice(
            (
                ("journey.stage", json.dumps(rnd.choice(stages))),
                ("journey.entered_at", timestamp(moment(rnd))),
                (f"journey.visits.{rnd.choice(stages)}", whole(rnd)),
                (f"journey.visits.{rnd.choice(stages)}", whole(rnd)),
            )
        )
    elif group == "traits":
        left, right = f"traits.{rnd.choice(('x', 'y'))}", dynamic(rnd)
    else:
        left, right = rnd.choice(
            (
                *[(f"event.{path}", dynamic(rnd)) for path in (*PATHS, "properties.x", "properties.y")],
                ("event.type", json.dumps(rnd.choice(TYPES))),
                ("event.id", json.dumps(rnd.choice(IDS), ensure_ascii=False)),
                ("event.source", json.dumps(rnd.choice(("s", "t")))),
                ("event.occurred_at", timestamp(moment(rnd))),
            )
        )
    return f"{left} {rnd.choice(('==', '!=', '<', '<=', '>', '>='))} {right}"


def figure(rnd: Random, measure: Mapping[str, Any]) -> str:
    if "count" in measure:
        return whole(rnd)
    if "sum" in measure:
        return json.dumps(rnd.choice((0.0, 0.1, 0.3, 0.6, 1.0, 2.5, -0.5, 1e300)))
    return timestamp(moment(rnd)) if "occurred_at" in measure.values() else dynamic(rnd)


def moment(rnd: Random) -> int:
    return rnd.choice((*INSTANTS, *(START + day * DAY for day in range(3, DAYS))))


def whole(rnd: Random) -> str:
    return json.dumps(rnd.randint(0, 3))


def dynamic(rnd: Random) -> str:
    return json.dumps(rnd.choice((0, 1, 1, 2, 2, 2.0, 2.5, 3, "", "5", "é", True, False, None)), ensure_ascii=False)


def timestamp(instant: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    return f'timestamp("{moment.isoformat().replace("+00:00", "Z")}")'


customers = by_chance(touchpoints)


@st.composite
def thinned(draw: st.DrawFn, make: Callable[[Random], Life]) -> Life:
    """Lives from plain randomness, of which Hypothesis leaves out a little, and as much as it can when it shrinks."""

    def left(things: Sequence[T]) -> list[T]:
        return [thing for thing in things if draw(st.integers(0, 15))]

    def fewer(document: Mapping[str, Any], *optional: str) -> dict[str, Any]:
        kept = left([name for name in document if name in optional])
        return {name: value for name, value in document.items() if name in kept or name not in optional}

    def simpler(version: Version) -> Version:
        since, number, document = version
        rules = [
            fewer(rule, "from", *(("when",) if "on" in rule or "after" in rule else ()), "without", "warn", "reenter")
            for rule in left(document["rules"])
        ]
        stages = [fewer(stage, "requires") for stage in document["stages"]]
        return since, number, fewer({**document, "rules": rules, "stages": stages}, "moves", "opens")

    drawn = make(Random(draw(st.integers(0, 2**32 - 1))))
    lifecycles = {}
    for key, (first, *later) in drawn.lifecycles.items():
        kept = len(left(later))
        lifecycles[key] = [simpler(version) for version in (first, *later[:kept])]
    return Life(lifecycles, tuple(left(drawn.facts)), drawn.now)


lives = thinned(life)
