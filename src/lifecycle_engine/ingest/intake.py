"""Taking touchpoints in, whatever door they came through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from lifecycle_engine.ingest.ids import uuid7
from lifecycle_engine.log.message import InvalidMessageError, Stamp, read_submission
from lifecycle_engine.log.port import Appender, Record


class Status(StrEnum):
    """What became of one touchpoint."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Item(NamedTuple):
    """The answer for one touchpoint. `id` is None where it could not be read; `error` is set on the rejected ones."""

    id: str | None
    status: Status
    error: InvalidMessageError | None


class Intake:
    """Checks touchpoints and appends them; `clock` and `future_skew` are in microseconds."""

    def __init__(self, appender: Appender, clock: Callable[[], int], future_skew: int) -> None:
        self._appender = appender
        self._clock = clock
        self._future_skew = future_skew

    async def take(self, raws: Sequence[bytes], source: str) -> list[Item]:
        """Takes JSON objects in; each stands for itself. Raises LogUnavailableError when nothing was appended."""
        now = self._clock()
        stamp = Stamp(source, now, now + self._future_skew)
        items: list[Item] = []
        records: list[Record] = []
        accepted: list[int] = []
        for raw in raws:
            id_ = None
            try:
                submission = read_submission(raw)
                if submission.id is None:
                    submission.id = uuid7(now)
                id_ = submission.id
                records.append(stamp.record(submission))
            except InvalidMessageError as error:
                items.append(Item(id_, Status.REJECTED, error))
            else:
                accepted.append(len(items))
                items.append(Item(id_, Status.ACCEPTED, None))
        if records:
            for index, is_durable in zip(accepted, await self._appender.append(records), strict=True):
                if not is_durable:
                    items[index] = items[index]._replace(status=Status.UNKNOWN)
        return items
