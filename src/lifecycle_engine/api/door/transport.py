"""What is written to a connection in one turn of the loop, sent in one piece.

uvicorn writes the head of an answer and its body apart. Each write is a system call and a packet of its own, which cost
both sides more than the answer to a touchpoint does.
"""

from __future__ import annotations

import asyncio
from typing import Any

MOST = 64 * 1024
"""Bytes that are held back at most, so that whoever writes without end is told to wait as soon as before."""


class Gathered(asyncio.Transport):
    """A connection's transport, whose writes go out at the end of the loop's turn, or once there are `MOST` bytes."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes | bytearray | memoryview] = []
        self._bytes = 0
        self._is_lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_lost:
            return
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > MOST:
            self.flush()

    def flush(self) -> None:
        """Sends what is held back."""
        if self._held:
            data, self._held, self._bytes = b"".join(self._held), [], 0
            self._transport.write(data)

    def lose(self) -> None:
        """The connection is no more, and what is written goes nowhere; uvloop's transport would raise RuntimeError."""
        self._held, self._bytes, self._is_lost = [], 0, True

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._held, self._bytes = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
