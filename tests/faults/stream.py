"""What is driven through the service: few customers with long stories, of which a third is told too late.

Amounts, lines and instants repeat, so that touchpoints of one customer fall on one instant and only their ids tell
which is first; and most rules move or re-enter, so that an effect too many or too few shows in the history.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

Touchpoint = dict[str, Any]
"""As it is posted; always with an id."""

LADDER: dict[str, Any] = {
    "lifecycle": "ladder",
    "initial": "new",
    "stages": [
        {"key": "new"},
        {"key": "known"},
        {"key": "buyer"},
        {"key": "regular", "requires": ["measures.purchases >= 3", "event.properties.amount > 1.0"]},
        {"key": "friend"},
    ],
    "measures": {
        "purchases": {"count": "buy"},
        "spend": {"sum": "properties.amount", "of": "buy"},
        "best": {"max": "properties.amount", "of": "buy"},
    },
    "rules": [
        {"on": "praise", "from": ["buyer", "regular"], "to": "friend"},
        {"on": "complain", "when": ["journey.visits.known < 6"], "to": "known", "reenter": True},
        {"on": "complain", "to": "new"},
        {"on": "buy", "when": ["event.properties.amount >= 10.5"], "to": "regular", "reenter": True},
        {"on": "buy", "to": "buyer", "reenter": True},
        {"on": "view", "from": "new", "to": "known"},
    ],
    "moves": {
        "new": ["known", "buyer", "regular"],
        "known": ["new", "known", "buyer", "regular"],
        "buyer": ["new", "known", "buyer", "regular", "friend"],
        "regular": ["new", "known", "regular", "friend"],
        "friend": ["new", "known"],
    },
}
LINES: dict[str, Any] = {
    "lifecycle": "lines",
    "initial": "curious",
    "opens": ["view", "buy"],
    "per": "properties.line",
    "stages": [{"key": "curious"}, {"key": "owner"}, {"key": "collector"}],
    "measures": {"owned": {"count": "buy"}},
    "rules": [
        {"on": "buy", "when": ["measures.owned >= 4"], "to": "collector"},
        {"on": "buy", "to": "owner"},
        {"on": "complain", "to": "curious"},
    ],
}
LIFECYCLES = [LADDER, LINES]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_DELAY = 600
"""By how many others a late touchpoint is overtaken at most."""
_TYPES = ["view", "buy", "buy", "complain", "praise"]
_REFUSED = "refused-"


def touchpoints(count: int, customers: int, seed: int) -> list[Touchpoint]:
    """`count` touchpoints in the order of their arrival, which is that of their instants but for every third."""
    chance = random.Random(seed)
    made = [_touchpoint(number, customers, chance) for number in range(count)]
    delays = [chance.randrange(_DELAY) if chance.random() < 1 / 3 else 0 for _ in made]
    return [made[number] for number in sorted(range(count), key=lambda number: number + delays[number])]


def unacceptable(number: int) -> Touchpoint:
    """A touchpoint that must be refused: it has not occurred yet."""
    return {"id": f"{_REFUSED}{number}", "type": "buy", "customer_id": "c0", "occurred_at": "2999-01-01T00:00:00Z"}


def is_acceptable(touchpoint: Touchpoint) -> bool:
    return not touchpoint["id"].startswith(_REFUSED)


def is_muted(touchpoint: Touchpoint) -> bool:
    """Whether nobody is told of it; with one touchpoint of a customer all of theirs are."""
    return bool(touchpoint.get("muted", False))


def _touchpoint(number: int, customers: int, chance: random.Random) -> Touchpoint:
    customer = chance.randrange(customers)
    who = {"anonymous_id": f"a{customer}"} if customer % 5 == 4 else {"customer_id": f"c{customer}"}
    muted = {"muted": True} if customer % 7 == 3 else {}
    occurred_at = _START + timedelta(hours=number // (2 * customers), microseconds=chance.choice([0, 0, 1]))
    return {
        "id": f"{chance.randrange(16**6):06x}-{number}",
        "type": chance.choice(_TYPES),
        **who,
        **muted,
        "occurred_at": occurred_at.isoformat().replace("+00:00", "Z"),
        "properties": {
            "amount": chance.choice([0.1, 5.25, 10.5, 20.7]),
            "line": chance.choice(["red", "green", 3, None]),
        },
    }
