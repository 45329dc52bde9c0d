"""One touchpoint in order: what `step` costs, beside what reading it costs anyway."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from bench.lives import DAY, LIFECYCLES, definitions, life
from bench.processes import Servers
from bench.progress import Progress
from bench.report import Section, ratio
from lifecycle_engine.lifecycle.fold import step
from lifecycle_engine.lifecycle.journeys import UNKNOWN
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

TOUCHPOINTS = 1_000
"""Of each customer, one a day, so that a rolling year is full and moves on for most of them."""
YARDSTICK = "its yardstick: `json.loads` of its message, and `dict.update` with it"


class Steps:
    """Each round folds the lives of a few customers, one touchpoint at a time; no server has a part in it."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._rounds = rounds
        self._customers = 2 if quick else 10
        self._medians: dict[str, list[float]] = defaultdict(list)
        self._p99s: dict[str, list[float]] = defaultdict(list)

    @property
    def steps(self) -> int:
        return self._rounds * (1 + len(LIFECYCLES))

    def run(self, progress: Progress) -> list[Section]:
        touchpoints = life(TOUCHPOINTS, DAY)
        candidates: dict[str, Callable[[], list[int]]] = {YARDSTICK: _yardstick(touchpoints)}
        candidates |= {lifecycle: _stepping(lifecycle, touchpoints) for lifecycle in LIFECYCLES}
        for _ in range(self._rounds):
            for name, candidate in candidates.items():
                progress.doing(f"step: {name}", self._customers)
                candidate()  # Not measured: caches are filled.
                taken: list[int] = []
                for _ in range(self._customers):
                    taken += candidate()
                    progress.advance(1)
                taken.sort()
                self._medians[name].append(taken[len(taken) // 2] / 1e9)
                self._p99s[name].append(taken[len(taken) * 99 // 100] / 1e9)
                progress.done(f"step: {name}: {self._medians[name][-1] * 1e6:.1f} µs")
        title = f"`step`: one touchpoint in order, of customers with {TOUCHPOINTS:,} daily ones"
        header = ["", "median µs", "p99 µs", "median, as a multiple of the yardstick's"]
        return [Section(title, header, [self._row(name) for name in candidates])]

    def _row(self, name: str) -> list[str]:
        medians = self._medians[name]
        return [name, _tenths(medians), _tenths(self._p99s[name]), ratio(medians, self._medians[YARDSTICK])]


def _stepping(lifecycle: str, touchpoints: Sequence[Touchpoint]) -> Callable[[], list[int]]:
    """Gives the nanoseconds that each step took."""
    active = definitions(lifecycle)

    def run() -> list[int]:
        state, taken, clock = UNKNOWN, [], time.perf_counter_ns
        for touchpoint in touchpoints:
            began = clock()
            state, _ = step(active, state, touchpoint)
            taken.append(clock() - began)
        return taken

    return run


def _yardstick(touchpoints: Sequence[Touchpoint]) -> Callable[[], list[int]]:
    """The least that a program does that keeps the last of everything. It is of the standard library: it stays so."""
    messages = [json.dumps(touchpoint._asdict()).encode() for touchpoint in touchpoints]

    def run() -> list[int]:
        state: dict[str, Any] = {}
        taken, clock = [], time.perf_counter_ns
        for message in messages:
            began = clock()
            state.update(json.loads(message))
            taken.append(clock() - began)
        return taken

    return run


def _tenths(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.1f}"
