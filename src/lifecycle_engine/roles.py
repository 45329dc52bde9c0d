"""The composition root: settings in, running roles out. The only module that builds things and hears signals.

Each role is a runner with a name and `run(stop)`. Should any of them end before it is told to, the whole process
ends: a process whose inner task has died does not stay up.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import uvloop
from sqlalchemy.exc import SQLAlchemyError

from lifecycle_engine.api.app import create_app, create_health_app
from lifecycle_engine.api.authentication import Keys
from lifecycle_engine.api.health import Check, Health
from lifecycle_engine.api.load import Load
from lifecycle_engine.api.metrics import Figure, Gather, Histogram, Metrics
from lifecycle_engine.api.protocol import Limits
from lifecycle_engine.api.rates import parse_rate
from lifecycle_engine.api.server import HttpServer, bind
from lifecycle_engine.api.services import Services
from lifecycle_engine.engine.activation import CatchUp
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.engine.timers import Timers
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.feed.sequencer import Sequencer
from lifecycle_engine.ingest.formats.event_types import EventTypes, EventTypesError, load_event_types
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.database import DatabaseAppender, DatabaseBacklog, DatabaseReader
from lifecycle_engine.log.kafka import KafkaAppender, KafkaBacklog, KafkaReader
from lifecycle_engine.log.port import Appender, Backlog, Positions, Reader
from lifecycle_engine.outbox.fan_out import FanOut
from lifecycle_engine.outbox.recovery import Recovery
from lifecycle_engine.outbox.retention import DAY, Retention
from lifecycle_engine.outbox.vault import Vault, VaultError, keys_of_file, parse_master_keys
from lifecycle_engine.runners import Runner, pause
from lifecycle_engine.schema import SchemaError, check_schema
from lifecycle_engine.settings import Settings, host_and_port
from lifecycle_engine.store.database import Database, is_transient
from lifecycle_engine.webhook.dispatch import Dispatcher
from lifecycle_engine.webhook.proxy import Proxy
from lifecycle_engine.webhook.secrets import Keyring
from lifecycle_engine.webhook.sender import Sender

ROLES = ("api", "worker", "dispatcher", "timers")
"""Every role there is; a process runs all of them, or those that it is told to."""

QUESTION = 5.0
"""Seconds that the database has to answer a question, before whoever asked is told that it does not."""
PATIENCE = 7.0
"""Seconds from a signal until what is not done is cancelled."""
SHUTDOWN = 9.5
"""Seconds from a signal to the end, whatever still hangs."""

_OTHER_DESCRIPTORS = 200
"""Files and connections of a process beside those of its clients."""

KAFKA_MARGIN = 1_000_000
"""Microseconds that timers keep behind the clock, for what a broker has stamped and nobody can read yet."""

logger = logging.getLogger("lifecycle_engine")


class StartError(Exception):
    """The service cannot start; the text says why and what to do."""


def serve(settings: Settings, roles: Sequence[str]) -> int:
    """Runs these roles until SIGTERM or SIGINT; gives the exit code. Raises StartError, SchemaError."""
    _log_to_stderr()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, roles))


async def _serve(settings: Settings, roles: Sequence[str]) -> int:
    stop, failed = asyncio.Event(), False
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, loop)
    service = _Service(settings, roles)
    try:
        await service.check(stop)
        if not stop.is_set():
            await _run_all(await service.runners(), stop)
    except* (StartError, SchemaError) as errors:
        raise errors.exceptions[0] from None
    except* Exception as errors:
        for error in errors.exceptions:
            logger.error("the process ends because of this", exc_info=error)
        failed = True
    finally:
        await service.close()
    return int(failed)


async def _run_all(runners: Sequence[Runner], stop: asyncio.Event) -> None:
    # What has been loaded by now stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    async with asyncio.TaskGroup() as group:
        for runner in runners:
            group.create_task(_run(runner, stop), name=runner.name)


def _stop(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    if not stop.is_set():
        stop.set()
        loop.call_later(SHUTDOWN, _give_up)


def _give_up() -> None:
    logger.error("the shutdown did not end within %.0f s", SHUTDOWN)
    logging.shutdown()
    os._exit(1)


async def _run(runner: Runner, stop: asyncio.Event) -> None:
    running, stopping = asyncio.create_task(runner.run(stop)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await asyncio.wait({running}, timeout=PATIENCE)
        if not running.done():
            # It waits for a part that is away. Nothing is lost: the stored position tells where to go on.
            logger.warning("%s is not done %.0f s after the signal, and is cancelled", runner.name, PATIENCE)
            return
        running.result()
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.wait({running, stopping}, timeout=1)
    if not stop.is_set():
        raise RuntimeError(f"{runner.name} ended although nobody had asked it to")


class _Service:
    """What the chosen roles are made of, built once for the process."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        self._settings = settings
        self._roles = roles
        self._database = Database(settings.database_url, statement_seconds=QUESTION)
        # SQLite has one connection, and it is everybody's.
        self._engine_database = (
            self._database
            if self._database.is_sqlite
            else Database(settings.database_url, pool_size=settings.worker_lanes + 8, by_key_only=True)
        )
        self._loaded: Definitions | None = None
        self._horizons: Horizon | None = None
        self._sender: Sender | None = None
        self._opened: Vault | None = None

    async def check(self, stop: asyncio.Event) -> None:
        """Waits until the database answers, and sees to it that its schema is the one of this program."""
        told = False
        while not stop.is_set():
            try:
                return await check_schema(self._database)
            except (SQLAlchemyError, OSError) as error:
                if not is_transient(error):
                    reason = str(getattr(error, "orig", error)).splitlines()[0]
                    raise StartError(f"LIFECYCLE_DATABASE_URL: the database cannot be opened: {reason}") from None
                if self._settings.api_key is not None and set(self._roles) == {"api"}:
                    return None  # Ingest needs the log and a key, and no database.
                if not told:
                    logger.warning("waiting for the database: %s", error)
                told = True
                await pause(stop, 1.0)
        return None

    async def runners(self) -> list[Runner]:
        """The parts of the chosen roles."""
        runners: list[Runner] = []
        checks: dict[str, Check] = {}
        gathers: list[Gather] = []
        appended = asyncio.Event()
        if "worker" in self._roles:
            worker, catch_up = self._worker(appended)
            checks["worker"] = worker.ready
            gathers.append(lambda: _of_worker(worker))
            runners += [worker, catch_up]
        if "timers" in self._roles:
            timers = self._timers()
            checks["timers"] = timers.ready
            gathers.append(lambda: _of_timers(timers))
            runners.append(timers)
        if "dispatcher" in self._roles:
            sequencer = Sequencer(self._engine_database, FanOut(self._engine_database))
            dispatcher = self._dispatcher()
            checks |= {"sequencer": sequencer.ready, "dispatcher": dispatcher.ready}
            gathers += [lambda: _of_sequencer(sequencer), lambda: _of_dispatcher(dispatcher)]
            retention = Retention(self._engine_database, self._settings.webhook_retention_days * DAY)
            runners += [sequencer, dispatcher, Recovery(self._engine_database), retention]
        if self._loaded is not None:
            gathers.append(lambda: _of_guards(self._definitions()))
        if "api" in self._roles:
            runners.append(await self._api(appended, checks, Metrics(gathers)))
        elif address := self._settings.health_listen:
            health = Health(checks)
            bound = _bound("LIFECYCLE_HEALTH_LISTEN", address)
            runners.append(HttpServer(create_health_app(health, Metrics(gathers)), health, bound, lambda _: None))
        return runners

    async def close(self) -> None:
        if self._horizons is not None:
            await self._horizons.stop()
        if self._sender is not None:
            await self._sender.close()
        await self._engine_database.close()
        await self._database.close()

    def _worker(self, appended: asyncio.Event) -> tuple[Worker, CatchUp]:
        definitions, quiet = self._definitions(), self._quiet
        settings = self._settings
        worker = Worker(self._engine_database, definitions, log_name(settings), quiet, settings.dead_letter_limit)
        worker.reader = self._reader(worker.positions, appended)
        return worker, CatchUp(self._engine_database, definitions, self._horizon(), quiet)

    def _timers(self) -> Timers:
        return Timers(self._engine_database, self._definitions(), self._horizon(), self._quiet)

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self._engine_database,
            self._client(),
            Keyring(self._vault()),
            slots=self._settings.webhook_concurrency,
        )

    def _client(self) -> Sender:
        """What webhooks are sent with; one for the process."""
        if self._sender is None:
            settings = self._settings
            proxy = None if settings.webhook_proxy is None else Proxy.at(settings.webhook_proxy.get_secret_value())
            self._sender = Sender(settings.webhook_allow_networks, proxy)
        return self._sender

    def _vault(self) -> Vault:
        if self._opened is None:
            self._opened = open_vault(self._settings)
        return self._opened

    @property
    def _quiet(self) -> int:
        return self._settings.quiet_seconds * 1_000_000

    def _definitions(self) -> Definitions:
        if self._loaded is None:
            self._loaded = Definitions(self._engine_database, Cel())
        return self._loaded

    def _horizon(self) -> Horizon:
        """How far time may pass; one for the process."""
        if self._horizons is None:
            settings, margin = self._settings, 0
            backlog: Backlog = DatabaseBacklog(self._engine_database)
            if settings.kafka_bootstrap_servers:
                # Kafka stamps a record before anyone can read it, by another machine's clock.
                margin = KAFKA_MARGIN
                backlog = KafkaBacklog(
                    settings.kafka_bootstrap_servers, settings.kafka_topic, partitions=settings.kafka_partitions
                )
            self._horizons = Horizon(self._engine_database, backlog, log_name(settings), margin)
        return self._horizons

    def _reader(self, positions: Positions, appended: asyncio.Event) -> Reader:
        settings = self._settings
        if not settings.kafka_bootstrap_servers:
            return DatabaseReader(self._engine_database, positions, appended)
        return KafkaReader(
            settings.kafka_bootstrap_servers,
            settings.kafka_topic,
            settings.kafka_group,
            positions,
            lanes=settings.worker_lanes,
            partitions=settings.kafka_partitions,
        )

    async def _api(self, appended: asyncio.Event, checks: Mapping[str, Check], metrics: Metrics) -> HttpServer:
        settings = self._settings
        appender: Appender
        if settings.kafka_bootstrap_servers:
            appender = KafkaAppender(
                settings.kafka_bootstrap_servers, settings.kafka_topic, partitions=settings.kafka_partitions
            )
        else:
            appender = DatabaseAppender(self._database, appended)
        keys = Keys(
            self._database,
            settings.api_key.get_secret_value() if settings.api_key else None,
            parse_rate(settings.rate_limit),
        )
        bound = _bound("LIFECYCLE_LISTEN", settings.listen)
        first_key = await self._first_key(keys)
        services = Services(
            appender=appender,
            intake=Intake(appender, _clock, settings.future_skew_seconds * 1_000_000),
            keys=keys,
            database=self._database,
            definitions=Definitions(self._database, Cel()),
            health=Health({"log": appender.ready, "keys": keys.ready, **checks}),
            log=log_name(settings),
            clock=_clock,
            event_types=_event_types(settings),
            vault=self._vault(),
            sender=self._client(),
            webhook_retention=settings.webhook_retention_days * DAY,
            load=Load(settings.max_in_flight, settings.max_body_memory_mib * 1024**2),
        )
        _allow_descriptors(settings.max_connections + _OTHER_DESCRIPTORS)
        return HttpServer(
            create_app(services, metrics),
            services.health,
            bound,
            lambda address: _announce(address, first_key),
            Limits(connections=settings.max_connections, keep_alive_seconds=settings.keep_alive_seconds),
        )

    async def _first_key(self, keys: Keys) -> str | None:
        """Without any key, a server that listens on loopback only makes one; any other refuses to start."""
        if self._settings.api_key is not None or await keys.exist():
            return None
        if not _is_loopback(host_and_port(self._settings.listen)[0]):
            raise StartError(
                f"LIFECYCLE_API_KEY: there is no key yet, and {self._settings.listen} can be reached from elsewhere; "
                "set a first key (16 to 256 characters)"
            )
        return await keys.make_first()


def open_vault(settings: Settings) -> Vault:
    """Where webhooks' secrets are kept: under the keys of the settings, or on a laptop of a file beside the database.

    Empty where there is neither. Raises StartError.
    """
    given = "" if settings.master_keys is None else settings.master_keys.get_secret_value().strip()
    if given:
        try:
            return Vault(parse_master_keys(given))
        except ValueError as error:
            raise StartError(f"LIFECYCLE_MASTER_KEYS: {error}") from None
    scheme, _, path = settings.database_url.partition(":///")
    if not scheme.startswith("sqlite"):
        return Vault([])
    try:
        return Vault(keys_of_file(Path(f"{path}.keys")))
    except VaultError as error:
        raise StartError(f"{error}; set LIFECYCLE_MASTER_KEYS, or mend the file") from None


def _of_worker(worker: Worker) -> Iterable[Figure]:
    done = worker.done
    yield Figure("records", "Records of the log that were applied or set aside", (), {(): done.records})
    yield Figure("facts_accepted", "Facts whose id was new", (), {(): done.accepted})
    yield Figure("facts_late", "Facts that came after one that sorts behind them", (), {(): done.late})
    yield Figure("dead_letters", "Records that were set aside as they cannot be processed", (), {(): done.dead})


def _of_timers(timers: Timers) -> Iterable[Figure]:
    name, description = "customers_worked_through", "Customers for whom something fell due though no fact came"
    yield Figure(name, description, (), {(): timers.worked_through})


def _of_sequencer(sequencer: Sequencer) -> Iterable[Figure]:
    yield Figure(
        "changes_sequenced", "Changes that were given their position in the feed", (), {(): sequencer.sequenced}
    )


def _of_dispatcher(dispatcher: Dispatcher) -> Iterable[Figure | Histogram]:
    done, depth = dispatcher.done, dispatcher.depth
    yield Figure(
        "webhook_attempts",
        "Attempts at deliveries, by what came of them; `ours` are failures of our own, which spend nothing",
        ("outcome",),
        {(outcome,): count for outcome, count in done.attempts.items()},
    )
    yield Figure(
        "webhook_deliveries",
        "Deliveries that came to an end here, by how: delivered, or why not",
        ("outcome",),
        {(outcome,): count for outcome, count in done.deliveries.items()},
    )
    yield Histogram(
        "webhook_first_attempt_seconds",
        "From a change's commit to the first attempt to tell of it",
        list(done.first_attempts.buckets()),
        done.first_attempts.total,
    )
    waiting = sum(depth.pending.values())
    yield Figure(
        "webhook_deliveries_pending", "Deliveries that are pending, of all dispatchers", (), {(): waiting}, "gauge"
    )
    yield Figure(
        "webhook_endpoints_parked",
        "Endpoints that fail so often that they are only probed, of all dispatchers",
        (),
        {(): len(depth.parked)},
        "gauge",
    )


def _of_guards(definitions: Definitions) -> Iterable[Figure]:
    description = (
        "Guards that erred on the values that they were asked about, and so did not hold; each time that they are asked"
    )
    yield Figure("guard_errors", description, ("lifecycle", "version"), definitions.guard_errors())


def _event_types(settings: Settings) -> EventTypes:
    try:
        return load_event_types(settings.event_types)
    except EventTypesError as error:
        raise StartError(f"LIFECYCLE_EVENT_TYPES: {error}") from None


def _bound(setting: str, address: str) -> socket.socket:
    try:
        return bind(*host_and_port(address))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{setting}: {address} cannot be listened on: {reason}") from None


def _allow_descriptors(wanted: int) -> None:
    """Lets this process have so many files and connections open, as far as it may raise that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    if soft != resource.RLIM_INFINITY and soft < wanted:
        logger.warning(
            "LIFECYCLE_MAX_CONNECTIONS needs %d open files, and %d are allowed; raise ulimit -n", wanted, soft
        )


def _announce(address: str, first_key: str | None) -> None:
    lines = [f"Lifecycle Engine listens on {address}", f"Documentation: {address}/docs"]
    if first_key:
        lines.append(f"First API key (shown once): {first_key}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def log_name(settings: Settings) -> str:
    """What the positions of the log are stored under."""
    return settings.kafka_topic if settings.kafka_bootstrap_servers else "database"


def _clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It warns of each request that is no HTTP, and so anybody could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # While a broker is away it logs hundreds of lines a second; log.kafka says what there is to say.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
