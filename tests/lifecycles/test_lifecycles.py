"""The worked customers of the built-in lifecycles, played by fold and oracle; and what a first start finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.schema import FIRST_LIFECYCLE, migrate, upgrade
from lifecycle_engine.store.database import Database
from tests import oracle
from tests.conformance.examples import Refusal, Stay
from tests.conformance.test_fold import arrived, definitions, told
from tests.lifecycles.customers import CUSTOMERS
from tests.lives import in_order
from tests.service import service

A_CENTURY = 36_525 * 86_400_000_000


@pytest.mark.parametrize("later", [0, A_CENTURY], ids=["now", "later"])
@pytest.mark.parametrize("key", CUSTOMERS)
def test_oracle(key: str, later: int) -> None:
    """Also a century later: whoever plays a worked customer through a service does so at an hour of their own."""
    case = CUSTOMERS[key]
    facts = [dict(fact, source="test", context={}) for fact in case.touchpoints]
    passages = oracle.replay(case.definition, facts, case.now + later)
    stays = {subject: tuple(Stay(*stay[:7]) for stay in passage.stays) for (_, subject), passage in passages.items()}
    refusals = [
        Refusal(refusal.at, refusal.rule, refusal.to, refusal.reason)
        for passage in passages.values()
        for refusal in passage.refusals
        if refusal.rule is not None  # nobody overrides here
    ]
    assert (stays, tuple(refusals)) == (case.journeys, case.refusals)


@pytest.mark.parametrize("later", [0, A_CENTURY], ids=["now", "later"])
@pytest.mark.parametrize("key", CUSTOMERS)
def test_fold(key: str, later: int) -> None:
    case = CUSTOMERS[key]
    events: list[Event] = []
    fold(definitions(case), in_order(arrived(case, 0)), tell=events.append, until=case.now + later)
    assert told(events) == (case.journeys, case.refusals)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database that has never been migrated."""
    url = str(request.getfixturevalue(f"{request.param}_url"))
    database = Database(url, by_key_only=not url.startswith("sqlite"))
    yield database
    await database.close()


async def active_versions(client: httpx.AsyncClient) -> dict[str, int | None]:
    listed = await client.get("/v1/lifecycles")
    assert listed.status_code == 200, listed.text
    assert all(lifecycle["newest_version"] == 1 for lifecycle in listed.json()["items"])
    return {lifecycle["lifecycle"]: lifecycle["active_version"] for lifecycle in listed.json()["items"]}


async def test_a_first_start_finds_all_and_one_active(database: Database) -> None:
    await migrate(database)
    async with service(database) as client:
        first = await active_versions(client)
        assert first == {key: 1 if key == FIRST_LIFECYCLE else None for key in builtin_documents()}
        for key, document in builtin_documents().items():
            version = (await client.get(f"/v1/lifecycles/{key}/versions/1")).json()
            assert (version["document"], version["media_type"]) == (document, "application/yaml")
        activated = await client.post("/v1/lifecycles/cart/activate", json={"version": 1})
        assert activated.status_code == 202, activated.text
        await migrate(database)
        assert await active_versions(client) == {**first, "cart": 1}, "another start changes nothing"


async def test_a_key_in_use_stays_its_owners(database: Database) -> None:
    """A database from before the built-in lifecycles gets those whose keys nobody has taken, none of them active."""
    own = "lifecycle: cart\ninitial: a\nstages: [{key: a}]\n"
    async with database.transaction() as connection:
        await connection.run_sync(upgrade)
    async with service(database) as client:
        await client.post("/v1/lifecycles", content=own, headers={"Content-Type": "application/yaml"})
        await migrate(database)
        assert await active_versions(client) == dict.fromkeys(builtin_documents())
        assert (await client.get("/v1/lifecycles/cart/versions/1")).json()["document"] == own
