"""What a role is made of: parts that run until they are told to stop, and say how they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

Check = Callable[[], Awaitable[bool | str]]
"""Whether one thing that the process needs is there now; a text says why it is not."""


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


class Figure(NamedTuple):
    """One counter or gauge: its name, what it counts, its labels, and its values by the values of these."""

    name: str
    description: str
    labels: tuple[str, ...]
    values: Mapping[Any, float]
    kind: Literal["counter", "gauge"] = "counter"


class Histogram(NamedTuple):
    """How values are spread: its name, what it measures, how many are within each bound, and the sum of all."""

    name: str
    description: str
    buckets: Sequence[tuple[str, float]]
    total: float


Gather = Callable[[], Iterable[Figure | Histogram]]
"""Reads figures, at once and without waiting for anything."""
