"""What every format makes of a body: touchpoints in the order in which they stand in it, readable or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lifecycle_engine.log.message import InvalidMessageError, Submission

MAX_ITEMS = 10_000
"""Of one request."""
_BRIEF_BYTES = 64 * 1024


class Unreadable(NamedTuple):
    """Something in the place of a touchpoint; `id` is None where none could be read."""

    id: str | None
    error: InvalidMessageError


class Translated(NamedTuple):
    """A submission that was made of another format.

    `source` is None where the poster's key says it. `sent_at` is when it was sent by the poster's clock, in
    microseconds since the epoch; None where what that clock says of the touchpoint counts as it is. `reserved`: the
    format has a word for an entry of a reserved type. `names` says what a field of the submission is called in the
    format.
    """

    submission: Submission
    source: str | None
    sent_at: int | None
    reserved: bool
    names: Mapping[str, str]

    def named(self, error: InvalidMessageError) -> InvalidMessageError:
        """The error with its pointer in the words of the format."""
        _, field, *rest = error.pointer.split("/") if error.pointer else ("", "")
        if field not in self.names:
            return error
        return InvalidMessageError(error.code, error.detail, "/".join(["", self.names[field], *rest]))


Arrival = Submission | Translated | Unreadable


def too_many() -> InvalidMessageError:
    """For a body that has more than `MAX_ITEMS`; nobody counts how many, since that alone could take long."""
    return InvalidMessageError("too_large", f"there are more than {MAX_ITEMS} items; send them in several requests")


async def apart(read: Callable[[bytes], Sequence[Arrival]], body: bytes) -> Sequence[Arrival]:
    """What a slow, exact reading makes of a body in which something is wrong; a long one holds nobody up."""
    return read(body) if len(body) <= _BRIEF_BYTES else await asyncio.to_thread(read, body)
