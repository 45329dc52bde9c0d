"""Newline-delimited JSON: a touchpoint a line, each for itself; blank lines are none."""

from __future__ import annotations

from collections.abc import Sequence

from lifecycle_engine.ingest.formats.arrivals import MAX_ITEMS, Arrival, Unreadable, apart, too_many
from lifecycle_engine.log.message import InvalidMessageError, find_id, read_submission

MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_MAX_LINES = 10 * MAX_ITEMS
"""Of one body, blank ones included: taking millions of those apart, only to leave them out, would take a second."""


async def read_lines(body: bytes) -> Sequence[Arrival]:
    """Raises InvalidMessageError where there are too many."""
    if body.count(b"\n") > _MAX_LINES:
        detail = f"there are more than {_MAX_LINES} lines, blank ones included; send them in several requests"
        raise InvalidMessageError("too_large", detail)
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    if len(lines) > MAX_ITEMS:
        raise too_many()
    try:
        return [read_submission(line) for line in lines]
    except InvalidMessageError:
        return await apart(_read_apart, body)


def _read_apart(body: bytes) -> list[Arrival]:
    read: list[Arrival] = []
    for line in body.split(b"\n"):
        if not line or line.isspace():
            continue
        try:
            read.append(read_submission(line))
        except InvalidMessageError as error:
            read.append(Unreadable(find_id(line), error))
    return read
