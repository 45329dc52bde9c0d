"""Real purchases through the real program: shuffled and partly repeated, they end in the answers that the file gives.

What must come out is computed here from the file, with nothing of the engine or the example. The feed is posted by the
example's client, to processes of their own.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from examples.cdnow.client import ASKING, Client, each
from examples.cdnow.purchases import Touchpoint, read_purchases
from tests.processes import Service, settings_for, wait_until
from tools.services import KafkaCluster, free_port

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "cdnow" / "cdnow.csv.gz"
DAYS = ("1997-03-31", "1997-12-31", "1998-06-30")
TABLE = {
    ("1997-03-31", "purchase"): 18_504,
    ("1997-03-31", "retention"): 5_066,
    ("1997-12-31", "purchase"): 12_926,
    ("1997-12-31", "retention"): 10_644,
    ("1998-06-30", "purchase"): 11_908,
    ("1998-06-30", "retention"): 11_662,
}
"""What the example's README says, too."""
SEED = 1997

LATEST = """
SELECT stage, count(*) FROM (
    SELECT stage, row_number() OVER (PARTITION BY customer ORDER BY at DESC, touchpoint DESC) AS place
    FROM history
    WHERE lifecycle = 'five-stages' AND move <> 'refused' AND superseded_at IS NULL AND at <= :as_of
) AS latest
WHERE place = 1 GROUP BY stage
"""
STAYS = """
SELECT customer.value, stage, at, origin, move, skipped, touchpoint
FROM history JOIN customer ON customer.id = history.customer
WHERE superseded_at IS NULL
"""
SEQUENCES = """
SELECT customer.value, sequence
FROM change JOIN customer ON customer.id = change.customer
WHERE type = 'stage.changed' ORDER BY change.id
"""
REPEATED = "SELECT id, duplicates, conflicts FROM touchpoint"
TAKEN = "SELECT count(*) + coalesce(sum(duplicates), 0) FROM touchpoint"


class Stay(NamedTuple):
    customer_id: str
    stage: str
    at: int
    origin: str | None
    move: str
    skipped: str
    touchpoint: str


class Purchases:
    """The file, read by itself: each customer's purchases, as (day, number of the row), in their order."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[str, int]]] = defaultdict(list)
        with gzip.open(DATA, "rt", newline="") as file:
            for number, row in enumerate(csv.reader(file)):
                if number > 0:
                    self._of[row[0]].append((row[1], number))
        for purchases in self._of.values():
            purchases.sort()

    @property
    def customers(self) -> list[str]:
        return list(self._of)

    def count(self, customer_id: str, day: str = DAYS[-1]) -> int:
        """How many until the end of the day."""
        return sum(bought <= day for bought, _ in self._of[customer_id])

    def stage(self, customer_id: str, day: str) -> str | None:
        """At the end of the day."""
        count = self.count(customer_id, day)
        return None if count == 0 else "purchase" if count == 1 else "retention"

    def table(self) -> Counter[tuple[str, str | None]]:
        return Counter((day, self.stage(customer, day)) for customer in self._of for day in DAYS)

    def stays(self) -> set[Stay]:
        stays = set()
        for customer, (first, *later) in self._of.items():
            begun = (_midnight(first[0]), None, "start", "awareness consideration", f"cdnow-{first[1]:06}")
            stays.add(Stay(customer, "purchase", *begun))
            if later:
                kept = (_midnight(later[0][0]), "purchase", "advance", "", f"cdnow-{later[0][1]:06}")
                stays.add(Stay(customer, "retention", *kept))
        return stays


def _midnight(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def purchases() -> Purchases:
    return Purchases()


def test_the_table_of_the_readme_is_what_the_file_says(purchases: Purchases) -> None:
    assert purchases.table() == TABLE
    readme = DATA.with_name("README.md").read_text(encoding="utf-8")
    for stage in ("purchase", "retention"):
        assert f"| {stage} | {' | '.join(f'{TABLE[day, stage]:,}' for day in DAYS)} |" in readme


async def test_in_one_process_on_sqlite(installed_sqlite_url: str, tmp_path: Path, purchases: Purchases) -> None:
    """And then the example posts all once more, which changes nothing, and shows the table."""
    settings = settings_for(installed_sqlite_url)
    async with Service(["api", "worker"], settings, tmp_path) as service:
        sent = await _check_feed(service, installed_sqlite_url, purchases)
        key = service.settings["LIFECYCLE_API_KEY"]
        run = await _run_example("--base", service.url, "--key", key, "--sample", "200")
        assert run.code == 0, run.output
        assert "69,659 purchases of 23,570 customers" in run.output
        assert "Stages of 200 customers" in run.output
        refused = await _run_example("--base", service.url, "--key", "not-the-key-of-this-service")
        assert refused.code == 1
        assert "key was refused" in refused.output, refused.output
    engine = create_async_engine(installed_sqlite_url)
    try:
        await _check_record(engine, purchases, sent + Counter(sent.keys()))
    finally:
        await engine.dispose()


async def test_in_a_process_for_each_role_on_kafka_and_postgresql(
    installed_postgres_url: str, kafka: KafkaCluster, topic: str, tmp_path: Path, purchases: Purchases
) -> None:
    settings = settings_for(installed_postgres_url, kafka.bootstrap_servers, topic)
    async with Service(["api"], settings, tmp_path) as api, Service(["worker"], settings, tmp_path):
        await _check_feed(api, installed_postgres_url, purchases)


async def _check_feed(service: Service, database_url: str, purchases: Purchases) -> Counter[str]:
    """Gives how often each touchpoint was sent."""
    feed, sent = _shuffled_feed()
    engine = create_async_engine(database_url)
    try:
        async with service.client() as http:
            client = Client(http)
            await client.check()
            await client.post(feed, lambda _: None)

            async def all_taken() -> bool:
                await asyncio.sleep(0.5)  # it reads all of a table
                return bool((await _query(engine, TAKEN))[0][0] == len(feed))

            await wait_until(all_taken, f"{len(feed)} touchpoints are applied or counted as duplicates", 120)
            await _check_record(engine, purchases, sent)
            sequences = await _check_sequences(engine, purchases)
            await _check_answers(http, client, purchases, sequences, sent)
    finally:
        await engine.dispose()
    return sent


def _shuffled_feed() -> tuple[list[Touchpoint], Counter[str]]:
    """All purchases in no order, a tenth of them again; and how often each id is in it."""
    touchpoints = read_purchases()
    lot = random.Random(SEED)
    feed = touchpoints + lot.choices(touchpoints, k=len(touchpoints) // 10)
    lot.shuffle(feed)
    return feed, Counter(touchpoint["id"] for touchpoint in feed)


async def _check_record(engine: AsyncEngine, purchases: Purchases, sent: Counter[str]) -> None:
    """The whole record: the table, every stay, every duplicate, nothing set aside and nobody told."""
    expected = purchases.table()
    for day in DAYS:
        counted = {stage: n for stage, n in await _query(engine, LATEST, as_of=_midnight(day) + 86_400_000_000 - 1)}
        assert counted == {stage: n for (at, stage), n in expected.items() if at == day}
    recorded = [Stay(*row) for row in await _query(engine, STAYS)]
    assert len(recorded) == len(set(recorded)) == 35_232
    assert set(recorded) == purchases.stays()
    repeated = {id_: (duplicates, conflicts) for id_, duplicates, conflicts in await _query(engine, REPEATED)}
    assert repeated == {id_: (times - 1, 0) for id_, times in sent.items()}
    assert await _query(engine, "SELECT reason FROM dead_letter") == []
    assert await _query(engine, "SELECT count(*) FROM change WHERE NOT muted") == [(0,)]


async def _check_sequences(engine: AsyncEngine, purchases: Purchases) -> dict[str, int]:
    """Each journey's changes are numbered 1, 2, 3 … in the order of the feed; gives the last number of each."""
    sequences: dict[str, list[int]] = defaultdict(list)
    for customer_id, sequence in await _query(engine, SEQUENCES):
        sequences[customer_id].append(sequence)
    assert sequences.keys() == set(purchases.customers)
    assert [numbers for numbers in sequences.values() if numbers != list(range(1, len(numbers) + 1))] == []
    return {customer_id: numbers[-1] for customer_id, numbers in sequences.items()}


async def _check_answers(
    http: httpx.AsyncClient, client: Client, purchases: Purchases, sequences: Mapping[str, int], sent: Counter[str]
) -> None:
    """The same over HTTP, for customers and touchpoints chosen by lot."""
    lot = random.Random(SEED)

    async def ask(customer_id: str) -> None:
        for day in DAYS:
            stage = await client.stage(customer_id, f"{day}T23:59:59.999999Z")
            assert stage == purchases.stage(customer_id, day), (customer_id, day)
        customer = await _get(http, f"/v1/customers/{customer_id}")
        (journey,) = customer["journeys"]
        assert journey["sequence"] == sequences[customer_id], customer_id
        assert journey["measures"]["purchases"] == purchases.count(customer_id), customer_id

    async def ask_for_receipt(id_: str) -> None:
        receipt = await _get(http, f"/v1/touchpoints/{id_}")
        assert receipt["status"] in ("applied", "late"), receipt
        assert (receipt["duplicates"], receipt["conflicts"]) == (sent[id_] - 1, 0), receipt

    repeated = sorted(id_ for id_, times in sent.items() if times > 1)
    ids = lot.sample(repeated, 100) + lot.sample(sorted(sent), 100)
    await each(ask, lot.sample(purchases.customers, 300), ASKING)
    await each(ask_for_receipt, ids, ASKING)


async def _get(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _query(engine: AsyncEngine, statement: str, **parameters: Any) -> list[Any]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(statement), parameters)]


class Run(NamedTuple):
    code: int
    output: str


async def _run_example(*arguments: str) -> Run:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.cdnow", *arguments),
        cwd=ROOT,
        env={**environment, "COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, output.decode())


async def test_the_example_says_what_is_missing() -> None:
    nobody = await _run_example("--base", f"http://127.0.0.1:{free_port()}", "--key", "any")
    assert nobody.code == 1
    assert "nothing answers at" in nobody.output
    without_key = await _run_example()
    assert without_key.code == 2
    assert "LIFECYCLE_API_KEY" in without_key.output
