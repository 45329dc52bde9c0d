"""An answer goes out in one piece, and nothing that was written is lost or held for long."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle_engine.api.door.transport import MOST, Gathered


class Sent(asyncio.Transport):
    """A transport that notes what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said.append(bytes(data))

    def write_eof(self) -> None:
        self.said.append("end of what is written")

    def close(self) -> None:
        self.said.append("closed")

    def abort(self) -> None:
        self.said.append("aborted")


@pytest.fixture
async def sent() -> Sent:
    return Sent()


async def test_what_is_written_in_one_turn_is_sent_together(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"head")
    gathered.write(b"body")
    assert sent.said == []
    await asyncio.sleep(0)
    assert sent.said == [b"headbody"]
    gathered.write(b"more")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sent.said == [b"headbody", b"more"]


async def test_what_is_written_comes_before_the_end(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"answer")
    gathered.write_eof()
    gathered.write(b"late")
    gathered.close()
    await asyncio.sleep(0)
    assert sent.said == [b"answer", "end of what is written", b"late", "closed"]


async def test_what_is_aborted_is_sent_no_more(sent: Sent) -> None:
    gathered = Gathered(sent, asyncio.get_running_loop())
    gathered.write(b"answer")
    gathered.abort()
    await asyncio.sleep(0)
    assert sent.said == ["aborted"]


async def test_much_is_not_held_back(sent: Sent) -> None:
    """Else whoever writes without end would never be told to wait."""
    gathered = Gathered(sent, asyncio.get_running_loop())
    for _ in range(4):
        gathered.write(b"x" * (MOST // 2))
    assert [len(piece) for piece in sent.said] == [MOST + MOST // 2]
    await asyncio.sleep(0)
    assert sum(map(len, sent.said)) == 2 * MOST
