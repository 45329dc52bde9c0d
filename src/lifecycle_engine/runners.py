"""What a role is made of: parts that run until they are told to stop."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Runner(Protocol):
    """One part of a role."""

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, and then ends by itself, having finished what it was doing."""


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Waits, but no longer than until `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
