"""A customer's life as plain data, and how the fold takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import BEGINNING, ActiveDefinition, compile_definition
from lifecycle_engine.lifecycle.fold import Definitions
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.oracle import Version


class Life(NamedTuple):
    """The lifecycles by key, each with its versions; one customer's facts, in no order, each once; the last instant of
    all, in microseconds since the epoch, which is not before any fact."""

    lifecycles: Mapping[str, Sequence[Version]]
    facts: tuple[Touchpoint, ...]
    now: int


def compiled(lifecycles: Mapping[str, Sequence[Version]]) -> Definitions:
    return {
        key: tuple(
            ActiveDefinition(number, compile_definition(document, Cel()), BEGINNING if since is None else since)
            for since, number, document in versions
        )
        for key, versions in lifecycles.items()
    }


def in_order(facts: Iterable[Touchpoint]) -> list[Touchpoint]:
    """Each once, in the order of the fold."""
    return sorted({(each.source, each.id): each for each in facts}.values(), key=lambda each: each.place)
