"""Libraries of others, as they are published, pointed at a running server: they are told of success, and it is true."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.clients.lossy import losing_first_answers
from tests.clients.packages import PROGRAMS, InstallError, node
from tests.processes import API_KEY, Service, migrate, settings_for

LIBRARIES = ("segment_python.py", "rudder_python.py", "segment_node.js")
SECONDS = 60
IDS = ("view", "identify", "order", "page", "screen", "group", "alias")


class Server(NamedTuple):
    url: str
    client: httpx.AsyncClient
    file: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    file = directory / "lifecycle.db"
    settings = settings_for(f"sqlite+aiosqlite:///{file}")
    await migrate(settings, directory)
    async with Service(["api", "worker", "timers"], settings, directory) as service, service.client() as client:
        yield Server(service.url, client, file)


def command(program: str) -> tuple[Sequence[str | Path], dict[str, str]]:
    if program.endswith(".py"):
        return [sys.executable, PROGRAMS / program], {**os.environ, "NO_PROXY": "*"}
    try:
        binary, environment = node()
    except InstallError as error:
        pytest.fail(str(error))
    return [binary, PROGRAMS / program], environment


async def run(program: str, host: str, prefix: str, key: str = API_KEY) -> Any:
    """What the program prints."""
    arguments, environment = await asyncio.to_thread(command, program)
    process = await asyncio.create_subprocess_exec(
        *arguments, host, key, prefix, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        printed, errors = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, errors.decode()
    return json.loads(printed)


async def receipts(server: Server, prefix: str) -> dict[str, Any]:
    """What became of everything in the story, once all of it is applied."""
    found = {}
    for name in IDS:
        for _ in range(500):
            answer = await server.client.get(f"/v1/touchpoints/{prefix}-{name}")
            if answer.status_code == 200 and answer.json()["status"] != "pending":
                break
            await asyncio.sleep(0.02)
        found[name] = answer.json()
    return found


async def story(server: Server, prefix: str) -> None:
    """The customer must be where the story leads, and be everybody whom it names."""
    found = await receipts(server, prefix)
    assert {receipt["status"] for receipt in found.values()} <= {"applied", "late"}
    assert {receipt["conflicts"] for receipt in found.values()} == {0}
    assert {name: receipt["type"] for name, receipt in found.items()} == {
        "view": "product_view",
        "identify": "$identify",
        "order": "purchase",
        "page": "page_view",
        "screen": "screen_view",
        "group": "group_joined",
        "alias": "$identify",
    }
    customer = (await server.client.get(f"/v1/customers/{prefix}-user")).json()
    names = {(identity["kind"], identity["value"]) for identity in customer["identities"]}
    assert names == {
        ("customer_id", f"{prefix}-user"),
        ("anonymous_id", f"{prefix}-visitor"),
        ("anonymous_id", f"{prefix}-before"),
    }
    assert customer["traits"] == {"plan": "pro"}
    (journey,) = customer["journeys"]
    assert (journey["stage"], journey["measures"]["spend"]) == ("purchase", 49.9)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("program", LIBRARIES)
async def test_a_lost_answer_does_nothing_twice(server: Server, program: str) -> None:
    """The first request is taken, and its answer turned into a 503 on the way back."""
    prefix = uuid.uuid4().hex
    with losing_first_answers(server.url) as (url, statuses):
        told = await run(program, url, prefix)
    assert told["errors"] == []
    assert told.get("called", len(IDS)) == len(IDS)
    assert statuses == [200, 200]
    await story(server, prefix)
    assert {receipt["duplicates"] for receipt in (await receipts(server, prefix)).values()} == {1}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_log_that_is_away_is_waited_for(server: Server) -> None:
    """Nothing can be appended for longer than the service waits: it says 503, and all libraries try again."""
    prefixes = {program: uuid.uuid4().hex for program in LIBRARIES}
    await asyncio.to_thread(command, LIBRARIES[-1])
    held = sqlite3.connect(server.file, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    try:
        running = [asyncio.create_task(run(program, server.url, prefix)) for program, prefix in prefixes.items()]
        answer = await server.client.post("/v1/touchpoints", json={"id": "x", "type": "x", "customer_id": "x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
        await asyncio.sleep(1.5)
        assert not any(task.done() for task in running)
    finally:
        held.rollback()
        held.close()
    for told in await asyncio.gather(*running):
        assert told["errors"] == []
    for prefix in prefixes.values():
        await story(server, prefix)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("program", LIBRARIES)
async def test_a_wrong_key_is_told_in_words_that_the_library_reads(server: Server, program: str) -> None:
    told = await run(program, server.url, uuid.uuid4().hex, "le_wrong")
    assert told["errors"] != []
    if program.endswith(".py"):
        assert all("key_unknown: " in error for error in told["errors"])


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_of_the_npm_package_is_one_event_in_either_mode(server: Server) -> None:
    prefix = uuid.uuid4().hex
    told = await run("cloudevents_node.js", server.url, prefix)
    assert told["statuses"] == [202, 202]
    for _ in range(500):
        receipt = (await server.client.get(f"/v1/touchpoints/{prefix}-event", params={"source": "/shop/orders"})).json()
        if receipt.get("duplicates") == 1:
            break
        await asyncio.sleep(0.02)
    assert (receipt["type"], receipt["duplicates"], receipt["conflicts"]) == ("purchase", 1, 0)
    assert receipt["customer"] == {"kind": "customer_id", "value": f'{prefix} Zoë "x" 50%'}
