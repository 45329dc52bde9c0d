"""The history lines: appended, superseded once, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.store.rows import Append, Statement
from lifecycle_engine.store.tables import history


class Line(NamedTuple):
    """One line of a customer's history with what makes its row: valid time is in the event, knowledge time here."""

    customer: int
    recorded_at: int
    number: int
    event: Event
    superseded_at: int | None = None


_EVENT_COLUMNS = (
    "lifecycle", "subject", "at", "stage", "origin", "move", "skipped",
    "cause", "rule", "touchpoint", "source", "definition_version", "reason", "phase",
)  # fmt: skip
_APPEND = Append(history, ["customer", "recorded_at", "number", *_EVENT_COLUMNS])
_SUPERSEDE = Statement(
    "UPDATE history SET superseded_at = given.superseded_at FROM {given} WHERE history.customer = given.customer "
    "AND history.at = given.at AND history.recorded_at = given.recorded_at AND history.number = given.number",
    history,
    ["customer", "at", "recorded_at", "number", "superseded_at"],
)
_SELECTED = ", ".join(f"history.{name}" for name in ("customer", "recorded_at", "number", *_EVENT_COLUMNS))
_VISIBLE = Statement(
    f"SELECT {_SELECTED}, history.superseded_at FROM {{given}} JOIN history "
    "ON history.customer = given.customer AND history.at >= given.at WHERE history.superseded_at IS NULL",
    history,
    ["customer", "at"],
)


async def append_lines(connection: AsyncConnection, lines: Sequence[Line]) -> None:
    """Appends lines; (customer, at, recorded_at, number) must be new."""
    await _APPEND(connection, [(line.customer, line.recorded_at, line.number, *_values(line.event)) for line in lines])


async def supersede_lines(connection: AsyncConnection, lines: Sequence[tuple[Line, int]]) -> None:
    """Ends the knowledge of each line at the instant given with it."""
    await _SUPERSEDE(
        connection, [(line.customer, line.event.at, line.recorded_at, line.number, at) for line, at in lines]
    )


async def visible_lines(connection: AsyncConnection, starts: Sequence[tuple[int, int]]) -> list[Line]:
    """The lines, not superseded, of each (customer, from instant on), in no order."""
    return [line_of(row) for row in await _VISIBLE(connection, starts)]


def line_of(row: Sequence[Any]) -> Line:
    """A row of (customer, recorded_at, number, the event's columns, superseded_at)."""
    (customer, recorded_at, number, lifecycle, subject, at, stage, origin, move, skipped,
     cause, rule, touchpoint, source, definition_version, reason, phase, superseded_at) = row  # fmt: skip
    event = Event(
        lifecycle, subject, at, stage, origin, move, tuple(skipped.split()) if skipped else (),
        cause, rule, touchpoint, source, definition_version, reason, phase,
    )  # fmt: skip
    return Line(customer, recorded_at, number, event, superseded_at)


def _values(event: Event) -> tuple[Any, ...]:
    return (*event[:6], " ".join(event.skipped), *event[7:])
