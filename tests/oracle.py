"""A second reading of "The fold, precisely": slow, plain, and sharing no code with the engine.

Each journey is gone through on its own, from one instant that is due to the next. Of the way so far only the bare list
of what happened is kept; clocks, visits, measures, traits and what is due next are read anew from it for every
question. Guards, measures, durations and identities are in the `oracle_*` modules beside this one.

A definition is the plain data of its document. A fact is a map with `id`, `source`, `type`, `occurred_at`
(microseconds since the epoch), `properties` and `context`. All facts given belong to one customer: who owns what is
settled before (`oracle_identity`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tests.oracle_guards import Absent, names, truth
from tests.oracle_identity import OF_NOBODY, place_of, sorted_once
from tests.oracle_measures import entries, is_among, listed, look_up, measure_of, measures_of
from tests.oracle_times import duration, instant, microseconds

__all__ = ["Passage", "Refusal", "Stay", "Version", "instant", "replay", "replay_customer", "traits_of"]

Document = Mapping[str, Any]
Fact = Mapping[str, Any]
Version = tuple[int | None, int, Document]
"""From when it holds (None: from the beginning of time), its number, and its document.

Where the lifecycle is retired from then on, they are those of the version before it, the document with `retired: True`.
"""

Point = tuple[float, int, tuple[Any, ...]]
"""An instant, the phase within it, and the place within that phase."""

# What comes before what at one instant.
SWITCH, JUDGED_BY_SWITCH, END_OF_PIN, DEADLINE, END_OF_WINDOW, FACT = range(6)


class Stay(NamedTuple):
    stage: str
    entered_at: int
    origin: str | None
    move: str
    skipped: tuple[str, ...]
    rule: int | None
    cause: str
    touchpoint: str | None
    source: str | None
    version: int


class Refusal(NamedTuple):
    """`origin` is the stage that it was judged from, or, for an override, the stage shown (None before the opening)."""

    at: int
    rule: int | None
    to: str
    reason: str
    touchpoint: str | None
    source: str | None
    origin: str | None
    cause: str
    version: int


class Passage(NamedTuple):
    """What became of one journey by `now`; without stays if all that came was an override to an unknown stage.

    `measures` are those of the version in force; one without a value is missing. `visits` and `beneath` (the stage and
    when it was entered) are what guards see in `journey`; under a pin they are not what is shown. `next_timer` is the
    rule whose timer falls due next, and when, if the clocks that run now run on.
    """

    stays: tuple[Stay, ...]
    refusals: tuple[Refusal, ...]
    measures: dict[str, Any]
    next_timer: tuple[int, int] | None
    visits: dict[str, int]
    beneath: tuple[str, int] | None


def replay(document: Document, facts: Iterable[Fact], now: int | None = None) -> dict[tuple[str, str | None], Passage]:
    """Every journey of a lifecycle of one version, by (lifecycle, subject); see `replay_customer`."""
    return replay_customer({document["lifecycle"]: [(None, 1, document)]}, facts, now)


def replay_customer(
    lifecycles: Mapping[str, Sequence[Version]], facts: Iterable[Fact], now: int | None = None
) -> dict[tuple[str, str | None], Passage]:
    """Every journey of a customer at `now` (at least its last fact), from its facts in any order, any of them again."""
    ordered = [fact for fact in sorted_once(facts) if fact["type"] not in OF_NOBODY]
    if not ordered:
        return {}
    last = ordered[-1]["occurred_at"]
    now = last if now is None else max(now, last)
    passages = {}
    for key, versions in lifecycles.items():
        subjects = {subject for fact in ordered for subject in concerned(key, versions, fact)}
        for subject in sorted(subjects, key=lambda subject: (subject is not None, subject)):
            passage = _Journey(key, subject, versions, ordered).passage(now)
            if passage.stays or passage.refusals:
                passages[key, subject] = passage
    return passages


def traits_of(facts: Iterable[Fact]) -> dict[str, Any]:
    """The last values by event time from the identifies among these facts; null takes a trait away."""
    traits: dict[str, Any] = {}
    for fact in sorted_once(facts):
        if fact["type"] == "$identify":
            traits.update(fact["properties"].get("traits", {}))
    return {name: value for name, value in traits.items() if value is not None}


def concerned(key: str, versions: Sequence[Version], fact: Fact) -> list[str | None]:
    """The subject that a fact is about, if it is about one."""
    _, _, document = versions[0]  # `per` can't change.
    if fact["type"] == "$override":
        subject = fact["properties"].get("subject")
        is_meant = fact["properties"]["lifecycle"] == key and (subject is None) == ("per" not in document)
        return [subject] if is_meant else []
    if fact["type"].startswith("$"):
        return []
    if "per" not in document:
        return [None]
    try:
        value = look_up(fact, document["per"])
    except Absent:
        return []
    return [f"{value:d}"] if type(value) is int else [value] if type(value) is str else []


class _Step(NamedTuple):
    """One thing that happened to the fold beneath: a touchpoint, or a stay that began, or a timer that was judged.

    `stage` is the one after it, by the names of `version` (its place among the versions). `type` is the touchpoint's,
    which may start clocks anew. `visit` tells whether the stay that began counts as one.
    """

    at: int
    version: int
    stage: str
    type: str | None = None
    stay: bool = False
    visit: bool = False
    timer: int | None = None


class _Pin(NamedTuple):
    end: int
    touchpoint: str
    source: str


class _Verdict(NamedTuple):
    rule: int
    to: str
    reason: str | None
    """Why it was refused; None if it moves."""


class _Journey:
    def __init__(self, key: str, subject: str | None, versions: Sequence[Version], facts: Sequence[Fact]) -> None:
        self.versions = versions
        self.facts = facts
        self.own = [
            (point_of(fact), fact)
            for fact in facts
            if fact["type"] == "$identify" or subject in concerned(key, versions, fact)
        ]
        self.point: Point = (-math.inf, 0, ())
        self.version = 0
        self.steps: list[_Step] = []
        self.taken: list[Fact] = []
        self.pin: _Pin | None = None
        self.stays: list[Stay] = []
        self.refusals: list[Refusal] = []

    def passage(self, now: int) -> Passage:
        while due := [each for each in self.foreseen() if self.point < each[0] and each[0][0] <= now]:
            self.point, act = min(due, key=lambda each: each[0])
            act()
        return Passage(
            tuple(self.stays),
            tuple(self.refusals),
            measures_of(self.document, self.measured(), now) if self.steps else {},
            min(self.deadlines(), key=lambda deadline: (deadline[1], deadline[0]), default=None),
            {stage: self.visits(stage) for stage in self.keys if self.visits(stage)},
            (self.stage, self.entered_at) if self.steps else None,
        )

    def measured(self) -> list[Fact]:
        """The facts in the measures: what came while the lifecycle is retired counts once it is taken up again."""
        since, _, _ = self.versions[self.version]
        return [fact for fact in self.taken if not (self.is_retired and since and fact["occurred_at"] >= since)]

    # -- what comes when -----------------------------------------------------------------------------------------------

    def foreseen(self) -> Iterator[tuple[Point, Callable[[], None]]]:
        """All that is known to come, as far as is known by now, and some that has been."""
        for number, (effective_from, _, _) in enumerate(self.versions):
            if effective_from is not None:
                yield (effective_from, SWITCH, (number,)), partial(self.switch, number)
                yield (effective_from, JUDGED_BY_SWITCH, ()), self.judge_conditions
        if self.pin is not None and not self.is_retired:
            yield self.point_of_unpinning(self.pin), self.end_pin
        for rule, at in self.deadlines():
            yield (at, DEADLINE, (rule,)), partial(self.judge_timer, rule)
        for at in self.ends_of_windows():
            yield (at, END_OF_WINDOW, ()), self.judge_conditions
        for point, fact in self.own:
            if point > self.point:
                yield point, partial(self.take, fact)
                break

    def point_of_unpinning(self, pin: _Pin) -> Point:
        """A pin that ended while the lifecycle was retired ends when it is taken up again."""
        since, _, _ = self.versions[self.version]
        is_taken_up = self.version > 0 and is_retired(self.versions[self.version - 1][2])
        return (max(pin.end, since) if is_taken_up and since is not None else pin.end), END_OF_PIN, ()

    def deadlines(self) -> list[tuple[int, int]]:
        """Each timer whose clock runs, by its rule, and when it is due: not before the version that it belongs to."""
        if self.is_retired:
            return []
        effective_from, _, _ = self.versions[self.version]
        found = []
        for place, rule in enumerate(self.rules):
            started = self.clock(place) if "after" in rule else None
            if started is not None:
                due = started + duration(rule["after"])
                found.append((place, due if effective_from is None else max(due, effective_from)))
        return found

    def clock(self, place: int) -> int | None:
        """When the clock of a timer was started last; None if it stands still."""
        rule = self.rules[place]
        started, was_inside = None, False
        for step in self.steps:
            inside = "from" not in rule or self.renamed(step) in listed(rule["from"])
            anew = "without" in rule and step.type is not None and is_among(step.type, rule["without"])
            if not inside or (step.timer == place and step.version == self.version):
                started = None
            if inside and (anew or not was_inside):
                started = step.at
            was_inside = inside
        return started

    def ends_of_windows(self) -> list[int]:
        named = {
            name.removeprefix("measures.")
            for place in self.conditions
            for expression in self.rules[place].get("when", [])
            for name in names(expression)
        }
        return [
            fact["occurred_at"] + duration(measure["within"])
            for name, measure in self.document.get("measures", {}).items()
            if name in named and "within" in measure
            for fact in entries(measure, self.taken)
        ]

    # -- what happens then ---------------------------------------------------------------------------------------------

    def take(self, fact: Fact) -> None:
        if fact["type"] == "$identify":
            self.judge_conditions(fact)
        elif fact["type"] == "$override":
            self.override(fact)
        else:
            self.touch(fact)

    def touch(self, fact: Fact) -> None:
        opened = bool(self.steps)
        if not opened and "opens" in self.document and fact["type"] not in listed(self.document["opens"]):
            return
        if not opened and self.is_retired:
            return
        self.taken.append(fact)
        verdict = self.judge([place for place, rule in enumerate(self.rules) if "after" not in rule], fact)
        if verdict is not None and verdict.reason is None:
            self.begin(verdict.to, rule=verdict.rule, fact=fact)
        elif not opened:
            self.begin(self.stage, fact=fact)
        else:
            self.steps.append(_Step(self.at, self.version, self.stage, type=fact["type"]))
        self.refuse(verdict, fact)

    def judge_conditions(self, fact: Fact | None = None) -> None:
        """The conditions alone, because of an identify, a window's end or a switch."""
        if not self.steps:
            return
        verdict = self.judge(self.conditions, None)
        if verdict is not None and verdict.reason is None:
            self.begin(verdict.to, rule=verdict.rule, fact=fact)
        self.refuse(verdict, fact)

    def judge_timer(self, place: int) -> None:
        self.steps.append(_Step(self.at, self.version, self.stage, timer=place))
        verdict = self.judge([place], None)
        if verdict is not None and verdict.reason is None:
            self.begin(verdict.to, rule=verdict.rule, fact=None)
        self.refuse(verdict, None)

    def override(self, fact: Fact) -> None:
        by = fact["id"], fact["source"]
        to, expires_at = fact["properties"]["stage"], fact["properties"].get("expires_at")
        shown = self.stays[-1].stage if self.stays else None
        if self.is_retired or to not in self.keys:
            reason = "retired" if self.is_retired else "unknown stage"
            self.refusals.append(Refusal(self.at, None, to, reason, *by, shown, "override", self.number))
            return
        if expires_at is not None:
            if not self.steps:
                self.steps.append(_Step(self.at, self.version, self.stage, stay=True, visit=True))
            self.pin = _Pin(microseconds(expires_at), *by)
        else:
            self.pin = None
            if not self.steps or to != self.stage:
                self.steps.append(_Step(self.at, self.version, to, stay=True, visit=True))
        if to != shown:
            self.show(to, None, "override", *by)

    def end_pin(self) -> None:
        assert self.pin is not None
        _, *by = self.pin
        self.pin = None
        if self.stage != self.stays[-1].stage:
            self.show(self.stage, None, "override", *by)

    def switch(self, number: int) -> None:
        before = self.stage
        self.version = number
        if not self.steps:
            return
        if before not in self.keys:
            self.steps.append(_Step(self.at, number, self.document["rename"][before], stay=True))
        shown = self.stays[-1].stage
        if shown not in self.keys:
            to = self.document["rename"][shown]
            stay = Stay(to, self.at, shown, "reenter", (), None, "definition", None, None, self.number)
            self.stays.append(stay)

    def begin(self, to: str, *, rule: int | None = None, fact: Fact | None) -> None:
        """A stay beneath; it is shown too, unless there is a pin."""
        type_ = fact["type"] if fact is not None and not fact["type"].startswith("$") else None
        self.steps.append(_Step(self.at, self.version, to, type_, stay=True, visit=True))
        if self.pin is None:
            self.show(to, rule, self.cause(rule), *by_whom(fact))

    def show(self, to: str, rule: int | None, cause: str, touchpoint: str | None, source: str | None) -> None:
        initial = self.document["initial"]
        origin = self.stays[-1].stage if self.stays else None
        move = "start" if origin is None else self.name_of_move(origin, to)
        skipped = self.between(initial if origin is None else origin, to)
        if origin is None and self.rank(initial) < self.rank(to):
            skipped = initial, *skipped
        self.stays.append(Stay(to, self.at, origin, move, skipped, rule, cause, touchpoint, source, self.number))

    def refuse(self, verdict: _Verdict | None, fact: Fact | None) -> None:
        if verdict is not None and verdict.reason is not None and self.pin is None:
            rule, to, reason = verdict.rule, verdict.to, verdict.reason
            self.refusals.append(
                Refusal(self.at, rule, to, reason, *by_whom(fact), self.stage, self.cause(rule), self.number)
            )

    # -- a decision ----------------------------------------------------------------------------------------------------

    def judge(self, places: Iterable[int], event: Fact | None) -> _Verdict | None:
        """The decision of the first of these rules that matches; None where nothing happens."""
        for place in places:
            rule = self.rules[place]
            if "on" in rule and (event is None or event["type"] not in listed(rule["on"])):
                continue
            if "from" in rule and self.stage not in listed(rule["from"]):
                continue
            if not all([self.holds(expression, event) for expression in rule.get("when", [])]):
                continue
            to = rule["to"]
            if to == self.stage and rule.get("reenter") is not True:
                return None
            moves = self.document.get("moves", "any")
            if moves != "any" and to not in moves.get(self.stage, []):
                return _Verdict(place, to, "moves")
            (entrance,) = [stage for stage in self.document["stages"] if stage["key"] == to]
            for number, expression in enumerate(entrance.get("requires", [])):
                if not self.holds(expression, event):
                    return _Verdict(place, to, f"requires[{number}]")
            return _Verdict(place, to, None)
        return None

    def holds(self, expression: str, event: Fact | None) -> bool:
        return truth(expression, lambda name: self.value(name, event)) is True

    def value(self, name: str, event: Fact | None) -> Any:
        """What a name in a guard stands for at the present point. Raises `Absent` where it has no value."""
        root, rest = name.split(".", 1)
        if root == "event":
            if event is None:
                raise Absent
            return instant(event["occurred_at"]) if rest == "occurred_at" else look_up(event, rest)
        if root == "measures":
            return measure_of(self.document["measures"][rest], self.taken, self.at)
        if root == "traits":
            return look_up(traits_of([fact for fact in self.facts if point_of(fact) <= self.point]), rest)
        if name == "journey.stage":
            return self.stage
        if name == "journey.entered_at":
            if not self.steps:
                raise Absent
            return instant(self.entered_at)
        stage = rest.removeprefix("visits.")
        if stage not in self.keys:
            raise Absent
        return self.visits(stage)

    def cause(self, rule: int | None) -> str:
        if rule is None or "on" in self.rules[rule]:
            return "touchpoint"
        return "timer" if "after" in self.rules[rule] else "condition"

    # -- the journey so far, beneath any pin ---------------------------------------------------------------------------

    @property
    def at(self) -> int:
        at, _, _ = self.point
        assert isinstance(at, int)
        return at

    @property
    def stage(self) -> str:
        return self.steps[-1].stage if self.steps else str(self.document["initial"])

    @property
    def entered_at(self) -> int:
        return [step.at for step in self.steps if step.stay][-1]

    def visits(self, stage: str) -> int:
        return len([step for step in self.steps if step.visit and self.renamed(step) == stage])

    def renamed(self, step: _Step) -> str:
        """The stage of a step by the names of the present version."""
        stage = step.stage
        for _, _, document in self.versions[step.version + 1 : self.version + 1]:
            if stage not in keys_of(document):
                stage = document["rename"][stage]
        return stage

    # -- the definition in force ---------------------------------------------------------------------------------------

    @property
    def document(self) -> Document:
        return self.versions[self.version][2]

    @property
    def number(self) -> int:
        return self.versions[self.version][1]

    @property
    def rules(self) -> Sequence[Mapping[str, Any]]:
        return [] if self.is_retired else self.document.get("rules", [])

    @property
    def is_retired(self) -> bool:
        return is_retired(self.document)

    @property
    def conditions(self) -> list[int]:
        return [place for place, rule in enumerate(self.rules) if "on" not in rule and "after" not in rule]

    @property
    def keys(self) -> list[str]:
        return keys_of(self.document)

    def rank(self, stage: str) -> int:
        return self.keys.index(stage)

    def between(self, origin: str, to: str) -> tuple[str, ...]:
        return tuple(self.keys[self.rank(origin) + 1 : self.rank(to)])

    def name_of_move(self, origin: str, to: str) -> str:
        step = self.rank(to) - self.rank(origin)
        return "reenter" if step == 0 else "back" if step < 0 else "advance" if step == 1 else "skip"


def is_retired(document: Document) -> bool:
    return document.get("retired") is True


def keys_of(document: Document) -> list[str]:
    return [stage["key"] for stage in document["stages"]]


def by_whom(fact: Fact | None) -> tuple[str | None, str | None]:
    return (None, None) if fact is None else (fact["id"], fact["source"])


def point_of(fact: Fact) -> Point:
    at, *rest = place_of(fact)
    return at, FACT, tuple(rest)
