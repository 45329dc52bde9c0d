"""One process: the roles that were chosen, from the first check until a signal.

Each role is made of runners. Should any of them end before it is told to, the whole process ends: a process whose inner
task has died does not stay up.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop
from sqlalchemy.exc import SQLAlchemyError

from lifecycle_engine.engine.activation import CatchUp
from lifecycle_engine.engine.timers import Timers
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.feed.sequencer import Sequencer
from lifecycle_engine.outbox.fan_out import FanOut
from lifecycle_engine.outbox.recovery import Recovery
from lifecycle_engine.outbox.retention import DAY, Retention
from lifecycle_engine.roles import StartError, figures
from lifecycle_engine.roles.parts import Parts, log_name
from lifecycle_engine.runners import Check, Gather, Runner, pause
from lifecycle_engine.schema import SchemaError, check_schema
from lifecycle_engine.settings import Settings
from lifecycle_engine.store.database import is_transient
from lifecycle_engine.webhook.dispatch import Dispatcher
from lifecycle_engine.webhook.secrets import Keyring

PATIENCE = 7.0
"""Seconds from a signal until what is not done is cancelled."""
SHUTDOWN = 9.5
"""Seconds from a signal to the end, whatever still hangs."""

logger = logging.getLogger("lifecycle_engine")


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
    parts = Parts(settings)
    try:
        await _check(parts, roles, stop)
        if not stop.is_set():
            await _run_all(await _runners(parts, roles), stop)
    except* (StartError, SchemaError) as errors:
        raise errors.exceptions[0] from None
    except* Exception as errors:
        for error in errors.exceptions:
            logger.error("the process ends because of this", exc_info=error)
        failed = True
    finally:
        await parts.close()
    return int(failed)


async def _check(parts: Parts, roles: Sequence[str], stop: asyncio.Event) -> None:
    """Waits until the database answers, and sees to it that its schema is the one of this program."""
    told = False
    while not stop.is_set():
        try:
            return await check_schema(parts.database)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error):
                reason = str(getattr(error, "orig", error)).splitlines()[0]
                raise StartError(f"LIFECYCLE_DATABASE_URL: the database cannot be opened: {reason}") from None
            if parts.settings.api_key is not None and set(roles) == {"api"}:
                return None  # Ingest needs the log and a key, and no database.
            if not told:
                logger.warning("waiting for the database: %s", error)
            told = True
            await pause(stop, 1.0)
    return None


async def _runners(parts: Parts, roles: Sequence[str]) -> list[Runner]:
    """What the chosen roles are made of."""
    settings, database = parts.settings, parts.engine_database
    runners: list[Runner] = []
    checks: dict[str, Check] = {}
    gathers: list[Gather] = []
    if "worker" in roles:
        definitions = parts.definitions()
        worker = Worker(database, definitions, log_name(settings), parts.quiet, settings.dead_letter_limit)
        worker.reader = parts.reader(worker.positions)
        checks["worker"] = worker.ready
        gathers.append(lambda: figures.of_worker(worker))
        runners += [worker, CatchUp(database, definitions, parts.horizon(), parts.quiet)]
    if "timers" in roles:
        timers = Timers(database, parts.definitions(), parts.horizon(), parts.quiet)
        checks["timers"] = timers.ready
        gathers.append(lambda: figures.of_timers(timers))
        runners.append(timers)
    if "dispatcher" in roles:
        sequencer = Sequencer(database, FanOut(database))
        dispatcher = Dispatcher(database, parts.sender(), Keyring(parts.vault()), slots=settings.webhook_concurrency)
        checks |= {"sequencer": sequencer.ready, "dispatcher": dispatcher.ready}
        gathers += [lambda: figures.of_sequencer(sequencer), lambda: figures.of_dispatcher(dispatcher)]
        retention = Retention(database, settings.webhook_retention_days * DAY)
        runners += [sequencer, dispatcher, Recovery(database), retention]
    if (loaded := parts.loaded) is not None:
        gathers.append(lambda: figures.of_guards(loaded))
    if "api" in roles or settings.health_listen:
        # Not above: it takes longer to load than all the rest.
        from lifecycle_engine.roles import http

        if "api" in roles:
            runners.append(await http.api(parts, checks, gathers))
        elif settings.health_listen:
            runners.append(http.health_page(settings.health_listen, checks, gathers))
    return runners


def collect_rarely() -> None:
    """What has been loaded by now stays; the collector need not look at it again, nor at the rest at every turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _run_all(runners: Sequence[Runner], stop: asyncio.Event) -> None:
    collect_rarely()
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


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It warns of each request that is no HTTP, and so anybody could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # While a broker is away it logs hundreds of lines a second; log.kafka says what there is to say.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
