"""Pages: how long they are, and where the next one begins.

A cursor is opaque: a digest of what was asked for, and where the page ended. So it goes on with the question that it
came from, and is refused by any other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lifecycle_engine.api.problems import ProblemError

DEFAULT_LIMIT = 50
MAX_LIMIT = 250

Limit = Annotated[
    int,
    Field(ge=1, description=f"How many items at most; more than {MAX_LIMIT} counts as {MAX_LIMIT}."),
    AfterValidator(lambda limit: min(limit, MAX_LIMIT)),
]
Cursor = Annotated[
    Annotated[str, Field(max_length=4096)] | None,
    Field(description="The `next_cursor` of the page before; all else must be asked as there."),
]


class PageQuestion(BaseModel):
    """Which part of a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = DEFAULT_LIMIT
    cursor: Cursor = None


Item = TypeVar("Item")
Found = TypeVar("Found")
AnyPage = TypeVar("AnyPage", bound="Page[Any]")
Position = TypeVar("Position", bound=tuple[Any, ...])


class Page(BaseModel, Generic[Item]):
    """A part of a list. What is answered is a subclass, for the sake of its name."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` to get what follows; null at the end.")


def page_of(
    page: type[AnyPage],
    found: Sequence[Found],
    limit: int,
    question: Iterable[Any],
    position: Callable[[Found], tuple[Any, ...]],
    item: Callable[[Found], BaseModel],
) -> AnyPage:
    """A page of what was found where one more than `limit` was looked for.

    The question is made of plain values; a position of text and numbers.
    """
    shown = found[:limit]
    cursor = encode_cursor(question, position(shown[-1])) if len(found) > limit else None
    return page(items=[item(one) for one in shown], next_cursor=cursor)


def encode_cursor(question: Iterable[Any], position: tuple[Any, ...]) -> str:
    """The cursor that goes on with a question after a position."""
    return base64.urlsafe_b64encode(_digest(question) + msgspec.msgpack.encode(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str, question: Iterable[Any], position: type[Position]) -> Position:
    """The position in a cursor. Raises ProblemError 400."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        decoded: Position = msgspec.msgpack.decode(data[_DIGEST_BYTES:], type=position)
    except ValueError:
        raise invalid_cursor("was not given out by this service") from None
    if data[:_DIGEST_BYTES] != _digest(question):
        raise invalid_cursor("belongs to another question; send it with the path and the parameters that it came from")
    if not all(_is_storable(value) for value in decoded):
        raise invalid_cursor("was not given out by this service")
    return decoded


def invalid_cursor(detail: str) -> ProblemError:
    return ProblemError(400, "invalid_cursor", f"the cursor {detail}")


_DIGEST_BYTES = 8


def _digest(question: Iterable[Any]) -> bytes:
    return blake2b(msgspec.msgpack.encode(list(question)), digest_size=_DIGEST_BYTES).digest()


def _is_storable(value: Any) -> bool:
    """Whether a database takes the value."""
    return -(1 << 63) <= value < 1 << 63 if isinstance(value, int) else "\0" not in value
