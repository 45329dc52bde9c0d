"""The whole service with what tells others of changes, and a receiver that keeps what it was told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from lifecycle_engine.feed.sequencer import Sequencer
from lifecycle_engine.outbox.fan_out import FanOut
from lifecycle_engine.outbox.recovery import Recovery
from lifecycle_engine.webhook.dispatch import Dispatcher
from lifecycle_engine.webhook.secrets import Keyring
from lifecycle_engine.webhook.sender import Sender
from tests.integration.whole import Whole, whole
from tests.receiver import Receiver, Reply, Request
from tests.service import LOOPBACK, VAULT

ENDPOINTS = "/v1/webhooks/endpoints"
SHOP: dict[str, Any] = {
    "lifecycle": "shop",
    "initial": "new",
    "stages": [{"key": "new"}, {"key": "bought"}, {"key": "loyal"}],
    "measures": {"n": {"count": "buy"}},
    "rules": [
        {"on": "buy", "when": ["measures.n >= 2"], "to": "loyal"},
        {"on": "buy", "to": "bought"},
        {"on": "leave", "to": "new"},
    ],
}


@dataclass
class Told:
    """What a receiver was sent, and how it answers."""

    reply: Reply
    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.reply

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]

    def events(self, secret: str | None = None) -> list[dict[str, Any]]:
        """What came, each verified where the secret is known."""
        if secret is not None:
            for request in self.requests:
                Webhook(secret).verify(request.body, dict(request.headers))
        return [json.loads(request.body) for request in self.requests]

    async def count(self, number: int) -> None:
        """Waits until so many requests have come."""
        await until(lambda: len(self.requests) >= number)
        assert len(self.requests) == number


@asynccontextmanager
async def telling(url: str, *documents: dict[str, Any]) -> AsyncIterator[Whole]:
    """The service at an empty database, in which exactly these lifecycles are active; webhooks may go to loopback."""
    stop, sender = asyncio.Event(), Sender([LOOPBACK])
    async with whole(url, *documents) as started:
        database = started.database
        runners = (
            Sequencer(database, FanOut(database)),
            Dispatcher(database, sender, Keyring(VAULT)),
            Recovery(database),
        )
        try:
            async with asyncio.TaskGroup() as running:
                for runner in runners:
                    running.create_task(runner.run(stop))
                try:
                    yield started
                finally:
                    stop.set()
        finally:
            await sender.close()


@asynccontextmanager
async def receiving(status: int = 204) -> AsyncIterator[tuple[Told, Receiver]]:
    told = Told(Reply(status))
    async with Receiver(told) as receiver:
        yield told, receiver


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError
