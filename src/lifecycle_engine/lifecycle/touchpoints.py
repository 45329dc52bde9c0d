"""A touchpoint: one immutable fact about a customer, as the fold sees it; and the facts that are not touchpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

RESERVED = "$"
"""What the types of facts begin with that are not touchpoints."""
IDENTIFY = "$identify"
"""`properties.traits`: what is known of the customer from this instant on; null takes a trait away."""
OVERRIDE = "$override"
"""`properties`: lifecycle, subject, stage, expires_at (RFC 3339, or none), reason, actor."""
LINK = "$link"
"""The anonymous_id belongs to the customer_id."""
UNLINK = "$unlink"
"""The anonymous_id counts as never linked to the customer_id, until an operator links it again."""
MERGE = "$merge"
"""The customer_id goes into the customer_id `properties.into`."""
UNMERGE = "$unmerge"
"""The customer_id is a customer of its own again."""
RETRACT = "$retract"
"""The fact of `properties.source` and `properties.id` counts as never accepted."""


def is_folded(type_: str) -> bool:
    """Whether facts of this type enter the fold; the others only decide which facts do."""
    return type_[0] != RESERVED or type_ in (IDENTIFY, OVERRIDE)


class Place(NamedTuple):
    """Where a fact stands among a customer's facts; places compare in the order of the fold.

    Python compares text by code point, which is the order of its UTF-8 bytes.
    """

    occurred_at: int
    id: str
    source: str


class Touchpoint(NamedTuple):
    """One fact. `occurred_at` is in microseconds since the epoch, UTC; `properties` and `context` are JSON objects."""

    id: str
    source: str
    type: str
    occurred_at: int
    customer_id: str | None
    anonymous_id: str | None
    properties: Mapping[str, Any]
    context: Mapping[str, Any]

    @property
    def place(self) -> Place:
        return Place(self.occurred_at, self.id, self.source)
