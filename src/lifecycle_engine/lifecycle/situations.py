"""What guards can ask about: one journey at one instant, under the names that expressions use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle_engine.lifecycle.definitions import ActiveDefinition
from lifecycle_engine.lifecycle.guards import Values
from lifecycle_engine.lifecycle.journeys import JourneyState
from lifecycle_engine.lifecycle.measures import Total
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Situation:
    """A journey (None before it opens) at an instant, with totals as of it.

    `touchpoint` is what is judged; None where nothing but the clock, an identify or a switch is the occasion. `fact` is
    the identify then, if it was one.
    """

    __slots__ = (
        "_values", "active", "at", "definition", "fact", "journey", "phase", "stage", "subject", "totals", "touchpoint",
        "traits",
    )  # fmt: skip

    def __init__(
        self,
        active: ActiveDefinition,
        subject: str | None,
        at: int,
        phase: int,
        stage: str,
        journey: JourneyState | None,
        totals: tuple[Total, ...],
        traits: Mapping[str, Any],
        touchpoint: Touchpoint | None,
        fact: Touchpoint | None = None,
    ) -> None:
        self.active = active
        self.definition = active.definition
        self.subject = subject
        self.at = at
        self.phase = phase
        self.stage = stage
        self.journey = journey
        self.totals = totals
        self.traits = traits
        self.touchpoint = touchpoint
        self.fact = fact or touchpoint
        self._values: Values | None = None

    def named(self) -> dict[str, Any]:
        """The values of the names that the definition's guards ask for.

        A measure without a value, or what is not there on this occasion, is left out.
        """
        definition = self.definition
        values: dict[str, Any] = {}
        for name in definition.names:
            value = _NAMES[name](self)
            if value is not None:
                values[name] = value
        for index, measure in definition.asked_measures:
            total = self.totals[index]
            value = measure.read(total)
            # Most have one, and null is one too.
            if value is not None or measure.has_value(total):
                values[f"measures.{measure.name}"] = _datetime(value) if measure.path == ("occurred_at",) else value
        return values

    @property
    def values(self) -> Values:
        """The same, bound for guards; once for all of them."""
        if self._values is None:
            self._values = self.definition.compiler.bind(self.named())
        return self._values


def _of_event(read: Callable[[Touchpoint], Any]) -> Callable[[Situation], Any]:
    return lambda situation: None if situation.touchpoint is None else read(situation.touchpoint)


def _entered_at(situation: Situation) -> datetime | None:
    return _datetime(situation.journey.entered_at) if situation.journey else None


def _visits(situation: Situation) -> dict[str, int]:
    begun = situation.journey.visits if situation.journey else {}
    return {key: begun.get(key, 0) for key in situation.definition.stages}


_NAMES: Mapping[str, Callable[[Situation], Any]] = {
    "event.id": _of_event(lambda touchpoint: touchpoint.id),
    "event.source": _of_event(lambda touchpoint: touchpoint.source),
    "event.type": _of_event(lambda touchpoint: touchpoint.type),
    "event.occurred_at": _of_event(lambda touchpoint: _datetime(touchpoint.occurred_at)),
    "event.properties": _of_event(lambda touchpoint: touchpoint.properties),
    "event.context": _of_event(lambda touchpoint: touchpoint.context),
    "journey.stage": lambda situation: situation.stage,
    "journey.entered_at": _entered_at,
    "journey.visits": _visits,
    "traits": lambda situation: situation.traits,
}


def _datetime(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)
