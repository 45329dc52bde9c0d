"""The lines of a history as answers show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lifecycle_engine.api.negotiation import label_of
from lifecycle_engine.api.values import Instant
from lifecycle_engine.engine.definitions import Definitions
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


Labels = Callable[[Event], str]
"""The label of the stage that a line leads to."""


async def labels_of(definitions: Definitions, lines: Iterable[KnownLine], accept_language: str | None) -> Labels:
    """The labels of these lines' stages in a language, each as its version of the definition has it."""
    used = {(line.event.lifecycle, line.event.definition_version) for line, _ in lines}
    found = {name: await definitions.version(*name) for name in sorted(used)}
    return lambda event: label_of(found[event.lifecycle, event.definition_version], event.stage, accept_language)


def history_item(known: KnownLine, labels: Labels) -> Stay | Refusal:
    """A line as the history lists it."""
    event = known.line.event
    fields = {
        "lifecycle": event.lifecycle,
        "subject": event.subject,
        "stage": event.stage,
        "label": labels(event),
        "entered_at": event.at,
        "left_at": known.left_at,
        "origin": event.origin,
        "move": event.move,
        "skipped": list(event.skipped),
        "cause": cause_of(event),
        "recorded_at": known.line.recorded_at,
        "superseded_at": known.line.superseded_at,
    }
    return Stay(**fields) if event.is_stay else Refusal(**fields, reason=event.reason)
