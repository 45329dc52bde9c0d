"""What the port of the backlog promises, for each adapter on its real parts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from lifecycle_engine.log.port import Appender, Delivery, LogUnavailableError
from tests.contract.logs import DatabaseLog, KafkaLog, Log, Stored, append, drain, records, until
from tools.services import free_port


def firsts(deliveries: Sequence[Delivery], positions: Mapping[int, int]) -> list[int]:
    """When the first record of each partition at or after its position was appended."""
    found: dict[int, Delivery] = {}
    for delivery in sorted(deliveries, key=lambda delivery: delivery.position):
        if delivery.position >= positions.get(delivery.partition, 0):
            found.setdefault(delivery.partition, delivery)
    return [delivery.appended_at for delivery in found.values()]


def expected(deliveries: Sequence[Delivery], positions: Mapping[int, int]) -> int | None:
    return min(firsts(deliveries, positions), default=None)


async def filled(log: Log) -> list[Delivery]:
    """What stands in the log, after it has got records at different times: in every partition more than 60."""
    async with log.appender() as appender:
        sent = records(500, keys=50)
        for n in range(0, 500, 20):
            await append(appender, sent[n : n + 20])
            await asyncio.sleep(0.005)
    async with log.reader(Stored()) as reader:
        return await drain(reader, 500)


async def test_a_log_without_records_has_no_oldest(log: Log) -> None:
    async with log.backlog() as backlog:
        assert await backlog.oldest({}) is None
        assert await backlog.oldest({0: 0, 1: 0}) is None
        async with log.appender() as appender:
            await append(appender, records(1))
        assert await backlog.oldest({}) is not None


async def test_the_oldest_is_the_earliest_of_the_first_records_not_applied(log: Log) -> None:
    deliveries = await filled(log)
    ends = {delivery.partition: delivery.position + 1 for delivery in deliveries}
    dice = random.Random(3)
    async with log.backlog() as backlog:
        assert await backlog.oldest({}) == expected(deliveries, {})
        assert await backlog.oldest(ends) is None
        for partition, end in ends.items():
            assert await backlog.oldest({**ends, partition: end - 1}) == expected(
                deliveries, {**ends, partition: end - 1}
            )
        for _ in range(40):
            positions = {
                partition: dice.choice([dice.randint(0, end), end])
                for partition, end in ends.items()
                if dice.random() < 0.9
            }
            assert await backlog.oldest(positions) == expected(deliveries, positions)
        async with log.appender() as appender:
            await append(appender, records(1))
        assert await backlog.oldest(ends) is not None


async def test_where_the_log_lacks_the_position_its_first_record_counts(log: Log) -> None:
    deliveries = await filled(log)
    ends = {delivery.partition: delivery.position + 1 for delivery in deliveries}
    async with log.backlog() as backlog:
        before = await backlog.oldest({})
        await log.remove_before(60)
        left = [delivery for delivery in deliveries if delivery.position >= 60]
        for positions in ({}, dict.fromkeys(ends, 7), {partition: end + 1000 for partition, end in ends.items()}):
            assert await backlog.oldest(positions) == expected(left, {}) != before


async def test_tasks_may_ask_at_the_same_time(log: Log) -> None:
    deliveries = await filled(log)
    ends = {delivery.partition: delivery.position + 1 for delivery in deliveries}
    questions = [{partition: n * end // 20 for partition, end in ends.items()} for n in range(21)]
    async with log.backlog() as backlog:
        answers = await asyncio.gather(*(backlog.oldest(positions) for positions in questions))
        asking = asyncio.create_task(backlog.oldest({}))
        await asyncio.sleep(0.001)
        asking.cancel()
        assert await backlog.oldest({}) == expected(deliveries, {})
    assert answers == [expected(deliveries, positions) for positions in questions]


class Question(NamedTuple):
    """What was asked and answered. `clock` was read, and so many were acknowledged, before it was asked."""

    clock: int
    acknowledged: int
    positions: Mapping[int, int]
    answer: int | None


async def test_nothing_that_was_appended_before_the_question_is_missed(log: Log) -> None:
    stored, deliveries, acknowledged, questions = Stored(), list[Delivery](), list[bytes](), list[Question]()
    dice = random.Random(4)

    async def post(appender: Appender, prefix: str) -> None:
        sent = records(100, prefix=prefix)
        for n in range(0, 100, 4):
            await append(appender, sent[n : n + 4])
            acknowledged.extend(record.value for record in sent[n : n + 4])
            await asyncio.sleep(dice.random() * 0.02)

    async def apply() -> None:
        while True:
            for lane in range(reader.lanes):
                got = await reader.read(lane, dice.choice([1, 50, 500]), 0.05)
                await asyncio.sleep(dice.random() * 0.01)
                stored.apply(got)
                deliveries.extend(got)

    async def ask() -> None:
        while True:
            clock, before = await log.clock(), len(acknowledged)
            positions = dict(stored)
            questions.append(Question(clock, before, positions, await backlog.oldest(positions)))

    async def is_quiet() -> bool:
        return len(deliveries) == len(acknowledged) and len(questions) > asked + 10

    async with (
        log.appender() as one,
        log.appender() as other,
        log.appender() as third,
        log.reader(stored) as reader,
        log.backlog() as backlog,
    ):
        tasks = [asyncio.create_task(work()) for work in (apply, ask)]
        for n in range(5):
            await asyncio.gather(post(one, f"a{n}-"), post(other, f"b{n}-"), post(third, f"c{n}-"))
            asked = len(questions)
            await until(is_quiet)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    by_value = {delivery.value: delivery for delivery in deliveries}
    for clock, before, positions, answer in questions:
        known = expected([by_value[value] for value in acknowledged[:before]], positions)
        assert known is None or (answer is not None and answer <= known)
        assert answer is None or answer in firsts(deliveries, positions)
        if isinstance(log, DatabaseLog):  # Kafka shows a record some time after it was stamped
            oldest = expected(deliveries, positions)
            assert oldest is None or min(clock, answer or clock) <= oldest
    assert sum(answer is None for *_, answer in questions) > 5
    assert sum(answer is not None for *_, answer in questions) > 5


@pytest.mark.parametrize("kind", ["postgresql", "kafka"])
async def test_what_is_out_of_reach_is_told_within_five_seconds(kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    log: Log = (
        DatabaseLog(f"postgresql+asyncpg://nobody@{address}/none")
        if kind == "postgresql"
        else KafkaLog(address, "none")
    )
    backlog = log.new_backlog()
    began = time.perf_counter()
    with pytest.raises(LogUnavailableError):
        await backlog.oldest({})
    assert time.perf_counter() - began < 5
    await backlog.stop()
    await log.close()
