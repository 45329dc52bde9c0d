"""The bare floor: the parts of the engine with no engine in them.

HTTP, Kafka, batches of at most 500, de-duplication, row locks in sorted order, a row of history for each touchpoint and
the position in the same transaction; no definition, no fold, no refusal of anything that decodes. What it reaches is
what the parts allow. Set BENCH_DATABASE_URL, BENCH_KAFKA and BENCH_TOPIC, then `python -m bench.bare` is its worker
(first: it makes the tables) and `uvicorn bench.bare:app` its HTTP side.
"""

from __future__ import annotations

import os
from asyncio import gather
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BATCH = 500


class Touchpoint(msgspec.Struct, gc=False):
    id: str
    customer_id: str
    type: str
    occurred_at: datetime
    properties: dict[str, Any]


_decode_posted = msgspec.json.Decoder(Touchpoint | list[Touchpoint]).decode
_decode = msgspec.json.Decoder(Touchpoint).decode
_encode = msgspec.json.Encoder().encode

_TABLES = (
    "CREATE TABLE touchpoint (id text PRIMARY KEY, customer text NOT NULL, type text NOT NULL,"
    " occurred_at timestamptz NOT NULL, body bytea NOT NULL)",
    "CREATE INDEX ON touchpoint (customer, occurred_at, id)",
    "CREATE TABLE customer (id text PRIMARY KEY, last_touchpoint_at timestamptz NOT NULL, touchpoints bigint NOT NULL)",
    "CREATE TABLE history (id bigserial PRIMARY KEY, customer text NOT NULL, type text NOT NULL,"
    " at timestamptz NOT NULL)",
    "CREATE INDEX ON history (customer, at)",
    "CREATE TABLE position (partition integer PRIMARY KEY, next bigint NOT NULL)",
)
_ADD_TOUCHPOINTS = text(
    "INSERT INTO touchpoint SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:customers AS text[]),"
    " CAST(:types AS text[]), CAST(:instants AS timestamptz[]), CAST(:bodies AS bytea[]))"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_LOCK_CUSTOMERS = text(
    "SELECT id, last_touchpoint_at, touchpoints FROM customer WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
)
_WRITE_CUSTOMERS = text(
    "INSERT INTO customer SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:instants AS timestamptz[]),"
    " CAST(:counts AS bigint[])) ON CONFLICT (id) DO UPDATE"
    " SET last_touchpoint_at = excluded.last_touchpoint_at, touchpoints = excluded.touchpoints"
)
_ADD_HISTORY = text(
    "INSERT INTO history (customer, type, at) SELECT * FROM unnest(CAST(:customers AS text[]), CAST(:types AS text[]),"
    " CAST(:instants AS timestamptz[]))"
)
_WRITE_POSITIONS = text(
    "INSERT INTO position SELECT * FROM unnest(CAST(:partitions AS integer[]), CAST(:nexts AS bigint[]))"
    " ON CONFLICT (partition) DO UPDATE SET next = excluded.next"
)
_CUSTOMER = text("SELECT last_touchpoint_at, touchpoints FROM customer WHERE id = :id")


async def post(request: Request) -> Response:
    posted = _decode_posted(await request.body())
    touchpoints = posted if isinstance(posted, list) else [posted]
    producer, topic = request.app.state.producer, request.app.state.topic
    sent = [await producer.send(topic, _encode(one), key=one.customer_id.encode()) for one in touchpoints]
    await gather(*sent)
    answer = b'{"summary":{"accepted":%d}}' % len(touchpoints)
    return Response(answer, 202, media_type="application/json")


async def customer(request: Request) -> Response:
    async with request.app.state.engine.connect() as connection:
        row = (await connection.execute(_CUSTOMER, request.path_params)).first()
    if row is None:
        return Response(status_code=404)
    answer = _encode({"last_touchpoint_at": row[0], "touchpoints": row[1]})
    return Response(answer, media_type="application/json")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.topic = os.environ["BENCH_TOPIC"]
    app.state.engine = create_async_engine(os.environ["BENCH_DATABASE_URL"])
    app.state.producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["BENCH_KAFKA"], enable_idempotence=True, acks="all", linger_ms=2
    )
    await app.state.producer.start()
    try:
        yield
    finally:
        await app.state.producer.stop()
        await app.state.engine.dispose()


app = Starlette(
    routes=[Route("/v1/touchpoints", post, methods=["POST"]), Route("/v1/customers/{id}", customer)], lifespan=lifespan
)


async def work() -> None:
    engine = create_async_engine(os.environ["BENCH_DATABASE_URL"])
    async with engine.begin() as connection:
        for statement in _TABLES:
            await connection.execute(text(statement))
    # Without a group it is given all partitions.
    consumer = AIOKafkaConsumer(
        os.environ["BENCH_TOPIC"], bootstrap_servers=os.environ["BENCH_KAFKA"], auto_offset_reset="earliest"
    )
    await consumer.start()
    while True:
        read = await consumer.getmany(timeout_ms=200, max_records=BATCH)
        if read:
            values = [record.value for records in read.values() for record in records]
            await _apply(engine, values, {tp.partition: records[-1].offset + 1 for tp, records in read.items()})


async def _apply(engine: AsyncEngine, values: list[bytes], positions: dict[int, int]) -> None:
    decoded = {touchpoint.id: (touchpoint, value) for value in values for touchpoint in (_decode(value),)}
    touchpoints = [touchpoint for touchpoint, _ in decoded.values()]
    async with engine.begin() as connection:
        added = await connection.execute(
            _ADD_TOUCHPOINTS,
            {
                "ids": [one.id for one in touchpoints],
                "customers": [one.customer_id for one in touchpoints],
                "types": [one.type for one in touchpoints],
                "instants": [one.occurred_at for one in touchpoints],
                "bodies": [value for _, value in decoded.values()],
            },
        )
        fresh = [decoded[id_][0] for (id_,) in added]
        ids = sorted({one.customer_id for one in touchpoints})
        locked = {id_: (at, count) for id_, at, count in await connection.execute(_LOCK_CUSTOMERS, {"ids": ids})}
        for one in fresh:
            at, count = locked.get(one.customer_id, (one.occurred_at, 0))
            locked[one.customer_id] = max(at, one.occurred_at), count + 1
        await connection.execute(
            _WRITE_CUSTOMERS,
            {"ids": ids, "instants": [locked[id_][0] for id_ in ids], "counts": [locked[id_][1] for id_ in ids]},
        )
        await connection.execute(
            _ADD_HISTORY,
            {
                "customers": [one.customer_id for one in fresh],
                "types": [one.type for one in fresh],
                "instants": [one.occurred_at for one in fresh],
            },
        )
        await connection.execute(_WRITE_POSITIONS, {"partitions": list(positions), "nexts": list(positions.values())})


if __name__ == "__main__":
    uvloop.run(work())
