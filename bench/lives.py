"""The life of one customer, and the built-in lifecycles that it is folded under: what `steps` and `refolds` measure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, islice
from typing import Any

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions
from lifecycle_engine.lifecycle.instants import parse_instant
from lifecycle_engine.lifecycle.touchpoints import Touchpoint

LIFECYCLES = ("five-stages", "loyalty")
"""One whose rules look at the touchpoint and a count; one with a rolling window, conditions and a timer."""
HOUR = 3_600_000_000
DAY = 24 * HOUR
START = parse_instant("2024-01-01T00:00:00Z")
"""So early that no touchpoint of a life of 10,000 hours lies ahead of the clock."""
_CYCLE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("product_view", {"page": "/p/12345"}),
    ("purchase", {"amount": 20.0}),
    ("points_earned", {"points": 3}),
    ("review", {"rating": 5}),
    ("purchase", {"amount": 12.5}),
    ("points_earned", {"points": 2}),
    ("review", {"rating": 1}),
)
"""Most have a rule with a guard in either lifecycle."""


def document(lifecycle: str) -> dict[str, Any]:
    """The plain data of a built-in definition."""
    data: dict[str, Any] = read_document(builtin_documents()[lifecycle], "application/yaml").data
    return data


def definitions(lifecycle: str) -> Definitions:
    """A built-in lifecycle, alone."""
    return {lifecycle: (ActiveDefinition(1, compile_definition(document(lifecycle), Cel())),)}


def life(touchpoints: int, every: int) -> list[Touchpoint]:
    """A customer who joins the loyalty programme and goes on at a steady pace, `every` so many microseconds."""
    found = (("loyalty_joined", {}) if n == 0 else _CYCLE[n % len(_CYCLE)] for n in count())
    return [
        Touchpoint(f"t{n:05}", "bench", type_, START + n * every, "c", None, dict(properties), {})
        for n, (type_, properties) in enumerate(islice(found, touchpoints))
    ]
