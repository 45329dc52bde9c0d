"""What was set aside can be looked at and sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lifecycle_engine.log.database import DatabaseAppender
from lifecycle_engine.log.port import Record
from tests.integration.whole import Whole, whole

SHOP = {"lifecycle": "shop", "initial": "visitor", "stages": [{"key": "visitor"}], "rules": []}
NAMED = {"id": "t1", "source": "crm", "type": "visit", "received_at": "2026-03-01T00:00:00Z"}


@pytest.fixture(params=["sqlite", "postgresql"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Whole]:
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    async with whole(url, SHOP) as started:
        yield started


async def append(running: Whole, *values: bytes) -> None:
    appender = DatabaseAppender(running.database, asyncio.Event())
    await appender.start()
    try:
        for value in values:
            assert await appender.append([Record(b"customer_id:42", value)]) == [True]
    finally:
        await appender.stop()


async def letters(running: Whole, count: int, **wanted: Any) -> list[dict[str, Any]]:
    """All of them, page by page, once there are so many."""
    for _ in range(1000):
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next_cursor": None}
        while not found or page["next_cursor"]:
            more = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
            page = await running.get("/v1/dead-letters", limit=2, **wanted, **more)
            found += page["items"]
            if not page["items"]:
                break
        if len(found) == count:
            return found
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{len(found)} dead letters, and not {count}")


async def test_what_was_set_aside_is_listed_with_its_reason(running: Whole) -> None:
    nul = json.dumps({**NAMED, "id": "a\0b"}).encode()
    rubbish = [b"\xff rubbish", b"{", json.dumps(NAMED).encode(), b'{"id":"t2","source":"crm"}', nul, b""]
    await append(running, *rubbish)
    await running.post("fine", "visit", 1, customer_id="42")
    found = await letters(running, len(rubbish))
    assert [(one["code"], one["source"], one["id"]) for one in reversed(found)] == [
        ("malformed", None, None),
        ("malformed", None, None),
        ("no_customer", "crm", "t1"),
        ("missing_field", "crm", "t2"),
        ("invalid_character", "crm", None),
        ("malformed", None, None),
    ]
    assert all(one["reason"] and one["recorded_at"] for one in found)
    assert [one["id"] for one in await letters(running, 1, code="no_customer")] == ["t1"]
    assert len(await letters(running, 1, source="crm", id="t2")) == 1
    assert await letters(running, 0, code="nothing") == []
    assert (found[3]["key"], found[3]["value"]) == ("customer_id:42", json.dumps(NAMED))
    assert found[-1]["value"] == "\\xff rubbish"
    receipt = await running.get("/v1/touchpoints/t1", source="crm")
    assert (receipt["status"], receipt["problem"]["code"]) == ("dead_letter", "no_customer")


async def test_what_is_mended_takes_effect_when_it_is_sent_again(
    running: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program's own, which goes away."""
    from lifecycle_engine.engine import batch

    async def broken(*_: Any) -> None:
        raise RuntimeError("it cannot be")

    with monkeypatch.context() as patch:
        patch.setattr(batch, "add_touchpoints", broken)
        await running.client.post("/v1/touchpoints", json={"id": "t1", "type": "visit", "customer_id": "42"})
        (letter,) = await letters(running, 1)
    assert (letter["code"], letter["reason"]) == ("cannot_be_processed", "it cannot be")
    assert (letter["source"], letter["id"]) == ("default", "t1")
    assert (await running.get("/v1/touchpoints/t1"))["status"] == "dead_letter"
    resend = f"/v1/dead-letters/{letter['partition']}/{letter['position']}/resend"
    for _ in range(2):
        await running.ask("POST", resend, 202)
    receipt = await running.until("/v1/touchpoints/t1", "duplicates", 1)
    assert (receipt["status"], receipt["conflicts"]) == ("applied", 0)
