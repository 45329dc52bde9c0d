"""`python -m bench`: every measurement in one run, on real Kafka and PostgreSQL; the tables go to standard output."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from bench import report
from bench.against import Against
from bench.deadlines import Deadlines
from bench.deliveries import Deliveries
from bench.feed import Feed
from bench.formats import Formats
from bench.memory import Memory
from bench.processes import BenchError, Servers, servers, share_cores
from bench.progress import Progress
from bench.refolds import Refolds
from bench.report import Section
from bench.steps import Steps
from bench.targets import migrated, query
from bench.throughput import Throughput
from bench.worker import WorkerAlone
from tools.services import ServiceError


class Measurement(Protocol):
    """A table or two, from rounds in which all that they compare take turns."""

    @property
    def steps(self) -> int:
        """How many figures it takes, for the progress bar."""

    def run(self, progress: Progress) -> list[Section]:
        """Raises BenchError if anything that is measured fails."""


class Kind(Protocol):
    """Makes a measurement; `template` is the URL of a migrated database, to make copies of."""

    def __call__(self, servers: Servers, template: str, *, rounds: int, quick: bool) -> Measurement: ...


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cores = share_cores()
    try:
        if options.write:
            report.check_place(options.write)
        text = _run(options, cores)
    except (BenchError, ServiceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: everything that was started is stopped", file=sys.stderr)
        return 130
    print(text, end="")
    if options.write:
        report.write(options.write, text)
    return 0


def _run(options: argparse.Namespace, cores: int) -> str:
    rounds = options.rounds or (1 if options.quick else 3)
    with Progress() as progress, servers() as running, migrated(running) as template:
        chosen = [kind(running, template, rounds=rounds, quick=options.quick) for kind in _chosen(options)]
        progress.expect(sum(measurement.steps for measurement in chosen))
        sections = [section for measurement in chosen for section in measurement.run(progress)]
        (((postgresql,),),) = query(template, "SELECT split_part(current_setting('server_version'), ' ', 1)")
        setting = report.setting(_command(), cores, postgresql, running.kafka_version)
    return report.document(sections, [*setting, f"{rounds} round{'s' * (rounds > 1)}"])


_MEASUREMENTS: Mapping[str, Kind] = {
    "throughput": Throughput,
    "formats": Formats,
    "worker": WorkerAlone,
    "steps": Steps,
    "refolds": Refolds,
    "deadlines": Deadlines,
    "feed": Feed,
    "deliveries": Deliveries,
    "memory": Memory,
}


def _chosen(options: argparse.Namespace) -> Sequence[Kind]:
    if options.against:
        return [partial(Against, other=options.against)]
    return [_MEASUREMENTS[name] for name in options.only or _MEASUREMENTS]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Lifecycle Engine beside the bare floor and the day-one service.",
        epilog="LIFECYCLE_TEST_DATABASE_URL and LIFECYCLE_TEST_KAFKA name servers to use instead of fresh ones.",
    )
    parser.add_argument("--quick", action="store_true", help="one round, shorter loads: some four minutes")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", help="default: 3, with --quick 1")
    parser.add_argument("--only", action="append", choices=list(_MEASUREMENTS), help="may be repeated; default: all")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="instead, measure this code beside that of another checkout"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document, too")
    return parser


def _command() -> str:
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
