"""The worker's own floor: reads the records that a worker has read, and writes the rows that it wrote.

The same records, the same rows in the same tables in the same batches, on as many lanes, and nothing decided: what each
transaction of the worker wrote is taken from its database before the first record is read. PostgreSQL tells which
rows belong together (`xmin`, the transaction that wrote a row). A worker that had to correct what it wrote cannot be
repeated like this, so its touchpoints must have come in order.

`python -m bench.floor RECORDED_URL DATABASE_URL KAFKA TOPIC` fills the database at DATABASE_URL, a migrated one, and
ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

BATCH = 500
PLANNING = {"jit": "off", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""As in the worker's sessions (store/database.py)."""

_COLUMNS = """
    SELECT c.relname AS table, array_agg(a.attname::text ORDER BY a.attnum) AS names,
           array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum) AS types
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
      AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.atthasdef AND a.attidentity = ''
    GROUP BY c.relname
"""
_POSITION = (
    "INSERT INTO log_position (log, partition, next) SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[]) "
    "ON CONFLICT (log, partition) DO UPDATE SET next = excluded.next"
)


class Named(msgspec.Struct):
    id: str


_named = msgspec.json.Decoder(Named).decode


@dataclass
class Transaction:
    """What one transaction read, up to which position of each partition, and what it wrote."""

    upto: dict[int, int] = field(default_factory=dict)
    writes: list[tuple[str, Sequence[Sequence[Any]]]] = field(default_factory=list)


async def main(recorded_url: str, database_url: str, kafka: str, topic: str) -> None:
    transactions = await _recorded(recorded_url, await _places(kafka, topic), topic)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=16, server_settings=PLANNING)
    try:
        async with asyncio.TaskGroup() as lanes:
            for lane in _lanes(transactions):
                lanes.create_task(_replay(lane, consumer, topic, pool))
    finally:
        await pool.close()
        await consumer.stop()


async def _replay(transactions: Sequence[Transaction], consumer: Any, topic: str, pool: asyncpg.Pool) -> None:
    partitions = [TopicPartition(topic, one) for one in sorted({p for each in transactions for p in each.upto})]
    read = {partition.partition: 0 for partition in partitions}
    async with pool.acquire() as connection:
        for transaction in transactions:
            while any(read[partition] < upto for partition, upto in transaction.upto.items()):
                for partition, records in (
                    await consumer.getmany(*partitions, timeout_ms=1_000, max_records=BATCH)
                ).items():
                    read[partition.partition] = records[-1].offset + 1
            async with connection.transaction():
                for statement, columns in transaction.writes:
                    await connection.execute(statement, *columns)


def _lanes(transactions: Iterable[Transaction]) -> list[list[Transaction]]:
    """Transactions that shared a partition followed one another; others may have run at the same time."""
    lanes: list[tuple[set[int], list[Transaction]]] = []
    for transaction in transactions:
        partitions, together = set(transaction.upto), [transaction]
        apart = []
        for lane in lanes:
            if lane[0] & partitions:
                partitions |= lane[0]
                together = lane[1] + together
            else:
                apart.append(lane)
        lanes = [*apart, (partitions, together)]
    return [lane for _, lane in lanes]


async def _places(kafka: str, topic: str) -> dict[str, tuple[int, int]]:
    """The partition and the position of each touchpoint id on the topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = {}
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
                for record in records:
                    places[_named(record.value).id] = (partition.partition, record.offset)
        return places
    finally:
        await consumer.stop()


async def _recorded(database_url: str, places: dict[str, tuple[int, int]], topic: str) -> list[Transaction]:
    """The transactions that stored touchpoints, in the order in which they began to write."""
    connection = await asyncpg.connect(database_url)
    try:
        columns = {row["table"]: (row["names"], row["types"]) for row in await connection.fetch(_COLUMNS)}
        transactions: dict[int, Transaction] = defaultdict(Transaction)
        touched: dict[int, set[int]] = defaultdict(set)
        for number, id_, customer in await _rows(connection, "touchpoint", ["id", "customer"]):
            partition, position = places[id_]
            upto = transactions[number].upto
            upto[partition] = max(upto.get(partition, 0), position + 1)
            touched[number].add(customer)
        numbers = sorted(transactions)
        await _add_customers(connection, columns["customer"], [(transactions[n], touched[n]) for n in numbers])
        for table in sorted(columns.keys() - {"customer", "log_position", "alembic_version"}):
            names, types = columns[table]
            rows: dict[int, list[Sequence[Any]]] = defaultdict(list)
            for number, *values in await _rows(connection, table, names):
                rows[number].append(values)
            statement = f"INSERT INTO {table} ({', '.join(names)}) SELECT * FROM {_given(types)}"
            for number in rows.keys() & transactions.keys():
                transactions[number].writes.append((statement, _columns(rows[number])))
        for transaction in transactions.values():
            positions = sorted(transaction.upto.items())
            transaction.writes.append((_POSITION, _columns([(topic, *position) for position in positions])))
        return [transactions[number] for number in numbers]
    finally:
        await connection.close()


async def _add_customers(
    connection: asyncpg.Connection,
    columns: tuple[Sequence[str], Sequence[str]],
    transactions: Sequence[tuple[Transaction, set[int]]],
) -> None:
    """Each customer row is made by its first transaction and written by each later one, here always as it ended."""
    # `id` has a default, so it is not among the columns.
    names, types = ["id", *columns[0]], ["bigint", *columns[1]]
    final = {row[1]: row[1:] for row in await _rows(connection, "customer", names)}
    given = f"{_given(types)} AS given({', '.join(names)})"
    make = f"INSERT INTO customer ({', '.join(names)}) SELECT * FROM {given}"
    sets = ", ".join(f"{name} = given.{name}" for name in names if name not in ("id", "kind", "value"))
    write = f"UPDATE customer SET {sets} FROM {given} WHERE customer.id = given.id"
    known: set[int] = set()
    for transaction, touched in transactions:
        for statement, ids in ((make, touched - known), (write, touched & known)):
            if ids:
                transaction.writes.append((statement, _columns([final[id_] for id_ in sorted(ids)])))
        known |= touched


async def _rows(connection: asyncpg.Connection, table: str, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """All rows, each with the number of the transaction that wrote it in front."""
    return [tuple(row) for row in await connection.fetch(f"SELECT xmin::text::bigint, {', '.join(names)} FROM {table}")]


def _given(types: Sequence[str]) -> str:
    return f"unnest({', '.join(f'${n}::{type_}[]' for n, type_ in enumerate(types, 1))})"


def _columns(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
