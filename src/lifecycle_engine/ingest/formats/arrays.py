"""A JSON array of touchpoints. Where something is wrong in it, each item stands for itself.

For that it is taken apart without decoding it, so that one that cannot be decoded does not spoil the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from lifecycle_engine.ingest.formats.arrivals import MAX_ITEMS, Arrival, Unreadable, apart, too_many
from lifecycle_engine.log.message import InvalidMessageError, find_id, read_submission, read_submissions

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_NEXT_AT_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_NEXT_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_SPACE = b" \t\n\r"
_MAX_BRACKETS = 1_000_000


class BrokenArrayError(ValueError):
    """What claims to be an array does not end as one."""


async def read_array(body: bytes) -> Sequence[Arrival]:
    """Raises InvalidMessageError for what is no JSON array, or is too much."""
    try:
        read: Sequence[Arrival] = read_submissions(body)
    except ValueError:
        # Something is wrong somewhere; to say what, and where, can take its time.
        read = await apart(_read_apart, body)
    if len(read) > MAX_ITEMS:
        raise too_many()
    return read


def read_items(body: bytes, read: Callable[[bytes], Arrival]) -> list[Arrival]:
    """Each item of an array, read for itself. Raises InvalidMessageError for what is no JSON array, or is too much."""
    check_brackets(body)
    items: list[Arrival] = []
    try:
        for raw in split_array(body):
            if len(items) == MAX_ITEMS:
                raise too_many()
            try:
                items.append(read(raw))
            except InvalidMessageError as error:
                if error.code == "malformed":  # then where the others begin and end is a guess
                    raise InvalidMessageError("malformed", error.detail, f"/{len(items)}") from None
                items.append(Unreadable(find_id(raw), error))
    except BrokenArrayError as error:
        raise InvalidMessageError("malformed", f"is not JSON: {error}") from None
    return items


def check_brackets(body: bytes) -> None:
    """Raises InvalidMessageError for a body that a decoder would make a hundred times as large."""
    if body.count(b"[") + body.count(b"{") > _MAX_BRACKETS:
        raise InvalidMessageError("too_large", f"the array has more than {_MAX_BRACKETS} objects and arrays in it")


def _read_apart(body: bytes) -> list[Arrival]:
    return read_items(body, read_submission)


def split_array(body: bytes) -> Iterator[bytes]:
    """The text of each item of a JSON array. Raises BrokenArrayError.

    Items are not looked into, and need not be JSON. However deep they are nested, no recursion follows them.
    """
    start = at = body.index(b"[") + 1
    depth = 0
    while bracket := (_NEXT_INSIDE if depth else _NEXT_AT_TOP).match(body, at):
        at = bracket.end()
        if bracket[1] in b"[{":
            depth += 1
        elif bracket[1] == b",":
            yield body[start : at - 1]
            start = at
        elif depth:
            depth -= 1
        else:
            last = body[start : at - 1]
            if bracket[1] == b"}" or body[at:].strip(_SPACE):
                break
            if last.strip(_SPACE) or body[start - 1 : start] == b",":
                yield last
            return
    raise BrokenArrayError(f"the array is broken at byte {at}")
