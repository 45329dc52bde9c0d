"""Touchpoint types that look like another type of the same definition, misspelt."""

from __future__ import annotations

from collections.abc import Iterator

from lifecycle_engine.lifecycle.checks.findings import Findings
from lifecycle_engine.lifecycle.definitions import Definition

SHORTEST = 5
"""Shorter types are alike by chance."""
MOST = 500
"""Among more types nobody looks for what was meant."""


def check(definition: Definition, findings: Findings) -> None:
    """Finds types that are named once, and are one letter away from one that is named elsewhere."""
    named: dict[str, list[str]] = {}
    for pointer, types in _named(definition):
        for type_ in sorted(types):
            named.setdefault(type_, []).append(pointer)
    if len(named) > MOST:
        return
    alike: dict[str, list[str]] = {}
    for type_ in named:
        if len(type_) >= SHORTEST:
            for spelling in {type_, *(type_[:place] + type_[place + 1 :] for place in range(len(type_)))}:
                alike.setdefault(spelling, []).append(type_)
    # What is named more often is right; else what is named first.
    order = {type_: (-len(pointers), place) for place, (type_, pointers) in enumerate(named.items())}
    told: set[frozenset[str]] = set()
    for group in alike.values():
        for type_ in group:
            better = [other for other in group if order[other] < order[type_] and not _is_numbered(other, type_)]
            if len(named[type_]) == 1 and better and (pair := frozenset((type_, better[0]))) not in told:
                told.add(pair)
                message = f"the type {type_!r} is named only here, and looks like {better[0]!r}"
                findings.warning(named[type_][0], message, f"did you mean {better[0]!r}?")


def _named(definition: Definition) -> Iterator[tuple[str, frozenset[str]]]:
    """Every place that names types, in an order in which the likelier ones come first."""
    for rule in definition.rules:
        if rule.types:
            yield f"/rules/{rule.index}/on", rule.types
    if definition.opens:
        yield "/opens", definition.opens
    for measure in definition.measures:
        if measure.types:
            field = "count" if measure.kind == "count" else "of"
            yield f"/measures/{measure.name}/{field}", measure.types
    for rule, timer in definition.timers:
        if timer.without:
            yield f"/rules/{rule.index}/without", timer.without


def _is_numbered(one: str, other: str) -> bool:
    """Whether they differ only in digits, as `step_1` and `step_2` do."""
    return _without_digits(one) == _without_digits(other)


def _without_digits(text: str) -> str:
    return "".join(letter for letter in text if not letter.isdigit())
