"""`python bench/sending.py URL COUNT TASKS`: a bare httpx client that POSTs the same body again and again.

TASKS requests are under way at a time, each over a connection that is kept open. Nothing is read, signed or stored.
"""

from __future__ import annotations

import asyncio
import sys

import httpx
import uvloop

BODY = (
    b'{"type":"stage.changed","timestamp":"2026-03-05T18:00:00.218Z","data":{"customer_id":"1000","lifecycle":'
    b'"five-stages","subject":null,"from":"consideration","to":"purchase","move":"advance","skipped":[],"occurred_at":'
    b'"2026-03-05T18:00:00Z","recorded_at":"2026-03-05T18:00:00.218Z","sequence":1,"cause":{"kind":"touchpoint",'
    b'"rule":3,"touchpoint":"order-1001","source":"webshop","definition_version":1}}}'
)
HEADERS = {
    "content-type": "application/json",
    "webhook-id": "msg_01JQ0000000000000000000000",
    "webhook-timestamp": "1767225600",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


async def send(url: str, count: int, tasks: int) -> None:
    """Raises httpx.HTTPStatusError where an answer is not 2xx."""
    numbers = iter(range(count))
    limits = httpx.Limits(max_connections=tasks, max_keepalive_connections=tasks)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

        async def lane() -> None:
            for _ in numbers:
                (await client.post(url, content=BODY, headers=HEADERS)).raise_for_status()

        await asyncio.gather(*(lane() for _ in range(tasks)))


if __name__ == "__main__":
    uvloop.run(send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
