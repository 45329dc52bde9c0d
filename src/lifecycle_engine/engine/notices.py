"""What others are told of a change: the data of each event, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from lifecycle_engine.engine.announcements import Announcement
from lifecycle_engine.lifecycle.instants import format_instant
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.store.changes import ChangeRow
from lifecycle_engine.store.customers import CustomerRow
from lifecycle_engine.store.states import Sequences

_encode = msgspec.json.Encoder().encode
_recorded_at = lru_cache(1)(format_instant)
"""Mostly the same one throughout a transaction."""


def stage_changed(
    customer: CustomerRow, event: Event, origin: str | None, sequences: Sequences, recorded_at: int, *, muted: bool,
    correction: bool = False,
) -> ChangeRow:  # fmt: skip
    """The journey's current stage is now `event.stage`; takes the journey's next sequence.

    `origin` is the stage that was current before, which a correction may not have in its history.
    """
    of_lifecycle = sequences.setdefault(event.lifecycle, {})
    sequence = of_lifecycle[event.subject] = of_lifecycle.get(event.subject, 0) + 1
    body = {
        **_who(customer, event),
        "from": origin,
        "to": event.stage,
        "move": event.move,
        "skipped": event.skipped,
        "occurred_at": format_instant(event.at),
        "recorded_at": _recorded_at(recorded_at),
        "sequence": sequence,
        "cause": {**cause_of(event), "kind": "correction"} if correction else cause_of(event),
    }
    return ChangeRow(
        customer.id, "stage.changed", event.lifecycle, event.subject, sequence, muted, recorded_at, _encode(body)
    )


def history_corrected(
    customer: CustomerRow, replaced: Sequence[Event], by: Sequence[Event], recorded_at: int, *, muted: bool
) -> ChangeRow:
    """The stays `replaced` are superseded by the stays `by`, all of one journey."""
    journey = (*replaced, *by)[0]
    body = {
        **_who(customer, journey),
        "recorded_at": format_instant(recorded_at),
        "replaced": [_stay(event) for event in replaced],
        "by": [_stay(event) for event in by],
    }
    return ChangeRow(
        customer.id, "history.corrected", journey.lifecycle, journey.subject, None, muted, recorded_at, _encode(body)
    )


def stage_expiring(
    customer: CustomerRow, announcement: Announcement, recorded_at: int, *, muted: bool, withdrawn: bool = False
) -> ChangeRow:
    """A timer will move the journey unless something happens; or, `withdrawn`, it was announced and will not."""
    lifecycle, subject, rule, told = announcement
    body = {
        **_whose(customer, lifecycle, subject),
        "stage": told.stage,
        "to": told.to,
        "due_at": format_instant(told.due),
        "withdrawn": withdrawn,
        "rule": rule,
        "definition_version": told.version,
        "recorded_at": _recorded_at(recorded_at),
    }
    return ChangeRow(customer.id, "stage.expiring", lifecycle, subject, None, muted, recorded_at, _encode(body))


def customer_merged(merged: CustomerRow, into: CustomerRow, recorded_at: int, *, muted: bool) -> ChangeRow:
    """Who had been a customer now belongs to another one; its history goes on as theirs."""
    body = {
        into.identity.kind: into.identity.value,
        "merged": {"kind": merged.identity.kind, "value": merged.identity.value},
        "recorded_at": format_instant(recorded_at),
    }
    return ChangeRow(into.id, "customer.merged", None, None, None, muted, recorded_at, _encode(body))


def cause_of(event: Event) -> dict[str, Any]:
    """Why a line is there, as every answer shows it."""
    return {
        "kind": event.cause,
        "rule": event.rule,
        "touchpoint": event.touchpoint,
        "source": event.source,
        "definition_version": event.definition_version,
    }


def _who(customer: CustomerRow, event: Event) -> dict[str, Any]:
    return _whose(customer, event.lifecycle, event.subject)


def _whose(customer: CustomerRow, lifecycle: str, subject: str | None) -> dict[str, Any]:
    return {customer.identity.kind: customer.identity.value, "lifecycle": lifecycle, "subject": subject}


def _stay(event: Event) -> dict[str, Any]:
    return {
        "stage": event.stage,
        "entered_at": format_instant(event.at),
        "from": event.origin,
        "move": event.move,
        "skipped": event.skipped,
        "cause": cause_of(event),
    }
