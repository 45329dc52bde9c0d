"""How an example is played through the whole service: posted over HTTP, and asked for over HTTP."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from tests.conformance.examples import Case, Refusal, Stay
from tests.processes import Service, settings_for, wait_until
from tools.services import KafkaCluster, PostgresServer

OWN = "own"
"""The key that the lifecycle of our own examples has."""
QUIET = {"LIFECYCLE_QUIET_SECONDS": "1"}
"""What was past when it was set fires sooner than by default: nobody's import is interrupted here."""


@pytest.fixture(scope="module", params=["laptop", "production"])
def url_and_headers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """A running service: one process on SQLite, or one for each role on Kafka and PostgreSQL."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "laptop":
        file = shutil.copy(request.getfixturevalue("installed_sqlite"), directory / "lifecycle.db")
        settings = settings_for(f"sqlite+aiosqlite:///{file}") | QUIET
        yield from _serving(settings, [("api", "worker", "timers")], directory)
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    kafka: KafkaCluster = request.getfixturevalue("kafka")
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name, request.getfixturevalue("installed_postgres"))
    kafka.create_topic(name, partitions=4)
    settings = settings_for(postgres.url(name), kafka.bootstrap_servers, name) | QUIET
    yield from _serving(settings, [("worker",), ("timers",), ("api",)], directory)
    kafka.delete_topic(name)
    postgres.drop_database(name)


def _serving(
    settings: Mapping[str, str], processes: Sequence[Sequence[str]], directory: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    services = [Service(roles, settings, directory) for roles in processes]

    async def start() -> None:
        async with asyncio.TaskGroup() as starting:
            for service in services:
                starting.create_task(service.start())

    async def stop() -> list[int]:
        return [await service.stop() for service in services if service.running]

    try:
        asyncio.run(start())
        yield services[-1].url, {"Authorization": f"Bearer {services[-1].settings['LIFECYCLE_API_KEY']}"}
    finally:
        assert set(asyncio.run(stop())) <= {0}


async def assert_played(
    client: httpx.AsyncClient, case: Case, customer_id: str, lifecycle: str, seconds: float
) -> None:
    """Waits until the history is the example's, and asks for the stage at each of its instants."""

    async def is_there() -> bool:
        return await history(client, customer_id, lifecycle, case.now) == (case.journeys, case.refusals)

    try:
        await wait_until(is_there, "the history of the example", seconds)
    except TimeoutError:
        assert await history(client, customer_id, lifecycle, case.now) == (case.journeys, case.refusals)
    await assert_as_of(client, customer_id, lifecycle, case)


async def activate(client: httpx.AsyncClient, lifecycle: str, version: int) -> None:
    activated = await client.post(f"/v1/lifecycles/{lifecycle}/activate", json={"version": version})
    assert activated.is_success, activated.text


async def post(client: httpx.AsyncClient, case: Case, customer_id: str, lifecycle: str, number: int) -> None:
    """Posts the facts one by one, in the order of their arrival, and waits until the last one is applied.

    Retractions come last: their door knows what it has never heard of.
    """
    for fact in sorted(case.touchpoints, key=lambda fact: bool(fact["type"] == "$retract")):
        posted = await _post(client, fact, customer_id, lifecycle, str(number))
        assert posted.status_code == 202, posted.text
    id_ = posted.json()["id"]

    async def is_applied() -> bool:
        receipt = await client.get(f"/v1/touchpoints/{id_}")
        return receipt.status_code == 200 and receipt.json()["status"] != "pending"

    await wait_until(is_applied, f"{id_} is applied", 10)


async def _post(
    client: httpx.AsyncClient, fact: Mapping[str, Any], customer_id: str, lifecycle: str, prefix: str
) -> httpx.Response:
    """Posts a fact through the door that was made for it; a common beginning leaves the order of the ids as it is."""
    customer, given = f"/v1/customers/{customer_id}", fact["properties"]
    body = {"id": f"{prefix}-{fact['id']}", "occurred_at": format_instant(fact["occurred_at"])}
    match fact["type"]:
        case "$identify":
            return await client.post(f"{customer}/traits", json={**body, "traits": given["traits"]})
        case "$override":
            own = given["lifecycle"] != OWN
            properties = {name: value for name, value in given.items() if name != "lifecycle"}
            door = f"{customer}/journeys/{given['lifecycle'] if own else lifecycle}/stage"
            return await client.put(door, json=body | properties)
        case "$retract":
            reason = {"retraction_id": body["id"], "reason": "an example", "actor": "someone"}
            return await client.delete(f"/v1/touchpoints/{prefix}-{given['id']}", params=reason)
        case _:
            return await client.post("/v1/touchpoints", json={**fact, **body, "customer_id": customer_id})


async def history(
    client: httpx.AsyncClient, customer_id: str, lifecycle: str, until: int
) -> tuple[dict[str | None, tuple[Stay, ...]], tuple[Refusal, ...]]:
    """The stays and refusals up to and at an instant; what the clock has brought since is none of the example's."""
    asked = await client.get(
        f"/v1/customers/{customer_id}/history", params={"lifecycle": lifecycle, "include": "refusals", "limit": 250}
    )
    assert asked.status_code == 200, asked.text
    stays: dict[str | None, list[Stay]] = {}
    refusals = []
    before: dict[str | None, dict[str, Any]] = {}
    for item in asked.json()["items"]:
        at, rule = parse_instant(item["entered_at"]), item["cause"]["rule"]
        if at > until:
            continue
        if item["move"] == "refused":
            refusals.append(Refusal(at, rule, item["stage"], item["reason"]))
            continue
        if item["subject"] in before:
            assert before[item["subject"]]["left_at"] == item["entered_at"]
        before[item["subject"]] = item
        stays.setdefault(item["subject"], []).append(
            Stay(item["stage"], at, item["from"], item["move"], tuple(item["skipped"]), rule, item["cause"]["kind"])
        )
    assert all(last["left_at"] is None or parse_instant(last["left_at"]) > until for last in before.values())
    return {subject: tuple(some) for subject, some in stays.items()}, tuple(refusals)


async def assert_as_of(client: httpx.AsyncClient, customer_id: str, lifecycle: str, case: Case) -> None:
    """At the instant of each stay the last one that began then answers, and just before it the one before."""
    for subject, stays in case.journeys.items():
        for stay in stays:
            for at in (stay.entered_at, stay.entered_at - 1):
                params = {"as_of": format_instant(at)} | ({} if subject is None else {"subject": subject})
                asked = await client.get(f"/v1/customers/{customer_id}/journeys/{lifecycle}", params=params)
                assert asked.status_code == 200, asked.text
                expected = [one.stage for one in stays if one.entered_at <= at]
                assert asked.json()["stage"] == (expected[-1] if expected else None)
