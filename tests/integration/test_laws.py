"""The one law, through the engine: in any order, duplication and batching, what is recorded is what the oracle says.

The oracle shares no code with the engine. The long profile: `--hypothesis-profile=laws`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.log.message import InvalidMessageError, decode
from lifecycle_engine.store.history import Line
from tests.oracle import Passage, replay
from tests.record import Feed, changes, lines, message, record
from tests.unit.strategies import by_chance, customers, definition


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "lifecycle.db"

    async def migrate() -> None:
        async with record(f"sqlite+aiosqlite:///{path}"):
            pass

    asyncio.run(migrate())
    return path


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[Touchpoint]]:
    """Some facts of a customer, in any order, some of them twice, cut into batches."""
    facts = [fact for fact in draw(customers) if _is_taken(fact)]
    arriving = draw(st.permutations(facts + draw(st.lists(st.sampled_from(facts), max_size=4)) if facts else []))
    batches: list[list[Touchpoint]] = []
    for fact in arriving:
        if not batches or draw(st.booleans()):
            batches.append([])
        batches[-1].append(fact)
    return batches


@settings(
    max_examples=max(30, settings().max_examples // 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(document=by_chance(definition), batches=arrivals())
def test_what_is_recorded_is_what_the_oracle_says(
    template: Path, tmp_path: Path, document: dict[str, Any], batches: list[list[Touchpoint]]
) -> None:
    path = tmp_path / "lifecycle.db"
    for leftover in tmp_path.glob("lifecycle.db*"):
        leftover.unlink()
    shutil.copy(template, path)
    asyncio.run(_play(f"sqlite+aiosqlite:///{path}", document, batches))


async def _play(url: str, document: dict[str, Any], batches: list[list[Touchpoint]]) -> None:
    async with record(url, document) as database:
        feed = Feed(database)
        known: dict[int, set[Any]] = {}
        for batch in batches:
            assert (await feed.apply(*(_message(fact) for fact in batch))).dead == 0
            stored = await lines(database)
            known[max(line.recorded_at for line in stored) if stored else 0] = {line.event for line in visible(stored)}
        facts = [fact._asdict() for batch in batches for fact in batch]
        stored = await lines(database)
        assert _passages(visible(stored)) == _told(replay(document, facts))
        for known_at, events in known.items():
            assert {line.event for line in visible(stored, known_at)} == events
        assert_tiled(stored)
        current: dict[str | None, str] = {}
        sequences: dict[str | None, int] = {}
        for told in await changes(database):
            if told["type"] == "stage.changed":
                assert told["from"] == current.get(told["subject"])
                current[told["subject"]] = told["to"]
                sequences[told["subject"]] = sequences.get(told["subject"], 0) + 1
                assert told["sequence"] == sequences[told["subject"]]
        oracle = replay(document, facts)
        assert current == {subject: passage.stays[-1].stage for (_, subject), passage in oracle.items()}


def visible(stored: Sequence[Line], known_at: int | None = None) -> list[Line]:
    if known_at is None:
        return [line for line in stored if line.superseded_at is None]
    return [
        line
        for line in stored
        if line.recorded_at <= known_at and (line.superseded_at is None or line.superseded_at > known_at)
    ]


def assert_tiled(stored: Sequence[Line]) -> None:
    """At any `known_at`, each stay leaves from the stage of the one before it, and the first one from none."""
    for known_at in {line.recorded_at for line in stored}:
        before: dict[str | None, str] = {}
        shown = [line.event for line in visible(stored, known_at) if line.event.is_stay]
        for event in sorted(shown, key=lambda one: (one.at, one.touchpoint or "", one.source or "")):
            assert event.origin == before.get(event.subject)
            before[event.subject] = event.stage


def _is_taken(fact: Touchpoint) -> bool:
    """The fold can take integers beyond 64 bits; the log does not."""
    try:
        decode(_message(fact))
    except InvalidMessageError:
        return False
    return True


def _message(fact: Touchpoint) -> bytes:
    names = {"source": fact.source, "properties": fact.properties, "context": fact.context}
    return message(fact.id, fact.type, fact.occurred_at, "c", **json.loads(json.dumps(names)))


def _passages(shown: Sequence[Line]) -> dict[str | None, tuple[set[Any], set[Any]]]:
    found: dict[str | None, tuple[set[Any], set[Any]]] = {}
    for event in (line.event for line in shown):
        stays, refusals = found.setdefault(event.subject, (set(), set()))
        if event.is_stay:
            stays.add((event.stage, event.at, event.origin, event.move, event.skipped, event.rule, event.touchpoint))
        else:
            refusals.add((event.at, event.rule, event.stage, event.reason, event.touchpoint))
    return found


def _told(journeys: dict[tuple[str, str | None], Passage]) -> dict[str | None, tuple[set[Any], set[Any]]]:
    return {
        subject: (
            {
                (stay.stage, stay.entered_at, stay.origin, stay.move, stay.skipped, stay.rule, stay.touchpoint)
                for stay in passage.stays
            },
            {
                (refusal.at, refusal.rule, refusal.to, refusal.reason, refusal.touchpoint)
                for refusal in passage.refusals
            },
        )
        for (_, subject), passage in journeys.items()
    }
