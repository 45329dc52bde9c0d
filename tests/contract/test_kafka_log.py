"""What only Kafka can do: rebalance, and break in ways of its own."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from lifecycle_engine.log.kafka.backlog import _LOOK_MS
from lifecycle_engine.log.port import Delivery, LogStalledError, LogUnavailableError, Reader, Record
from tests.contract.logs import KafkaLog, Stored, append, by_key, by_key_as_sent, drain, nothing_more, records, until
from tools.services import Kafka, KafkaCluster, free_port


@pytest.fixture
def log(kafka: KafkaCluster, topic: str) -> KafkaLog:
    return KafkaLog(kafka.bootstrap_servers, topic)


@pytest.fixture
def broker(services_directory: Path) -> Iterator[Kafka]:
    """A broker of this test's own, to be broken."""
    directory = services_directory / f"broken-{time.monotonic_ns()}"
    directory.mkdir()
    with Kafka(directory) as started:
        yield started


def process_at(address: str) -> psutil.Process:
    """Who listens there."""
    port = int(address.rpartition(":")[2])
    return next(
        process
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    )


async def in_thread(call: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, call)


async def test_a_missing_topic_is_created_as_safe_as_it_can_be(kafka: KafkaCluster) -> None:
    log = KafkaLog(kafka.bootstrap_servers, f"created-{time.monotonic_ns()}", partitions=3)
    async with log.appender() as appender, log.reader(Stored()) as reader:
        await appender.append(records(30))
        assert set(await appender.ends()) == {0, 1, 2}
        await drain(reader, 30)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, log.topic)])
        settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["cleanup.policy"] == "delete"
    assert settings["retention.ms"] == "604800000"


@pytest.mark.parametrize(
    ("key", "hash_"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
async def test_the_key_decides_the_partition_as_in_other_clients(log: KafkaLog, key: bytes, hash_: int) -> None:
    """The hashes are those of Kafka's own tests of its murmur2."""
    async with log.appender() as appender, log.reader(Stored()) as reader:
        await appender.append([Record(key, b"")])
        (delivery,) = await drain(reader, 1)
    assert delivery.partition == (hash_ & 0x7FFFFFFF) % 4


class Worker:
    """A worker process in small: applies what it reads, in a store that all workers share."""

    def __init__(self, stored: Stored, applied: list[Delivery]) -> None:
        self.partitions: set[int] = set()
        self._stored = stored
        self._applied = applied

    async def positions(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return await self._stored(partitions)

    async def run(self, reader: Reader, lane: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            deliveries = await reader.read(lane, 50, 0.2)
            if not deliveries:
                continue
            await asyncio.sleep(random.random() * 0.01)
            first = {delivery.partition: delivery.position for delivery in reversed(deliveries)}
            if any(self._stored.get(partition, 0) != position for partition, position in first.items()):
                await reader.reload(list(first))  # another one has been here
                continue
            self.partitions |= set(first)
            self._stored.apply(deliveries)
            self._applied += deliveries
            await reader.applied({delivery.partition: delivery.position + 1 for delivery in deliveries})


async def test_workers_that_come_and_go_lose_and_repeat_nothing(log: KafkaLog) -> None:
    stored = Stored()
    applied: list[Delivery] = []
    sent = records(6000, keys=100)
    workers: list[Worker] = []

    async def work(stop: asyncio.Event) -> None:
        worker = Worker(stored, applied)
        workers.append(worker)
        async with log.reader(worker.positions) as reader, asyncio.TaskGroup() as lanes:
            for lane in range(reader.lanes):
                lanes.create_task(worker.run(reader, lane, stop))

    async def post() -> None:
        for start in range(0, 6000, 50):
            await append(appender, sent[start : start + 50])
            await asyncio.sleep(0.05)

    async with log.appender() as appender, asyncio.timeout(60):
        posting = asyncio.create_task(post())
        stops = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(work(stops[0]))]
        for stop in stops[1:]:
            await asyncio.sleep(1)
            tasks.append(asyncio.create_task(work(stop)))
        await asyncio.sleep(1)
        stops[0].set()
        await tasks[0]
        stops[2].set()
        await tasks[2]
        await posting
        await until(lambda: _is(len(applied) == 6000))
        for stop in stops:
            stop.set()
        await asyncio.gather(*tasks)
    assert by_key(applied) == by_key_as_sent(sent)
    assert sum(bool(worker.partitions) for worker in workers) >= 3


async def _is(value: bool) -> bool:
    return value


async def test_two_workers_share_the_partitions_and_both_lanes_of_each(log: KafkaLog) -> None:
    async with log.appender() as appender, log.reader(Stored()) as one, log.reader(Stored()) as other:
        await asyncio.sleep(2)
        await append(appender, records(400, keys=100))
        got = {
            (name, lane): await reader.read(lane, 500, 5)
            for name, reader in (("one", one), ("other", other))
            for lane in (0, 1)
        }
    assert all(got.values())
    shares = [{delivery.partition for delivery in deliveries} for deliveries in got.values()]
    assert sorted(partition for share in shares for partition in share) == [0, 1, 2, 3]


async def test_a_worker_that_is_frozen_past_its_session_is_no_danger(log: KafkaLog) -> None:
    """Its partitions go to another; what it then tries to apply is refused by the position."""
    stored = Stored()
    applied: list[Delivery] = []
    async with log.appender() as appender:
        await append(appender, records(400, keys=100))
    async with log.reader(stored) as frozen:
        while not (held := await frozen.read(0, 1, 5)):
            pass
        consumer = frozen._consumer  # type: ignore[attr-defined]
        await consumer._coordinator._stop_heartbeat_task()
        other = Worker(stored, applied)
        stop = asyncio.Event()
        async with log.reader(other.positions) as reader, asyncio.TaskGroup() as lanes:
            for lane in range(reader.lanes):
                lanes.create_task(other.run(reader, lane, stop))
            await until(lambda: _is(len(applied) == 400), 40)
            stop.set()
    with pytest.raises(AssertionError, match="handed out twice"):
        stored.apply(held)


async def test_a_broker_that_is_killed_costs_nothing_that_was_acknowledged(broker: Kafka) -> None:
    log = KafkaLog(broker.bootstrap_servers, "killed")
    durable: list[bytes] = []
    waits: list[float] = []

    async def post(task: int) -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            record = Record(b"customer_id:%d" % task, b"%d-%d" % (task, n))
            while True:
                began = time.perf_counter()
                try:
                    (outcome,) = await appender.append([record])
                except LogUnavailableError:
                    outcome = False
                waits.append(time.perf_counter() - began)
                if outcome:
                    durable.append(record.value)
                    break
                await asyncio.sleep(0.02)

    stop = asyncio.Event()
    stored = Stored()
    async with log.appender() as appender, log.reader(stored) as reader:
        posting = [asyncio.create_task(post(task)) for task in range(20)]
        await asyncio.sleep(1)
        before = len(durable)
        assert before > 0
        await in_thread(broker.kill)
        await asyncio.sleep(6)
        assert not await appender.ready()
        with pytest.raises(LogUnavailableError):
            await appender.ends()
        began = time.perf_counter()
        with pytest.raises(LogUnavailableError):
            await appender.append(records(5))
        assert time.perf_counter() - began < 5
        await in_thread(broker.start)
        await until(appender.ready, 20)
        target = before + 200
        await until(lambda: _is(len(durable) > target), 20)
        stop.set()
        await asyncio.gather(*posting)
        assert max(waits) < 5
        total = sum((await appender.ends()).values())
        got = await drain(reader, total, seconds=60)
    values = [delivery.value for delivery in got]
    assert set(durable) <= set(values)
    # What was unknown may have arrived besides, and the order of what was acknowledged stands.
    for task in range(20):
        mine = [value for value in dict.fromkeys(values) if value and value.startswith(b"%d-" % task)]
        assert mine == [b"%d-%d" % (task, n) for n in range(len(mine))]


async def test_a_frozen_broker_is_told_within_five_seconds_and_forgiven(broker: Kafka) -> None:
    log = KafkaLog(broker.bootstrap_servers, "frozen")
    async with log.appender() as appender:
        await appender.append(records(100))
        frozen = process_at(broker.bootstrap_servers)
        frozen.suspend()
        try:
            for _ in range(3):
                began = time.perf_counter()
                try:
                    assert await appender.append(records(10)) == [False] * 10
                except LogUnavailableError:
                    pass
                assert time.perf_counter() - began < 5
                began = time.perf_counter()
                assert not await appender.ready()
                assert time.perf_counter() - began < 1.1
        finally:
            frozen.resume()
        await until(appender.ready, 20)
        await until(lambda: _appends(appender), 20)


async def _appends(appender: object) -> bool:
    try:
        return await appender.append(records(3)) == [True] * 3  # type: ignore[attr-defined,no-any-return]
    except LogUnavailableError:
        return False


async def test_stopping_is_bounded_when_the_broker_is_gone(broker: Kafka) -> None:
    log = KafkaLog(broker.bootstrap_servers, "gone")
    appender, reader = log.new_appender(), log.new_reader(Stored())
    await appender.start()
    await until(appender.ready)
    await reader.start()
    await appender.append(records(10))
    await drain(reader, 10)
    await in_thread(broker.kill)
    appending = asyncio.create_task(appender.append(records(10)))
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    await appender.stop()
    assert time.perf_counter() - began < 5.5
    assert await appending == [False] * 10
    began = time.perf_counter()
    await reader.stop()
    assert time.perf_counter() - began < 5.5


async def test_starting_does_not_wait_for_a_broker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    log = KafkaLog(f"127.0.0.1:{free_port()}", "nowhere")
    appender = log.new_appender()
    began = time.perf_counter()
    await appender.start()
    assert time.perf_counter() - began < 0.1
    assert not await appender.ready()
    with pytest.raises(LogUnavailableError):
        await appender.append(records(1))
    with pytest.raises(LogUnavailableError):
        await appender.ends()
    await appender.stop()


async def test_a_wedged_producer_is_replaced(kafka: KafkaCluster) -> None:
    """A record that the broker refuses leaves each later batch of its partition out of order."""
    log = KafkaLog(kafka.bootstrap_servers, f"wedged-{time.monotonic_ns()}", partitions=1)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(log.topic, 1, 1, topic_configs={"max.message.bytes": "20000"})])
    await admin.close()
    async with log.appender() as appender:
        assert await appender.append(records(5)) == [True] * 5
        noise = random.Random(3).randbytes(100_000)
        assert await appender.append([Record(b"customer_id:1", noise)]) == [False]
        began = time.perf_counter()
        assert await appender.append(records(5)) == [True] * 5
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("how", ["ended", "cancelled"])
async def test_a_producer_whose_inner_task_is_gone_is_replaced(log: KafkaLog, how: str) -> None:
    async with log.appender() as appender:
        assert await appender.append(records(5)) == [True] * 5
        producer = appender._connection.producer  # type: ignore[attr-defined]
        if how == "cancelled":
            producer._sender.sender_task.cancel()
        else:
            producer._message_accumulator.drain_by_nodes = None
            await appender.append(records(1))
        assert await appender.append(records(50)) == [True] * 50


async def test_a_reader_to_which_nothing_comes_while_the_log_grows_fails(log: KafkaLog) -> None:
    async with log.appender() as appender, log.reader(Stored(), stalled_after=1.5) as reader:
        await appender.append(records(100))
        await drain(reader, 100)
        await asyncio.sleep(3)
        await nothing_more(reader)  # an idle log is none that stalls
        reader._consumer._fetcher._fetch_task.cancel()  # type: ignore[attr-defined]
        for _ in range(2):  # what was on its way may still come
            await appender.append(records(100))
            await asyncio.sleep(0.5)
        with pytest.raises(LogStalledError):
            await drain(reader, 200)


async def test_the_committed_offsets_follow_for_lag_figures(log: KafkaLog) -> None:
    async with log.appender() as appender, log.reader(Stored()) as reader:
        await appender.append(records(200, keys=50))
        got = await drain(reader, 200)
        upto = {delivery.partition: delivery.position + 1 for delivery in got}
        await reader.applied(upto)
        consumer = AIOKafkaConsumer(bootstrap_servers=log.bootstrap_servers, group_id=f"group-{log.topic}")
        await consumer.start()
        consumer.assign([TopicPartition(log.topic, partition) for partition in upto])

        async def committed() -> bool:
            found = {p: await consumer.committed(TopicPartition(log.topic, p)) for p in upto}
            return found == upto

        try:
            await until(committed, 10)
        finally:
            await consumer.stop()


async def test_marks_of_transactions_are_no_backlog(log: KafkaLog) -> None:
    async with log.backlog() as backlog:
        producer = AIOKafkaProducer(bootstrap_servers=log.bootstrap_servers, transactional_id=log.topic)
        await producer.start()
        try:
            for how in (producer.commit_transaction, producer.abort_transaction):
                await producer.begin_transaction()
                sent = await producer.send_and_wait(log.topic, b"", partition=1)
                await how()
                # The reader hands out what was aborted, too.
                assert await backlog.oldest({1: sent.offset}) == sent.timestamp * 1000
                assert await backlog.oldest({1: sent.offset + 1}) is None
                began = time.perf_counter()
                for _ in range(50):
                    assert await backlog.oldest({1: sent.offset + 1}) is None
                assert (time.perf_counter() - began) / 50 < _LOOK_MS / 1000  # it is known, and no more looked at
            await producer.begin_transaction()
            last = await producer.send_and_wait(log.topic, b"", partition=1)
            assert await backlog.oldest({1: sent.offset + 1}) == last.timestamp * 1000
            await producer.abort_transaction()
        finally:
            await producer.stop()


@pytest.mark.parametrize("topic", [1], indirect=True)
async def test_what_retention_has_removed_is_no_backlog(log: KafkaLog) -> None:
    log.partitions = 1
    async with log.appender() as appender, log.backlog() as backlog:
        await append(appender, records(50))
        assert await backlog.oldest({}) is not None
        await log.remove_before(50)
        assert await backlog.oldest({}) is None
        assert await backlog.oldest({0: 20}) is None
        await append(appender, records(1))
        assert await backlog.oldest({0: 20}) == await backlog.oldest({0: 50}) is not None
        assert await backlog.oldest({0: 51}) is None


async def test_records_in_a_new_partition_are_seen_at_once(log: KafkaLog) -> None:
    async with log.backlog() as backlog:
        assert await backlog.oldest({}) is None
        admin = AIOKafkaAdminClient(bootstrap_servers=log.bootstrap_servers)
        await admin.start()
        try:
            await admin.create_partitions({log.topic: NewPartitions(6)})
        finally:
            await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=log.bootstrap_servers) as producer:
            sent = await producer.send_and_wait(log.topic, b"", partition=5)
        assert await backlog.oldest({}) == sent.timestamp * 1000
        assert await backlog.oldest({5: sent.offset + 1}) is None


async def test_large_batches_in_many_partitions_are_seen_in_one_question(log: KafkaLog) -> None:
    noise = random.Random(5)
    async with log.appender() as appender, log.backlog() as backlog, log.reader(Stored()) as reader:
        await append(appender, [Record(b"%d" % n, noise.randbytes(700_000)) for n in range(20)])
        got = await drain(reader, 20)
        firsts = {delivery.partition: delivery.appended_at for delivery in reversed(got)}
        assert len(firsts) == 4
        assert await backlog.oldest({}) == min(firsts.values())


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_backlog_that_is_not_told_is_out_of_reach_until_the_broker_is_back(broker: Kafka, how: str) -> None:
    log = KafkaLog(broker.bootstrap_servers, how)
    async with log.appender() as appender:
        await append(appender, records(10))
    async with log.backlog() as backlog, log.backlog() as stranger, log.backlog() as stopped:
        oldest = await backlog.oldest({})
        assert oldest is not None
        assert await stopped.oldest({}) == oldest
        process = process_at(broker.bootstrap_servers)
        await in_thread(broker.kill if how == "killed" else process.suspend)
        try:
            for asked in (backlog, backlog, stranger):
                began = time.perf_counter()
                with pytest.raises(LogUnavailableError):
                    await asked.oldest({})
                assert time.perf_counter() - began < 5
            began = time.perf_counter()
            await stopped.stop()
            assert time.perf_counter() - began < 5
        finally:
            await in_thread(broker.start if how == "killed" else process.resume)

        async def is_told() -> bool:
            try:
                return await backlog.oldest({}) == await stranger.oldest({}) == oldest
            except LogUnavailableError:
                return False

        await until(is_told, 20)


async def test_a_backlog_whose_consumer_brings_nothing_gets_another(log: KafkaLog) -> None:
    async with log.appender() as appender, log.backlog() as backlog:
        await append(appender, records(10))
        oldest = await backlog.oldest({})
        assert oldest is not None
        backlog._consumer._fetcher._fetch_task.cancel()  # type: ignore[attr-defined]
        with pytest.raises(LogUnavailableError):
            await backlog.oldest({})
        assert await backlog.oldest({}) == oldest
