"""A JSON array taken apart without decoding it, so that an item that cannot be decoded stands for itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_NEXT_AT_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
_NEXT_INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[\]{}])", re.DOTALL)
_SPACE = b" \t\n\r"


class BrokenArrayError(ValueError):
    """What claims to be an array does not end as one."""


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
