"""What the service asks of its log. `tests/contract` holds both adapters to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol


class Record(NamedTuple):
    """What is appended: the identity that decides the order (`customer_id:42`), and the message."""

    key: bytes
    value: bytes


class Delivery(NamedTuple):
    """One record read back. `position` grows within its partition; `appended_at` is in microseconds since the epoch.

    `follows` is where the partition was read on from: mostly `position`, but others' transactions leave gaps.
    """

    partition: int
    follows: int
    position: int
    appended_at: int
    key: bytes | None
    value: bytes | None


class LogUnavailableError(Exception):
    """The log took nothing: it is out of reach, or too many appends are waiting already. Nothing was appended."""


class LostRecordsError(Exception):
    """The log no longer has the records at the stored position (retention ran past it, or the log was replaced)."""


class LogStalledError(Exception):
    """The log grows and nothing comes any more, without any other sign: only a new process helps."""


Positions = Callable[[Sequence[int]], Awaitable[Mapping[int, int]]]
"""Gives the stored next position of each of these partitions; one that was never stored is left out."""


class Appender(Protocol):
    """The way in. One for each process."""

    async def start(self) -> None:
        """Connects in the background: returns at once, also while the log is out of reach."""

    async def append(self, records: Sequence[Record]) -> list[bool]:
        """For each record, True once it is durable, False where that is unknown after the deadline (send it again).

        Never takes longer than the deadline (5 s). Raises LogUnavailableError when nothing was appended.
        """

    async def ready(self) -> bool:
        """Whether an append would be taken now. Never takes longer than 1 s."""

    async def ends(self) -> dict[int, int]:
        """Partition -> the position after its last record. Raises LogUnavailableError within 5 s."""

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Partition -> its first position and the one after its last record, which are the same where it is empty.

        Raises LogUnavailableError within 5 s.
        """

    async def reached(self) -> Mapping[int, int]:
        """Partition -> a position after all of its records that `append` has told to be durable.

        Raises LogUnavailableError within 5 s.
        """

    async def stop(self) -> None:
        """Flushes what is in flight, for at most 5 s. Never raises."""


class Reader(Protocol):
    """The way out, for one worker process. Records of one partition come in order, each partition in one lane.

    A lane is read by one task. The stored positions decide where reading begins, each time that a partition is
    assigned to this reader; the reader keeps no position of its own beyond what it has handed out.
    """

    lanes: int

    async def start(self) -> None:
        """Begins to read. Raises LogUnavailableError when the log is out of reach for 30 s."""

    async def read(self, lane: int, limit: int, wait: float) -> list[Delivery]:
        """At most `limit` records of the lane's partitions; empty when `wait` seconds brought none.

        Raises LostRecordsError, LogStalledError, and what `Positions` raised.
        """

    def rewind(self, partition: int, position: int) -> None:
        """Hands out the partition's records from `position` on again (a batch that was rolled back).

        Nothing happens where the partition is no longer assigned to this reader.
        """

    async def reload(self, partitions: Sequence[int]) -> None:
        """Asks the stored positions anew and goes on from there (another worker has been faster)."""

    async def applied(self, positions: Mapping[int, int]) -> None:
        """Tells the log how far the effects are committed, for lag figures only. Never raises, never waits long."""

    async def lag(self) -> int:
        """Records appended to the assigned partitions and not yet handed out. Raises LogUnavailableError within 5 s."""

    async def stop(self) -> None:
        """Leaves the group and closes, within 5 s. Never raises."""


class Backlog(Protocol):
    """What is appended and not applied yet, for a process that must not run ahead of it. Connects when first asked."""

    async def oldest(self, positions: Mapping[int, int]) -> int | None:
        """When the oldest record at or after these positions was appended; None where there is none.

        In microseconds since the epoch, as `Delivery.appended_at`: of each partition the first record at or after its
        position counts, and of those the earliest. A partition that `positions` leaves out, or whose position the log
        does not have, counts from its first record.

        Whatever was appended before the call is seen, also in a partition that is new. So whoever first reads the clock
        and then asks knows that each record that was appended before that reading and is not applied is at or after the
        answer, and that there is none where the answer is None.

        Appended means that readers can see it, which is before the appender says so. Kafka stamps a record a little
        earlier, by its own machine's clock: one that was not acknowledged yet can be missed though its `appended_at` is
        before the reading, and whoever must not miss it keeps that far behind the clock. The log in the database has no
        such gap: what is not seen has an `appended_at` after any reading of the database's clock before the call.

        Raises LogUnavailableError within 5 s.
        """

    async def stop(self) -> None:
        """Closes what it has opened, within 5 s. Never raises. Nothing is asked afterwards."""
