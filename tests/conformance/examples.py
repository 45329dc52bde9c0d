"""The worked examples of "The fold, precisely" (`fold.yaml`), for whoever can play touchpoints and read a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stay:
    """One expected stay. `entered_at` is in microseconds since the epoch; it ends where the next one begins."""

    stage: str
    entered_at: int
    origin: str | None
    move: str
    skipped: tuple[str, ...]
    rule: int | None
    cause: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """One expected refusal. `at` is in microseconds since the epoch."""

    at: int
    rule: int
    to: str
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """One worked example.

    `touchpoints` are in the order of their arrival, duplicates included; each has `id`, `type`, `occurred_at`
    (microseconds since the epoch) and `properties`. `now` is when the question is put. `journeys` are the stays of each
    subject (None without `per`).
    """

    name: str
    definition: Mapping[str, Any]
    touchpoints: tuple[Mapping[str, Any], ...]
    now: int
    journeys: Mapping[str | None, tuple[Stay, ...]]
    refusals: tuple[Refusal, ...]


def microseconds(moment: str) -> int:
    """`03-01` (a day of 2026) or an RFC 3339 instant, in microseconds since the epoch."""
    instant = datetime.fromisoformat(moment if "T" in moment else f"2026-{moment}T00:00:00Z")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _stay(raw: list[Any]) -> Stay:
    stage, entered_at, origin, move, skipped, rule, cause = raw
    return Stay(stage, microseconds(entered_at), origin, move, tuple(skipped), rule, cause)


def _touchpoint(id_: str, type_: str, moment: str, properties: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return {"id": id_, "type": type_, "occurred_at": microseconds(moment), "properties": properties or {}}


def read_case(raw: Mapping[str, Any]) -> Case:
    journeys = raw["subjects"] if "subjects" in raw else {None: raw["stays"]}
    return Case(
        name=raw["name"],
        definition=raw["definition"],
        touchpoints=tuple(_touchpoint(*touchpoint) for touchpoint in raw["touchpoints"]),
        now=microseconds(raw["now"]),
        journeys={subject: tuple(map(_stay, stays)) for subject, stays in journeys.items()},
        refusals=tuple(Refusal(microseconds(at), *rest) for at, *rest in raw.get("refusals", [])),
    )


_DOCUMENT = YAML(typ="safe", pure=True).load(Path(__file__).with_name("fold.yaml"))

CASES = tuple(map(read_case, _DOCUMENT["cases"]))
