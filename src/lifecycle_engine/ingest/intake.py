"""Taking touchpoints in, whatever door they came through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from lifecycle_engine.ingest.arrays import BrokenArrayError, split_array
from lifecycle_engine.ingest.ids import uuid7
from lifecycle_engine.log.message import (
    InvalidMessageError,
    Stamp,
    Submission,
    find_id,
    read_submission,
    read_submissions,
)
from lifecycle_engine.log.port import Appender, Record

MAX_ITEMS = 10_000
"""Of one request."""
_MAX_BRACKETS = 1_000_000
_BRIEF_BYTES = 64 * 1024


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


class _Unreadable(NamedTuple):
    id: str | None
    error: InvalidMessageError


_Read = Submission | _Unreadable


class Intake:
    """Checks touchpoints and appends them; `clock` and `future_skew` are in microseconds."""

    def __init__(self, appender: Appender, clock: Callable[[], int], future_skew: int) -> None:
        self._appender = appender
        self._clock = clock
        self._future_skew = future_skew

    async def take_one(self, body: bytes, source: str) -> Item:
        """Takes a JSON object in. Raises LogUnavailableError when nothing was appended."""
        try:
            read: _Read = read_submission(body)
        except InvalidMessageError as error:
            read = _Unreadable(find_id(body), error)
        return (await self._take([read], source))[0]

    async def take_entry(self, submission: Submission, source: str) -> Item:
        """Takes an entry of a reserved type in, for a door that was made for it.

        Raises LogUnavailableError when nothing was appended.
        """
        return (await self._take([submission], source, reserved=True))[0]

    async def take_array(self, body: bytes, source: str) -> list[Item]:
        """Takes a JSON array in; each item stands for itself.

        Raises InvalidMessageError for what is no JSON array, or is too much; LogUnavailableError when nothing was
        appended.
        """
        try:
            read: Sequence[_Read] = read_submissions(body)
        except ValueError:
            # Something is wrong somewhere; to say what, and where, can take its time.
            is_brief = len(body) <= _BRIEF_BYTES
            read = _read_apart(body) if is_brief else await asyncio.to_thread(_read_apart, body)
        if len(read) > MAX_ITEMS:
            raise InvalidMessageError("too_large", f"the array has {len(read)} items; at most {MAX_ITEMS} are taken")
        return await self._take(read, source)

    async def _take(self, read: Iterable[_Read], source: str, *, reserved: bool = False) -> list[Item]:
        now = self._clock()
        stamp = Stamp(source, now, now + self._future_skew, reserved=reserved)
        items: list[Item] = []
        records: list[Record] = []
        appended: list[int] = []
        for submission in read:
            if isinstance(submission, _Unreadable):
                items.append(Item(submission.id, Status.REJECTED, submission.error))
                continue
            given = submission.id
            if given is None:
                submission.id = uuid7(now)
            try:
                records.append(stamp.record(submission))
            except InvalidMessageError as error:
                items.append(Item(given, Status.REJECTED, error))
            else:
                appended.append(len(items))
                items.append(Item(submission.id, Status.ACCEPTED, None))
        if records:
            outcomes = await self._appender.append(records)
            if not all(outcomes):
                for index, is_durable in zip(appended, outcomes, strict=True):
                    if not is_durable:
                        items[index] = items[index]._replace(status=Status.UNKNOWN)
        return items


def _read_apart(body: bytes) -> list[_Read]:
    if body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
        raise InvalidMessageError("too_large", f"the array has more than {_MAX_BRACKETS} objects and arrays in it")
    read: list[_Read] = []
    try:
        for raw in split_array(body):
            try:
                read.append(read_submission(raw))
            except InvalidMessageError as error:
                if error.code == "malformed":  # then where the others begin and end is a guess
                    raise InvalidMessageError("malformed", error.detail, f"/{len(read)}") from None
                read.append(_Unreadable(find_id(raw), error))
    except BrokenArrayError as error:
        raise InvalidMessageError("malformed", f"is not JSON: {error}") from None
    return read
