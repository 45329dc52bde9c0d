"""Who owns what, a second time: read anew from all the facts for each identity that is asked for.

A fact is a map with `id`, `source`, `type`, `occurred_at` (microseconds since the epoch), `customer_id` and
`anonymous_id` (each may be missing or None), `properties` and `context`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Fact = Mapping[str, Any]
Identity = tuple[str, str]
"""A kind, `customer_id` or `anonymous_id`, and a value."""

OF_NOBODY = ("$link", "$unlink", "$merge", "$unmerge", "$retract", "$erase")
"""What enters nobody's fold."""


def place_of(fact: Fact) -> tuple[int, bytes, bytes]:
    """Where a fact sorts among the others."""
    return fact["occurred_at"], fact["id"].encode(), fact["source"].encode()


def sorted_once(facts: Iterable[Fact]) -> list[Fact]:
    """Facts in the order of their places, each once."""
    return sorted({(fact["source"], fact["id"]): fact for fact in facts}.values(), key=place_of)


def accepted(facts: Iterable[Fact]) -> list[Fact]:
    """Facts in the order of their places, each once, without those that were retracted.

    A retraction that is retracted holds all the same.
    """
    once = sorted_once(facts)
    retracted = [
        (fact["properties"]["source"], fact["properties"]["id"]) for fact in once if fact["type"] == "$retract"
    ]
    return [fact for fact in once if (fact["source"], fact["id"]) not in retracted]


def owners(facts: Iterable[Fact]) -> Callable[[str | None, str | None], Identity]:
    """A function from the identities that a fact names, (customer_id, anonymous_id), to the customer they belong to.

    That is a `customer_id` that was merged into no other, or an `anonymous_id` that nobody owns.
    """
    counting = accepted(facts)
    edges = _edges(counting)

    def owner(customer_id: str | None, anonymous_id: str | None) -> Identity:
        if customer_id is None:
            assert anonymous_id is not None
            customer_id = _owner(counting, anonymous_id)
            if customer_id is None:
                return "anonymous_id", anonymous_id
        return "customer_id", _root(edges, customer_id)

    return owner


def customers(facts: Iterable[Fact]) -> dict[Identity, list[Fact]]:
    """The facts that enter each customer's fold, in their order. Who has none is missing."""
    counting = accepted(facts)
    owner = owners(counting)
    belonging: dict[Identity, list[Fact]] = {}
    for fact in counting:
        if fact["type"] not in OF_NOBODY:
            belonging.setdefault(owner(fact.get("customer_id"), fact.get("anonymous_id")), []).append(fact)
    return belonging


def _owner(facts: Sequence[Fact], anonymous_id: str) -> str | None:
    for fact in facts:
        if fact.get("anonymous_id") == anonymous_id and _is_counting_link(facts, fact):
            return str(fact["customer_id"])
    return None


def _is_counting_link(facts: Sequence[Fact], fact: Fact) -> bool:
    if fact.get("customer_id") is None or fact.get("anonymous_id") is None:
        return False
    if fact["type"].startswith("$") and fact["type"] not in ("$identify", "$link"):
        return False
    unlinks = [each for each in facts if each["type"] == "$unlink" and _pair(each) == _pair(fact)]
    return not unlinks or (fact["type"] == "$link" and place_of(fact) > place_of(unlinks[-1]))


def _pair(fact: Fact) -> tuple[Any, Any]:
    return fact.get("customer_id"), fact.get("anonymous_id")


def _edges(facts: Sequence[Fact]) -> dict[str, str]:
    last = {fact["customer_id"]: fact for fact in facts if fact["type"] in ("$merge", "$unmerge")}
    edges: dict[str, str] = {}
    for fact in sorted(last.values(), key=place_of):
        if fact["type"] == "$merge" and _root(edges, fact["properties"]["into"]) != fact["customer_id"]:
            edges[fact["customer_id"]] = fact["properties"]["into"]
    return edges


def _root(edges: Mapping[str, str], customer_id: str) -> str:
    while customer_id in edges:
        customer_id = edges[customer_id]
    return customer_id
