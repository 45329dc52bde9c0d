"""The lines of a history as answers show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lifecycle_engine.api.door.negotiation import label_of
from lifecycle_engine.api.values import Instant
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.journeys import CauseKind, Event
from lifecycle_engine.store.answers.stays import KnownLine


class Cause(BaseModel):
    """Why a line is there."""

    kind: CauseKind
    rule: int | None = Field(description="The place of the deciding rule in the definition, from 0.", examples=[3])
    touchpoint: str | None = Field(description="The id of the touchpoint that was judged.", examples=["t-1024"])
    source: str | None = Field(description="The source of that touchpoint.", examples=["shop"])
    definition_version: int = Field(examples=[1])


Lifecycle = Annotated[str, Field(examples=["five-stages"])]
Subject = Annotated[
    str | None, Field(description="What the journey is about; null where the lifecycle has no subjects.")
]
StageLabel = Annotated[
    str, Field(description="The stage's label in the language asked for (`Accept-Language`).", examples=["Purchase"])
]
Skipped = Annotated[list[str], Field(description="The stages that lie between, in their order.", examples=[[]])]
RecordedAt = Annotated[Instant, Field(description="Since when this is known.")]
SupersededAt = Annotated[
    Instant | None, Field(description="Since when this is known to be wrong; null while it stands.")
]


class Stay(BaseModel):
    """One interval in one stage, with the transition that opened it."""

    lifecycle: Lifecycle
    subject: Subject
    stage: str = Field(examples=["purchase"])
    label: StageLabel
    entered_at: Instant
    left_at: Instant | None = Field(description="When the next stay begins; null for the current one.")
    origin: str | None = Field(
        serialization_alias="from", description="The stage before; null at the start.", examples=["consideration"]
    )
    move: Literal["start", "advance", "skip", "back", "reenter"]
    skipped: Skipped
    cause: Cause
    recorded_at: RecordedAt
    superseded_at: SupersededAt


class Refusal(BaseModel):
    """A move that a rule aimed at and the definition forbade. It left the journey where it was."""

    lifecycle: Lifecycle
    subject: Subject
    stage: str = Field(description="The stage that the rule aimed at.", examples=["retention"])
    label: StageLabel
    entered_at: Instant = Field(description="When it would have been entered.")
    left_at: None = None
    origin: str | None = Field(
        serialization_alias="from", description="The stage that the journey stayed in.", examples=["purchase"]
    )
    move: Literal["refused"]
    reason: str = Field(
        description="`moves`, or the entry guard that did not hold, such as `requires[0]`.", examples=["requires[0]"]
    )
    guard: str | None = Field(
        description="The entry guard that did not hold; null where the `moves` forbade it, or there is no such stage.",
        examples=["measures.purchases >= 2"],
    )
    skipped: Skipped
    cause: Cause
    recorded_at: RecordedAt
    superseded_at: SupersededAt


HistoryItem = Annotated[Stay | Refusal, Field(discriminator="move")]


def cause_of(event: Event) -> Cause:
    return Cause(
        kind=event.cause,
        rule=event.rule,
        touchpoint=event.touchpoint,
        source=event.source,
        definition_version=event.definition_version,
    )


class Words:
    """What the definitions say of the stages that lines lead to, each by its version, in the language asked for."""

    def __init__(self, definitions: Mapping[tuple[str, int], Definition], accept_language: str | None) -> None:
        self._definitions = definitions
        self._accept_language = accept_language

    def label(self, event: Event) -> str:
        """The label of the stage."""
        return label_of(self._definition(event), event.stage, self._accept_language)

    def guard(self, event: Event) -> str | None:
        """The entry guard that did not hold; None where it was something else that refused."""
        place = _ENTRY_GUARD.fullmatch(event.reason or "")
        return self._definition(event).stages[event.stage].requires[int(place[1])].source if place else None

    def _definition(self, event: Event) -> Definition:
        return self._definitions[event.lifecycle, event.definition_version]


_ENTRY_GUARD = re.compile(r"requires\[([0-9]+)\]")


async def words_for(definitions: Definitions, lines: Iterable[KnownLine], accept_language: str | None) -> Words:
    """What there is to say of these lines. Opens transactions of its own."""
    used = {(line.event.lifecycle, line.event.definition_version) for line, _ in lines}
    return Words({name: await definitions.version(*name) for name in sorted(used)}, accept_language)


def history_item(known: KnownLine, words: Words) -> Stay | Refusal:
    """A line as the history lists it."""
    event = known.line.event
    fields = {
        "lifecycle": event.lifecycle,
        "subject": event.subject,
        "stage": event.stage,
        "label": words.label(event),
        "entered_at": event.at,
        "left_at": known.left_at,
        "origin": event.origin,
        "move": event.move,
        "skipped": list(event.skipped),
        "cause": cause_of(event),
        "recorded_at": known.line.recorded_at,
        "superseded_at": known.line.superseded_at,
    }
    return Stay(**fields) if event.is_stay else Refusal(**fields, reason=event.reason, guard=words.guard(event))
