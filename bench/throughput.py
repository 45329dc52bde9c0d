"""From HTTP to queryable stage: the engine, the bare floor and the day-one service under the same load."""

from __future__ import annotations

import statistics
from collections import defaultdict

import uvloop

from bench.load import Figures, Load, drive
from bench.processes import BenchError, Servers
from bench.progress import Progress
from bench.report import Section, microseconds, milliseconds, rate, ratio
from bench.targets import SECOND, TARGETS, Service, Target

WARM_UP = {
    Service.ENGINE: (Load(10_000, 100), Load(1_000)),
    Service.TWO: (Load(10_000, 100),),
    Service.BARE: (Load(10_000, 100), Load(1_000)),
    Service.DAY_ONE: (Load(200),),
}
"""Not measured: connections are made, statements prepared, plans settled."""


BEFORE_ON = "2026-11-22"
BEFORE = {
    "100 a request, in order": 0.56,
    "100 a request, racing": 0.76,
    "1 a request, in order": 0.69,
    "1 a request, racing": 0.65,
}
"""Of the bare floor, by load: medians of two rounds of this measurement, before a fold knew timers and identities."""


class Throughput:
    """Each round puts every load on every service, one service at a time, on fresh databases and topics."""

    def __init__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> None:
        self._servers = servers
        self._template = template
        self._rounds = rounds
        batched, single, day_one = (20_000, 6_000, 2_000) if quick else (40_000, 20_000, 4_000)
        loads = [Load(n, each, racing) for n, each in ((batched, 100), (single, 1)) for racing in (False, True)]
        self._loads = {
            Service.ENGINE: loads,
            Service.TWO: loads[:2],
            Service.BARE: loads,
            Service.DAY_ONE: [Load(day_one, racing=racing) for racing in (False, True)],
        }
        self._figures: dict[tuple[Service, str], list[Figures]] = defaultdict(list)
        self._cpu: dict[tuple[Service, str], list[float]] = defaultdict(list)

    @property
    def steps(self) -> int:
        return self._rounds * sum(map(len, self._loads.values()))

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if a service fails or loses a touchpoint."""
        services = list(Service)
        for number in range(self._rounds):
            first = number % len(services)
            for service in services[first:] + services[:first]:
                self._run_service(service, progress)
        rows = [
            [str(load), str(service), *self._cells(service, load, figures)]
            for load in self._loads[Service.ENGINE]
            for service in services
            if (figures := self._figures.get((service, str(load))))
        ]
        header = [
            *("touchpoints", "", "accepted/s", "queryable/s", "p50 ms", "p99 ms"),
            *("of the bare floor", "times day-one", "CPU µs each"),
        ]
        return [Section("From HTTP to queryable stage", header, rows), self._compared()]

    def _run_service(self, service: Service, progress: Progress) -> None:
        progress.doing(f"{service}: starting")
        with TARGETS[service](self._servers, self._template) as target:
            for load in WARM_UP[service]:
                drive_target(service, target, load, progress)
            for load in self._loads[service]:
                figures, cpu = drive_settled(self._servers, service, target, load, progress)
                self._figures[service, str(load)].append(figures)
                if cpu is not None:
                    self._cpu[service, str(load)].append(cpu)
                progress.done(f"{service}, {load}: {figures.queryable_rate:,.0f}/s to queryable")

    def _compared(self) -> Section:
        """What the engine reaches, beside what it reached before, and with two lifecycles beside one."""
        rows = []
        for load in self._loads[Service.ENGINE]:
            now = statistics.median(self._ratios(Service.ENGINE, Service.BARE, load))
            both = self._ratios(Service.TWO, Service.ENGINE, load)
            with_two = f"{statistics.median(both):.2f}" if both else "not measured"
            rows.append(
                [str(load), f"{now:.2f}", f"{BEFORE[str(load)]:.2f}", f"{now / BEFORE[str(load)]:.2f}", with_two]
            )
        header = [
            *("touchpoints", "of the bare floor", f"the same on {BEFORE_ON}, without timers and identities"),
            *("of that", f"with {SECOND} active besides, of one lifecycle"),
        ]
        return Section("The price of what has been added, and of a second lifecycle", header, rows)

    def _ratios(self, one: Service, other: Service, load: Load) -> list[float]:
        """Of the rates to queryable, round by round."""
        pairs = zip(self._figures[one, str(load)], self._figures[other, str(load)], strict=False)
        return [a.queryable_rate / b.queryable_rate for a, b in pairs]

    def _cells(self, service: Service, load: Load, figures: list[Figures]) -> list[str]:
        queryable = [one.queryable_rate for one in figures]
        bare = [one.queryable_rate for one in self._figures[Service.BARE, str(load)]]
        # The day-one service takes one touchpoint a request, however many others take.
        day_one = [one.queryable_rate for one in self._figures[Service.DAY_ONE, str(Load(1, racing=load.racing))]]
        return [
            rate([one.accepted_rate for one in figures]),
            rate(queryable),
            milliseconds([one.p50 for one in figures]),
            milliseconds([one.p99 for one in figures]),
            ratio(queryable, bare),
            ratio(queryable, day_one),
            microseconds(self._cpu[service, str(load)]),
        ]


def drive_settled(
    servers: Servers, name: str, target: Target, load: Load, progress: Progress
) -> tuple[Figures, float | None]:
    """Puts a load on a service once what the last one left is written out; besides, the seconds of CPU for each.

    Raises BenchError if it fails or loses a touchpoint.
    """
    servers.settle()
    before = servers.cpu_seconds()
    figures = drive_target(name, target, load, progress)
    after = servers.cpu_seconds()
    return figures, None if before is None or after is None else (after - before) / load.touchpoints


def drive_target(name: str, target: Target, load: Load, progress: Progress) -> Figures:
    """Puts a load on a service. Raises BenchError if it fails or loses a touchpoint."""
    progress.doing(f"{name}: {load}", load.touchpoints)
    before = target.stored()
    try:
        figures = uvloop.run(drive(target.address, load, progress.advance))
    except ConnectionError as error:
        target.check()
        raise BenchError(f"{name}, {load}: {error}") from error
    target.check()
    failures = figures.failures(load)
    if (stored := target.stored() - before) != load.touchpoints:
        failures.append(f"{stored} of {load.touchpoints} touchpoints are in the database")
    if failures:
        said = [process.said() for process in target.processes.values()]
        raise BenchError("\n".join([f"{name}, {load}: {'; '.join(failures)}", *said]))
    return figures
