"""Pages: how long they are, and where the next one begins.

A cursor is opaque: a digest of what was asked for, and the position of the last item. So it goes on with the question
that it came from, and is refused by any other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, Field

DEFAULT_LIMIT = 50
MAX_LIMIT = 250

Limit = Annotated[
    int,
    Field(ge=1, description=f"How many items at most; more than {MAX_LIMIT} counts as {MAX_LIMIT}."),
    AfterValidator(lambda limit: min(limit, MAX_LIMIT)),
]
Cursor = Annotated[
    str,
    Field(
        max_length=4096, description="The `next_cursor` of the page before; all else that is asked must be the same."
    ),
]

Item = TypeVar("Item")
Position = TypeVar("Position")


class Page(BaseModel, Generic[Item]):
    """A part of a list. `next_cursor` is null at its end."""

    items: list[Item]
    next_cursor: str | None = Field(description="Ask with `cursor=` this for what follows; null at the end.")


class CursorError(ValueError):
    """A cursor that was not given out for this question."""


def encode_cursor(question: Iterable[Any], position: tuple[Any, ...]) -> str:
    """The cursor that goes on with a question after a position; both are made of text, numbers and None."""
    data = _digest(question) + msgspec.msgpack.encode(position)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_cursor(cursor: str, question: Iterable[Any], position: type[Position]) -> Position:
    """The position in a cursor. Raises CursorError."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if data[:_DIGEST_BYTES] != _digest(question):
            raise CursorError("the cursor belongs to another question: send it with the same path and parameters")
        decoded = msgspec.msgpack.decode(data[_DIGEST_BYTES:], type=position)
    except (binascii.Error, UnicodeError, msgspec.DecodeError, ValueError) as error:
        if isinstance(error, CursorError):
            raise
        raise CursorError("the cursor is none that was given out") from None
    for value in decoded if isinstance(decoded, tuple) else ():
        if (isinstance(value, str) and "\0" in value) or (isinstance(value, int) and not -_WORD <= value < _WORD):
            raise CursorError("the cursor is none that was given out")
    return decoded


_DIGEST_BYTES = 8
_WORD = 1 << 63


def _digest(question: Iterable[Any]) -> bytes:
    return blake2b(msgspec.msgpack.encode(list(question)), digest_size=_DIGEST_BYTES).digest()
