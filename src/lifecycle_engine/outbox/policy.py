"""What the queue goes by: the schedule, the breaker's limits, and how long a claim holds."""

from __future__ import annotations

from typing import NamedTuple

from lifecycle_engine.outbox.breaker import Limits
from lifecycle_engine.outbox.retry import SECOND, Schedule


class Policy(NamedTuple):
    """`deadline` bounds one exchange; a lease is longer by `margin`, so that nobody else sends meanwhile. Microseconds.

    An endpoint without a limit of its own has at most `at_a_time` attempts under way in one process. Attempts that are
    limited to a rate are claimed `ahead` of their instant.
    """

    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    deadline: int = 15 * SECOND
    margin: int = 8 * SECOND
    at_a_time: int = 32
    ahead: int = SECOND // 2

    @property
    def lease(self) -> int:
        """How long a claim holds."""
        return self.deadline + self.margin
