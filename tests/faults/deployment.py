"""The service as a test runs it under faults: an API, workers, and a driver beside them that nothing harms."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg

from lifecycle_engine.outbox.vault import MasterKey, Vault
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.endpoints import add_endpoint
from lifecycle_engine.webhook.secrets import create_secret
from tests.faults.hooks import Hook, Hooks, Kind
from tests.faults.journal import OK, JournalReader, Target
from tests.hooks import endpoint_row
from tests.processes import API_KEY, PROGRAM, Service, wait_until
from tools.services import ServiceError, free_port
from tools.supervisor import Supervised

ROOT = Path(__file__).parents[2]
# Without -P its own directory would be searched for modules.
# It needs modules of the tests beside the service's, and neither the working directory's nor those of its own folder.
_RUN = (
    f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module('tests.faults.killing', run_name='__main__')"
)
KILLING: Sequence[str | Path] = (sys.executable, "-P", "-c", _RUN)

MASTER_KEY = MasterKey("k1", bytes(range(32)))
"""Of the secrets that webhooks are signed with."""
KILLED = 128 + signal.SIGKILL
DRIVER_SECONDS = 100
VERIFIER_SECONDS = 120


class Deployment:
    """The processes of one test, all with the same settings. `api` is the one that the driver posts to."""

    def __init__(self, api: Service, settings: Mapping[str, str], directory: Path) -> None:
        self.api = api
        self.hooks: Path | None = None
        """The description of the receivers of webhooks, where there are any."""
        self._settings = settings
        self._directory = directory

    def worker(
        self, group: str, *, at: str | None = None, hit: int = 1, by: signal.Signals = signal.SIGKILL, lanes: int = 2
    ) -> Service:
        """A worker, not started yet. With `at` it is that of killing.py, which sends itself a signal at this point.

        Each group reads everything. Two groups on one topic are two workers of which each takes the other for dead,
        and only the positions in the database keep the second from doing what the first has done.
        """
        settings = {
            **self._settings,
            "LIFECYCLE_KAFKA_GROUP": f"{self._settings['LIFECYCLE_KAFKA_TOPIC']}-{group}",
            "LIFECYCLE_WORKER_LANES": str(lanes),
        }
        program = PROGRAM if at is None else [*KILLING, str(int(by)), at, str(hit)]
        return Service(["worker"], settings, self._directory, program=program)

    def dispatcher(self, *, at: str = "never", hit: int = 1) -> Service:
        """A dispatcher, not started yet, that kills itself at a point of killing.py."""
        program = [*KILLING, str(int(signal.SIGKILL)), at, str(hit)]
        return Service(["dispatcher"], self._settings, self._directory, program=program)

    async def position(self) -> int:
        """How many records of the topic have been applied."""
        connection = await asyncpg.connect(self._settings["LIFECYCLE_DATABASE_URL"].replace("+asyncpg", "", 1))
        try:
            return int(await connection.fetchval("SELECT coalesce(sum(next), 0) FROM log_position"))
        finally:
            await connection.close()

    @asynccontextmanager
    async def driven(self, **options: float | Sequence[int]) -> AsyncIterator[Drive]:
        """Drives touchpoints through the service until `finish` or `verify`; the options are those of driver.py."""
        target = Target(
            self.api.url,
            self._settings["LIFECYCLE_DATABASE_URL"],
            self._settings.get("LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS", ""),
            self._settings.get("LIFECYCLE_KAFKA_TOPIC", ""),
            str(self.hooks or ""),
        )
        # A quarter goes straight to the topic, so that customers are written from several partitions at a time.
        scattered = 1 if target.topic else 0
        drive = Drive(self._directory / "journal.jsonl", target, {"scattered": scattered, **options})
        try:
            await drive.accepts(1)
            yield drive
        finally:
            drive.end()

    @asynccontextmanager
    async def receiving(self, kinds: Sequence[tuple[Kind, Mapping[str, Any]]]) -> AsyncIterator[Hooks]:
        """Makes endpoints, each of a kind and with fields of its own, and lets their receivers run."""
        port, nobody, made = free_port(), free_port(), []
        database, vault = Database(self._settings["LIFECYCLE_DATABASE_URL"]), Vault([MASTER_KEY])
        try:
            for number, (kind, fields) in enumerate(kinds):
                path = f"/{number}-{kind}"
                url = f"http://127.0.0.1:{nobody if kind is Kind.DEAD else port}{path}"
                row = endpoint_row(url, **fields)
                async with database.transaction() as connection:
                    await add_endpoint(connection, row)
                    secret = await create_secret(connection, vault, row.id, "v1", row.created_at)
                made.append(Hook(row.id, path, kind, secret, fields.get("filter", {}), row.is_ordered))
        finally:
            await database.close()
        self.hooks = self._directory / "hooks.json"
        hooks = Hooks(port, str(self._directory / "hooks.jsonl"), tuple(made))
        hooks.write(self.hooks)
        output = self._directory / "hooks.log"
        with output.open("wb") as log:
            receivers = Supervised(
                [sys.executable, "-m", "tests.faults.hooks", str(self.hooks)],
                output=log,
                cwd=ROOT,
                orphan_signal=signal.SIGKILL,
            )
        try:
            await wait_until(lambda: _listens(port), "the receivers of webhooks listen")
            yield hooks
            assert receivers.poll() is None, f"the receivers ended: {output.read_text(errors='replace')}"
        finally:
            receivers.signal(signal.SIGKILL)
            receivers.wait(10)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[None]:
    """Starts services side by side, which takes less time than one after the other."""
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as starting:
            for service in services:
                starting.create_task(stack.enter_async_context(service))
        yield


class Drive:
    """A driver at work, and the verification of what it has done."""

    def __init__(self, journal: Path, target: Target, options: Mapping[str, float | Sequence[int]]) -> None:
        self.journal = journal
        self._reader = JournalReader(journal)
        self._output = journal.with_name("driver.log")
        words = []
        for name, value in options.items():
            words += [f"--{name}", *map(str, value if isinstance(value, Sequence) else [value])]
        arguments = [str(journal), json.dumps(asdict(target)), *words]
        with self._output.open("wb") as output:
            self._process = Supervised(
                [sys.executable, "-m", "tests.faults.driver", *arguments],
                output=output,
                cwd=ROOT,
                environment={**os.environ, "LIFECYCLE_API_KEY": API_KEY},
                orphan_signal=signal.SIGKILL,
            )

    async def accepts(self, more: int, seconds: float = 60) -> None:
        """Waits until so many more touchpoints have been accepted. Raises ServiceError."""
        deadline = time.monotonic() + seconds
        goal = self._accepted() + more
        while self._accepted() < goal:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed(f"did not get {more} more touchpoints accepted within {seconds:g} s")
            await asyncio.sleep(0.05)

    async def death(self, service: Service, seconds: float = 60) -> int:
        """Waits until a service ends that is going to kill itself; its exit code. Raises ServiceError."""
        deadline = time.monotonic() + seconds
        while service.running:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed(f"did not bring the service to its end within {seconds:g} s")
            await asyncio.sleep(0.05)
        return await service.wait()

    async def finish(self) -> None:
        """Tells it that it is enough, and waits until all is accepted. Raises ServiceError."""
        self._process.signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(self._process.wait, DRIVER_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed("did not end") from None
        if code != 0:
            raise self._failed(f"ended with exit code {code}")

    async def verify(self) -> dict[str, float]:
        """Waits until all is accepted and applied, and compares; gives the report's figures, or fails the test."""
        await self.finish()
        verifier = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.faults.verifier", str(self.journal)],
            cwd=ROOT,
            env={**os.environ, "LIFECYCLE_API_KEY": API_KEY},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=VERIFIER_SECONDS,
        )
        assert verifier.returncode == 0, f"the verifier found:\n{verifier.stdout}"
        figures: dict[str, float] = json.loads(verifier.stdout)["figures"]
        # What was not hard proves nothing.
        assert figures["late"] > 0
        assert figures["repeated"] > 0
        assert figures["refused"] > 0
        return figures

    def end(self) -> None:
        """Ends the driver, if it still runs."""
        self._process.signal(signal.SIGKILL)
        self._process.wait(10)

    def _accepted(self) -> int:
        record = self._reader.read()
        return sum(sending.answers[OK] > 0 for sending in record.sendings.values()) if record else 0

    def _failed(self, what: str) -> ServiceError:
        wrote = self._output.read_text(errors="replace")[-2_000:] or "(nothing)"
        return ServiceError(f"the driver {what}. It wrote:\n{wrote}")
