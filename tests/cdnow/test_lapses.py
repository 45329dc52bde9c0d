"""Real purchases in the order of the file, with timers at work: nobody is told of a lapse that a purchase prevents.

Each customer's deadlines are long past when its purchases come, so whoever fires them as soon as they are set is wrong
about every second one. What must come out is computed here from the file, with nothing of the engine. It takes the
first customers of the file; LIFECYCLE_TEST_CDNOW_CUSTOMERS says how many.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from examples.cdnow.purchases import Touchpoint, read_purchases
from lifecycle_engine.lifecycle.instants import format_instant
from tests.faults.deployment import running
from tests.processes import Service, settings_for, wait_until
from tools.services import KafkaCluster

CUSTOMERS = int(os.environ.get("LIFECYCLE_TEST_CDNOW_CUSTOMERS", "2000"))
ARRAY = 20
"""Touchpoints of one request: few, so that many a customer's purchases come one after the other."""
QUIET = {"LIFECYCLE_QUIET_SECONDS": "3"}
DAYS = 180
LAPSES: dict[str, Any] = {
    "lifecycle": "lapses",
    "initial": "purchase",
    "opens": ["purchase"],
    "stages": [{"key": "purchase"}, {"key": "retention"}, {"key": "lapsed"}],
    "measures": {"purchases": {"count": "purchase"}},
    "rules": [
        {"on": "purchase", "when": ["measures.purchases >= 2"], "to": "retention"},
        {"after": f"{DAYS}d", "without": "purchase", "from": ["purchase", "retention"], "to": "lapsed"},
    ],
}
TOLD = "SELECT type, body FROM change WHERE lifecycle = 'lapses' ORDER BY id"


class Change(NamedTuple):
    """A stage that a customer is told to be in, since when, and the number of that."""

    stage: str
    at: str
    sequence: int


def expected(purchases: list[Touchpoint]) -> list[Change]:
    """What becomes of a customer with these purchases, in their order, until today."""
    found: list[tuple[str, datetime]] = []
    days = [datetime.fromisoformat(one["occurred_at"]) for one in purchases]
    for number, (day, following) in enumerate(zip(days, [*days[1:], datetime.now(UTC)], strict=True)):
        stage = "purchase" if number == 0 else "retention"
        if not found or found[-1][0] != stage:
            found.append((stage, day))
        due = day + timedelta(days=DAYS)
        if due <= following:
            found.append(("lapsed", due))
    return [
        Change(stage, format_instant(round(at.timestamp()) * 1_000_000), n) for n, (stage, at) in enumerate(found, 1)
    ]


async def test_in_one_process_on_sqlite(installed_sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_for(installed_sqlite_url) | QUIET
    async with Service(["api", "worker", "timers"], settings, tmp_path) as service:
        await _check(service, installed_sqlite_url)


async def test_in_a_process_for_each_role_on_kafka_and_postgresql(
    installed_postgres_url: str, kafka: KafkaCluster, topic: str, tmp_path: Path
) -> None:
    settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic) | QUIET
    api, worker, *timers = [Service([role], settings, tmp_path) for role in ("api", "worker", "timers", "timers")]
    async with running(api, worker, *timers):
        await _check(api, installed_postgres_url)


async def _check(service: Service, database_url: str) -> None:
    of_customer = {
        customer: list(purchases)
        for customer, purchases in groupby(read_purchases(), key=lambda purchase: purchase["customer_id"])
    }
    chosen = dict(list(of_customer.items())[:CUSTOMERS])
    changes = {customer: expected(purchases) for customer, purchases in chosen.items()}
    count = sum(map(len, changes.values()))
    engine = create_async_engine(database_url)

    async def told() -> dict[str, list[Change]]:
        by_customer: dict[str, list[Change]] = defaultdict(list)
        async with engine.connect() as connection:
            for type_, body in await connection.execute(text(TOLD)):
                data = json.loads(body)
                assert type_ == "stage.changed", data
                by_customer[data["customer_id"]].append(Change(data["to"], data["occurred_at"], data["sequence"]))
        return by_customer

    async def some_have_lapsed() -> bool:
        found = await told()
        return any(found[customer] == changes[customer] for customer in list(found))

    async def all_have_lapsed() -> bool:
        return sum(map(len, (await told()).values())) >= count

    try:
        async with service.client() as http:
            await _activate(http)
            customers = list(chosen.values())
            await _post(http, customers[: CUSTOMERS // 2])
            await wait_until(some_have_lapsed, "the timers are at work")
            await _post(http, customers[CUSTOMERS // 2 :])
        await wait_until(all_have_lapsed, f"{count} changes are told", 60 + CUSTOMERS / 100)
        assert await told() == changes
    finally:
        await engine.dispose()


async def _activate(http: httpx.AsyncClient) -> None:
    added = await http.post("/v1/lifecycles", json=LAPSES)
    assert added.is_success, added.text
    activated = await http.post("/v1/lifecycles/lapses/activate", json={"version": added.json()["version"]})
    assert activated.is_success, activated.text


async def _post(http: httpx.AsyncClient, customers: list[list[Touchpoint]]) -> None:
    purchases = list(chain.from_iterable(customers))
    for start in range(0, len(purchases), ARRAY):
        answer = await http.post("/v1/touchpoints", json=purchases[start : start + ARRAY])
        assert answer.status_code == 207, answer.text
        assert {item["status"] for item in answer.json()["items"]} == {"accepted"}
