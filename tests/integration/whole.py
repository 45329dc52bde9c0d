"""The whole service in one process: HTTP, the worker, the catch-up after activations, and the timers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from lifecycle_engine.engine.activation import CatchUp
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.engine.timers import Timers
from lifecycle_engine.engine.worker import Worker
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.log.database import DatabaseBacklog, DatabaseReader
from lifecycle_engine.store.database import Database
from tests.record import record
from tests.service import clock, service

DAY = 86_400_000_000
START = parse_instant("2026-01-01T00:00:00Z")
AUDIT = {"reason": "asked for by phone", "actor": "ada"}
_LOG = "database"
_QUIET = 200_000
"""Microseconds; less than people set."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A running service and a client that may do everything."""

    database: Database
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, status: int, body: Any = None, **parameters: Any) -> Any:
        """The answer, which must have this status; an error must be a problem."""
        response = await self.client.request(method, path, json=body, params=parameters or None)
        assert response.status_code == status, response.text
        if status >= 400:
            assert response.headers["content-type"] == "application/problem+json"
        return response.json()

    async def get(self, path: str, status: int = 200, **parameters: Any) -> Any:
        return await self.ask("GET", path, status, **parameters)

    async def do(self, method: str, path: str, body: Any = None, **parameters: Any) -> str:
        """Brings an entry in, and waits until it is applied; gives its id."""
        return await self.applied((await self.ask(method, path, 202, body, **parameters))["id"])

    async def post(self, id_: str, type_: str, number: float, **fields: Any) -> str:
        """Posts a touchpoint of a day, and waits until it is applied."""
        body = {"id": id_, "type": type_, "occurred_at": day(number), **fields}
        return await self.do("POST", "/v1/touchpoints", body)

    async def applied(self, id_: str) -> str:
        for _ in range(2000):
            if (await self.get(f"/v1/touchpoints/{id_}"))["status"] != "pending":
                return id_
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{id_} is not applied")

    async def history(self, customer_id: str = "c", **parameters: Any) -> list[tuple[str, str, str | None, str]]:
        """Each line of a history: stage, entered_at, left_at, what caused it."""
        items = (await self.get(f"/v1/customers/{customer_id}/history", limit=250, **parameters))["items"]
        return [(item["stage"], item["entered_at"], item["left_at"], item["cause"]["kind"]) for item in items]

    async def until(self, path: str, name: str, value: Any, **parameters: Any) -> Any:
        """Asks again and again until a member of the answer has a value."""
        for _ in range(2000):
            if (answer := await self.get(path, **parameters))[name] == value:
                return answer
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{path} has not come to {name} = {value!r}, but to {answer}")


@asynccontextmanager
async def whole(url: str, *documents: dict[str, Any]) -> AsyncIterator[Whole]:
    """The service at an empty database, in which exactly these lifecycles are active."""
    appended, stop = asyncio.Event(), asyncio.Event()
    async with record(url, *documents) as database, service(database, appended) as client:
        definitions = Definitions(database, Cel())
        horizon = Horizon(database, DatabaseBacklog(database), _LOG, 0)
        worker = Worker(database, definitions, _LOG, _QUIET)
        worker.reader = DatabaseReader(database, worker.positions, appended)
        runners = (
            worker,
            CatchUp(database, definitions, horizon, _QUIET),
            Timers(database, definitions, horizon, _QUIET),
        )
        async with asyncio.TaskGroup() as running:
            for runner in runners:
                running.create_task(runner.run(stop))
            try:
                yield Whole(database, client)
            finally:
                stop.set()


def day(number: float) -> str:
    return format_instant(START + round(number * DAY))


def now() -> str:
    """An instant that has passed when this returns."""
    instant = clock()
    while clock() <= instant:
        pass
    return format_instant(instant)


def soon(seconds: float) -> str:
    return format_instant(clock() + round(seconds * 1e6))
