"""Run the engine on this machine as in production: Kafka, PostgreSQL and one process a role (`make run-production`).

The settings come from the environment or `.env` as always; a server that they do not name is started for the while.
SIGINT or SIGTERM ends everything in order, with exit code 0 if every process then ended with 0. A process that ends by
itself ends the others, with exit code 1.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import NoReturn

from lifecycle_engine.outbox.vault import generate_master_key
from lifecycle_engine.roles import ROLES
from lifecycle_engine.settings import PREFIX, Settings, SettingsError, load_settings
from tools.services import Kafka, Postgres, ServiceError, temporary_directory
from tools.supervisor import Supervised

STOP_SECONDS = 12
DATABASE_URL = f"{PREFIX}DATABASE_URL"
MASTER_KEYS = f"{PREFIX}MASTER_KEYS"
KAFKA_BOOTSTRAP_SERVERS = f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS"


class ProductionError(Exception):
    """A process could not start, or it ended by itself."""


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        settings = load_settings()
        with ExitStack() as stack:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", **_services(settings, stack)}
            _migrate(environment)
            return _run(environment)
    except KeyboardInterrupt:
        return 0
    except (ProductionError, ServiceError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _services(settings: Settings, stack: ExitStack) -> Mapping[str, str]:
    """Start the servers that the settings do not name, until the end of `stack`; answers with what names them."""
    named = settings.model_fields_set
    started = {}
    directory = stack.enter_context(temporary_directory())
    if "database_url" not in named:
        postgres = stack.enter_context(Postgres(directory))
        postgres.create_database("lifecycle")
        started[DATABASE_URL] = postgres.url("lifecycle")
    elif not settings.database_url.startswith("postgresql"):
        raise ProductionError(f"{DATABASE_URL} must name a PostgreSQL database (SQLite serves one process: `make run`)")
    if not settings.kafka_bootstrap_servers:
        kafka = stack.enter_context(Kafka(directory, is_brief=False))
        started[KAFKA_BOOTSTRAP_SERVERS] = kafka.bootstrap_servers
    for name, value in started.items():
        print(f"Started for the while, its data goes with it: {name}={value}", flush=True)
    if DATABASE_URL in started and settings.master_keys is None:
        # What it encrypts goes with the database.
        return {**started, MASTER_KEYS: generate_master_key()}
    return started


def _migrate(environment: Mapping[str, str]) -> None:
    code = subprocess.run([sys.executable, "-m", "lifecycle_engine", "migrate"], env=environment).returncode
    if code != 0:
        raise ProductionError(f"`lifecycle-engine migrate` ended with exit code {code}")


def _run(environment: Mapping[str, str]) -> int:
    processes: dict[str, Supervised] = {}
    outputs: list[threading.Thread] = []
    died = None
    try:
        for role in ROLES:
            command = [sys.executable, "-m", "lifecycle_engine", "serve", "--role", role]
            processes[role] = Supervised(command, output=subprocess.PIPE, environment=environment)
            outputs.append(_forward(role, processes[role]))
        while died is None:
            time.sleep(0.2)
            died = next((role for role, process in processes.items() if process.poll() is not None), None)
    except KeyboardInterrupt:
        pass
    codes = _stop(processes)
    for output in outputs:
        output.join(STOP_SECONDS)
    for role, code in codes.items():
        if role == died or code != 0:
            print(f"error: {role} ended {'by itself ' if role == died else ''}with exit code {code}", file=sys.stderr)
    return 1 if died is not None or any(codes.values()) else 0


def _stop(processes: Mapping[str, Supervised]) -> Mapping[str, int]:
    """Ask all to end, then kill what is left after twelve seconds; answers with the exit codes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for process in processes.values():
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    codes = {}
    for role, process in processes.items():
        try:
            codes[role] = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.signal(signal.SIGKILL)
            codes[role] = process.wait(STOP_SECONDS)
    return codes


def _forward(role: str, process: Supervised) -> threading.Thread:
    """Print what a process writes, each line with its role in front."""

    def forward() -> None:
        assert process.output is not None
        for line in process.output:
            print(f"{role:<{max(map(len, ROLES))}} | {line.decode(errors='replace').rstrip()}", flush=True)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    return thread


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
