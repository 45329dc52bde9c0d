"""One customer with many touchpoints, folded again: all of it, and from the checkpoint before a late touchpoint."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvloop

from bench.lives import HOUR, LIFECYCLES, START, definitions, document, life
from bench.processes import BenchError, Servers
from bench.progress import Progress
from bench.report import Section, milliseconds
from lifecycle_engine.engine.batch import apply_batch
from lifecycle_engine.lifecycle.fold import Definitions, fold
from lifecycle_engine.lifecycle.journeys import UNKNOWN, CustomerState
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from lifecycle_engine.roles.process import collect_rarely
from lifecycle_engine.store.states import decode_state, encode_state
from tests.record import LOG, Feed, deliveries, message, record

TOUCHPOINTS = 10_000
BATCH = 500
SAMPLES = 5
"""Late touchpoints of each kind in a round."""
ALL = "all again"
LATE = "late by a tenth"
GOALS = {ALL: 300, LATE: 50}
"""Milliseconds."""
_FIRST = {ALL: 1, LATE: TOUCHPOINTS - TOUCHPOINTS // 10}
"""The touchpoint before which a late one belongs: the second, behind the one that opened the journey, or this one."""
_TYPES = {"five-stages": "purchase", "loyalty": "points_earned"}
"""What comes late: what the lifecycle counts."""


class Refolds:
    """Each round folds one life again in this process, then lets late touchpoints of it come to the engine.

    The engine's time is that of its whole transaction, from the record of the log to the commit.
    """

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._rounds = rounds
        self._samples = 1 if quick else SAMPLES
        self._folded: dict[tuple[str, str], int] = {}
        self._alone: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._engine: dict[tuple[str, str], list[float]] = defaultdict(list)

    @property
    def steps(self) -> int:
        return self._rounds * len(LIFECYCLES) * 2

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if a touchpoint that came late was not taken for one."""
        touchpoints = life(TOUCHPOINTS, HOUR)
        collect_rarely()  # As in every process of the engine.
        for _ in range(self._rounds):
            for lifecycle in LIFECYCLES:
                progress.doing(f"re-fold: {lifecycle}, in this process")
                self._fold_alone(lifecycle, touchpoints)
                progress.done(f"re-fold: {lifecycle}: {self._said(self._alone, lifecycle)}")
                with self._servers.database() as database_url:
                    uvloop.run(self._through_the_engine(lifecycle, touchpoints, database_url, progress))
                progress.done(f"re-fold: {lifecycle}, through the engine: {self._said(self._engine, lifecycle)}")
        rows = [
            [
                f"{lifecycle}: {kind}",
                f"{self._folded[lifecycle, kind]:,}",
                milliseconds(self._alone[lifecycle, kind]),
                milliseconds(self._engine[lifecycle, kind]),
                f"{goal}",
            ]
            for lifecycle in LIFECYCLES
            for kind, goal in GOALS.items()
        ]
        title = f"A re-fold of one customer with {TOUCHPOINTS:,} hourly touchpoints"
        header = ["", "touchpoints folded", "the fold, ms", "the engine's transaction, ms", "goal, ms"]
        return [Section(title, header, rows)]

    def _fold_alone(self, lifecycle: str, touchpoints: Sequence[Touchpoint]) -> None:
        active = definitions(lifecycle)
        checkpoints: list[CustomerState] = []
        fold(active, touchpoints, checkpoint=checkpoints.append)  # Not measured: caches are filled.
        for kind, first in _FIRST.items():
            base = max((one for one in checkpoints if one.facts <= first), key=lambda one: one.facts, default=UNKNOWN)
            stored = encode_state(base)
            self._folded[lifecycle, kind] = TOUCHPOINTS - base.facts
            for _ in range(self._samples):
                with _timed(self._alone[lifecycle, kind]):
                    _fold_from(active, stored, touchpoints)

    async def _through_the_engine(
        self, lifecycle: str, touchpoints: Sequence[Touchpoint], database_url: str, progress: Progress
    ) -> None:
        async with record(database_url, document(lifecycle)) as database:
            feed = Feed(database)
            progress.doing(f"re-fold: {lifecycle}, through the engine", TOUCHPOINTS)
            for start in range(0, TOUCHPOINTS, BATCH):
                batch = touchpoints[start : start + BATCH]
                await feed.apply(*[_message(one.id, one.occurred_at, one) for one in batch])
                progress.advance(len(batch))
            active = await feed.definitions.current()
            for number in range(self._samples):
                for kind, first in _FIRST.items():
                    # Each a second later than the one before it: a fact of its own, whose checkpoint stands before it.
                    at = START + first * HOUR - HOUR // 2 + number * 1_000_000
                    like = next(one for one in touchpoints if one.type == _TYPES[lifecycle])
                    batch_of_one = deliveries([_message(f"late-{first}-{number}", at, like)], feed.next)
                    with _timed(self._engine[lifecycle, kind]):
                        outcome = await apply_batch(database, active, LOG, batch_of_one)
                    feed.next += 1
                    if outcome.late != 1:
                        raise BenchError(f"re-fold: {lifecycle}: a late touchpoint came to {outcome}")

    def _said(self, figures: dict[tuple[str, str], list[float]], lifecycle: str) -> str:
        return ", ".join(f"{kind} {milliseconds(figures[lifecycle, kind])} ms" for kind in GOALS)


def _fold_from(active: Definitions, stored: bytes, touchpoints: Sequence[Touchpoint]) -> None:
    base = decode_state(stored)
    assert base is not None
    kept: list[CustomerState] = []
    fold(active, touchpoints[base.facts :], base, checkpoint=kept.append)


def _message(id_: str, at: int, like: Touchpoint) -> bytes:
    return message(id_, like.type, at, properties=like.properties)


@contextmanager
def _timed(figures: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures.append(time.perf_counter() - began)
