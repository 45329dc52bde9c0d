"""`make run-production`: one process a role on Kafka and PostgreSQL, which live and end together."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from lifecycle_engine.roles import ROLES
from tools.services import KafkaCluster, free_port

ROOT = Path(__file__).parents[1]
KEY = "a-key-for-the-tests-of-production"


class Production:
    """A running `python -m tools.production` and the address of its API."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.address = f"http://{environment['LIFECYCLE_LISTEN']}"
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tools.production"], cwd=ROOT, env=environment, stdout=output, stderr=output
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self._ready():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    def roles(self) -> dict[str, psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        found = {}
        for process in family:
            command = process.cmdline()
            if command[1:4] == ["-m", "lifecycle_engine", "serve"]:
                found[command[-1]] = process
        return found

    def _ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.address}/readyz").is_success
        return False


@pytest.fixture
def production(postgres_url: str, kafka: KafkaCluster, tmp_path: Path) -> Iterator[Production]:
    topic = f"test-{uuid.uuid4().hex}"
    environment = {
        **os.environ,
        "LIFECYCLE_DATABASE_URL": postgres_url,
        "LIFECYCLE_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "LIFECYCLE_KAFKA_TOPIC": topic,
        "LIFECYCLE_KAFKA_GROUP": topic,
        "LIFECYCLE_LISTEN": f"127.0.0.1:{free_port()}",
        "LIFECYCLE_API_KEY": KEY,
    }
    running = Production(environment, tmp_path)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        kafka.delete_topic(topic)


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_a_touchpoint_reaches_the_worker_and_sigterm_ends_all_in_order(production: Production) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=production.address, headers=headers) as client:
        posted = client.post("/v1/touchpoints", json={"type": "purchase", "customer_id": "42"})
        assert posted.status_code == 202, posted.text
        deadline = time.monotonic() + 30
        while (answer := client.get("/v1/customers/42")).status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [journey["stage"] for journey in answer.json()["journeys"]] == ["purchase"]

    roles = production.roles()
    assert sorted(roles) == sorted(ROLES)
    production.process.send_signal(signal.SIGTERM)
    assert production.process.wait(20) == 0, production.output.read_text()
    assert_gone([*roles.values()])
    assert production.address in production.output.read_text()


def test_a_process_that_dies_ends_the_others(production: Production) -> None:
    roles = production.roles()
    roles["worker"].kill()
    assert production.process.wait(20) == 1
    assert_gone([*roles.values()])
    assert "error: worker ended by itself with exit code 137" in production.output.read_text()


def test_nothing_outlives_it_when_it_is_killed(production: Production) -> None:
    roles = production.roles()
    production.process.kill()
    assert_gone([*roles.values()])


def test_sqlite_is_refused_with_what_to_do(tmp_path: Path, sqlite_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.production"],
        cwd=ROOT,
        env={**os.environ, "LIFECYCLE_DATABASE_URL": sqlite_url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "LIFECYCLE_DATABASE_URL must name a PostgreSQL database" in done.stderr
