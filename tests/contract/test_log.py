"""What the port of the log promises, for each adapter on its real parts."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from lifecycle_engine.log.message import MAX_MESSAGE_BYTES
from lifecycle_engine.log.port import Delivery, LogUnavailableError, LostRecordsError, Record
from tests.contract.logs import (
    KafkaLog,
    Log,
    Stored,
    append,
    by_key,
    by_key_as_sent,
    drain,
    nothing_more,
    records,
    until,
)


async def test_records_come_back_as_they_were_in_the_order_of_their_key(log: Log) -> None:
    sent = records(1000, keys=37)
    began = time.time() * 1e6
    async with log.appender() as appender:
        for start in range(0, 1000, 100):
            assert await appender.append(sent[start : start + 100]) == [True] * 100
    async with log.reader(Stored()) as reader:
        got = await drain(reader, 1000)
        await nothing_more(reader)
    assert by_key(got) == by_key_as_sent(sent)
    assert all(began - 2e6 < delivery.appended_at < time.time() * 1e6 + 2e6 for delivery in got)
    for partition in {delivery.partition for delivery in got}:
        positions = [delivery.position for delivery in got if delivery.partition == partition]
        assert positions == sorted(set(positions))


async def test_it_tells_how_far_everything_reaches_that_it_has_acknowledged(log: Log) -> None:
    sent = records(300, keys=37)
    async with log.appender() as appender:
        assert not any((await appender.reached()).values()) or await appender.reached() == await appender.ends()
        await appender.append(sent[:150])
        await appender.append(sent[150:])
        reached = await appender.reached()
        assert reached == {one: end for one, end in (await appender.ends()).items() if one in reached}
    async with log.reader(Stored()) as reader:
        got = await drain(reader, 300)
    assert all(delivery.position < reached[delivery.partition] for delivery in got)


async def test_one_by_one_from_many_tasks_each_key_keeps_its_order(log: Log) -> None:
    sent = records(800, keys=40)

    async def post(key: int) -> None:
        for record in sent[key::40]:
            assert await appender.append([record]) == [True]

    async with log.appender() as appender:
        await asyncio.gather(*(post(key) for key in range(40)))
    async with log.reader(Stored()) as reader:
        assert by_key(await drain(reader, 800)) == by_key_as_sent(sent)


async def test_nothing_is_lost_or_repeated_over_restarts_of_the_reader(log: Log) -> None:
    sent = records(2000, keys=50)
    stored = Stored()
    got: list[Delivery] = []
    async with log.appender() as appender:
        await appender.append(sent)
    dice = random.Random(1)
    while len(got) < 2000:
        async with log.reader(stored) as reader:
            for _ in range(dice.randrange(1, 6)):
                for lane in range(reader.lanes):
                    deliveries = await reader.read(lane, dice.choice([1, 7, 100, 500]), 0.3)
                    if dice.random() < 0.8:  # else: read, and the process dies
                        stored.apply(deliveries)
                        got += deliveries
                    else:
                        await reader.reload(sorted({delivery.partition for delivery in deliveries}))
    assert by_key(got) == by_key_as_sent(sent)


async def test_a_rewound_partition_is_handed_out_again(log: Log) -> None:
    sent = records(300)
    async with log.appender() as appender:
        await appender.append(sent)
    async with log.reader(Stored()) as reader:
        first = await drain(reader, 300)
        from_where = {delivery.partition: delivery.position for delivery in reversed(first)}
        for partition, position in from_where.items():
            reader.rewind(partition, position)
        again = await drain(reader, 300)
        await nothing_more(reader)
        reader.rewind(99, 0)
        await nothing_more(reader)
    assert by_key(again) == by_key(first) == by_key_as_sent(sent)


async def test_reloading_goes_on_from_where_another_worker_has_got_to(log: Log) -> None:
    stored = Stored()
    async with log.appender() as appender, log.reader(stored) as reader:
        await appender.append(records(300))
        first = await drain(reader, 300)
        stored.apply(first)
        for partition in list(stored):
            stored[partition] -= 10
        await reader.reload(list(stored))
        again = await drain(reader, 10 * len(stored))
        await nothing_more(reader)
    assert all(delivery.position >= stored[delivery.partition] for delivery in again)


async def test_a_waiting_reader_gets_what_is_appended_at_once(log: Log) -> None:
    async with (
        log.appender() as appender,
        log.reader(Stored(), **({"lanes": 1} if isinstance(log, KafkaLog) else {})) as reader,
    ):
        await appender.append(records(1))
        await drain(reader, 1)
        began = time.perf_counter()
        assert await reader.read(0, 10, 0.2) == []
        assert 0.15 < time.perf_counter() - began < 1
        delays = []
        for n in range(20):
            reading = asyncio.create_task(reader.read(0, 10, 5))
            await asyncio.sleep(0.03)
            began = time.perf_counter()
            await appender.append([Record(b"customer_id:1", b"%d" % n)])
            (delivery,) = await reading
            delays.append(time.perf_counter() - began)
            assert delivery.value == b"%d" % n
    assert sorted(delays)[10] < 0.1


async def test_the_largest_message_is_taken_beside_small_ones(log: Log) -> None:
    noise = random.Random(2)
    sent = [Record(b"customer_id:%d" % n, noise.randbytes(MAX_MESSAGE_BYTES if n % 5 == 0 else 10)) for n in range(20)]
    async with log.appender() as appender:
        assert await appender.append(sent) == [True] * 20
    async with log.reader(Stored()) as reader:
        assert by_key(await drain(reader, 20)) == by_key_as_sent(sent)


async def test_no_records_are_no_append(log: Log) -> None:
    async with log.appender() as appender:
        assert await appender.append([]) == []


@pytest.mark.parametrize("limit", [{"max_waiting_records": 50}, {"max_waiting_bytes": 5_000}])
async def test_what_exceeds_the_limit_is_turned_away_whole(log: Log, limit: dict[str, int]) -> None:
    async with log.appender(**limit) as appender:
        with pytest.raises(LogUnavailableError, match="too many"):
            await appender.append(records(51, size=100))
        outcomes = await asyncio.gather(
            *(appender.append(records(20, prefix=f"{n}-", size=100)) for n in range(10)), return_exceptions=True
        )
        taken = [n for n, outcome in enumerate(outcomes) if outcome == [True] * 20]
        refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, LogUnavailableError)]
        assert len(taken) == 2
        assert len(refused) == 8
        assert await appender.append(records(20, prefix="later-", size=100)) == [True] * 20
    async with log.reader(Stored()) as reader:
        got = await drain(reader, 60)
        await nothing_more(reader)
    assert {(delivery.value or b"").split(b"-")[0] for delivery in got} == {*(b"%d" % n for n in taken), b"later"}


async def test_ends_and_lag_tell_what_is_left(log: Log) -> None:
    stored = Stored()
    async with log.appender() as appender, log.reader(stored) as reader:
        before = await appender.ends()
        await appender.append(records(100))
        assert sum((await appender.ends()).values()) - sum(before.values()) == 100
        await drain(reader, 100)
        assert await reader.lag() == 0
        await reader.applied({0: 1})
        await appender.append(records(40))
        assert await reader.lag() == 40


async def test_stopping_flushes_what_is_on_its_way(log: Log) -> None:
    async with log.appender() as appender:
        appending = [asyncio.create_task(appender.append([record])) for record in records(200)]
        await asyncio.sleep(0)
        await appender.stop()
        assert await asyncio.gather(*appending) == [[True]] * 200
        with pytest.raises(LogUnavailableError):
            await appender.append(records(1))
    async with log.reader(Stored()) as reader:
        await drain(reader, 200)


async def test_a_cancelled_append_leaves_the_others_alone(log: Log) -> None:
    async with log.appender() as appender:
        appending = [asyncio.create_task(appender.append([record])) for record in records(100)]
        await asyncio.sleep(0)
        for task in appending[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*appending, return_exceptions=True)
        assert outcomes[1::2] == [[True]] * 50
        assert await appender.append(records(100)) == [True] * 100


async def test_a_position_past_the_end_is_told(log: Log) -> None:
    async with log.appender() as appender:
        await appender.append(records(100))
        ends = await appender.ends()
    async with log.reader(Stored({partition: end + 5 for partition, end in ends.items()})) as reader:
        with pytest.raises(LostRecordsError):
            await drain(reader, 1)


async def test_a_position_whose_records_are_gone_is_told(log: Log) -> None:
    stored = Stored()
    async with log.appender() as appender:
        await appender.append(records(400, keys=50))
        async with log.reader(stored) as reader:
            stored.apply(await reader.read(0, 5, 10))
        await log.remove_before(60)
    async with log.reader(stored) as reader:
        with pytest.raises(LostRecordsError):
            await drain(reader, 400)


async def test_without_a_stored_position_reading_begins_with_the_earliest_record(log: Log) -> None:
    async with log.appender() as appender:
        await appender.append(records(400, keys=50))
        total = sum((await appender.ends()).values())
        await log.remove_before(60)
        partitions = len(await appender.ends())
    async with log.reader(Stored()) as reader:
        got = await drain(reader, total - 60 * partitions)
        await nothing_more(reader)
    assert all(delivery.position >= 60 for delivery in got)


async def test_unacknowledged_appends_are_sent_again_until_they_are_durable(log: Log) -> None:
    sent = records(500)
    async with log.appender(max_waiting_records=60) as appender:
        await asyncio.gather(*(append(appender, sent[start : start + 50]) for start in range(0, 500, 50)))
        await until(appender.ready)
    async with log.reader(Stored()) as reader:
        assert len(await drain(reader, 500)) == 500
