"""How many dead letters are too many: a flood of them stops the consumer, and they stay in the log. Pure."""

from __future__ import annotations

LIMIT = 100
"""Dead letters that are set aside before the worker stops."""
GOOD_FOR_ONE = 10
"""Records that are applied and make up for one dead letter."""


class Flood:
    """A level that each dead letter raises by one, and each record that is applied lowers by a tenth, down to nothing.

    So now and then a dead letter stops nobody, however often that is; where more than one record in eleven is one, the
    limit is reached before long, and where all are, after as many as it says.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._level = 0.0

    @property
    def room(self) -> int:
        """How many more dead letters may be set aside now."""
        return max(0, int(self._limit - self._level))

    def count(self, applied: int, dead: int) -> None:
        """Takes note of records that were applied, and of others that were set aside."""
        self._level = max(0.0, self._level + dead - applied / GOOD_FOR_ONE)

    def forget(self) -> None:
        """Begins anew: somebody has looked at it."""
        self._level = 0.0


class FloodError(Exception):
    """There is no room for another dead letter; nothing has happened. `code` tells why it would have become one."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
