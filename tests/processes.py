"""The program as people run it: processes of their own, started, signalled and waited for by tests.

    settings = settings_for(postgres_url, kafka.bootstrap_servers, topic)
    await migrate(settings, tmp_path)
    async with Service(["api"], settings, tmp_path) as api, Service(["worker"], settings, tmp_path) as worker:
        async with api.client() as client:
            ...
        worker.kill()
        await worker.wait()
        await worker.start()

A process never outlives the test run, and what it wrote is shown where something fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tools.services import ServiceError, free_port
from tools.supervisor import Supervised

API_KEY = "a-key-that-only-tests-have"
START_SECONDS = 60
STOP_SECONDS = 10
"""What the program promises from SIGTERM to its end."""
READY_LINES = {
    "worker": "the worker reads the log",
    "dispatcher": "the sequencer runs",
    "timers": "the timers run",
}
"""What a process without the role `api`, which nobody can ask, writes once it works."""
SHOWN_LINES = 60

PROGRAM: Sequence[str | Path] = (sys.executable, "-m", "lifecycle_engine")


def settings_for(database_url: str, bootstrap_servers: str = "", topic: str = "") -> dict[str, str]:
    """The settings that name these parts; without `bootstrap_servers` the log is a table of the database."""
    settings = {"LIFECYCLE_DATABASE_URL": database_url}
    if bootstrap_servers:
        settings["LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS"] = bootstrap_servers
        settings["LIFECYCLE_KAFKA_TOPIC"] = topic
        settings["LIFECYCLE_KAFKA_GROUP"] = topic
    return settings


async def migrate(settings: Mapping[str, str], directory: Path) -> None:
    """Run `migrate` with these settings. Raises ServiceError with what it wrote."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [*PROGRAM, "migrate"],
        cwd=directory,
        env=_environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ended.returncode != 0:
        raise ServiceError(f"migrate ended with exit code {ended.returncode}:\n{ended.stdout.decode(errors='replace')}")


async def wait_until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    """Ask again and again until it is so. Raises TimeoutError, naming `what`, where it isn't in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)


class Service:
    """One process of the service, with some of its roles, on a free port of its own that it keeps when restarted.

    As a context manager it is started, and at the end told to stop if it still runs. An end that the test did not
    wait for, by itself or with an exit code other than 0, raises ServiceError; what the process wrote is put with
    whatever exception leaves the block. `directory` is where it runs and where its output is kept. `program` is what
    takes the service's arguments.
    """

    def __init__(
        self,
        roles: Sequence[str],
        settings: Mapping[str, str],
        directory: Path,
        *,
        program: Sequence[str | Path] = PROGRAM,
    ) -> None:
        self.roles = tuple(roles)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {"LIFECYCLE_API_KEY": API_KEY, **settings, "LIFECYCLE_LISTEN": f"127.0.0.1:{self.port}"}
        self._directory = directory
        self._program = program
        handle, output = tempfile.mkstemp(".log", f"{'-'.join(self.roles)}-", directory)
        os.close(handle)
        self._output = Path(output)
        self._began = 0
        self._process: Supervised | None = None
        self._killed = False

    @property
    def pid(self) -> int:
        """The process id of the service itself."""
        return self._running().pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """Everything that it has written, on standard output and standard error, over all its starts."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client that knows the address and the key; `options` are those of `httpx.AsyncClient`."""
        headers = {"Authorization": f"Bearer {self.settings['LIFECYCLE_API_KEY']}", **options.pop("headers", {})}
        return httpx.AsyncClient(base_url=self.url, headers=headers, **{"timeout": 30, "trust_env": False, **options})

    async def start(self) -> None:
        """Start it, at first or again; returns when it is ready. Raises ServiceError."""
        await self.launch()
        try:
            await self.wait_until_ready()
        except BaseException:
            if self._process is not None:
                self.kill()
                await self.wait()
            raise

    async def launch(self) -> None:
        """Start it without waiting until it is ready, as where a part that it needs is down."""
        if self.running:
            raise self._failed("is running already")
        self._began = self._output.stat().st_size
        self._killed = False
        self._process = await asyncio.to_thread(self._spawn)

    async def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until `/readyz` says so or, without the role `api`, its output does. Raises ServiceError."""
        deadline = time.monotonic() + seconds
        async with self.client(timeout=5) as client:
            while not await self._is_ready(client):
                if not self.running:
                    raise self._failed(f"ended with exit code {await self.wait()} while it started")
                if time.monotonic() > deadline:
                    raise self._failed(f"was not ready within {seconds:g} s")
                await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send any signal, such as SIGSTOP; does nothing if it has ended."""
        self._running().signal(number)

    def sigterm(self) -> None:
        """Ask it to end; `wait` for it."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL; `wait` until it is gone."""
        self._killed = True
        self.signal(signal.SIGKILL)

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; the exit code, or 128 plus the number of the signal that ended it. Raises ServiceError."""
        process = self._running()
        try:
            code = await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not end within {seconds:g} s") from None
        self._process = None
        return code

    async def stop(self) -> int:
        """Ask it to end, and wait for that; the exit code."""
        self.sigterm()
        return await self.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            await self._end()
        except ServiceError as failure:
            if error is None:
                raise
            error.add_note(str(failure))
        else:
            if error is not None:
                error.add_note(self._shown("wrote:"))

    async def _end(self) -> None:
        if self._process is None:
            return
        told = self.running
        try:
            code = await (self.stop() if told else self.wait())
        except ServiceError:
            self.kill()
            await self.wait()
            raise
        if code != 0 and not self._killed:
            raise self._failed(f"ended {'' if told else 'by itself '}with exit code {code}")

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        if "api" not in self.roles:
            written = self.output()[self._began :]
            return all(READY_LINES[role] in written for role in self.roles)
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    def _spawn(self) -> Supervised:
        with self._output.open("ab") as output:
            return Supervised(
                [*self._program, "serve", "--role", ",".join(self.roles)],
                output=output,
                cwd=self._directory,
                environment=_environment(self.settings),
                orphan_signal=signal.SIGKILL,
            )

    def _running(self) -> Supervised:
        if self._process is None:
            raise self._failed("is not running")
        return self._process

    def _failed(self, what: str) -> ServiceError:
        return ServiceError(self._shown(f"{what}. It wrote:"))

    def _shown(self, what: str) -> str:
        lines = self.output().splitlines()
        return "\n  ".join([f"The service ({','.join(self.roles)}) {what}", *(lines[-SHOWN_LINES:] or ["(nothing)"])])


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **settings}
