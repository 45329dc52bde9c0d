"""P6: whoever pages the feed while writers commit, in whatever order, misses nothing and sees nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from lifecycle_engine.feed.pages import read_page
from lifecycle_engine.feed.sequencer import Sequencer, sequence_changes
from lifecycle_engine.store.changes import ChangeRow, FeedFilter, SequencedChange, add_changes
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.tables import change
from tests.processes import wait_until
from tests.record import record

WRITERS, CUSTOMERS, ROUNDS = 8, 5, 40
EVERYTHING = FeedFilter()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


def row(customer: int, sequence: int | None, *, muted: bool = False, type_: str = "stage.changed") -> ChangeRow:
    return ChangeRow(customer, type_, "shop", None, sequence, muted, sequence or 0, b'{"n":%d}' % (sequence or 0))


class Writers:
    """Transactions that hold their rows back, and commit in another order than they took their ids in."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = random.Random(seed)
        self._locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sequences: dict[int, int] = defaultdict(int)
        self.committed: list[tuple[int, int]] = []

    async def write(self) -> None:
        for _ in range(ROUNDS):
            customer = self._random.randrange(CUSTOMERS)
            # As the customer's row lock: it is held from before the rows are inserted until after the commit.
            async with self._locks[customer]:
                first = self._sequences[customer] + 1
                rows = [row(customer, first + n) for n in range(self._random.randint(1, 3))]
                if await self._commits(rows):
                    self._sequences[customer] += len(rows)
                    self.committed += [(one.customer, one.sequence or 0) for one in rows]
            await asyncio.sleep(0)

    async def _commits(self, rows: Sequence[ChangeRow]) -> bool:
        async with self._database.engine.connect() as connection, connection.begin() as transaction:
            await add_changes(connection, rows)
            if not self._database.is_sqlite:  # where nobody else could write in the meantime
                await asyncio.sleep(self._random.uniform(0, 0.02))
            if self._random.random() < 0.1:
                await transaction.rollback()
                return False
        return True


async def read_on(database: Database, done: asyncio.Event, limit: int) -> list[SequencedChange]:
    """What a reader sees that goes on and on from where its last page ended."""
    seen: list[SequencedChange] = []
    after = 0
    while True:
        is_last = done.is_set()
        page = await read_page(database, after, EVERYTHING, limit)
        seen += page.changes
        after = page.upto
        if after >= page.end:
            if is_last:
                return seen
            await asyncio.sleep(0.001)


async def read_on_by_id(database: Database, done: asyncio.Event) -> set[int]:
    """What a reader sees whose cursor is the last id."""
    seen: set[int] = set()
    last = 0
    while True:
        is_last = done.is_set()
        async with database.transaction() as connection:
            query = select(change.c.id).where(change.c.id > last).order_by(change.c.id)
            ids = [id_ for (id_,) in await connection.execute(query)]
        seen.update(ids)
        last = max([last, *ids])
        if is_last:
            return seen
        await asyncio.sleep(0.001)


async def test_readers_miss_nothing_and_see_nothing_twice(url: str) -> None:
    async with record(url) as database:
        writers, written, sequenced, stop = Writers(database, 7), asyncio.Event(), asyncio.Event(), asyncio.Event()
        sequencers = [Sequencer(database), Sequencer(database)]
        async with asyncio.TaskGroup() as group:
            for sequencer in sequencers:
                group.create_task(sequencer.run(stop))
            readers = [group.create_task(read_on(database, sequenced, limit)) for limit in (3, 1000)]
            by_id = group.create_task(read_on_by_id(database, written))
            async with asyncio.TaskGroup() as writing:
                for _ in range(WRITERS):
                    writing.create_task(writers.write())
            written.set()

            async def is_sequenced() -> bool:
                return sum(each.sequenced for each in sequencers) == len(writers.committed)

            await wait_until(is_sequenced, "every change has a position")
            sequenced.set()
            stop.set()
        again = await read_page(database, 0, EVERYTHING, 100_000)

    for reader in readers:
        assert reader.result() == again.changes
    assert [one.position for one in again.changes] == list(range(1, len(writers.committed) + 1))
    assert sorted((one.customer, one.sequence or 0) for one in again.changes) == sorted(writers.committed)
    for customer in range(CUSTOMERS):
        sequences = [one.sequence for one in again.changes if one.customer == customer]
        assert sequences == list(range(1, len(sequences) + 1))
    if not database.is_sqlite:
        # Else nothing was proved: the writers must have committed in another order than that of the ids.
        assert len(by_id.result()) < len(writers.committed)


async def test_what_is_told_and_the_positions_come_together_or_not_at_all(url: str) -> None:
    told: list[int] = []

    async def fail(_: AsyncConnection, changes: Sequence[SequencedChange]) -> None:
        raise RuntimeError(f"{len(changes)} changes were not queued")

    async def tell(_: AsyncConnection, changes: Sequence[SequencedChange]) -> None:
        told.extend(one.position for one in changes)

    async with record(url) as database:
        async with database.transaction() as connection:
            await add_changes(connection, [row(1, n) for n in (1, 2, 3)])
        with pytest.raises(RuntimeError):
            await sequence_changes(database, fail)
        assert (await read_page(database, 0, EVERYTHING, 10)).changes == []
        assert [await sequence_changes(database, tell, limit=2) for _ in range(3)] == [2, 1, 0]
    assert told == [1, 2, 3]


async def test_one_process_leads_at_a_time(postgres_url: str) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def linger(_: AsyncConnection, __: Sequence[SequencedChange]) -> None:
        entered.set()
        await leave.wait()

    async with record(postgres_url) as database:
        async with database.transaction() as connection:
            await add_changes(connection, [row(1, 1)])
        leader = asyncio.create_task(sequence_changes(database, linger))
        await entered.wait()
        async with asyncio.timeout(2):
            assert await sequence_changes(database, None) == 0
        leave.set()
        assert await leader == 1
