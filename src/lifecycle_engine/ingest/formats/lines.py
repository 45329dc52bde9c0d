"""Newline-delimited JSON: a touchpoint a line, each for itself; blank lines are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from lifecycle_engine.ingest.formats.arrivals import MAX_ITEMS, Arrival, Unreadable, apart, too_many
from lifecycle_engine.log.message import InvalidMessageError, find_id, read_submission

MEDIA_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_LINE = re.compile(rb"\S[^\n]*")
"""One that is not blank."""


async def read_lines(body: bytes) -> Sequence[Arrival]:
    """Raises InvalidMessageError where there are too many."""
    if body.count(b"\n") >= MAX_ITEMS and sum(1 for _ in islice(_LINE.finditer(body), MAX_ITEMS + 1)) > MAX_ITEMS:
        raise too_many()
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
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
