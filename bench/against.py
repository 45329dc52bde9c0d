"""This code beside that of another checkout, under the same loads: `python -m bench --against CHECKOUT`.

Both are up at once and take turns under each load, one, the other, the other, the one, so that what the machine does
meanwhile is done to both; who begins changes with the rounds. Each runs on databases that it has migrated itself, with
the lifecycle that its own first start makes active. What they share is the load, the servers, and the libraries that
are installed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.load import Load, touchpoint
from bench.processes import REPOSITORY, BenchError, Servers
from bench.progress import Progress
from bench.report import Section, microseconds, rate, ratio
from bench.targets import Target, engine, fill, migrated, worker
from bench.throughput import drive_settled, drive_target
from bench.worker import watch

WARM_UP = (Load(10_000, 100), Load(1_000))
ALONE = "the worker alone"


class Taken(NamedTuple):
    """One figure of each kind: touchpoints a second, and seconds of processor time for each (None: not known)."""

    rate: float
    cpu_seconds: float | None


class Against:
    """Each round puts every load twice on both, then lets a worker of each go through the same full topic."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool, other: Path) -> None:
        if not (other / "src" / "lifecycle_engine").is_dir():
            raise BenchError(f"{other} is no checkout of this repository: it has no src/lifecycle_engine")
        self._servers = servers
        self._rounds = rounds
        self._code = {"this code": REPOSITORY / "src", "the other": other.resolve() / "src"}
        batched, single, self._alone = (20_000, 6_000, 20_000) if quick else (40_000, 10_000, 50_000)
        self._loads = [Load(n, each, racing) for n, each in ((batched, 100), (single, 1)) for racing in (False, True)]
        self._taken: dict[tuple[str, str], list[Taken]] = defaultdict(list)

    @property
    def steps(self) -> int:
        return 2 * self._rounds * (2 * len(self._loads) + 1)

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if either fails or loses a touchpoint."""
        with self._migrated() as templates, self._servers.topic() as topic:
            progress.doing("the worker alone: filling the topic")
            uvloop.run(fill(self._servers, topic, (touchpoint("alone", number) for number in range(self._alone))))
            for number in range(self._rounds):
                names = list(self._code) if number % 2 == 0 else list(reversed(self._code))
                self._under_loads(names, templates, progress)
                for name in names:
                    self._on_its_own(name, templates[name], topic, progress)
        header = ["", "", "queryable/s, or applied", "of the other", "CPU µs each", "of the other"]
        rows = [self._row(what, name) for what in (*map(str, self._loads), ALONE) for name in self._code]
        return [Section("Beside the code of another checkout", header, rows)]

    @contextmanager
    def _migrated(self) -> Iterator[dict[str, str]]:
        this, other = self._code.values()
        with migrated(self._servers, this) as mine, migrated(self._servers, other) as theirs:
            yield dict(zip(self._code, (mine, theirs), strict=True))

    def _under_loads(self, names: Sequence[str], templates: Mapping[str, str], progress: Progress) -> None:
        progress.doing("starting both")
        with ExitStack() as stack:
            targets = {
                name: stack.enter_context(engine(self._servers, templates[name], source=self._code[name]))
                for name in names
            }
            for load in WARM_UP:
                for name in names:
                    drive_target(name, targets[name], load, progress)
            for load in self._loads:
                for name in (*names, *reversed(names)):
                    self._put(load, name, targets[name], progress)

    def _put(self, load: Load, name: str, target: Target, progress: Progress) -> None:
        figures, cpu = drive_settled(self._servers, name, target, load, progress)
        self._taken[str(load), name].append(Taken(figures.queryable_rate, cpu))
        progress.done(f"{name}, {load}: {figures.queryable_rate:,.0f}/s to queryable")

    def _on_its_own(self, name: str, template: str, topic: str, progress: Progress) -> None:
        with self._servers.database(template) as database:
            progress.doing(f"alone: {name}", self._alone)
            self._servers.settle()
            with worker(self._servers, database, topic, source=self._code[name]) as process:
                span = uvloop.run(watch(self._servers, database, process, self._alone, progress))
            cpu = None if span.cpu_seconds is None else span.cpu_seconds / span.done
            self._taken[ALONE, name].append(Taken(span.done / span.seconds, cpu))
            progress.done(f"alone: {name}: {span.done / span.seconds:,.0f}/s")

    def _row(self, what: str, name: str) -> list[str]:
        mine, others = self._taken[what, name], self._taken[what, "the other"]
        cpu, others_cpu = _known(mine), _known(others)
        return [
            what,
            name,
            rate([one.rate for one in mine]),
            ratio([one.rate for one in mine], [one.rate for one in others]),
            microseconds(cpu),
            ratio(cpu, others_cpu) if cpu else "not measured",
        ]


def _known(taken: Sequence[Taken]) -> list[float]:
    return [one.cpu_seconds for one in taken if one.cpu_seconds is not None]
