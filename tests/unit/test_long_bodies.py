"""Bodies as long as they may be, and odd: they are read soon, and what takes long holds nobody up."""

from __future__ import annotations

import asyncio
import json

import pytest

from lifecycle_engine.ingest.formats.arrivals import Unreadable
from lifecycle_engine.ingest.formats.cloudevents import read_batch
from lifecycle_engine.ingest.formats.event_types import default_event_types
from lifecycle_engine.ingest.formats.lines import read_lines
from lifecycle_engine.log.message import InvalidMessageError
from tests.unit.stopwatch import at_most

MEBIBYTE = 1024 * 1024
TYPES = default_event_types()
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "visit", "subject": "ada"}


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b" \n"])
async def test_ten_mebibytes_of_blank_lines(line: bytes) -> None:
    body = line * (10 * MEBIBYTE // len(line))
    with at_most(0.2), pytest.raises(InvalidMessageError, match="blank ones included"):
        await read_lines(body)


async def test_blank_lines_between_others_are_none() -> None:
    body = b"\n \r\n".join([b'{"type":"visit","customer_id":"ada"}'] * 10_000)
    assert len(await read_lines(body)) == 10_000
    with pytest.raises(InvalidMessageError, match="more than 10000 items"):
        await read_lines(body + b"\n1")


async def test_an_event_of_a_million_attributes() -> None:
    body = b"[%b]" % json.dumps({**EVENT, **{f"a{number}": 1 for number in range(700_000)}}).encode()
    assert len(body) < 10 * MEBIBYTE
    with at_most(1.5):
        [arrival] = await read_batch(body, TYPES)
    assert isinstance(arrival, Unreadable)
    assert (arrival.id, arrival.error.code) == ("1", "too_many_values")


async def test_a_long_batch_of_events_holds_nobody_up() -> None:
    went_on = asyncio.create_task(asyncio.sleep(0))
    await read_batch(json.dumps([{**EVENT, "data": list(range(200))}] * 5_000).encode(), TYPES)
    assert went_on.done()
