"""A customer's life as plain data, and how the fold takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import (
    BEGINNING,
    ActiveDefinition,
    Definition,
    compile_definition,
    retired,
)
from lifecycle_engine.lifecycle.fold import Definitions
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests import oracle
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
            ActiveDefinition(number, definition_of(document), BEGINNING if since is None else since)
            for since, number, document in versions
        )
        for key, versions in lifecycles.items()
    }


def definition_of(document: Mapping[str, Any]) -> Definition:
    """What a document of the oracle's compiles to."""
    plain = {name: value for name, value in document.items() if name != "retired"}
    definition = compile_definition(plain, Cel())
    return retired(definition) if oracle.is_retired(document) else definition


def in_order(facts: Iterable[Touchpoint]) -> list[Touchpoint]:
    """Each once, in the order of the fold."""
    return sorted({(each.source, each.id): each for each in facts}.values(), key=lambda each: each.place)
