"""The worked examples of "The fold, precisely", for whoever can play facts and read a history.

Those of the contract are in `fold.yaml`, those of our own in `own.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lifecycle_engine.lifecycle.instants import format_instant

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
    """One expected refusal. `at` is in microseconds since the epoch; `rule` is None for an override."""

    at: int
    rule: int | None
    to: str
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """One worked example.

    `touchpoints` are in the order of their arrival, duplicates included; each has `id`, `type`, `occurred_at`
    (microseconds since the epoch) and `properties`. `now` is when the question is put. `journeys` are the stays of each
    subject (None without `per`). `later` are further versions of the definition, each with the instant from which on it
    holds. In our own examples there are facts under reserved types among the touchpoints, as they stand in the log.
    """

    name: str
    definition: Mapping[str, Any]
    touchpoints: tuple[Mapping[str, Any], ...]
    now: int
    journeys: Mapping[str | None, tuple[Stay, ...]]
    refusals: tuple[Refusal, ...]
    later: tuple[tuple[int, Mapping[str, Any]], ...] = ()

    @property
    def versions(self) -> list[tuple[int | None, int, Mapping[str, Any]]]:
        """From when it holds (None: from the beginning of time), its number, and its document."""
        return [(since, n, each) for n, (since, each) in enumerate([(None, self.definition), *self.later], 1)]


SOURCE = "test"
"""Where all facts of the examples come from."""


def microseconds(moment: str) -> int:
    """`03-01` (a day of 2026) or an RFC 3339 instant, in microseconds since the epoch."""
    instant = datetime.fromisoformat(moment if "T" in moment else f"2026-{moment}T00:00:00Z")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _stay(raw: list[Any]) -> Stay:
    stage, entered_at, origin, move, skipped, rule, cause = raw
    return Stay(stage, microseconds(entered_at), origin, move, tuple(skipped), rule, cause)


def _fact(
    lifecycle: str, id_: str, type_: str, moment: str, properties: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    given = dict(properties or {})
    if type_ == "$override":
        given = {"lifecycle": lifecycle, "subject": None, "reason": "an example", "actor": "someone", **given}
        if "expires_at" in given:
            given["expires_at"] = format_instant(microseconds(given["expires_at"]))
    if type_ == "$retract":
        given = {"source": SOURCE, **given}
    return {"id": id_, "type": type_, "occurred_at": microseconds(moment), "properties": given}


def read_case(raw: Mapping[str, Any]) -> Case:
    journeys = raw["subjects"] if "subjects" in raw else {None: raw["stays"]}
    return Case(
        name=raw["name"],
        definition=raw["definition"],
        touchpoints=tuple(_fact(raw["definition"]["lifecycle"], *fact) for fact in raw["touchpoints"]),
        now=microseconds(raw["now"]),
        journeys={subject: tuple(map(_stay, stays)) for subject, stays in journeys.items()},
        refusals=tuple(Refusal(microseconds(at), *rest) for at, *rest in raw.get("refusals", [])),
        later=tuple((microseconds(each["from"]), each["definition"]) for each in raw.get("versions", [])),
    )


def _read(name: str) -> tuple[Case, ...]:
    document = YAML(typ="safe", pure=True).load(Path(__file__).with_name(name))
    return tuple(map(read_case, document["cases"]))


CASES = _read("fold.yaml")
OWN_CASES = _read("own.yaml")
