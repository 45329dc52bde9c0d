"""Taking touchpoints in, whatever door and whatever format they came through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from lifecycle_engine.ingest.formats.arrivals import Arrival, Translated, Unreadable
from lifecycle_engine.ingest.ids import uuid7
from lifecycle_engine.log.message import InvalidMessageError, Stamp, Submission
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

    async def take(self, arrivals: Iterable[Arrival], source: str, *, whole: bool = False) -> list[Item]:
        """Takes in what arrived, each for itself; `whole`: all of it, or nothing where something is rejected.

        `source` is the name of the poster's key. Raises LogUnavailableError when nothing was appended.
        """
        items, records, appended = self._checked(arrivals, source)
        if not records or (whole and len(records) < len(items)):
            return items
        outcomes = await self._appender.append(records)
        if not all(outcomes):
            for index, is_durable in zip(appended, outcomes, strict=True):
                if not is_durable:
                    items[index] = items[index]._replace(status=Status.UNKNOWN)
        return items

    def check(self, arrivals: Sequence[Arrival], source: str) -> list[Item]:
        """What `take` would answer if the log took everything; nothing is taken, and no id is made up."""
        given = [arrival.submission.id if isinstance(arrival, Translated) else arrival.id for arrival in arrivals]
        items = self._checked(arrivals, source)[0]
        return [item._replace(id=id_) for item, id_ in zip(items, given, strict=True)]

    def _checked(self, arrivals: Iterable[Arrival], source: str) -> tuple[list[Item], list[Record], list[int]]:
        """The answers, as if everything that can be taken were; the records; and to which answers they belong."""
        now = self._clock()
        stamps = _Stamps(source, now, now + self._future_skew)
        stamp = stamps.of(None, reserved=False)
        items: list[Item] = []
        records: list[Record] = []
        appended: list[int] = []
        for arrival in arrivals:
            if isinstance(arrival, Unreadable):
                items.append(Item(arrival.id, Status.REJECTED, arrival.error))
                continue
            submission = arrival if isinstance(arrival, Submission) else arrival.submission
            given = submission.id
            if given is None:
                submission.id = uuid7(now)
            try:
                if isinstance(arrival, Translated):
                    made = stamps.of(arrival.source, reserved=arrival.reserved).record(submission, arrival.sent_at)
                else:
                    made = stamp.record(submission)
            except InvalidMessageError as error:
                told = arrival.named(error) if isinstance(arrival, Translated) else error
                items.append(Item(given, Status.REJECTED, told))
            else:
                records.append(made)
                appended.append(len(items))
                items.append(Item(submission.id, Status.ACCEPTED, None))
        return items, records, appended


class _Stamps:
    """One for each source that is named in a request."""

    def __init__(self, source: str, received_at: int, latest: int) -> None:
        self._source = source
        self._received_at = received_at
        self._latest = latest
        self._made: dict[tuple[str | None, bool], Stamp] = {}

    def of(self, source: str | None, *, reserved: bool) -> Stamp:
        if (made := self._made.get((source, reserved))) is None:
            named = self._source if source is None else source
            made = Stamp(named, self._received_at, self._latest, reserved=reserved)
            self._made[source, reserved] = made
        return made
