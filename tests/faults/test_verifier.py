"""The verifier itself: it finds what is wrong, whatever it is, where somebody has meddled with a good result."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.faults.deployment import Deployment
from tests.faults.journal import Record, read_journal
from tests.faults.verifier import verify
from tests.processes import API_KEY, Service, migrate, settings_for


class Meddling(NamedTuple):
    """Statements that spoil a result, those that mend it again, and the kinds of findings that must come of it."""

    spoil: str
    mend: str
    kinds: set[str]


MEDDLINGS = {
    "a touchpoint gone": Meddling(
        "CREATE TABLE kept AS SELECT * FROM touchpoint ORDER BY id LIMIT 1; "
        "DELETE FROM touchpoint WHERE id IN (SELECT id FROM kept)",
        "INSERT INTO touchpoint SELECT * FROM kept; DROP TABLE kept",
        {"lost"},
    ),
    "a touchpoint that nobody sent": Meddling(
        "CREATE TABLE kept AS SELECT * FROM touchpoint ORDER BY id LIMIT 1; UPDATE kept SET id = 'never sent'; "
        "INSERT INTO touchpoint SELECT * FROM kept",
        "DELETE FROM touchpoint WHERE id = 'never sent'; DROP TABLE kept",
        {"phantom"},
    ),
    "a touchpoint with another content": Meddling(
        "UPDATE touchpoint SET type = type || '!' WHERE type = 'buy'",
        "UPDATE touchpoint SET type = 'buy' WHERE type = 'buy!'",
        {"phantom"},
    ),
    "a duplicate too many": Meddling(
        "UPDATE touchpoint SET duplicates = duplicates + 100",
        "UPDATE touchpoint SET duplicates = duplicates - 100",
        {"miscounted"},
    ),
    "a stay twice": Meddling(
        "CREATE TABLE kept AS SELECT * FROM history WHERE lifecycle = 'ladder' AND move != 'refused' "
        "AND superseded_at IS NULL LIMIT 1; UPDATE kept SET number = -1; INSERT INTO history SELECT * FROM kept",
        "DELETE FROM history WHERE number = -1; DROP TABLE kept",
        {"duplicate"},
    ),
    "another stage": Meddling(
        "UPDATE history SET stage = 'known!' WHERE stage = 'known'",
        "UPDATE history SET stage = 'known' WHERE stage = 'known!'",
        {"diverged"},
    ),
    "a refusal gone": Meddling(
        "UPDATE history SET superseded_at = -1 WHERE move = 'refused' AND superseded_at IS NULL",
        "UPDATE history SET superseded_at = NULL WHERE superseded_at = -1",
        {"diverged"},
    ),
    "a number left out": Meddling(
        "UPDATE change SET sequence = sequence + 1000 WHERE sequence = 3",
        "UPDATE change SET sequence = 3 WHERE sequence = 1003",
        {"sequence_gap"},
    ),
    "a number given twice": Meddling(
        "CREATE TABLE kept AS SELECT id FROM change WHERE sequence = 3; "
        "UPDATE change SET sequence = 2 WHERE id IN (SELECT id FROM kept)",
        "UPDATE change SET sequence = 3 WHERE id IN (SELECT id FROM kept); DROP TABLE kept",
        {"duplicate", "sequence_gap"},
    ),
    "a change that nobody was told of": Meddling(
        "CREATE TABLE kept AS SELECT * FROM change WHERE type = 'history.corrected' AND lifecycle = 'lines'; "
        "DELETE FROM change WHERE id IN (SELECT id FROM kept)",
        "INSERT INTO change SELECT * FROM kept; DROP TABLE kept",
        {"diverged"},
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def record(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Record]:
    """The journal of a run that went well, whose service still runs."""
    directory = tmp_path_factory.mktemp("verified")
    settings = settings_for(f"sqlite+aiosqlite:///{directory / 'lifecycle.db'}")
    await migrate(settings, directory)
    async with Service(["api", "worker"], settings, directory) as service:
        async with Deployment(service, settings, directory).driven(least=600, customers=15) as drive:
            await drive.verify()
            record = read_journal(drive.journal)
            assert record is not None
            yield record


@pytest.mark.parametrize("name", MEDDLINGS)
async def test_it_finds(record: Record, name: str) -> None:
    spoil, mend, kinds = MEDDLINGS[name]
    meddle(record, spoil)
    try:
        report = await verify(record, API_KEY)
    finally:
        meddle(record, mend)
    assert report.findings().keys() == kinds


def meddle(record: Record, statements: str) -> None:
    connection = sqlite3.connect(Path(record.target.database_url.partition("///")[2]), timeout=10)
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {statements}; COMMIT")
    finally:
        connection.close()
