"""Who belongs to whom, as a pure function of the facts: links, unlinks, merges and unmerges, in any order.

docs/identity.md gives the rules with examples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from lifecycle_engine.lifecycle.touchpoints import IDENTIFY, LINK, RESERVED, UNLINK, Place
from lifecycle_engine.store.ownership import LinkFact


def is_link(type_: str) -> bool:
    """Whether a fact of this type that names an anonymous id beside a customer_id links them."""
    return type_[0] != RESERVED or type_ in (IDENTIFY, LINK)


def linked_to(facts: Iterable[LinkFact]) -> dict[str, int]:
    """Anonymous id -> the row of the customer_id that it belongs to: that of its earliest link that counts.

    After the last unlink of a pair only an operator's link of that pair counts. Ids that nobody owns are left out.
    """
    pairs: dict[tuple[str, int], list[LinkFact]] = defaultdict(list)
    for fact in facts:
        pairs[fact.anonymous_id, fact.customer].append(fact)
    first: dict[str, tuple[Place, int]] = {}
    for (anonymous_id, customer), named in pairs.items():
        unlinked = max((fact.place for fact in named if fact.type == UNLINK), default=None)
        counting = [
            fact.place
            for fact in named
            if is_link(fact.type) and (unlinked is None or (fact.type == LINK and fact.place > unlinked))
        ]
        if counting and (anonymous_id not in first or (min(counting), customer) < first[anonymous_id]):
            first[anonymous_id] = min(counting), customer
    return {anonymous_id: customer for anonymous_id, (_, customer) in first.items()}


def roots(merges: Mapping[int, tuple[Place, int]]) -> dict[int, int]:
    """Row of a merged customer_id -> the row that it has come to belong to, through all merges on the way.

    `merges` gives for each row the place of its last merge and the row that it goes into; a row whose last word is an
    unmerge isn't in it. In the order of their places, a merge that would close a circle is left out.
    """
    into: dict[int, int] = {}

    def root(row: int) -> int:
        while row in into:
            row = into[row]
        return row

    for row, (_, target) in sorted(merges.items(), key=lambda merge: merge[1][0]):
        if root(target) != row:
            into[row] = target
    return {row: root(row) for row in into}
