"""A process that lets time pass is killed in the middle, beside another one: each deadline fires once all the same."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.faults.deployment import KILLED, KILLING, running
from tests.processes import Service, settings_for, wait_until
from tests.record import Feed, message, record

SECOND = 1_000_000
CUSTOMERS = 400
SHOP = {
    "lifecycle": "shop",
    "initial": "visitor",
    "stages": [{"key": "visitor"}, {"key": "buyer"}, {"key": "lapsed"}],
    "rules": [
        {"on": "buy", "to": "buyer"},
        {"after": "1h", "without": "buy", "from": ["buyer"], "to": "lapsed"},
    ],
}
LAPSED = "SELECT customer, count(*) FROM change WHERE lifecycle = 'shop' AND sequence = 2 GROUP BY customer"
STAYS = "SELECT customer, count(*) FROM history WHERE lifecycle = 'shop' GROUP BY customer"


@pytest.mark.parametrize("point", ["W3", "W5"])
async def test_killed_while_time_passes(installed_postgres_url: str, tmp_path: Path, point: str) -> None:
    """It dies before or after the commit of its third batch; the deadlines come one by one, so both are at work."""
    settings = settings_for(installed_postgres_url)
    doomed = Service(["timers"], settings, tmp_path, program=[*KILLING, str(int(signal.SIGKILL)), point, "3"])
    rival = Service(["timers"], settings, tmp_path)
    async with record(installed_postgres_url, SHOP) as database:

        async def ask(query: str) -> dict[int, int]:
            async with database.transaction() as connection:
                return {customer: count for customer, count in await connection.execute(text(query))}

        async with running(rival, doomed):
            async with database.transaction() as connection:
                first = await database.clock(connection) + 2 * SECOND
            await Feed(database).apply(
                *(message(f"t{n}", "buy", first - 3600 * SECOND + n * 5_000, f"c{n}") for n in range(CUSTOMERS))
            )

            async def is_dead() -> bool:
                return not doomed.running

            async def all_have_lapsed() -> bool:
                return len(await ask(LAPSED)) == CUSTOMERS

            await wait_until(is_dead, "the process has killed itself")
            assert await doomed.wait() == KILLED
            await wait_until(all_have_lapsed, "every deadline has fired")
            assert await rival.stop() == 0
        assert Counter((await ask(LAPSED)).values()) == {1: CUSTOMERS}
        assert Counter((await ask(STAYS)).values()) == {2: CUSTOMERS}
        assert await ask("SELECT customer, sequence FROM change WHERE sequence NOT IN (1, 2)") == {}
        assert await ask("SELECT customer, at FROM wake") == {}
