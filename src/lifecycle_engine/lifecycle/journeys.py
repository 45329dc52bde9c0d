"""What the fold remembers (state) and what it tells (history). Every value here can be carried by msgpack."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal, NamedTuple

from lifecycle_engine.lifecycle.measures import Total
from lifecycle_engine.lifecycle.touchpoints import Place

Move = Literal["start", "advance", "skip", "back", "reenter", "refused"]
CauseKind = Literal["touchpoint", "timer", "condition", "override", "definition"]


class Phase(IntEnum):
    """The order in which things happen at one instant."""

    SWITCH = 0
    SWITCHED = 1
    PIN = 2
    DEADLINE = 3
    WINDOW = 4
    FACT = 5


class Shown(NamedTuple):
    """What is told of a journey where an operator's pin makes it differ from the fold beneath.

    `until` is when the pin ends (None once it has ended), `id` and `source` name the override that pins.
    """

    stage: str
    entered_at: int
    previous_stage: str | None
    until: int | None
    id: str
    source: str


class Prospect(NamedTuple):
    """What a version that is yet to take effect will find: its measures, and its timers' clocks."""

    totals: tuple[Total, ...]
    clocks: tuple[int | None, ...]


class JourneyState(NamedTuple):
    """One open journey, as it stands after the last thing that it has worked through. Never changed, only replaced.

    `clocks` tell since when each of the definition's timers runs (None: it is stopped, or rests). `wake` is the next
    instant at which something is due though no touchpoint comes. `epoch` is the version's place in its timeline, and
    `later` has a prospect for each version after it. Instants are in microseconds since the epoch, UTC.
    """

    stage: str
    entered_at: int
    previous_stage: str | None
    visits: dict[str, int]
    totals: tuple[Total, ...]
    definition_version: int
    clocks: tuple[int | None, ...] = ()
    wake: int | None = None
    epoch: int = 0
    shown: Shown | None = None
    later: tuple[Prospect, ...] = ()

    @property
    def is_pinned(self) -> bool:
        return self.shown is not None and self.shown.until is not None

    @property
    def current(self) -> Shown:
        """The stage that is told, since when, and the one before it."""
        return self.shown or Shown(self.stage, self.entered_at, self.previous_stage, None, "", "")


class CustomerState(NamedTuple):
    """All journeys of a customer: lifecycle -> subject -> journey. `place` is the last thing worked through.

    That is a fact, or what was due at an instant; the place of the latter has no id, and so sorts before all facts of
    its instant. `traits` are the last values by event time.
    """

    place: Place | None
    facts: int
    journeys: dict[str, dict[str | None, JourneyState]]
    traits: dict[str, Any]

    def journey(self, lifecycle: str, subject: str | None) -> JourneyState | None:
        return self.journeys.get(lifecycle, {}).get(subject)

    @property
    def wake(self) -> int | None:
        """The next instant at which something is due in any journey."""
        first: int | None = None
        for subjects in self.journeys.values():
            for journey in subjects.values():
                if journey.wake is not None and (first is None or journey.wake < first):
                    first = journey.wake
        return first


UNKNOWN = CustomerState(None, 0, {}, {})
"""A customer of whom no touchpoint has been folded."""


class Event(NamedTuple):
    """One line of a journey's history: the transition that opened a stay, or (move `refused`) one that was refused.

    `at` is in microseconds since the epoch, UTC; `origin` is the stage left, None at the start. `rule` is the place in
    the definition's list, from 0. `reason` is set on refusals only.
    """

    lifecycle: str
    subject: str | None
    at: int
    stage: str
    origin: str | None
    move: Move
    skipped: tuple[str, ...]
    cause: CauseKind
    rule: int | None
    touchpoint: str | None
    source: str | None
    definition_version: int
    reason: str | None = None
    phase: int = Phase.FACT

    @property
    def is_stay(self) -> bool:
        return self.move != "refused"

    @property
    def place(self) -> Place:
        """Where in a customer's facts it happened; what is no fact's doing comes before all facts of its instant."""
        if self.phase < Phase.FACT:
            return Place(self.at, "", "")
        return Place(self.at, self.touchpoint or "", self.source or "")

    @property
    def order(self) -> tuple[int, int, str, str, int]:
        """Sorts the lines of one journey into the order of the fold."""
        rule = -1 if self.rule is None else self.rule
        return self.at, self.phase, self.touchpoint or "", self.source or "", rule


class Decision(NamedTuple):
    """What judging one instant led to: the rule that decided, where it aimed, and why it was refused, if it was."""

    rule: int
    stage: str
    refusal: str | None
