"""What the fold remembers (state) and what it tells (history). Every value here can be carried by msgpack."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from lifecycle_engine.lifecycle.measures import Total
from lifecycle_engine.lifecycle.touchpoints import Place

Move = Literal["start", "advance", "skip", "back", "reenter", "refused"]
CauseKind = Literal["touchpoint", "timer", "condition", "override", "definition"]


class JourneyState(NamedTuple):
    """One open journey, as it stands after the last fact that it has worked through. Never changed, only replaced."""

    stage: str
    entered_at: int
    previous_stage: str | None
    visits: dict[str, int]
    totals: tuple[Total, ...]
    definition_version: int


class CustomerState(NamedTuple):
    """All journeys of a customer: lifecycle -> subject -> journey. `place` is the last fact worked through."""

    place: Place | None
    facts: int
    journeys: dict[str, dict[str | None, JourneyState]]

    def journey(self, lifecycle: str, subject: str | None) -> JourneyState | None:
        return self.journeys.get(lifecycle, {}).get(subject)


UNKNOWN = CustomerState(None, 0, {})
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

    @property
    def is_stay(self) -> bool:
        return self.move != "refused"


class Decision(NamedTuple):
    """What judging one instant led to: the rule that decided, where it aimed, and why it was refused, if it was."""

    rule: int
    stage: str
    refusal: str | None


Values = dict[str, Any]
