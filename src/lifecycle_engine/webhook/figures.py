"""What a dispatcher has done since it began."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds."""


class Latencies:
    """How many took how long, as a histogram has it."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> Iterator[tuple[str, int]]:
        """How many took no longer than each bound."""
        sum_ = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            sum_ += count
            yield bound, sum_


@dataclass
class Done:
    """`attempts` by outcome (succeeded, failed, ours: not the receiver's fault), `deliveries` by what became of them.

    `first_attempts` are the seconds from a change's commit to when its first attempt began.
    """

    attempts: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    first_attempts: Latencies = field(default_factory=Latencies)
